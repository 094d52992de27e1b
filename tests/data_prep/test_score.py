"""Scoring: rows keep all fields and gain a score; a grader that fails too often stops the step."""

import making
import pytest
import steps_for_tests  # noqa: F401 - registers its steps

import rewards
from data_prep.core import pipeline
from data_prep.errors import DataError, LimitExceeded

LOAD = ("load", {"path": "in.jsonl"})


def graded(folder, rows: list[dict], **params):
    making.write_jsonl(folder / "in.jsonl", rows)
    return making.run(folder, LOAD, ("score", {"reward": "math", **params}))


def test_scores_outcomes_and_counts(tmp_path):
    rows = [
        {"prompt": "q", "completion": f"so \\boxed{{{n % 3}}}", "answer": 1, "meta": {"level": n}} for n in range(30)
    ] + [{"prompt": "q", "completion": "no idea at all", "answer": 1}]
    manifest, found = graded(tmp_path, rows)
    assert (manifest.rows_in, manifest.rows_out, manifest.drops) == (31, 31, {})
    assert [row["score"] for row in found[:6]] == [0, 1, 0, 0, 1, 0]
    assert found[4]["meta"]["level"] == 4
    assert found[30]["outcome"] == "no_answer"
    assert manifest.counts == {"scored": 30, "no_answer": 1}
    assert all(row["outcome"] in rewards.OUTCOMES for row in found)


def test_an_empty_completion_is_graded_and_not_dropped(tmp_path):
    rows = [{"prompt": "q", "completion": text, "answer": 1, "meta": {"index": 0}} for text in ("\\boxed{1}", "-")]
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    manifest, found = making.run(tmp_path, LOAD, ("silence", {}), ("score", {"reward": "math"}))
    assert [(row["completion"], row["outcome"]) for row in found] == [
        ("\\boxed{1}", "scored"),
        ("", "no_answer"),
    ]
    assert manifest.drops == {}


def test_processes_change_no_byte(tmp_path):
    rows = [{"prompt": f"q{n}", "completion": f"\\boxed{{{n % 7}}}", "answer": 3} for n in range(1200)]
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    one, two = (
        making.spec(tmp_path, LOAD, ("score", {"reward": "math", "workers": workers}), cache=f"c{workers}")
        for workers in (1, 2)
    )
    pipeline.run(one)
    pipeline.run(two)
    assert making.shards(pipeline.find(one)) == making.shards(pipeline.find(two))


def test_a_failing_grader_stops_the_pipeline(tmp_path):
    rows = [{"prompt": "q", "completion": "\\boxed{1}", "answer": 1} for _ in range(20)]
    for row in rows[:4]:
        del row["answer"]  # nothing to compare with: an error, not a zero
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    only = ("load", {"path": "in.jsonl", "columns": {"prompt": "prompt", "completion": "completion"}})
    with pytest.raises(LimitExceeded, match=r"20 of 20 rows end in error or timeout, more than max_error_share 0\.02"):
        making.run(tmp_path, only, ("score", {"reward": "math"}))
    manifest, _ = making.run(tmp_path, only, ("score", {"reward": "math", "max_error_share": 1}))
    assert manifest.counts == {"error": 20}


def test_unknown_rewards_and_parameters_are_rejected():
    for params in ({"reward": "mth"}, {"reward": "math", "params": {"strictness": 3}}):
        found = pipeline.parse("p", [{"load": {"path": "x"}}, {"score": params}])[1]
        assert len(found) == 1


def test_completions_of_one_prompt_are_scored_together_across_shards(tmp_path):
    lengths = [10, 60, 30]
    rows = [
        {"prompt": "q", "completion": "word " * length, "meta": {"prompt_id": f"q{n}"}}
        for n in range(200)
        for length in lengths
    ]
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    parts = [{"reward": "length", "params": {"low": 60, "high": 100, "margin": 60}, "scale": "zscore"}]
    score = {"reward": "combine", "params": {"parts": parts}}
    manifest, found = making.run(tmp_path, LOAD, ("score", score))
    assert manifest.rows_out == 600  # more than a shard of 500, which ends within a group
    groups = [[row["score"] for row in found[i : i + 3]] for i in range(0, 600, 3)]
    assert all(abs(sum(group)) < 1e-9 for group in groups)
    assert all(group == pytest.approx(groups[0]) for group in groups)
    assert groups[0][0] < groups[0][2] < groups[0][1]


def test_a_missing_reward_server_is_a_one_line_error(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q", "completion": "a"}])
    model = {"reward": "model", "params": {"url": "http://127.0.0.1:9", "model": "rm", "retries": 0}}
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9"):
        making.run(tmp_path, LOAD, ("score", model))
