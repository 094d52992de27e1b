"""How samples and pairs spread, in counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.report import page
from launchers.run import spread
from tests.launchers.made_up_run import put
from tests.launchers.test_report import Outline

SCORES = {"all": [1, 1], "none": [0, 0.25], "some": [1, 0.5, 0, 0], "alike": [0.5, 0.5]}


def samples(scores: dict[str, list[float]], outcome: str = "scored") -> list[dict[str, Any]]:
    return [
        {"id": f"{name}/{at}", "score": score, "outcome": outcome, "meta": {"prompt_id": name}}
        for name, group in scores.items()
        for at, score in enumerate(group)
    ]


def words_of(run: Path, told: dict[str, Any]) -> str:
    put(run / "spreads/00-x.json", told)
    words: str = Outline(page.build(run).read_text()).words
    return words


def test_questions_by_their_pass_rate_and_spread() -> None:
    found = spread.of_samples(samples(SCORES))
    assert found is not None
    assert (found["questions"], found["samples"]) == (4, 10)
    assert (found["all_right"], found["none_right"], found["no_spread"]) == (1, 2, 2)
    assert found["pass_rate"] == pytest.approx((1 + 0 + 0.25 + 0) / 4)
    assert found["pass_rates"]["counts"] == [2, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert found["spreads"]["counts"] == [2, 0, 1, 0, 0, 0, 0, 0, 0, 1]


def test_a_reward_models_scores_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    found = spread.of_samples(samples({"a": [5, 2], "b": [-3, -8]}))
    assert found is not None
    assert (found["questions"], found["spreads"]["high"]) == (2, 5.0)
    assert not {"pass_rate", "pass_rates", "all_right", "none_right"} & set(found)
    assert "2 questions, 4 samples; all scores equal: 0." in words_of(tmp_path, {"samples": found})


def test_what_the_grader_could_not_judge_is_left_out() -> None:
    assert spread.of_samples([*samples(SCORES), *samples({"some": [0, 0]}, "timeout")]) == spread.of_samples(
        samples(SCORES)
    )


def test_one_sample_each_has_no_spread_to_show() -> None:
    assert spread.of_samples(samples({"a": [1], "b": [0]})) is None
    assert spread.of_samples([{"id": "a"}]) is None


def test_pairs_by_margin_and_length() -> None:
    rows = [
        {"completion": "x" * 10, "rejected": "x" * 30, "meta": {"margin": 0.4}},
        {"completion": "x" * 20, "rejected": "x" * 10, "meta": {"margin": 1.0}},
    ]
    found = spread.of_pairs(rows)
    assert found is not None
    assert (found["pairs"], found["margin"], found["chosen_length"], found["rejected_length"]) == (2, 0.7, 15, 20)
    assert found["margins"]["counts"] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert (found["longer"]["low"], found["longer"]["high"]) == (-20, 20)
    assert found["longer"]["counts"] == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert spread.of_pairs([{"completion": "no pair"}]) is None


def test_a_choice_by_likeness_beside_its_pool(tmp_path: Path) -> None:
    pool = [{"score": score, "outcome": "scored"} for score in (0.0, 0.1, 0.2, 0.9)] + [
        {"score": 0, "outcome": "error"}
    ]
    lengths = ["answer empty", "answer of similar length"]
    chosen = [{"meta": {"likeness": at / 10, "length": length}} for at, length in enumerate(lengths)]
    found = {"pool": spread.of_scores(pool), "choice": spread.of_choice(chosen)}
    assert found["pool"] is not None
    assert found["pool"]["rows"] == 4
    assert found["pool"]["scores"]["counts"] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    words = words_of(tmp_path, found)
    assert "2 prompts selected of 4 (mean score 0.300), mean score 0.050." in words
    assert "For 50.0 % of them the answer's length alone may explain the score: 50.0 % answer empty, 50.0 % " in words
    assert spread.of_scores(samples(SCORES | {"some": [1, 0]})) is not None
    assert spread.of_scores(samples({"right": [1, 0]})) is None
    assert spread.of_choice(pool) is None
    alike = spread.of_choice(chosen[:1] * 3)
    assert alike is not None
    assert sum(alike["chosen"]["counts"]) == 3


@given(st.lists(st.floats(-50, 50), max_size=40))
def test_every_value_is_counted_once(values: list[float]) -> None:
    assert sum(spread.histogram(values, -1.0, 1.0)["counts"]) == len(values)


@pytest.mark.parametrize("at", range(11))
def test_a_tenth_stands_in_the_bin_that_begins_with_it(at: int) -> None:
    assert spread.histogram([at / 10], 0.0, 1.0)["counts"][min(at, 9)] == 1
