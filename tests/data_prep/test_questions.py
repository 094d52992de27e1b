"""Step `questions`: our records, rows of a finished pipeline, and the original's questions.json in both its forms."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.core import pipeline
from data_prep.core.manifest import Manifest
from data_prep.core.step import Row
from data_prep.errors import DataError, LimitExceeded
from data_prep.families.skill_mix.skills import pairs_of
from rewards.code.suites import read

REPO = Path(__file__).resolve().parents[2]
SAMPLE = REPO / "recipes" / "skill_mix" / "sample" / "questions.jsonl"
REAL = Path(os.environ.get("SKILL_MIX_QUESTIONS") or REPO.parent / "shared" / "data" / "skill_mix" / "questions.json")
TESTS = '#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\nTEST(A, B) { EXPECT_EQ(add(1, 2), 3); }\n'


def original(**changed: Any) -> dict[str, Any]:
    """A record in the original's format."""
    given = {
        "k": 2,
        "skills": "sorting, basic_sums",
        "raw_response": "{}",
        "function_name": "add",
        "function_signature": "int add(int a, int b)",
        "function_docstring": "a, b: numbers. Returns their sum.",
        "problem_statement": "Add two numbers.",
        "language": "c++",
        "verification_status": True,
        "gold_solution": "int add(int a, int b) { return a + b; }",
        "unit_tests": TESTS,
    }
    return {name: value for name, value in {**given, **changed}.items() if value is not ...}


def run(folder: Path, content: Any, name: str = "questions.json", limit: float = 1.0, **params: Any) -> pipeline.Spec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    step = pipeline.StepSpec(name="questions", kind="questions", params={"path": name, **params})
    spec = pipeline.Spec(name="test", base=folder, cache=folder / "cache", steps=(step,), max_drop_share=limit)
    pipeline.run(spec)
    return spec


def rows(spec: pipeline.Spec) -> list[Row]:
    return list(pipeline.read_rows(pipeline.find(spec)))


def manifest(spec: pipeline.Spec) -> Manifest:
    found = pipeline.read_manifest(pipeline.find(spec))
    assert found is not None
    return found


