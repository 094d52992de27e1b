"""Common parts of the builders: gold rows, code in fences, and provenance of samples."""

import tracemalloc

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_samples import FENCE, TESTS, block, build, code

from data_prep.core.registry import step_class
from data_prep.core.step import Context, Drop
from data_prep.core.stored import StoredRows
from data_prep.steps.candidates import code_of, fenced, language_of, natural


def question(name: str, gold: str, **more) -> dict:
    return {"id": name, "prompt": [{"role": "user", "content": name}], "references": [gold], "tests": TESTS, **more}


def test_gold_is_one_row_per_question(tmp_path):
    rows = [
        question("q2", code("x + 1\n"), completion="wrong", meta={"sample": 0, "skills": ["a"]}),
        question("q1", "int f();", tests={"kind": "gtest", "source": "TEST(A, B) {}"}),
        question("q2/1", code("x + 1\n"), meta={"prompt_id": "q2", "sample": 1}),
        question("q3", "\n"),
    ]
    for row in rows:
        row.setdefault("completion", "")
    manifest, found = build(tmp_path, rows, "gold")
    assert [(row["id"], row["completion"]) for row in found] == [
        ("q1", block("int f();", "cpp")),
        ("q2", block(code("x + 1"))),
    ]
    assert found[1]["meta"] == {"skills": ["a"]}
    assert manifest.drops == {"empty gold": 1}


def test_golds_can_be_checked_by_execution(tmp_path):
    rows = [question("good", code("x + 1")), question("bad", code("x")), question("ugly", "def g(:")]
    rows.append(question("odd", code("x"), tests={"kind": "call"}))
    manifest, found = build(tmp_path, rows, "gold", check=True)
    assert [row["id"] for row in found] == ["good"]
    assert (manifest.drops, manifest.bad) == ({"gold fails its tests": 2, "gold cannot be judged": 1}, 1)
    told = {one["row_id"]: one["detail"] for one in manifest.examples["gold fails its tests"]}
    assert told["bad"] == "failed, 0 of 1 tests passed"
    assert "compile_error" in told["ugly"] or "error" in told["ugly"]


def test_a_row_without_a_gold_is_bad(tmp_path):
    rows = [question("a", code("x")), {**question("b", "x"), "references": []}]
    assert build(tmp_path, rows, "gold")[0].drops == {"empty references": 1}


def test_languages_and_fences():
    assert [language_of(row) for row in (
        {"tests": {"kind": "gtest"}}, {"tests": {"kind": "call"}}, {}, {"meta": {"language": "C++"}},
        {"tests": {"kind": "stdio", "language": "cpp"}},
    )] == ["cpp", "python", "python", "cpp", "cpp"]  # fmt: skip
    text = f'print("""\n{FENCE}\n""")'
    assert fenced(text, "python") == f"````python\n{text}\n````"
    assert code_of({"completion": fenced(text, "python")}) == text


@given(st.text(alphabet="ab`~ \n#", max_size=40).filter(str.strip))
def test_fenced_code_is_extracted_unchanged(text):
    assert code_of({"completion": fenced(text, "python")}) == text.strip("\n")


def test_natural_order():
    assert sorted(["p10", "p2", "a", "p2/10", "p2/9", "", "²"], key=natural) == [
        "",
        "a",
        "p2",
        "p2/9",
        "p2/10",
        "p10",
        "²",
    ]


@pytest.mark.parametrize("kind", ["best_of_n", "pairs", "length_pairs", "gold"])
def test_builders_hold_one_question_in_memory(tmp_path, kind):
    """Less than 3 MB of 15 MB of rows are in memory at any time."""
    thought = "Try small cases first, then look for a pattern. " * 100
    path = making.write_jsonl(tmp_path / "rows.jsonl", [
        {"id": f"q{n}/{k}", "prompt": [{"role": "user", "content": f"Question {n}"}], "references": ["4"],
         "completion": thought + "x" * k, "score": float(k % 3 == 0), "meta": {"prompt_id": f"q{n}", "sample": k}}
        for n in range(400) for k in range(8)
    ])  # fmt: skip
    rows = StoredRows([path])
    rows.admit(None)
    step = step_class(kind)
    with step(step.Params()).open(Context(tmp_path, tmp_path)) as apply:
        tracemalloc.start()
        made = sum(not isinstance(output, Drop) for output in apply(rows, 0))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert made >= 400
    assert path.stat().st_size > 15e6
    assert peak < 3e6
