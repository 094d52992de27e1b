"""Best-of-N: the best samples of a question, without duplicates, independent of the input order."""

import pytest
from scored_samples import block, build, code, sample, samples

from data_prep.core import pipeline
from data_prep.errors import DataError, LimitExceeded


def ids(rows: list[dict]) -> list[str]:
    return [row["id"] for row in rows]


def test_the_first_of_the_best_and_no_question_below_the_minimum(tmp_path):
    rows = samples({"q2": [0.2, 1, 1, 0], "q10": [0.8, 0.6], "q1": [0, 1]})
    manifest, found = build(tmp_path, rows, "best_of_n", min_score=1)
    assert ids(found) == ["q1/1", "q2/1"]
    assert manifest.drops == {"question below min_score": 1}
    assert manifest.examples["question below min_score"] == [{"row_id": "q10", "detail": "best 0.8"}]
    assert (found[0]["score"], found[0]["meta"]["prompt_id"], found[0]["meta"]["skills"]) == (1, "q1", ["a", "b"])
    assert build(tmp_path / "low", rows, "best_of_n", min_score=0.8)[1][-1]["id"] == "q10/0"


def test_ties_can_go_to_the_shortest(tmp_path):
    rows = [sample("q", 0, 1, "x + 1 + 0"), sample("q", 1, 1, "x + 1"), sample("q", 2, 0.9, "x")]
    assert ids(build(tmp_path / "a", rows, "best_of_n")[1]) == ["q/0"]
    assert ids(build(tmp_path / "b", rows, "best_of_n", tie="shortest")[1]) == ["q/1"]


def test_several_per_question_are_different_code(tmp_path):
    rows = [sample("q", 0, 1, "x+1"), sample("q", 1, 1, "x+1  "), sample("q", 2, 1, "1+x"), sample("q", 3, 1, "x- -1")]
    manifest, found = build(tmp_path, rows, "best_of_n", per_prompt=3)
    assert ids(found) == ["q/0", "q/2", "q/3"]
    assert manifest.drops == {"same code as another sample": 1}


def test_columns(tmp_path):
    rows = [sample("q", 0, 1)]
    assert build(tmp_path / "raw", rows, "best_of_n")[1][0]["completion"] == rows[0]["completion"]
    (found,) = build(tmp_path / "code", rows, "best_of_n", column="code")[1]
    assert found["completion"] == block(code("x + 0"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"completion": "I do not know."}, "no code"),
        ({"completion": f"{block(code('x'))[:-3]}", "meta": {"prompt_id": "q", "finish_reason": "length"}}, "no code"),
        ({"outcome": "timeout"}, "outcome timeout"),
        ({"outcome": "error"}, "outcome error"),
        ({"completion": f"<think>{block(code('x + 1'))}</think> done"}, "no code"),
    ],
)
def test_inconclusive_samples_are_dropped(tmp_path, change, reason):
    rows = [{**sample("q", 5, 1), **change}, sample("q", 6, 0.9, "x"), sample("p", 0, 1)]
    manifest, found = build(tmp_path, rows, "best_of_n", min_score=0.5, column="code")
    assert ids(found) == ["p/0", "q/6"]
    assert manifest.drops == {reason: 1}


def test_code_with_inconsistent_scores_is_dropped(tmp_path):
    rows = [sample("q", 0, 1, "x + 1"), sample("q", 1, 0, "x + 1"), sample("q", 2, 1, "1 + x")]
    manifest, found = build(tmp_path, rows, "best_of_n")
    assert ids(found) == ["q/2"]
    assert manifest.drops == {"same code, other score": 2}


def test_output_is_independent_of_row_order(tmp_path):
    rows = samples({f"q{n}": [((n * 7 + k) % 5) / 5 for k in range(6)] for n in range(30)})
    results = {build(tmp_path / str(seed), rows, "best_of_n", seed, min_score=0.6, per_prompt=2)[0].sha256
               for seed in range(4)}  # fmt: skip
    assert len(results) == 1


def test_rows_without_scores_are_bad(tmp_path):
    rows = [{field: value for field, value in sample("q", n, 1).items() if field != "score"} for n in range(3)]
    with pytest.raises(LimitExceeded, match="3 missing score"):
        build(tmp_path, rows, "best_of_n")


def test_an_empty_selection_is_reported(tmp_path):
    with pytest.raises(DataError, match="keeps none of 2 rows: 1 question below min_score"):
        build(tmp_path, samples({"q": [0, 0.5]}), "best_of_n", min_score=1)


def test_parameters_are_checked():
    for params, told in (({"column": "cod"}, "'code' or 'raw_output'"), ({"outcome": "done"}, "no outcome 'done'")):
        (fault,) = pipeline.parse("p", [{"load": {"path": "x"}}, {"best_of_n": params}])[1]
        assert told in fault.message