def test_the_originals_file_unchanged(tmp_path: Path) -> None:
    (row,) = rows(run(tmp_path, {"29e2-aa": original()}))
    assert row["id"] == "29e2-aa"
    assert row["source"] == "skill_mix"
    assert row["references"] == ["int add(int a, int b) { return a + b; }"]
    assert row["tests"] == {
        "kind": "call", "language": "cpp", "declaration": "int add(int a, int b);", "function": "add",
        "cases": [{"args": [1, 2], "expected": 3, "weight": 1.0}],
    }  # fmt: skip
    assert read(row["tests"]).isolation == "data"
    meta = row["meta"]
    assert (meta["k"], meta["skills"], meta["language"], meta["function"]) == (
        2,
        ["sorting", "basic_sums"],
        "cpp",
        "add",
    )
    assert [one["role"] for one in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == (
        "Add two numbers.\n\nSignature:\nint add(int a, int b)\n\na, b: numbers. Returns their sum."
    )


def test_its_other_forms_are_the_same_questions(tmp_path: Path) -> None:
    by_key = rows(run(tmp_path / "a", {"7": original(), "9": original(problem_statement="Sum up.")}))
    listed = [{"id": 7, **original()}, {"qid": "9", **original(problem_statement="Sum up.")}]
    assert rows(run(tmp_path / "b", listed)) == by_key
    lines = "".join(json.dumps(one) + "\n" for one in listed)
    assert rows(run(tmp_path / "c", lines, "questions.jsonl")) == by_key
    assert rows(run(tmp_path / "d", lines, "questions.json")) == by_key
    assert [row["id"] for row in by_key] == ["7", "9"]


def test_a_question_asked_step_by_step(tmp_path: Path) -> None:
    direct = rows(run(tmp_path, {"1": original()}))[0]
    cot = rows(run(tmp_path, {"1": original()}, prompt="cot"))[0]
    assert direct["prompt"][1] == cot["prompt"][1]
    assert "one code block marked cpp" in direct["prompt"][0]["content"]
    assert "3. Write the whole solution in one last code block marked cpp" in cot["prompt"][0]["content"]
    assert {name: value for name, value in direct.items() if name != "prompt"} == {
        name: value for name, value in cot.items() if name != "prompt"
    }


@pytest.mark.parametrize(
    ("changed", "reason", "said"),
    [
        ({"function_name": ...}, "missing function_name", "question q: no function_name or function"),
        ({"function_signature": ""}, "missing function_signature", "question q"),
        ({"function_docstring": None}, "missing function_docstring", "question q"),
        ({"problem_statement": ["a"]}, "problem_statement is not a text", "question q: list"),
        ({"gold_solution": ...}, "missing gold_solution", "question q: no gold_solution or solution"),
        ({"unit_tests": ...}, "missing unit_tests", "question q: no unit_tests, tests or cases"),
        ({"unit_tests": "int main() {}"}, "unusable tests", "question q: the row's tests: the source has no TEST"),
        ({"unit_tests": 3}, "unusable tests", "question q: unit_tests must be a text, got int"),
        ({"unit_tests": ..., "cases": [{"args": [1]}]}, "unusable tests", "question q: cases[0]: 1 arguments"),
        ({"skills": 3}, "missing skills", "question q"),
        ({"language": "rust"}, "unknown language", "'rust'"),
        ({"language": "pyton"}, "unknown language", "did you mean 'python'?"),
    ],
)
def test_an_invalid_record_is_a_bad_drop_with_field_and_id(
    tmp_path: Path, changed: dict[str, Any], reason: str, said: str
) -> None:
    found = manifest(run(tmp_path, {"q": original(**changed), "good": original()}))
    assert (found.rows_out, found.bad) == (1, 1)
    assert found.drops == {reason: 1}
    (example,) = found.examples[reason]
    assert example["row_id"] == "q"
    assert said in example["detail"]


def test_unverified_questions_are_dropped_as_in_the_original(tmp_path: Path) -> None:
    unverified = original(verification_status=False, unit_tests=..., gold_solution=...)
    found = manifest(run(tmp_path, {"q": unverified, "good": original()}))
    assert found.drops == {"unverified": 1}
    assert found.bad == 0


def test_too_many_bad_records_stop_the_pipeline(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="question q0: no gold_solution or solution"):
        run(tmp_path, {f"q{n}": original(gold_solution=...) for n in range(3)}, limit=0.05)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.json", '{"a": {"k": 1', "not JSON"),
        ("q.csv", "a,b\n", "questions must be .json or .jsonl, not '.csv'"),
        ("q.json", "[1, 2]", "keeps none of"),
        ("q.json", '{"a": 3}', "keeps none of"),
        ("q.jsonl", "nonsense\n", "keeps none of"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, content, name)
    assert said in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    step = pipeline.StepSpec(name="questions", kind="questions", params={"path": "none.json"})
    spec = pipeline.Spec(name="test", base=tmp_path, cache=tmp_path / "cache", steps=(step,))
    with pytest.raises(DataError, match=r"none\.json: no such file; `path` must be a file of questions"):
        pipeline.run(spec)


def test_split_by_skill_pairs(tmp_path: Path) -> None:
    names = "abcdef"
    records = {f"{a}{b}": original(skills=f"{a}, {b}") for a in names for b in names if a < b}
    records |= {one: original(skills=one, k=1) for one in names}
    records |= {"abc": original(skills="a, b, c"), "def": original(skills="d, e, f")}
    every = rows(run(tmp_path, records, held_out=0.2, seed=5))
    held = rows(run(tmp_path, records, held_out=0.2, seed=5, split="held_out"))
    train = rows(run(tmp_path, records, held_out=0.2, seed=5, split="train"))
    assert {row["id"] for row in held} | {row["id"] for row in train} == {row["id"] for row in every} == records.keys()
    pairs = {tuple(row["meta"]["skills"]) for row in held if row["meta"]["k"] == 2}
    assert len(pairs) == 3
    assert all(not pairs & set(pairs_of(row["meta"]["skills"])) for row in train)
    assert all(pairs & set(pairs_of(row["meta"]["skills"])) for row in held)


def test_both_languages_and_a_split(tmp_path: Path) -> None:
    lines = SAMPLE.read_text()
    assert {row["meta"]["language"] for row in rows(run(tmp_path, lines, "questions.jsonl"))} == {"python", "cpp"}
    assert len(rows(run(tmp_path, lines, "questions.jsonl", limit=0.0, split="held_out"))) == 2


def test_rows_of_a_finished_pipeline_are_questions_again(tmp_path: Path) -> None:
    first = rows(run(tmp_path / "a", SAMPLE.read_text(), "questions.jsonl"))
    text = "".join(json.dumps(row) + "\n" for row in first)
    assert rows(run(tmp_path / "b", text, "rows.jsonl")) == first
    cot = rows(run(tmp_path / "b", text, "rows.jsonl", prompt="cot"))
    assert [row["tests"] for row in cot] == [row["tests"] for row in first]


def test_tests_not_expressible_as_values_stay_source(tmp_path: Path) -> None:
    tests = TESTS.replace("EXPECT_EQ(add(1, 2), 3)", "EXPECT_GT(add(1, 2), 2)")
    (row,) = rows(run(tmp_path, {"q": original(unit_tests=tests)}))
    assert row["tests"] == {"kind": "gtest", "language": "cpp", "source": tests}
    assert read(row["tests"]).isolation == "shared"


def test_hostile_texts_are_data(tmp_path: Path) -> None:
    statement = "{{ 7 * 7 }} {% include 'x' %} \u2028 ```cpp\nint main() {}\n```"
    (row,) = rows(run(tmp_path, {"q": original(problem_statement=statement)}))
    assert row["prompt"][1]["content"].startswith(statement)


@pytest.mark.skipif(not REAL.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_the_real_questions(tmp_path: Path) -> None:
    found = run(tmp_path, REAL.read_text(), limit=0.0)
    every = rows(found)
    assert len(every) == 132
    assert manifest(found).drops == {}
    assert Counter(row["meta"]["k"] for row in every) == {1: 25, 2: 107}
    assert Counter(row["tests"]["kind"] for row in every) == {"call": 78, "gtest": 54}
    assert all(read(row["tests"]) for row in every)
