"""The chat client with a scripted endpoint: every request is accounted for, no failure is returned as text."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.core.step import Drop, Row
from data_prep.errors import DataError, LimitExceeded
from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.keys import read_keys
from data_prep.inference.api.replies import Failed, is_same_model, read_answer, retry_after
from data_prep.inference.sampling import Sample, Sampling
from tests.fakes.openai_server import Cut, Fault, Finish, Model, OpenAIServer, Raw, Request, Slow, Status, Trickle

ONCE = Sampling(n=1, seed=7)


def prompts(count: int) -> list[Row]:
    return [{"id": f"r{i}", "prompt": [{"role": "user", "content": f"q{i}"}]} for i in range(count)]


def client(server: OpenAIServer, **settings: object) -> ChatClient:
    return ChatClient(server.url, "m", **{"first_wait": 0.01, "timeout": 5.0, **settings})


def texts(results: list[list[Sample] | Drop]) -> list[str]:
    assert not [one for one in results if isinstance(one, Drop)]
    return [sample.text for one in results for sample in one]


PASSING_FAULTS = [
    Status(429),
    Status(500),
    Status(503),
    Cut(),
    Cut(0.5),
    Raw(b'{"choices": ['),
    Raw(b"<html>busy</html>"),
    Raw(b"{}"),
    Raw(b'{"choices": []}'),
    Raw(b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
]


@pytest.mark.parametrize("fault", PASSING_FAULTS, ids=repr)
def test_transient_failures_are_retried(fault: Fault) -> None:
    with OpenAIServer([fault, fault]) as server:
        results = client(server).run(prompts(1), ONCE)
    assert texts(results)[0].startswith("q0|")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Status(429), "api_error: rate_limited"),
        (Status(500), "api_error: server_error"),
        (Cut(), "api_error: connection"),
        (Raw(b"nonsense"), "api_error: malformed"),
        (Slow(9), "api_error: timeout"),
        (Trickle(0.05), "api_error: timeout"),
        (Status(400), "api_error: bad_request"),
        (Finish("content_filter"), "api_error: content_filter"),
        (Status(403), "api_error: forbidden"),
        (Raw(b'{"choices": []}'), "api_error: malformed"),
        (Status(400, error={"message": "maximum context length is 512"}), "prompt_too_long"),
    ],
    ids=repr,
)
def test_permanent_failures_are_drops_with_a_reason(fault: Fault, reason: str) -> None:
    with OpenAIServer(lambda request: fault if request.prompt == "q1" else None) as server:
        results = client(server, tries=2, timeout=0.4).run(prompts(3), ONCE)
    assert [isinstance(one, Drop) for one in results] == [False, True, False]
    drop = results[1]
    assert isinstance(drop, Drop)
    assert (drop.reason, drop.row_id, drop.bad) == (reason, "r1", True)


def test_results_are_independent_of_arrival_order() -> None:
    def slow_first(request: Request) -> Fault | None:
        return Slow(0.3) if request.number < 4 else Status(500) if request.number % 5 == 0 else None

    sampling = Sampling(n=2, seed=3)
    with OpenAIServer(slow_first) as server:
        disturbed = client(server).run(prompts(40), sampling)
    with OpenAIServer() as calm:
        undisturbed = client(calm).run(prompts(40), sampling)
    assert disturbed == undisturbed
    assert [text.split("|")[0] for text in texts(disturbed)] == [f"q{i}" for i in range(40) for _ in (0, 1)]


def test_all_faults_at_once_and_every_row_is_accounted_for() -> None:
    """Each row ends as it would alone, whatever happens to other rows; one of four keys is rejected meanwhile."""
    stays: list[tuple[Fault | None, str]] = [
        (None, ""), (Status(400), "bad_request"), (Finish("content_filter"), "content_filter"), (Finish("length"), ""),
        (Raw(b'{"choices": [{"message": {}}]}'), "malformed"), (Model("other"), ""),
        (Status(500), "server_error"),
    ]  # fmt: skip
    passes = [Status(429, {"Retry-After": "0.1"}), Status(503), Cut(), Cut(0.5), Raw(b"{")]
    seen: set[str] = set()

    def script(request: Request) -> Fault | None:
        if request.key == "b":
            return Status(401)
        row, first = int(request.prompt[1:]), request.prompt not in seen
        seen.add(request.prompt)
        if first:
            return passes[row % len(passes)]
        return stays[row % len(stays)][0] or (Trickle(0.0005) if row % 2 else None)

    with OpenAIServer(script) as server:
        results = client(server, api_keys=list("abcd"), tries=3, concurrency=16).run(prompts(70), ONCE)
    assert len(results) == 70
    for at, result in enumerate(results):
        failure = stays[at % len(stays)][1]
        if failure:
            assert isinstance(result, Drop)
            assert (result.reason, result.row_id) == (f"api_error: {failure}", f"r{at}")
        else:
            assert isinstance(result, list)
            assert result[0].text == "cut" or result[0].text.startswith(f"q{at}|")


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True), ("gpt-4o", "gpt-4o-mini", False), ("gpt-4", "gpt-4.1", False),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", False), ("claude-3-opus-latest", "claude-3-opus-20240229", True),
        ("Qwen/QwQ-32B-Preview", "qwq-32b-preview", True), ("o1-mini", "openai/o1-mini", True), ("a", "b", False),
        ("meta/llama-3:free", "meta/llama-3", True), ("llama-3", "llama-2", False), ("./models/x", "./models/x", True),
    ],
)  # fmt: skip
def test_an_endpoint_may_report_a_longer_model_name(asked: str, answered: str, same: bool) -> None:
    assert is_same_model(asked, answered) == same


def test_seeds_belong_to_rows_not_to_places() -> None:
    with OpenAIServer() as server:
        forward = client(server).run(prompts(5), ONCE)
        backward = client(server).run(prompts(5)[::-1], ONCE)
    assert forward == backward[::-1]
    assert len({text.split("|")[1] for text in texts(forward)}) == 5


def test_concurrency_is_reached_and_not_exceeded() -> None:
    with OpenAIServer(lambda request: Slow(0.8)) as server:
        client(server, concurrency=8).run(prompts(20), ONCE)
    assert server.most_at_once == 8


def test_retry_after_is_honoured() -> None:
    with OpenAIServer([Status(429, {"Retry-After": "1"})]) as server:
        client(server).run(prompts(1), ONCE)
    first, second = server.requests
    assert 1.0 <= second.time - first.time < 3.0


def test_a_rejected_key_ends_the_run_without_being_shown() -> None:
    refusal = Status(401, error={"message": "Incorrect API key provided: sk-secret"})
    with (
        OpenAIServer(lambda request: refusal) as server,
        pytest.raises(DataError, match="API key was rejected") as caught,
    ):
        client(server, api_keys=["sk-secret"], concurrency=1).run(prompts(50), ONCE)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_keys_alternate_and_a_rejected_one_is_dropped() -> None:
    with OpenAIServer(lambda request: Status(401) if request.key == "bad" else None) as server:
        results = client(server, api_keys=["a", "bad", "b"], concurrency=1).run(prompts(20), ONCE)
    assert len(texts(results)) == 20
    used = [request.key for request in server.requests]
    assert used.count("bad") == 1
    assert abs(used.count("a") - used.count("b")) <= 1


def test_an_unknown_model_is_a_one_line_error() -> None:
    missing = Status(404, error={"message": "The model `m` does not exist"})
    with OpenAIServer([missing]) as server, pytest.raises(DataError, match="unknown model 'm'") as caught:
        client(server).run(prompts(1), ONCE)
    assert "\n" not in str(caught.value)


def test_missing_samples_are_requested_if_n_is_ignored() -> None:
    with OpenAIServer(lambda request: Finish(most=1, content=None)) as server:
        results = client(server).run(prompts(1), Sampling(n=3, seed=1))
    assert len(set(texts(results))) == 3
    assert [request.body["n"] for request in server.requests] == [3, 2, 1]


def test_truncation_is_kept_and_marked() -> None:
    with OpenAIServer([Finish("length")]) as server:
        results = client(server).run(prompts(1), ONCE)
    assert results == [[Sample("cut", "length", 5)]]


def test_replicas_share_requests_and_a_dead_one_loses_none() -> None:
    with OpenAIServer() as first, OpenAIServer() as second:
        with OpenAIServer() as dead:
            urls = [dead.url, first.url, second.url]
        asker = ChatClient(urls, "m", first_wait=0.01, timeout=5.0, concurrency=8)
        assert len(texts(asker.run(prompts(200), ONCE))) == 200
    counts = [len(server.requests) for server in (first, second)]
    assert sum(counts) == 200
    assert min(counts) > 50


def test_a_dead_endpoint_is_given_up() -> None:
    """It answers 30 requests and then none; one bad request in between does not count."""

    def dying(request: Request) -> Fault | None:
        return Status(400) if request.number == 7 else Status(503) if request.number >= 30 else None

    with (
        OpenAIServer(dying) as server,
        pytest.raises(LimitExceeded, match="the last 20 requests all failed after 2 tries each; the last: server_e"),
    ):
        client(server, tries=2, give_up=20, concurrency=4).run(prompts(500), ONCE)
    assert 70 <= len(server.requests) < 90


def test_a_dead_server_ends_the_wait() -> None:
    async def watch() -> None:
        raise DataError("the server died")

    started = time.monotonic()
    with OpenAIServer(lambda request: Slow(30)) as server, pytest.raises(DataError, match="died"):
        client(server, timeout=60.0, watch=watch).run(prompts(4), ONCE)
    assert time.monotonic() - started < 10


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-1")
    (tmp_path / "keys.txt").write_text("# mine\nsk-2\n\nsk-3\n")
    assert read_keys("SOME_KEY", tmp_path) == ("sk-1",)
    assert read_keys("./keys.txt", tmp_path) == ("sk-2", "sk-3")
    assert read_keys(None, tmp_path) == ()
    monkeypatch.setenv("BLANK_KEY", " ")
    for name in ("UNSET_KEY", "BLANK_KEY"):
        with pytest.raises(DataError, match=f"environment variable {name} contains no key"):
            read_keys(name, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sk-1\nsk-\xff", "keys is not UTF-8 at byte 8; write one key per line"),
        (b"# none\n\n", "keys contains no key: set it, or write one key per line"),
        ("sk-schlüssel".encode(), "keys contains an invalid key: keys are printable ASCII"),
    ],
)
def test_a_file_without_keys_is_a_one_line_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_keys("./keys", tmp_path)
    assert "\n" not in str(caught.value)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("source", ["sk/secret", "/sk" * 3000, "sk/\0", "./", "~nobody-sk/x"])
def test_an_unreadable_key_path_is_not_shown(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError, match="api_key_env: cannot read the key file") as caught:
        read_keys(source, tmp_path)
    assert "sk" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_retry_after_takes_seconds_and_dates() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=70.0) == 30.0
    assert retry_after({"retry-after": "99999"}) == 300.0
    assert retry_after({"retry-after": "3", "retry-after-ms": "2500"}) == 2.5
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@given(st.text())
def test_retry_after_never_fails(text: str) -> None:
    wait = retry_after({"retry-after": text})
    assert wait is None or 0 <= wait <= 300


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(lambda v: str(v).encode()))
def test_random_bytes_are_never_parsed_as_a_reply(content: bytes) -> None:
    assert isinstance(read_answer(content).reply, Failed)


def test_threads_share_a_client_and_the_first_error_ends_them_all() -> None:
    """As concurrent shards do: each gets its own replies, and after an exhausted key no thread reopens the client."""

    def script(request: Request) -> Fault | None:
        return Status(401) if request.prompt == "q7" else None

    with (
        OpenAIServer() as calm,
        client(calm, concurrency=4) as asked,
        ThreadPoolExecutor(3) as threads,
    ):
        parts = [[row for row in prompts(30) if int(row["id"][1:]) % 3 == part] for part in range(3)]
        for part, results in zip(parts, threads.map(lambda rows: asked.run(rows, ONCE), parts), strict=True):
            assert [text.split("|")[0] for text in texts(results)] == [row["id"].replace("r", "q") for row in part]
    with OpenAIServer(script) as server, ThreadPoolExecutor(3) as threads:
        with client(server, concurrency=4) as asked:
            futures = [threads.submit(asked.run, part, ONCE) for part in parts]
            errors = [future.exception(30) for future in futures]
        assert any("the API key was rejected" in str(error) for error in errors)
        before = len(server.requests)
        with pytest.raises(DataError, match="the client was closed"):
            asked.run(prompts(1), ONCE)
        assert len(server.requests) == before
