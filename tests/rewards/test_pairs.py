"""Every labelled pair is graded as labelled, and within seconds whatever it holds."""

from __future__ import annotations

import pytest
from pairs import EQUAL, UNEQUAL

import rewards

MATH = rewards.load("math")


def graded(gold: str, answer: str) -> rewards.Score:
    return MATH.score({"answer": gold}, rf"So it is $\boxed{{{answer}}}$.")


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    score = graded(gold, answer)
    assert (score.value, score.outcome) == (1.0, "scored"), score


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal(gold: str, answer: str) -> None:
    score = graded(gold, answer)
    assert score.value == 0.0
    assert score.outcome in ("scored", "no_answer", "bad_format"), score


def test_every_side_equals_itself_and_equality_goes_both_ways() -> None:
    # One-sided by intent: what the question implies (a unit, a base, a label) may be left out, not added.
    one_sided = {("2516_8", "2516"), ("C", "(C) 42"), ("5", "2+3=5"), ("5", "5 = x"), ("5", "101_2")}
    for gold, answer in EQUAL:
        assert graded(gold, gold).value == 1.0, gold
        if (gold, answer) not in one_sided:
            assert graded(answer, gold).value == 1.0, (answer, gold)
