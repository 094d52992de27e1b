"""Every task through the real load step: prompt, answer or tests, and a reward that separates right from wrong.

The rows are ours, in each original's schema (task_fixtures.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import making
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import task_fixtures as ours

import rewards
from data_prep.core.manifest import Manifest
from data_prep.errors import DataError
from data_prep.sources import tasks


def load(folder: Path, name: str, records: list[dict], **params) -> tuple[Manifest, list[dict]]:
    making.write_jsonl(folder / "rows.jsonl", records)
    given = {"task": name, "paths": {name: "rows.jsonl"}, **params}
    return making.run(folder, ("load", given), max_drop_share=1.0)


def reward_of(name: str) -> rewards.Reward:
    said = tasks.read(name).reward
    return rewards.load(said.name, **said.params)


def in_the_repository(folder: Path, name: str) -> tuple[dict, str, str]:
    """A row of a task without a file, its gold, and a wrong program or answer."""
    rows = making.run(folder, ("load", {"task": name, "limit": 20}))[1]
    row = next(row for row in rows if row.get("meta", {}).get("language", "python") == "python")
    if "tests" not in row:
        return row, row["completion"], "\\boxed{-1}"
    empty = f"def {row['meta']['function']}(*args):\n    return None"
    return row, ours.fenced(row["references"][0]), ours.fenced(empty)


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_loads_and_its_reward_knows_right_from_wrong(tmp_path, name):
    assert name in ours.FIXTURES, f"no fixture for {name}: add a few rows of its schema to task_fixtures.py"
    if tasks.read(name).reward.name == "model":  # graded by a server: tests/launchers/test_service.py
        records = [case.record for case in fixture.cases] if (fixture := ours.FIXTURES[name]) else None
        rows = load(tmp_path, name, records)[1] if records else [in_the_repository(tmp_path, name)[0]]
        assert all(row["prompt"] for row in rows)
        return
    fixture, reward = ours.FIXTURES[name], reward_of(name)
    if fixture is None:
        row, gold, wrong = in_the_repository(tmp_path, name)
        right, other = (reward.score(row, text).value for text in (gold, wrong))
        assert right == 1
        assert other <= (0.1 if reward.name == "bleu" else 0)
        return
    dropped = [record for records in fixture.dropped.values() for record in records]
    manifest, rows = load(tmp_path, name, [*(case.record for case in fixture.cases), *dropped])
    assert manifest.drops == {reason: len(records) for reason, records in fixture.dropped.items()}
    assert len(rows) == len(fixture.cases)
    for row, case in zip(rows, fixture.cases, strict=True):
        assert row["source"] == name
        assert row.get("answer") == case.answer
        roles = [message["role"] for message in row["prompt"]]
        assert roles == (["user"] if tasks.read(name).system is None else ["system", "user"])
        assert case.asked in row["prompt"][-1]["content"]
        right, other = (reward.score(row, text).value for text in (case.gold, case.wrong))
        assert right == 1
        assert other <= (0.1 if reward.name == "bleu" else 0)


def test_every_fixture_belongs_to_a_task():
    assert set(ours.FIXTURES) == set(tasks.names())


def test_the_prompt_matches_how_tests_run_the_program(tmp_path):
    cases = ours.CONTEST.cases
    _, (stdin, call) = load(tmp_path, "apps", [case.record for case in cases])
    assert "standard input" in stdin["prompt"][0]["content"]
    assert "defines mirror" in call["prompt"][0]["content"]
    assert (stdin["tests"]["kind"], call["tests"]["kind"]) == ("stdio", "call")
    assert [row["references"] for row in (stdin, call)] == [[ours.LARGER], [ours.MIRROR]]
    assert call["tests"]["cases"][0] == {"args": ["moor"], "expected": ["room"]}


def test_a_long_test_does_not_exceed_the_text_limit(tmp_path, monkeypatch):
    tests = {"inputs": ["1 " * 600_000], "outputs": ["1"]}
    assert load(tmp_path, "apps", [ours.contest_row(1, tests)])[0].rows_out == 1
    with monkeypatch.context() as patched:
        patched.setattr("data_prep.steps.load.MAX_TEST_BYTES", 1000)
        manifest, _ = load(tmp_path, "apps", [ours.contest_row(2, ours.STDIN), ours.contest_row(1, tests)])
    assert manifest.drops == {"string too long": 1}
    long = ours.contest_row(1, ours.STDIN, question="why " * 300_000)
    assert load(tmp_path, "apps", [long, ours.contest_row(2, ours.STDIN)])[0].drops == {"string too long": 1}


def test_a_decompression_bomb_drops_only_its_row(tmp_path):
    manifest, rows = load(tmp_path, "livecodebench", [ours.live_row(1), ours.live_row(2, private=ours.bomb())])
    assert len(rows) == 1
    assert manifest.drops == {"tests cannot be read": 1}
    (example,) = manifest.examples["tests cannot be read"]
    assert (example["row_id"], "when unpacked" in example["detail"]) == ("abc2_a", True)


def test_the_order_of_options_depends_only_on_the_row(tmp_path):
    names = [f"rec{number}" for number in range(60)]
    _, rows = load(tmp_path, "gpqa_diamond", [ours.gpqa(name) for name in names])
    _, backwards = load(tmp_path, "gpqa_diamond", [ours.gpqa(name) for name in reversed(names)])
    _, alone = load(tmp_path, "gpqa_diamond", [ours.gpqa("rec41")])
    assert rows == backwards[::-1]
    assert rows[41] == alone[0]
    letters = [row["answer"] for row in rows]
    assert all(8 <= letters.count(letter) <= 24 for letter in "ABCD")
    assert all(f"{row['answer']}) Argon" in row["prompt"][1]["content"] for row in rows)


def test_a_task_s_prompt_can_stand_before_the_question(tmp_path):
    records = [case.record for case in ours.FIXTURES["math500"].cases]
    _, (plain,) = load(tmp_path, "math500", records)
    _, (above,) = load(tmp_path, "math500", records, instructions="user")
    _, (both,) = load(tmp_path, "math500", records, instructions="user", system="python")
    _, (once,) = load(tmp_path, "math500", records, instructions="user", system="boxed")
    assert [one["role"] for one in once["prompt"]] == ["system", "user"]
    assert "boxed" in once["prompt"][0]["content"]
    assert once["prompt"][1]["content"] == records[0]["problem"], "its own prompt is not said twice"
    prompt, question = (message["content"] for message in plain["prompt"])
    assert above["prompt"] == [{"role": "user", "content": f"{prompt}\n\n{question}"}]
    assert [message["role"] for message in both["prompt"]] == ["system", "user"]
    assert both["prompt"][1:] == above["prompt"]
    assert "\\boxed{}" not in both["prompt"][0]["content"]
    with pytest.raises(DataError, match="only a task has a prompt of its own"):
        making.run(tmp_path, ("load", {"path": "rows.jsonl", "instructions": "user"}))


def test_minerva_s_mirror_holds_whole_solutions(tmp_path):
    record = {"problem": "Its image?", "solution": "$s = \\boxed{1.6} \\mathrm{~cm}$", "type": "Astronomy", "idx": 0}
    _, (row,) = load(tmp_path, "minervamath", [record])
    assert (row["answer"], row["meta"]) == ("1.6", {"type": "Astronomy"})


def test_parquet_gives_the_same_rows(tmp_path):
    records = [case.record for case in ours.CONTEST.cases]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    found = making.run(tmp_path, ("load", {"task": "taco", "paths": {"taco": "rows.parquet"}}))[1]
    assert found == load(tmp_path, "taco", records)[1]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ({"contains": "2024"}, ["a"]),
        ({"is_not": "x2023"}, ["a", "c"]),
        ({"is_not": ["x2023", None]}, ["a", "c"]),
        (["x2024", "x2023"], ["a", "b"]),
    ],
)
def test_filters(tmp_path, wanted, kept):
    records = [{"prompt": "p", "id": name, "url": url} for name, url in (("a", "x2024"), ("b", "x2023"), ("c", 2024))]
    making.write_jsonl(tmp_path / "in.jsonl", records)
    given = {"path": "in.jsonl", "filter": {"url": wanted}}
    if wanted == {"is_not": ["x2023", None]}:
        with pytest.raises(DataError, match="is_not"):
            making.run(tmp_path, ("load", given))
        return
    assert [row["id"] for row in making.run(tmp_path, ("load", given))[1]] == kept


def test_rows_without_an_answer_can_be_skipped(tmp_path):
    records = [{"problem": "q", "solution": "\\boxed{1}"}] + [{"problem": "q", "solution": "a proof"}] * 3
    making.write_jsonl(tmp_path / "in.jsonl", records)
    given = {"path": "in.jsonl", "columns": {"prompt": "problem", "answer": "solution"}, "answer_from": "boxed"}
    with pytest.raises(DataError, match="no boxed answer"):
        making.run(tmp_path, ("load", given))
    manifest, _ = making.run(tmp_path, ("load", {**given, "unanswered": "drop"}))
    assert (manifest.drops, manifest.bad) == ({"no boxed answer": 3}, 0)


def test_programs_are_held_fifty_at_a_time(tmp_path):
    manifest, _ = load(tmp_path, "apps", [ours.contest_row(number, ours.STDIN) for number in range(120)])
    assert manifest.shards == 3


@pytest.mark.parametrize("name", ["apps", "gpqa_diamond", "mmlu"])
def test_a_file_of_another_shape_names_its_columns(tmp_path, name):
    with pytest.raises(DataError, match=r"has a column .*; this has: prompt, answer"):
        load(tmp_path, name, [{"prompt": "1+1?", "answer": "2"}])


def test_fixtures_are_json():
    text = json.dumps({name: [case.record for case in one.cases] for name, one in ours.FIXTURES.items() if one})
    assert json.loads(text)
