"""Difficulty: a model's labels over HTTP, with all kinds of bad replies, and difficulty by pass rate."""

import json

import making
import pytest

from data_prep.core import pipeline
from data_prep.errors import LimitExceeded
from tests.fakes.openai_server import Finish, OpenAIServer, Raw, Request, Status


def label(folder, server, prompts, drop_share=0.05, **params):
    making.write_jsonl(folder / "in.jsonl", [{"id": f"r{n}", "prompt": one} for n, one in enumerate(prompts)])
    given = {"model": "judge", "base_url": server.url, **params}
    return making.run(folder, ("load", {"path": "in.jsonl"}), ("label", given), max_drop_share=drop_share)


def says(replies: dict[str, list[str]]):
    """A judge that returns the given replies to each problem in turn, then repeats the last."""
    asked: dict[str, int] = {}

    def script(request: Request) -> Finish:
        problem = next(name for name in replies if f"\n{name}\n" in request.prompt)
        at = asked.get(problem, 0)
        asked[problem] = at + 1
        return Finish(content=replies[problem][min(at, len(replies[problem]) - 1)])

    return script


def test_unreadable_labels_are_requested_again_then_counted(tmp_path):
    replies = {
        "easy": ['{"reason": "one step", "difficulty": 1}'],
        "fenced": ['Sure:\n```json\n{"difficulty": 7.0}\n```'],
        "second": ["It is hard.", '{"difficulty": 9}'],
        "never": ['{"difficulty": 11}', '{"difficulty": "5"}'],
        "bool": ['{"difficulty": true}', '{"difficulty": 2.5}'],
    }
    with OpenAIServer(says(replies)) as server:
        manifest, rows = label(tmp_path, server, list(replies))
    assert [row.get("meta", {}).get("difficulty") for row in rows] == [1, 7, 9, None, None]
    assert manifest.counts == {"labelled": 3, "unlabelled": 2}
    assert len(server.requests) == 8
    by_temperature = {0: set(), 0.7: set()}  # asked greedily again it would say the same
    for request in server.requests:
        problem = next(name for name in replies if f"\n{name}\n" in request.prompt)
        by_temperature[request.body["temperature"]].add(problem)
    assert by_temperature == {0: set(replies), 0.7: {"second", "never", "bool"}}


def test_all_rows_are_requested_concurrently_with_progress(tmp_path, monkeypatch, capsys):
    """With shards of a few hundred, each would wait for its slowest reply; one large shard reports progress."""
    monkeypatch.setattr("data_prep.inference.api.spend.SAY_EVERY_S", 0.0)
    with OpenAIServer(lambda request: Finish(content='{"difficulty": 3}')) as server:
        manifest, rows = label(tmp_path, server, [f"p{n}" for n in range(600)])
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(600)]
    assert manifest.shards == 1
    said = capsys.readouterr().err
    assert all(f": {count} requests of this run are done" in said for count in (1, 300, 600))


def test_failures_are_drops_and_too_many_end_the_step(tmp_path):
    def script(request: Request):
        return Status(400) if "\nbad\n" in request.prompt else Finish(content='{"difficulty": 3}')

    with OpenAIServer(script) as server:
        manifest, rows = label(tmp_path, server, ["good", "bad"], drop_share=0.5, max_error_share=0.5)
        assert [row["id"] for row in rows] == ["r0"]
        assert manifest.drops == {"api_error: bad_request": 1}
        with pytest.raises(LimitExceeded, match="1 of 2 rows had no reply"):
            label(tmp_path, server, ["good", "bad"], drop_share=0.5, max_error_share=0.1, seed=2)


def test_a_reply_is_only_data(tmp_path):
    hostile = ['{"difficulty": 1e999}', "[" * 100_000, '{"difficulty": {"__class__": 1}}', "{{ 7*7 }}"]
    with OpenAIServer(says({f"p{n}": [one] for n, one in enumerate(hostile)})) as server:
        manifest, _ = label(tmp_path, server, [f"p{n}" for n in range(len(hostile))], tries=1)
    assert manifest.counts == {"unlabelled": 4}
    with (
        OpenAIServer(lambda request: Raw(json.dumps({"choices": []}).encode())) as server,
        pytest.raises(LimitExceeded),
    ):
        label(tmp_path, server, ["a"], max_error_share=0, concurrency=1, timeout=2)


def samples() -> list[dict]:
    """Three samples each of problems solved always, once and never, and of one without scores."""
    passed = {"easy": [1, 1, 1], "mid": [0, 1, 0], "hard": [0, 0, 0]}
    rows = [
        {
            "id": f"{name}/{n}",
            "prompt": name,
            "completion": "c",
            "score": score,
            "meta": {"prompt_id": name, "sample": n},
        }
        for name, scores in passed.items()
        for n, score in enumerate(scores)
    ]
    rows[0]["meta"]["difficulty"] = 4
    return [*rows, {"id": "lost/0", "prompt": "lost", "completion": "c", "score": 0, "outcome": "error"}]


@pytest.mark.parametrize(("fill", "first"), [("all", 1.0), ("missing", 4)])
def test_difficulty_by_pass_rate(tmp_path, fill, first):
    making.write_jsonl(tmp_path / "in.jsonl", samples())
    load = ("load", {"path": "in.jsonl"})
    manifest, rows = making.run(tmp_path, load, ("difficulty", {"fill": fill}), max_drop_share=0.2)
    by_id = {row["id"]: row["meta"] for row in rows}
    assert by_id["easy/0"]["difficulty"] == first
    assert by_id["easy/1"]["difficulty"] == 1
    assert by_id["mid/2"]["pass_rate"] == 0.3333
    assert by_id["mid/2"]["difficulty"] == 7.0003
    assert by_id["hard/0"]["difficulty"] == 10
    assert manifest.drops == {"problem without a scored sample": 1}
    assert manifest.counts == ({"by pass rate": 9} if fill == "all" else {"by pass rate": 8, "by label": 1})
    hard = ("select", {"between": {"difficulty": [6, 10]}, "per_prompt": 1})
    chosen = making.run(tmp_path, load, ("difficulty", {}), hard, max_drop_share=0.2)[1]
    assert [row["id"] for row in chosen] == ["mid/0", "hard/0"]


def test_labels_need_a_prompt(tmp_path):
    specs, faults = pipeline.parse("x", [{"label": {"model": "m", "base_url": "http://x/v1"}}])
    assert specs
    assert "needs input rows" in str(faults[0])
