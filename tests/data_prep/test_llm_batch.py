"""The Batch API: the same replies for less, in one file, and no batch handed in twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.core import pipeline
from data_prep.core.registry import step_class
from data_prep.core.totals import journal_path
from data_prep.errors import DataError, LimitPassed
from data_prep.inference.api import batch as batch_module
from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.prices import Price
from data_prep.inference.api.replies import Failed
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sampling
from tests.data_prep.killing import kill_when
from tests.fakes import openai_server
from tests.fakes.openai_server import Cut, Expired, Fault, Finish, Lost, Model, OpenAIServer, Raw, Status

PRICE = Price.model_validate({"input": 1000, "output": 100_000, "batch": 0.5, "date": "2026-01-01", "source": "a test"})
ONCE = Sampling(n=1, max_tokens=8, seed=7)


def prompts(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"q{i}"}], i) for i in range(count)]


def client(server: OpenAIServer, **settings: Any) -> ChatClient:
    given = {"first_wait": 0.01, "timeout": 5.0, "batch": True, "api_keys": ["sk-a"], **settings}
    return ChatClient(server.url, "m", **given)


def test_replies_are_those_of_single_requests() -> None:
    sampling = Sampling(n=3, max_tokens=8, seed=7)

    def few(request: openai_server.Request) -> Fault | None:
        return Finish(most=2, content=None) if request.prompt in ("q3", "q7") else None

    with OpenAIServer(few) as server:
        one_by_one = client(server, batch=False).ask(prompts(12), sampling)
        assert server.batches == {}
        assert client(server).ask(prompts(12), sampling) == one_by_one
        sizes = [len(server.files[one["input_file_id"]].splitlines()) for one in server.batches.values()]
    assert sizes == [12, 2], "a second batch is for the samples that were missing"


def test_lines_that_failed_are_outcomes() -> None:
    faults: dict[str, Fault] = {
        "q0": Status(400, error={"message": "bad for sk-a"}), "q1": Expired(), "q2": Lost(),
        "q3": Finish("content_filter"), "q4": Model("other"), "q5": Status(500),
        "q6": Status(400, error={"message": "maximum context length is 9"}),
        "q7": Raw(b'{"choices": []}'), "q8": Finish("length"),
    }  # fmt: skip
    with OpenAIServer(lambda request: faults.get(request.prompt)) as server:
        replies = client(server).ask(prompts(10), ONCE)
    failures = [reply.failure if isinstance(reply, Failed) else "" for reply in replies]
    assert failures == [
        "bad_request", "timeout", "timeout", "content_filter", "", "server_error",
        "too_long", "malformed", "", "",
    ]  # fmt: skip
    assert replies[0] == Failed("bad_request", "400 bad for ***")
    assert replies[8][0].finish_reason == "length"  # type: ignore[index]
    assert len(server.batches) == 3, "what may pass is asked again, and not for ever"


def test_a_batch_whose_making_was_not_heard_of_is_found_again() -> None:
    with OpenAIServer() as server:
        server.batch_faults += [Cut(), Status(500)]
        replies = client(server).ask(prompts(5), ONCE)
    assert all(isinstance(reply, tuple) for reply in replies)
    assert len(server.batches) == 1


def test_a_batch_costs_its_share_and_keeps_the_cap(tmp_path: Path) -> None:
    """Each answer may cost (2 + 32 prompt bytes at 0.001 + 8 tokens at 0.1) / 2 dollars, and costs 0.2515."""
    with OpenAIServer() as server:
        asked = client(server, price=PRICE, spend_cap=2.0, journal=tmp_path / "j")
        with pytest.raises(LimitPassed, match="spend_cap"):
            asked.ask(prompts(40), ONCE)
        assert 4 <= len(server.answered) <= 7
        assert PRICE.usd(*server.usage, batch=True) <= 2.0
        asked.spend_cap = 100.0
        assert all(isinstance(reply, tuple) for reply in asked.ask(prompts(40), ONCE))
        assert len(server.answered) == 40
    records = [json.loads(line) for line in (tmp_path / "j").read_bytes().splitlines()]
    assert sum(record["usd"] for record in records if "got" in record) == pytest.approx(40 * 0.2515)


def test_large_batches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 4)
    with OpenAIServer() as server:
        client(server).ask(prompts(10), ONCE)
        assert [len(server.files[one["input_file_id"]].splitlines()) for one in server.batches.values()] == [4, 4, 2]


def test_a_key_that_is_refused_hands_over_to_another() -> None:
    with OpenAIServer() as server:
        server.batch_faults += [Status(401)]
        replies = client(server, api_keys=["sk-a", "sk-b"]).ask(prompts(3), ONCE)
        assert all(isinstance(reply, tuple) for reply in replies)
        assert len(server.batches) == 1


def test_what_ends_a_run_is_one_line() -> None:
    with OpenAIServer() as server:
        server.batch_faults += [Status(401)]
        with pytest.raises(DataError, match="the API key was refused") as caught:
            client(server).ask(prompts(3), ONCE)
        assert "\n" not in str(caught.value)


def test_killed_while_it_waits_it_hands_nothing_in_twice(tmp_path: Path) -> None:
    """Killed as soon as the batch is made, and again as soon as it is polled: one batch, and one answer each."""
    rows = ({"id": f"p{i}", "prompt": [{"role": "user", "content": f"q{i}"}]} for i in range(20))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with OpenAIServer() as server:
        params = {"model": "m", "base_url": server.url, "batch": True}
        steps = [
            {"name": "load", "kind": "load", "params": {"path": "rows.jsonl"}},
            {"name": "generate", "kind": "generate", "params": params, "inputs": ["load"]},
        ]
        spec = {"name": "test", "base": str(tmp_path), "cache": str(tmp_path / "cache"), "steps": steps}
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        kill_when(tmp_path, lambda: bool(server.batches))
        server.hold = True
        calls = server.calls
        kill_when(tmp_path, lambda: server.calls > calls)
        server.hold = False
        found = pipeline.Spec.read(tmp_path / "spec.json")
        assert journal_path(pipeline.find(found), server.url).exists()
        manifest = pipeline.run(found)[-1]
        assert len(server.batches) == 1
        assert len(server.answered) == 20
    assert manifest.rows_out == 20
    assert manifest.cost == {"answers": 20, "prompt_tokens": 60, "completion_tokens": 100}


@pytest.mark.parametrize("kind", ["label", "rewrite"])
def test_a_batch_is_as_large_as_it_may_be_and_nothing_is_paid_again_for_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 rows are one batch; a run may go on with it from single requests in shards of another size."""
    rows = [{"id": f"p{i}", "prompt": f"q{i}", "completion": f"c{i}"} for i in range(300)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def spec(url: str, **params: Any) -> pipeline.Spec:
        given = {"model": "m", "base_url": url, "tries": 1, "max_error_share": 0.0, **params}
        steps = [
            {"name": "load", "kind": "load", "params": {"path": "rows.jsonl"}},
            {"name": kind, "kind": kind, "params": given, "inputs": ["load"]},
        ]
        document = {"name": "test", "base": str(tmp_path), "cache": str(tmp_path / "cache"), "steps": steps}
        return pipeline.Spec.model_validate(document)

    broken = {"now": True}  # one row fails, and with it the last shard

    def reply(request: openai_server.Request) -> Fault | None:
        if broken["now"] and "q290" in request.prompt:
            return Status(400)
        thought = "<|begin_of_thought|>c{0}<|end_of_thought|><|begin_of_solution|>s<|end_of_solution|>"
        number = request.prompt.split("\nq")[1].split("\n")[0]
        return Finish(content='{"difficulty": 3}' if kind == "label" else thought.format(number))

    with OpenAIServer(reply) as server:
        with monkeypatch.context() as earlier:
            earlier.setattr(step_class(kind), "shard_rows", 128)
            earlier.setattr(step_class(kind), "shards_at_once", 1)
            with pytest.raises(LimitPassed, match="1 of"):
                pipeline.run(spec(server.url))
        assert list(pipeline.find(spec(server.url)).glob("shards/00000.jsonl")), "shards of the other size are there"
        answered = len(server.answered)
        broken["now"] = False
        manifest = pipeline.run(spec(server.url, batch=True))[-1]
        (handed,) = server.batches.values()
        assert len(server.files[handed["input_file_id"]].splitlines()) == 300 - answered
        assert len(server.answered) == 300
    assert (manifest.rows_in, manifest.rows_out, manifest.shards) == (300, 300, 1)
    made = pipeline.read_rows(pipeline.find(spec(server.url, batch=True)))
    assert [row["id"] for row in made] == [row["id"] for row in rows]
