"""The math reward: outcomes, parameters, exactness, no exception on any text."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards
from rewards.math.equivalence import equal
from rewards.math.latex import clean, rational, screen, too_large

MATH = rewards.load("math", deadline=20.0)  # a busy machine is not what is tested here


def outcome(row: dict[str, Any], completion: str, **params: Any) -> str:
    return rewards.load("math", **params).score(row, completion).outcome


@given(st.integers(), st.integers(min_value=1))
def test_a_fraction_equals_itself_however_written(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    if max(abs(top), bottom) < 10**80:
        for text in (f"{top}/{bottom}", rf"\dfrac{{{top}}}{{{bottom}}}", rf"$\frac{{{-top}}}{{{-bottom}}}$"):
            assert rational(clean(text)) == value
            assert MATH.score({"answer": f"{value}"}, rf"\boxed{{{text}}}").value == 1.0


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12),
    st.integers(1, 9),
)
def test_a_decimal_equals_its_fraction_and_not_a_neighbour(number: Any, step: int) -> None:
    exact = Fraction(number)
    row = {"answer": f"{exact.numerator}/{exact.denominator}"}
    assert MATH.score(row, rf"\boxed{{{number:f}}}").value == 1.0
    assert MATH.score(row, rf"\boxed{{{number:f}{step}}}").value == 0.0


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_separators_do_not_change_an_integer(number: int) -> None:
    for text in (
        f"{number:,}",
        f"{number:,}".replace(",", "{,}"),
        f"{number:,}".replace(",", r"\,"),
        f"{number}.0",
    ):
        assert MATH.score({"answer": str(number)}, rf"\boxed{{{text}}}").value == 1.0


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_raises(gold: str, answer: str) -> None:
    score = MATH.score({"answer": gold}, rf"\boxed{{{answer}}}")
    assert score.value in (0.0, 1.0)
    assert score.outcome in rewards.OUTCOMES


symbols = st.sampled_from(
    [
        *"0123456789xy+-*/^=(),.[]{} ",
        r"\frac",
        r"\sqrt",
        r"\pi",
        r"\{",
        r"\}",
        r"\le ",
        r"\text{ cm}",
        r"\%",
        r"\cup ",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(symbols, max_size=12).map("".join))
def test_reflexive_on_anything_balanced(text: str) -> None:
    row = {"answer": text}
    score = MATH.score(row, rf"\boxed{{{text}}}")
    if score.details.get("answer") == rewards.extract.gold_text(text) != "":  # the braces of text closed the box
        assert score.value == 1.0


def test_outcomes() -> None:
    row = {"answer": "5"}
    assert outcome(row, r"\boxed{5}") == "scored"
    assert outcome(row, "It is 5.") == "no_answer"
    assert outcome(row, r"\boxed{5") == "bad_format"
    assert outcome(row, r"\boxed{ }") == "bad_format"
    assert outcome(row, rf"\boxed{{{'9' * 201}}}") == "bad_format"
    assert outcome(row, r"\boxed{10^{10^{10}}}") == "scored"
    assert outcome({}, r"\boxed{5}") == "error"
    assert outcome({"answer": None}, r"\boxed{5}") == "error"
    blank = ("", " ", "nan", "NaN", "so #### ", "$nan$", r"\text{nan}", r"\text{ }", "$$", "~", "{}", ".", "-")
    for nothing in (*blank, float("nan"), float("inf"), True):
        assert outcome({"answer": nothing}, rf"\boxed{{{nothing}}}") == "error", nothing
    for sign in ("<", r"\{\}", "+", r"\infty"):
        assert outcome({"answer": sign}, rf"\boxed{{{sign}}}") == "scored", sign


def test_a_box_in_the_thought_is_ignored() -> None:
    row = {"answer": "5"}
    assert outcome(row, r"<think>maybe \boxed{5}") == "no_answer"
    assert MATH.score(row, r"<think>maybe \boxed{6}</think> It is \boxed{5}.").value == 1.0
    assert MATH.score(row, r"<think>maybe \boxed{5}</think> It is \boxed{6}.").value == 0.0
    assert outcome(row, r"\boxed{5}") == "scored"
    assert outcome(row, r"\boxed{5}", thinking="think_prefilled") == "no_answer"
    assert outcome(row, r"<think> \boxed{5}", thinking="none") == "scored"
    marks = {"open": "<t>", "close": "</t>"}
    assert rewards.load("math", thinking=marks).score(row, r"<t>\boxed{6}</t>\boxed{5}").value == 1.0


def test_truncated_completions() -> None:
    cut = {"answer": "5", "meta": {"finish_reason": "length"}}
    assert outcome(cut, "It is") == "truncated"
    assert outcome(cut, r"\boxed{5} and") == "scored"
    assert outcome(cut, r"\boxed{5} and", truncated="always") == "truncated"
    assert outcome(cut, "It is", truncated="never") == "no_answer"


def test_golds_may_be_numbers_or_whole_solutions() -> None:
    assert MATH.score({"answer": 27.0}, r"\boxed{27}").value == 1.0
    assert MATH.score({"answer": 3}, r"\boxed{3.0}").value == 1.0
    assert MATH.score({"answer": "3 + 4 = 7\n#### 7"}, r"\boxed{7}").value == 1.0
    assert MATH.score({"answer": True}, r"\boxed{1}").outcome == "error"


def test_counters_and_limits() -> None:
    reward = rewards.load("math")
    rows = [{"answer": "1"}] * 3 + [{}]
    scores = reward.score_many(rows, [r"\boxed{1}", "none", r"\boxed{x+1}", r"\boxed{1}"])
    assert [s.outcome for s in scores] == ["scored", "no_answer", "scored", "error"]
    assert reward.counts == {"scored": 2, "no_answer": 1, "error": 1}
    rewards.FailureLimit(error=0.1).check(reward.counts)  # too few scores to judge yet
    with pytest.raises(rewards.TooManyFailures, match=r"1 of 4 scores are 'error' \(25.0%"):
        rewards.FailureLimit(error=0.1).check(reward.counts, final=True)


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("maths", {}, "unknown reward 'maths', did you mean 'math'?"),
        ("math", {"dead_line": 1}, "unknown parameter 'dead_line', did you mean 'deadline'?"),
        ("math", {"deadline": "soon"}, "deadline: Input should be a valid number, not 'soon'"),
        ("math", {"deadline": 0.0}, "deadline: Input should be greater than or equal to 0.01"),
        ("math", {"deadline": 10**400}, "deadline: Input should be a valid number"),
        ("format", {"bad": float("nan")}, "bad: Input should be a finite number, not nan"),
        ("math", {"truncated": "maybe"}, "Input should be 'unboxed', 'always' or 'never', not 'maybe'"),
        ("math", {"fallbacks": ["last_numbr"]}, "not 'last_numbr'"),
        ("math", {"thinking": "thnk"}, "unknown thinking format 'thnk', did you mean 'think'?"),
    ],
)
def test_errors_name_the_parameter(name: str, params: dict[str, Any], says: str) -> None:
    with pytest.raises(rewards.RewardError) as caught:
        rewards.load(name, **params)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fits"),
    [("2^{2^{10}}", True), ("e^{-x^2}", True), ("100!", True), ("2^{100000}", True), ("9" * 200, True),
     ("9" * 201, False), ("{" * 30 + "1" + "}" * 30, False), ("x" * 1001, False)],
)  # fmt: skip
def test_screen(text: str, fits: bool) -> None:
    assert (screen(text) is None) is fits


def test_values_that_are_too_large_to_compute() -> None:
    for text in ("10^{10^{10}}", "9^9^9^9", "2^{10000000}", "99999!", "(9!)!"):
        assert too_large(text), text
        for other in (text, "5"):
            score = MATH.score({"answer": text}, rf"\boxed{{{other}}}")
            assert (score.value, score.outcome) == (float(other == text), "scored"), (text, other)
    assert not any(map(too_large, ("2^{2^{10}}", "e^{-x^2}", "100!", "2^{100000}", "(e^{50})^{100}")))


def test_an_unbalanced_text_equals_only_itself() -> None:
    assert equal("5", "5}") is False
    assert equal("5", "{5") is False
    assert equal(r"\frac{1}{2}", r"\frac{1}{2") is False


def test_golds_must_equal_their_other_spellings_too() -> None:
    for gold in ("1234", r"\frac{x}{2}", "(1,2]", "even", r"\heartsuit?!"):
        assert MATH.gold_problem({"answer": gold}) == "", gold
    assert "{{5}' is not recognised" in MATH.gold_problem({"answer": "{5"})
    assert "not a number or a text" in MATH.gold_problem({})
    assert "longer than" in MATH.gold_problem({"answer": "x+" * 600 + "1"})


def test_a_cached_score_is_the_callers_own() -> None:
    row, completion = {"answer": "x+1"}, r"\boxed{1+x}"
    MATH.score(row, completion).details.clear()
    assert MATH.score(row, completion).details["answer"] == "1+x"
