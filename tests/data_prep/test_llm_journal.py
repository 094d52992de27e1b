"""The journal of replies: truncated journals, and pipelines that are killed repeatedly."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.core import pipeline
from data_prep.core.fingerprint import canonical
from data_prep.core.manifest import read_rows
from data_prep.core.totals import Totals, complete_lines, journal_path
from data_prep.errors import DataError, LimitExceeded
from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.journal import Journal, reply_json
from data_prep.inference.api.prices import find_price
from data_prep.inference.api.replies import Failed, Reply
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sample, Sampling
from tests.data_prep.killing import kill_when
from tests.fakes import openai_server
from tests.fakes.openai_server import Cut, Fault, Finish, Model, OpenAIServer, Raw, Slow, Status

ONCE = Sampling(n=1, max_tokens=20, seed=7)


def prompts(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"q{i}"}], i) for i in range(count)]


def client(server: OpenAIServer, journal: Path, **settings: Any) -> ChatClient:
    return ChatClient(server.url, "m", journal=journal, **{"first_wait": 0.01, "timeout": 5.0, **settings})


def name_of(request: openai_server.Request) -> str:
    """The journal's name of a request that the server received."""
    return hashlib.sha256(canonical(request.body)).hexdigest()


def journaled(path: Path) -> set[str]:
    """Names of the replies with complete records."""
    if not path.exists():
        return set()
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return {record["name"] for record in map(json.loads, lines) if "got" in record}


def test_answered_requests_are_never_repeated(tmp_path: Path) -> None:
    sampling = Sampling(n=3, max_tokens=20, temperature=0.5, top_k=4, stop=("x",), seed=2)
    with OpenAIServer(lambda request: Finish(most=2, content=None)) as server:
        first = client(server, tmp_path / "j").ask(prompts(20), sampling)
        assert len(server.requests) == 40  # two samples each, and the third
        again = client(server, tmp_path / "j", concurrency=3, api_keys=["a"], requests_per_minute=1).ask(
            prompts(20)[::-1], sampling
        )
        assert again == first[::-1]
        assert len(server.requests) == 40
        client(server, tmp_path / "j").ask(prompts(1), Sampling(n=3, max_tokens=20, temperature=0.6, seed=2))
        assert len(server.requests) == 42, "another temperature is another request"


def test_equal_requests_are_sent_once(tmp_path: Path) -> None:
    with OpenAIServer(lambda request: Slow(0.1)) as server:
        replies = client(server, tmp_path / "j").ask(prompts(1) * 5, ONCE)
    assert len(server.requests) == 1
    assert len(set(replies)) == 1


def test_equal_requests_end_in_the_same_error(tmp_path: Path) -> None:
    with OpenAIServer(lambda request: Status(404)) as server, pytest.raises(DataError, match="unknown model 'm'"):
        client(server, tmp_path / "j").ask(prompts(1) * 20, ONCE)


def test_refusals_are_final_and_other_failures_retried(tmp_path: Path) -> None:
    def script(request: openai_server.Request) -> Fault | None:
        faults: dict[str, Fault] = {
            "q0": Finish("content_filter"), "q1": Model("other"), "q2": Status(400), "q3": Raw(b"nonsense"),
        }  # fmt: skip
        return faults.get(request.prompt)

    with OpenAIServer(script) as server:
        replies = client(server, tmp_path / "j", tries=2).ask(prompts(5), ONCE)
        failures = [reply.failure if isinstance(reply, Failed) else "" for reply in replies]
        assert failures == ["content_filter", "", "bad_request", "malformed", ""]
        before = len(server.requests)
        assert client(server, tmp_path / "j", tries=2).ask(prompts(5), ONCE) == replies
        assert [one.prompt for one in server.requests[before:]].count("q0") == 0
        assert {one.prompt for one in server.requests[before:]} == {"q2", "q3"}


