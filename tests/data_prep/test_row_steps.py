"""Steps that select, change and join rows: map, filter, split, join, and lowest or highest by score."""

from pathlib import Path

import making
import pytest

from data_prep.core import pipeline
from data_prep.core.step import Row
from data_prep.errors import DataError

HERE = Path(__file__).parent
PROBLEMS = ["Find $\\gcd(12, 18)$.", "Solve $2x = 8$.", "What is $7^2$?", "How many primes are below 20?"]


def first_words(row: Row, count: int) -> Row | None:
    """Truncates completions to `count` words and drops rows without a completion."""
    words = row.get("completion", "").split()
    return {**row, "completion": " ".join(words[:count])} if words else None


def is_short(row: Row) -> bool:
    return len(row["completion"]) < 12


def is_of_numbers(row: Row) -> bool:
    return "gcd" in row["completion"] or "primes" in row["completion"]


def broken(row: Row) -> bool:
    return row["answer"] == "7"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(HERE))
    making.write_jsonl(
        tmp_path / "in.jsonl",
        [{"id": f"q{n}", "prompt": text, "completion": f"It is {n}, see: {text}"} for n, text in enumerate(PROBLEMS)],
    )
    return tmp_path


LOAD = ("load", {"path": "in.jsonl", "columns": {"prompt": "prompt", "completion": "completion", "id": "id"}})


def test_a_function_changes_rows(rows: Path) -> None:
    mapped = {"function": "test_row_steps:first_words", "params": {"count": 3}}
    _, made = making.run(rows, LOAD, ("map", mapped))
    assert [row["completion"] for row in made] == [f"It is {n}," for n in range(4)]
    assert [row["id"] for row in made] == ["q0", "q1", "q2", "q3"]
    manifest, made = making.run(rows, LOAD, ("map", mapped), ("filter", {"function": "test_row_steps:is_short"}))
    assert len(made) == 4
    assert manifest.drops == {}


def test_a_filter_counts_what_it_drops(rows: Path) -> None:
    manifest, made = making.run(rows, LOAD, ("filter", {"function": "test_row_steps:is_of_numbers"}))
    assert [row["id"] for row in made] == ["q0", "q3"]
    assert manifest.drops == {"test_row_steps:is_of_numbers returned False": 2}


def test_a_function_s_error_names_the_row(rows: Path) -> None:
    with pytest.raises(KeyError) as caught:
        making.run(rows, LOAD, ("filter", {"function": "test_row_steps:broken"}))
    assert caught.value.__notes__ == ["test_row_steps:broken was called with row 'q0'"]
    with pytest.raises(DataError, match="must return True or False, got dict"):
        making.run(rows, LOAD, ("filter", {"function": "test_row_steps:first_words", "params": {"count": 1}}))


@pytest.mark.parametrize("name", ["nowhere:f", "test_row_steps:absent", "test_row_steps:PROBLEMS"])
def test_a_missing_function_is_reported_before_the_run(rows: Path, name: str) -> None:
    (fault,) = pipeline.parse("mine", [{"load": {"path": "in.jsonl"}}, {"map": {"function": name}}])[1]
    assert fault.path == (1, "map", "function")
    assert "cannot be imported" in fault.message or "is not a function" in fault.message


def test_train_and_validation_share_no_prompt(tmp_path: Path) -> None:
    prompts = [f"What is {n} + {n + 3}?" for n in range(200)]
    records = [{"id": f"q{n}-{k}", "prompt": text if k else text.upper(), "completion": f"{k}"}
               for n, text in enumerate(prompts) for k in range(2)]  # fmt: skip
    making.write_jsonl(tmp_path / "in.jsonl", records)
    parts = {}
    for part in ("train", "validation"):
        _, made = making.run(tmp_path, LOAD, ("split", {"validation": 0.25, "part": part, "seed": 3}))
        parts[part] = {row["prompt"][0]["content"].lower() for row in made}
        assert len(made) == 2 * len(parts[part])
    assert len(parts["validation"]) in range(20, 80)
    assert parts["train"].isdisjoint(parts["validation"])
    assert len(parts["train"] | parts["validation"]) == 200


@pytest.mark.parametrize(
    ("take", "expected"),
    [("lowest", [-3.5, -1.0]), ("middle", [0.25, 2.0]), ("highest", [7.5, 40.0])],
)
def test_the_lowest_middle_and_highest_by_score(tmp_path: Path, take: str, expected: list[float]) -> None:
    scores = [2.0, -3.5, 40.0, 0.25, -1.0, 7.5]
    making.write_jsonl(
        tmp_path / "in.jsonl",
        [
            {"id": f"q{n}", "prompt": "A haiku?", "score": score, "meta": {"loss": score}}
            for n, score in enumerate(scores)
        ],
    )
    for by in ("score", "meta.loss"):
        _, made = making.run(tmp_path, ("load", {"path": "in.jsonl"}), ("select", {"n": 2, "take": take, "by": by}))
        assert sorted(row["score"] for row in made) == expected
    with pytest.raises(DataError, match="take: lowest needs n"):
        making.run(tmp_path, ("load", {"path": "in.jsonl"}), ("select", {"take": "lowest", "min_score": 0}))


def test_labels_join_by_the_problem_s_text(tmp_path: Path) -> None:
    making.write_jsonl(tmp_path / "problems.jsonl", [
        {"id": "a", "prompt": f"Return your final answer in \\boxed{{}}.\n\n{PROBLEMS[0]}"},
        {"id": "b", "prompt": PROBLEMS[1].replace(" ", "  ")},
        {"id": "c", "prompt": "Prove that $\\sqrt 2$ is irrational."},
    ])  # fmt: skip
    making.write_jsonl(
        tmp_path / "labels.jsonl",
        [{"problem": text, "gpt_difficulty_parsed": n + 2.5, "gpt_difficulty": "x"} for n, text in enumerate(PROBLEMS)],
    )
    columns = {"prompt": "problem", "meta.difficulty": "gpt_difficulty_parsed"}
    steps = [
        {"name": "problems", "kind": "load", "params": {"path": "problems.jsonl"}},
        {"name": "labels", "kind": "load", "params": {"path": "labels.jsonl", "columns": columns, "source": "labels"}},
        {"name": "join", "kind": "join", "inputs": ["problems", "labels"],
         "params": {"labels": "labels", "fields": ["difficulty"]}},
    ]  # fmt: skip
    spec = pipeline.Spec.model_validate(
        {"name": "t", "base": str(tmp_path), "cache": str(tmp_path / "cache"), "steps": steps}
    )
    manifest = pipeline.run(spec)[-1]
    made = list(pipeline.read_rows(pipeline.find(spec)))
    assert [(row["id"], row["meta"]["difficulty"]) for row in made] == [("a", 2.5), ("b", 3.5)]
    assert manifest.drops == {"problem without a label": 1}
