"""HumanEval- and MBPP-shaped files as tasks: rows whose golds pass in the sandbox, and lines for what is wrong.

The records are ours, in the columns of the originals.
"""

from __future__ import annotations

import json

import making
import pytest

import rewards
from data_prep.errors import DataError
from data_prep.sources import benchmarks, tasks

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'from typing import List\n\n\ndef widest(gaps: List[int]) -> int:\n    """ The widest gap. """\n',
    "canonical_solution": "    return max(gaps, default=0)\n",
    "test": "def check(candidate):\n    assert candidate([1, 5, 2]) == 5\n    assert candidate([]) == 0\n",
    "entry_point": "widest",
}
MBPP = {
    "task_id": 900,
    "prompt": "Write a function that doubles each number.",
    "code": "def doubled(xs):\n    return [2 * x for x in xs]",
    "test_imports": ["import math"],
    "test_list": ["assert doubled([1, 2]) == [2, 4]", "assert doubled([]) == []", "assert doubled([math.inf])[0] > 1"],
}
FULL_MBPP = {
    **{key: value for key, value in MBPP.items() if key not in ("prompt", "test_imports")},
    "text": MBPP["prompt"],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}


def loaded(folder, task: str, *records: dict) -> list[dict]:
    making.write_jsonl(folder / "in.jsonl", list(records))
    return making.run(folder, ("load", {"tasks": [task], "paths": {task: "in.jsonl"}}))[1]


@pytest.mark.parametrize(
    ("task", "record", "row_id", "asked"),
    [
        ("humaneval", HUMANEVAL, "humaneval/HumanEval/900", "def widest(gaps: List[int]) -> int:"),
        ("mbpp", MBPP, "mbpp/900", "assert doubled([1, 2]) == [2, 4]\n"),
        ("mbpp", FULL_MBPP, "mbpp/900", "assert doubled([]) == []\n"),
    ],
    ids=["humaneval", "mbpp", "mbpp in full"],
)
def test_a_file_of_the_original_shape_is_the_task(tmp_path, task, record, row_id, asked):
    (row,) = loaded(tmp_path, task, record)
    assert (row["id"], row["source"], row["meta"]["language"]) == (row_id, task, "python")
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert asked in row["prompt"][1]["content"]
    reward = rewards.load(tasks.read(task).reward.name, **tasks.read(task).reward.params)
    (gold,) = row["references"]
    assert reward.score(row, f"Here it is:\n```python\n{gold}\n```").value == 1
    assert reward.score(row, "```python\ndef widest(gaps):\n    pass\ndoubled = widest\n```").value == 0


def test_errors_in_a_record_are_reported(tmp_path):
    bad = [{**HUMANEVAL, "task_id": f"b{n}", field: value} for n, (field, value) in enumerate(
        [("prompt", ""), ("test", None), ("entry_point", "")]
    )]  # fmt: skip
    making.write_jsonl(tmp_path / "in.jsonl", [HUMANEVAL, *bad])
    params = {"tasks": ["humaneval"], "paths": {"humaneval": "in.jsonl"}}
    manifest, rows = making.run(tmp_path, ("load", params), max_drop_share=1.0)
    assert len(rows) == 1
    assert manifest.drops == {"no prompt": 1, "tests cannot be read": 2}


def test_a_file_of_another_shape_names_its_columns(tmp_path):
    with pytest.raises(DataError, match="mbpp has a column test_list, prompt; this has: question, answer"):
        loaded(tmp_path, "mbpp", {"question": "1+1?", "answer": "2"})


def test_records_without_a_gold_are_questions_too():
    without = {key: value for key, value in HUMANEVAL.items() if key != "canonical_solution"}
    row = benchmarks.convert(without, "humaneval", {})
    assert isinstance(row, dict)
    assert "references" not in row


@pytest.mark.parametrize("extra", ["columns: {prompt: p}", "answer_from: boxed"])
def test_programs_and_columns_exclude_each_other(tmp_path, monkeypatch, extra):
    text = (tasks.TASKS / "mbpp.yaml").read_text()
    monkeypatch.setattr(tasks, "TASKS", tmp_path)
    (tmp_path / "mine.yaml").write_text(f"{text}{extra}\n")
    with pytest.raises(DataError, match="programs says what every column"):
        tasks.read("mine")


def test_the_mini_world_has_both_forms_of_the_same_questions(tmp_path):
    found = {
        name: making.run(tmp_path, ("load", {"tasks": [name], "limit": 20}))[1]
        for name in ("functions", "functions_plan")
    }
    plain, plan = found["functions"], found["functions_plan"]
    assert [row["tests"] for row in plain] == [row["tests"] for row in plan]
    assert all("plan" in row["prompt"][0]["content"] for row in plan)
    assert json.loads(json.dumps(plain)) == plain


def test_questions_of_a_file_are_a_task_and_another_file_can_take_its_place(tmp_path):
    rows = making.run(tmp_path, ("load", {"tasks": ["skill_mix", "skill_mix_cot"]}))[1]
    assert {row["meta"]["split"] for row in rows} == {"held_out"}
    direct, cot = ([row for row in rows if row["source"] == source] for source in ("skill_mix", "skill_mix_cot"))
    assert [row["tests"] for row in direct] == [row["tests"] for row in cot]
    assert [row["prompt"] for row in direct] != [row["prompt"] for row in cot]

    sample = (tasks.ROOT / "recipes/skill_mix/sample/questions.jsonl").read_text().splitlines()
    mine = [json.loads(line) for line in sample if json.loads(line)["split"] == "held_out"]
    making.write_jsonl(tmp_path / "mine.jsonl", [{**mine[0], "id": "one"}])
    given = {"tasks": ["skill_mix"], "paths": {"skill_mix": "mine.jsonl"}}
    assert [row["id"] for row in making.run(tmp_path, ("load", given))[1]] == ["skill_mix/one"]
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file"):
        making.run(tmp_path, ("load", {**given, "paths": {"skill_mix": "nothing.jsonl"}}))