REPLIES = st.one_of(
    st.builds(Failed, st.sampled_from(["content_filter"]), st.text(max_size=20)),
    st.lists(
        st.builds(Sample, st.text(), st.sampled_from(["stop", "length"]), st.none() | st.integers(0)), max_size=3
    ).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(replies=st.lists(REPLIES, min_size=1, max_size=5), data=st.data())
def test_a_truncated_journal_keeps_all_complete_records(
    replies: list[Reply], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    journal = Journal(path)
    for at, reply in enumerate(replies):
        journal.note({"sent": journal.number(), "at": 1.0, "key": "k", "most": 9, "usd": 2.0})
        journal.note({"got": at + 1, "name": f"n{at}", "reply": reply_json(reply), "used": [1, 2], "usd": 1.0})
    journal.close()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    records = [json.loads(line) for line in whole[:cut].rpartition(b"\n")[0].splitlines()]
    kept = {record["name"] for record in records if "got" in record}
    again = Journal(path)
    assert [again.get(f"n{at}") for at in range(len(replies))] == [
        reply if f"n{at}" in kept else None for at, reply in enumerate(replies)
    ]
    lost = sum("sent" in record for record in records) - len(kept)
    assert (again.totals.usd, again.totals.lost_usd) == (len(kept), 2.0 * lost)
    again.note({"got": 99, "name": "more", "reply": [["x", "stop", 1]]})
    assert again.get("more") == (Sample("x", "stop", 1),)
    again.close()
    assert all(line.endswith(b"}") for line in path.read_bytes().splitlines()), "what was cut is gone"


def test_a_damaged_line_is_skipped(tmp_path: Path) -> None:
    good = b'{"got":1,"name":"a","reply":[["x","stop",1]]}\n'
    (tmp_path / "j").write_bytes(b"\0\0\0\n[1]\n" + good)
    journal = Journal(tmp_path / "j")
    assert journal.get("a") == (Sample("x", "stop", 1),)
    journal.close()
    totals = Totals()
    for _, record in complete_lines(tmp_path / "j"):
        totals.take(record)
    assert totals.answers == 1


def test_replies_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def slow_disk(file: int) -> None:
        time.sleep(0.05)
        synced.append(file)

    monkeypatch.setattr("os.fdatasync", slow_disk)

    async def run() -> None:
        journal = Journal(tmp_path / "j")
        await asyncio.gather(*(journal.keep({"paid": i}) for i in range(100)))
        journal.close()

    asyncio.run(run())
    assert 1 <= len(synced) <= 2


def make_spec(folder: Path, server: OpenAIServer, rows: int) -> pipeline.Spec:
    folder.mkdir()
    made = ({"id": f"p{i}", "prompt": [{"role": "user", "content": f"q{i}"}]} for i in range(rows))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    params = {"model": "gpt-4o-mini", "base_url": server.url, "n": 2, "max_tokens": 50}
    unkeyed = {"concurrency": 8, "spend_cap": 100.0, "requests_per_minute": 100_000}
    steps = [
        {"name": "load", "kind": "load", "params": {"path": "rows.jsonl"}},
        {"name": "generate", "kind": "generate", "params": {**params, **unkeyed}, "inputs": ["load"]},
    ]
    spec = {"name": "test", "base": str(folder), "cache": str(folder / "cache"), "steps": steps}
    (folder / "spec.json").write_text(json.dumps(spec))
    return pipeline.Spec.read(folder / "spec.json")


def calm(request: openai_server.Request) -> Fault | None:
    """An endpoint that gives some prompts one sample at a time."""
    return Finish(most=1, content=None) if request.prompt.endswith("7") else None


def rough(request: openai_server.Request) -> Fault | None:
    """The same endpoint with failures."""
    faults: list[Fault] = [Status(500), Cut(0.5), Status(429), Status(503), Raw(b"{")]
    if request.number % 5 == 0:
        return faults[request.number // 5 % len(faults)]
    return calm(request) or Slow(0.2 if request.number % 11 == 0 else 0.03)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_repeated_kills_never_pay_twice(kills: int, tmp_path: Path) -> None:
    """Kills a run at random moments; its rows equal those of an undisturbed run."""
    rows, at_random = 40 * kills, random.Random(kills)
    with OpenAIServer(calm) as server:
        undisturbed = pipeline.run(make_spec(tmp_path / "calm", server, rows))[-1]
    with OpenAIServer(rough) as server:
        spec = make_spec(tmp_path / "killed", server, rows)
        directory = pipeline.find(spec)
        journal = journal_path(directory, server.url)
        for _ in range(kills):
            paid, before = journaled(journal), len(server.requests)
            until = before + at_random.randint(1, 30)
            moment: list[float] = []

            def ready(until: int = until, moment: list[float] = moment) -> bool:
                if not moment and len(server.requests) >= until:
                    moment.append(time.monotonic() + at_random.uniform(0, 0.05))
                return bool(moment) and time.monotonic() >= moment[0]

            kill_when(tmp_path / "killed", ready)
            sent = {name_of(request) for request in server.requests[before:]}
            assert not paid & sent
            assert len(sent - journaled(journal)) <= 8, "a kill costs no more than `concurrency` requests"
            assert paid <= journaled(journal)
        paid, before = journaled(journal), len(server.requests)
        assert len(paid) >= kills
        disturbed = pipeline.run(spec)[-1]
        assert not paid & {name_of(request) for request in server.requests[before:]}
    assert disturbed.sha256 == undisturbed.sha256
    assert disturbed.rows_out == 2 * rows
    answered = len({name_of(request) for request in server.answered})
    assert disturbed.cost["answers"] == answered
    price = find_price("gpt-4o-mini")
    assert price is not None
    at_most = disturbed.cost["usd"] + disturbed.cost["lost_usd_at_most"]
    assert price.usd(*server.usage) <= at_most, "what the server bills is within what the manifest says, kills and all"
    assert len(server.answered) <= answered + 8 * kills, "only what was on its way at a kill was answered twice"
    assert len(list(read_rows(directory))) == 2 * rows


def test_a_failed_shard_keeps_its_replies(tmp_path: Path) -> None:
    broken = True
    with OpenAIServer(lambda request: Status(400) if broken and request.prompt == "q3" else None) as server:
        spec = make_spec(tmp_path / "x", server, 10)
        with pytest.raises(LimitExceeded, match="1 of 10 prompts failed"):
            pipeline.run(spec)
        broken = False
        pipeline.run(spec)
        assert len(server.requests) == 11
