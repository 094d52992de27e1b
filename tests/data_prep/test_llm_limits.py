"""Keys with an endpoint that measures: rotation, limits per key, pauses, rejections."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.pace import RateLimiter, key_name
from data_prep.inference.api.requests import Request, call, most_tokens
from data_prep.inference.sampling import Sampling
from tests.fakes import openai_server
from tests.fakes.openai_server import Fault, OpenAIServer, Slow, Status

ONCE = Sampling(n=1, max_tokens=20, seed=7)
WINDOW = 1.0  # seconds, for a minute


def prompts(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"q{i}"}], i) for i in range(count)]


def client(server: OpenAIServer, **settings: object) -> ChatClient:
    given = {"first_wait": 0.01, "timeout": 10.0, "window": WINDOW, "api_keys": ["a", "b", "c"], **settings}
    return ChatClient(server.url, "m", **given)  # type: ignore[arg-type]


def most_within(times: Sequence[float], window: float = WINDOW) -> int:
    """The maximum number of these times within any window."""
    return max(sum(start <= one < start + window for one in times) for start in times)


def by_key(requests: Sequence[openai_server.Request]) -> dict[str, list[float]]:
    times = defaultdict(list)
    for request in requests:
        times[request.key].append(request.time)
    return times


def test_requests_per_minute_hold_per_key_with_even_use() -> None:
    def uneven(request: openai_server.Request) -> Fault | None:
        return Slow(0.3) if request.number % 7 == 0 else Status(500) if request.number % 11 == 5 else None

    with OpenAIServer(uneven) as server:
        replies = client(server, requests_per_minute=8).ask(prompts(60), ONCE)
    assert all(isinstance(reply, tuple) for reply in replies)
    times = by_key(server.requests)
    assert set(times) == {"a", "b", "c"}
    assert max(most_within(one) for one in times.values()) <= 8
    assert max(most_within(one) for one in times.values()) == 8, "the limit is used"
    assert max(map(len, times.values())) - min(map(len, times.values())) <= 4
    assert server.requests[-1].time - server.requests[0].time < 6 * WINDOW, "65 requests at 24 per window"


def test_tokens_per_minute_hold_per_key() -> None:
    """Prompts of 600 bytes and completions of up to 20: each may take 672 tokens, and is billed 8."""
    requests = [Request([{"role": "user", "content": "x" * 620}], i) for i in range(30)]
    most = call("m", requests[0], ONCE).tokens
    assert most == 620 + 2 * 16 + 20
    with OpenAIServer(lambda request: Slow(0.2)) as server:
        client(server, api_keys=["a"], tokens_per_minute=2 * most, concurrency=16).ask(requests, ONCE)
    assert server.most_at_once <= 2, "what is on its way counts at its most"
    assert most_within([one.time for one in server.requests]) * 8 <= 2 * most
    assert most_within([one.time for one in server.requests]) > 2, "what was answered counts as its usage says"


def test_a_request_above_the_token_limit_is_sent_alone() -> None:
    requests = [Request([{"role": "user", "content": "x" * 500}], i) for i in range(3)]
    with OpenAIServer() as server:
        replies = client(server, api_keys=["a"], tokens_per_minute=100, window=0.2).ask(requests, ONCE)
    assert all(isinstance(reply, tuple) for reply in replies)
    assert server.most_at_once == 1


def test_a_rate_limited_key_pauses_while_others_continue() -> None:
    def hot(request: openai_server.Request) -> Fault | None:
        return Status(429, {"Retry-After": "1"}) if request.key == "a" and request.number < 20 else Slow(0.02)

    with OpenAIServer(hot) as server:
        replies = client(server, concurrency=3).ask(prompts(150), ONCE)
    assert all(isinstance(reply, tuple) for reply in replies)
    times = by_key(server.requests)
    rest = [later - one for one, later in zip(times["a"], times["a"][1:], strict=False)]
    assert max(rest) >= 1.0, "Retry-After is kept"
    during = [one for key in "bc" for one in times[key] if times["a"][0] < one < times["a"][0] + 0.9]
    assert len(during) > 20, "the others do not wait"


def test_many_rate_limits_end_in_replies() -> None:
    with OpenAIServer([Status(429)] * 40) as server:
        replies = client(server, concurrency=8, tries=12).ask(prompts(30), ONCE)
    assert all(isinstance(reply, tuple) for reply in replies)
    assert len(server.requests) == 70


@pytest.mark.parametrize(
    "refusal",
    [Status(401), Status(403), Status(429, error={"message": "pay", "code": "insufficient_quota"})],
    ids=repr,
)
def test_a_rejected_key_loses_no_row(refusal: Status) -> None:
    with OpenAIServer(lambda request: refusal if request.key in "ab" else None) as server:
        replies = client(server, concurrency=1).ask(prompts(10), ONCE)
    assert all(isinstance(reply, tuple) for reply in replies)
    assert {key: len(times) for key, times in by_key(server.requests).items()} == {"a": 1, "b": 1, "c": 10}


def test_all_keys_rejected_is_a_one_line_error() -> None:
    with (
        OpenAIServer(lambda request: Status(401)) as server,
        pytest.raises(DataError, match="check api_key_env") as caught,
    ):
        client(server).ask(prompts(50), ONCE)
    assert "\n" not in str(caught.value)


def test_a_late_reply_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply comes after the assumed arrival time, so the minute starts there and not with the reply."""
    monkeypatch.setattr("data_prep.inference.api.pace.ARRIVAL_S", 0.0)

    async def run() -> None:
        pace = RateLimiter(["a"], requests=2, window=2.0)
        first = await pace.acquire(1)
        await asyncio.sleep(0.1)
        pace.settle(first)
        await asyncio.sleep(2.0)  # the first has left the window
        for _ in range(2):
            await pace.acquire(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await pace.acquire(1)

    asyncio.run(run())


def test_a_resumed_run_counts_requests_of_the_killed_one(tmp_path: Path) -> None:
    """Five requests of the last window are in the journal, two of them without a reply."""
    sent = [{"sent": i, "at": time.time(), "key": key_name("a"), "most": 100} for i in range(5)]
    paid = [{"paid": i, "used": [3, 5]} for i in range(3)]
    (tmp_path / "j").write_text("".join(json.dumps(one) + "\n" for one in [*sent, *paid]))
    started = time.monotonic()
    with OpenAIServer() as server:
        client(server, api_keys=["a"], requests_per_minute=6, journal=tmp_path / "j").ask(prompts(2), ONCE)
    first, second = (one.time - started for one in server.requests)
    assert first < 1.0
    assert second >= WINDOW


def test_key_names_do_not_reveal_keys() -> None:
    assert key_name("sk-1") != key_name("sk-2")
    assert len(key_name("sk-1")) == 8


@settings(max_examples=200)
@given(st.lists(st.text(max_size=50), max_size=5))
def test_a_prompt_has_no_more_tokens_than_bytes(contents: list[str]) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    assert most_tokens(messages) >= sum(len(content.encode("utf-8", "surrogatepass")) for content in contents)


def test_the_limiter_fails_when_no_key_is_left() -> None:
    async def run() -> None:
        pace = RateLimiter(["a"])
        pace.refuse((await pace.acquire(1)).key)
        await pace.acquire(1)

    with pytest.raises(DataError, match="the API key was rejected"):
        asyncio.run(run())
