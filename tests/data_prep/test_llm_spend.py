"""Cost of requests: prices, the spend cap with a server that counts, and the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.core import pipeline
from data_prep.core.manifest import read_manifest
from data_prep.core.totals import read_totals
from data_prep.errors import DataError, LimitExceeded
from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.params import EndpointParams
from data_prep.inference.api.prices import Price, find_price
from data_prep.inference.api.providers import Form
from data_prep.inference.api.requests import Request, call
from data_prep.inference.api.spend import dollars
from data_prep.inference.sampling import Sampling
from tests.fakes import openai_server
from tests.fakes.openai_server import Cut, Fault, Finish, OpenAIServer, Raw, Slow, Status, Trickle

PRICE = Price.model_validate({"input": 1000, "output": 100_000, "date": "2026-01-01", "source": "a test"})
ANSWER_USD = 0.003 + 0.5  # 3 and 5 tokens of the fake's
ONCE = Sampling(n=1, max_tokens=8, seed=7)


def prompts(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"q{i}"}], i) for i in range(count)]


def client(server: OpenAIServer, **settings: object) -> ChatClient:
    given = {"first_wait": 0.01, "timeout": 5.0, "price": PRICE, "concurrency": 8, **settings}
    return ChatClient(server.url, "m", **given)  # type: ignore[arg-type]


def billed(server: OpenAIServer) -> float:
    """Dollars of everything that the server answered, received or not."""
    return PRICE.usd(*server.usage)


def storm(request: openai_server.Request) -> Fault | None:
    """Half of the responses fail; those that the client does not receive completely are billed as well."""
    faults: list[Fault | None] = [
        Slow(0.5), Raw(b'{"choices": []}'), Status(500), Trickle(0.002), Status(429), Finish("content_filter"),
    ]  # fmt: skip
    return (faults + [None] * 6)[request.number % 12]


@pytest.mark.parametrize("script", [None, storm], ids=["calm", "storm"])
@pytest.mark.parametrize("cap", [2.0, 9.7])
def test_the_cap_is_never_exceeded_and_all_replies_are_kept(script: Any, cap: float, tmp_path: Path) -> None:
    with OpenAIServer(script or ()) as server:
        # A request that a busy machine lets time out is billed and asked again: only the storm has a short timeout.
        timeout = 0.4 if script else 60.0
        asked = client(server, spend_cap=cap, journal=tmp_path / "j", timeout=timeout, tries=20)
        with pytest.raises(LimitExceeded, match=r"spend_cap .* is reached.*raise spend_cap and rerun") as caught:
            asked.ask(prompts(60), ONCE)
        assert billed(server) <= cap
        assert caught.value.status == 3
        assert "\n" not in str(caught.value)
        if script is None:
            assert billed(server) > cap - 2 * 0.85, "the cap is used"
        asked.spend_cap = 200.0
        replies = asked.ask(prompts(60), ONCE)
        assert sum(isinstance(reply, tuple) for reply in replies) >= 40
        assert billed(server) <= 200.0
        if script is None:
            assert len(server.answered) == 60, "what the first run paid for is not asked again"


def test_the_projection_comes_first_and_the_sum_last(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer() as server:
        client(server, name="label-1", rows=100).ask(prompts(10), ONCE)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "label-1: 10 requests will cost at most $8.34 ($0.34 of it for prompts); at most $83.40 for 100"
    )
    assert last == "label-1: $5.03 for 10 replies (30 + 50 tokens)"


def test_without_a_price_no_cost_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer() as server:
        client(server, price=None).ask(prompts(3), ONCE)
    assert capsys.readouterr().err == ""


def test_a_lost_reply_counts_with_its_maximum_cost(tmp_path: Path) -> None:
    """The connection ends in the middle of each answer: the provider may have billed it."""
    with OpenAIServer(lambda request: Cut(0.5)) as server:
        asked = client(server, spend_cap=3.0, tries=50, concurrency=1, journal=tmp_path / "j")
        with pytest.raises(LimitExceeded, match=r"up to \$2\.50 of it for replies that never arrived"):
            asked.ask(prompts(1), ONCE)
        assert len(server.requests) == 3


def test_errors_are_not_billed(tmp_path: Path) -> None:
    with OpenAIServer([Status(500), Status(429)] * 4) as server:
        replies = client(server, spend_cap=1.0, tries=30, concurrency=1).ask(prompts(1), ONCE)
    assert isinstance(replies[0], tuple)


def test_reasoning_counted_only_in_the_total_is_billed(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 500}
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}
    with OpenAIServer([Raw(json.dumps(body).encode())]) as server:
        client(server, journal=tmp_path / "replies" / "x" / "step.jsonl").ask(prompts(1), ONCE)
    totals = read_totals(tmp_path / "step")
    assert totals is not None
    assert (totals.prompt_tokens, totals.completion_tokens) == (10, 490)


@pytest.mark.parametrize(
    ("extra", "prompt_tokens", "completion_tokens"),
    [
        ({}, 0, 1),
        ({"tools": [{"description": "x" * 100_000}]}, 100_000, 1),
        ({"max_completion_tokens": 100_000}, 0, 100_000),
        ({"reasoning": {"max_tokens": 2000}}, 0, 2000),
        ({"thinking": {"budget_tokens": 2000}}, 0, 2001),
        ({"thinking_budget": 500, "max_new_tokens": 7, "reasoning_effort": "high"}, 0, 507),
    ],
)
def test_extra_fields_count_in_the_maximum_cost(
    extra: dict[str, Any], prompt_tokens: int, completion_tokens: int
) -> None:
    request, sampling = Request([{"role": "user", "content": "q"}], 1), Sampling(n=3, max_tokens=1)
    plain, asked = call("m", request, sampling), call("m", request, sampling, form=Form(extra_body=extra))
    assert plain.prompt_tokens + prompt_tokens <= asked.prompt_tokens <= plain.prompt_tokens + prompt_tokens + 100
    assert asked.completion_tokens == 3 * completion_tokens


def test_a_cap_needs_a_price() -> None:
    with pytest.raises(ValidationError, match=r"'gpt-4o-mimi' has no price in configs/prices.yaml.*'gpt-4o-mini'"):
        EndpointParams(model="gpt-4o-mimi", base_url="http://x/v1", spend_cap=1.0)
    EndpointParams(model="gpt-4o-mimi", base_url="http://x/v1")
    EndpointParams(model="gpt-4o-mini", base_url="http://x/v1", spend_cap=1.0)


def test_prices_are_found_with_and_without_a_date() -> None:
    assert find_price("gpt-4o-mini") == find_price("gpt-4o-mini-2024-07-18")
    assert find_price("gpt-4o-mini") != find_price("gpt-4o")
    assert find_price("gpt-4o-2024-05-13") != find_price("gpt-4o") == find_price("gpt-4o-2024-11-20")
    assert find_price("Qwen/Qwen2.5-7B-Instruct") is None
    price = find_price("gpt-4o-mini")
    assert price is not None
    assert price.usd(1_000_000, 1_000_000) == 0.75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m: {input: 1}", "m.output: Field required; an entry holds input, output, date, source"),
        ("m: {input: -1, output: 1, date: 2026-01-01, source: x}", "m.input: Input should be greater"),
        ("m: [", "not YAML"),
    ],
)
def test_an_invalid_price_file_is_a_one_line_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        find_price("m", tmp_path / "prices.yaml")
    assert "\n" not in str(caught.value)


def test_small_sums_have_enough_digits() -> None:
    assert [dollars(one) for one in (0, 0.000012, 0.0123, 1.5, 1234)] == [
        "$0.00",
        "$1.2e-05",
        "$0.0123",
        "$1.50",
        "$1,234.00",
    ]


def test_a_step_reports_its_cost_and_resumes_with_a_higher_cap(tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "prompt": [{"role": "user", "content": f"q{i}"}]} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def spec(server: OpenAIServer, cap: float) -> pipeline.Spec:
        params = {
            "model": "gpt-4o-mini", "base_url": server.url, "max_tokens": 100, "spend_cap": cap,
        }  # fmt: skip
        steps = (
            pipeline.StepSpec(name="load", kind="load", params={"path": "rows.jsonl"}),
            pipeline.StepSpec(name="generate", kind="generate", params=params, inputs=("load",)),
        )
        return pipeline.Spec(name="test", base=tmp_path, cache=tmp_path / "cache", steps=steps)

    with OpenAIServer() as server:
        with pytest.raises(LimitExceeded, match="spend_cap"):
            pipeline.run(spec(server, 0.0001))
        first = len(server.answered)
        assert 1 <= first < 30
        manifest = pipeline.run(spec(server, 1.0))[-1]
    usd = 30 * (3 * 0.15 + 5 * 0.60) / 1e6
    assert manifest.cost == {
        "answers": 30,
        "prompt_tokens": 90,
        "completion_tokens": 150,
        "usd": pytest.approx(usd, abs=1e-6),
    }
    assert len(server.answered) == 30
    directory = pipeline.find(spec(server, 1.0))
    found = read_manifest(directory)
    assert found is not None
    assert found.cost == manifest.cost
    assert not list(directory.glob("*.journal"))
