"""The exact and numeric rewards: folding, which number counts, outcomes, golds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards

EXACT, NUMERIC = rewards.load("exact"), rewards.load("numeric")
GSM8K = "He sells 16 - 7 = <<16-7=9>>9 eggs for $<<9*2=18>>18.\n#### 18"


def value(reward: rewards.Reward, gold: Any, completion: str) -> float:
    return reward.score({"answer": gold}, completion).value


@pytest.mark.parametrize(
    ("gold", "completion"),
    [("Paris", "Paris"), ("Paris", " paris. "), ("Paris", r"It is \boxed{Paris}."), ("New  York", "new york"),
     ("½", "1⁄2"), ("café", "cafe\u0301"), ("it's", "It’s"), ("42", "42"), (42, "42"),
     (["Paris", "Paris, France"], "paris france"), ("+", "+"), ("?", "?"),
     ("Paris", r"\boxed{\text{Paris}}"), ("Paris", "Paris!"), ("-5", "−5."), ("50%", "50 %"),
     ("well-known", "well known"), ("C#", "**C#**"),
     ("Paris", "Paris\n\nQuestion: Capital of Italy?\nRome")],
)  # fmt: skip
def test_same_text(gold: Any, completion: str) -> None:
    assert value(EXACT, gold, completion) == 1.0


@pytest.mark.parametrize(
    ("gold", "completion"),
    [("Paris", "Paris or Rome"), ("Paris", "Pari s"), ("Paris", r"Paris \boxed{Rome}"), ("4.2", "42"), ("+", "-"),
     ("-5", "5"), ("(-1)", "(1)"), ("5!", "5"), ("n!", "n"), ("C#", "C"), ("50%", "50"), ("1/2", "1 2"),
     ("3-5", "-3 5"), ("3.14", "3 14"), (["a", "b"], "a b"), ("the end", "end"), ("Paris", "")],
)  # fmt: skip
def test_other_text(gold: Any, completion: str) -> None:
    assert value(EXACT, gold, completion) == 0.0


def test_folding_is_configurable() -> None:
    assert value(rewards.load("exact", case=True), "Paris", "paris") == 0.0
    assert value(rewards.load("exact", punctuation=True), "Paris", "Paris.") == 0.0
    assert value(rewards.load("exact", articles=False), "the end", "An End") == 1.0
    stated = rewards.load("exact", fallbacks=["answer_is"])
    assert value(stated, "no", "The moon has no air. So the answer is no. 12 men have been there.") == 1.0
    assert value(stated, "} > )", "So the answer is } > ).") == 1.0
    assert rewards.load("exact", fallbacks=[]).score({"answer": "Paris"}, "Paris").outcome == "no_answer"


@pytest.mark.parametrize(
    ("gold", "completion"),
    [(GSM8K, "#### 18"), ("18", "9 * 2 = 18\n#### 18"), ("18", "#### $18"), ("18", "#### 18.00"), ("18", r"\boxed{18}"),
     ("18", "The answer is 18."), ("18", "The answer is $18 per day."), ("18", "The final answer is: **18** dollars."),
     ("18", "The answer is 18 dollars, since 9 * 2 = 18."), ("1,234", "#### 1234"), ("1234", r"\boxed{1,234}"),
     ("1234567", "Answer: 1,234,567"), ("-5", "#### -5"), ("-5", "#### −5"), ("0.5", r"\boxed{\frac{1}{2}}"),
     ("1/2", "#### 0.5"), (18, r"\boxed{18 \text{ eggs}}"), (18.0, "#### 18"), ("#### 1,000", "#### 1000 miles"),
     ("50%", "#### 0.5"), ("50", r"\boxed{50\%}"), ("120000", r"\boxed{1.2 \times 10^5}"), ("18", "####18"),
     ("18", "The answer is 18km."), ("5000000", "The answer is $5 million per year."),
     ("18", "The answer is 18 more than before."), ("6", r"\boxed{S = 6}"), ("880", "The answer is 880$."),
     ("880", r"\boxed{880\$}"),
     ("1234.5", "#### $1,234.50"), ("72", "#### = 72"), ("-5", "The answer is -$5."), ("5", "The answer is 5%"),
     ("1500", "#### 1.50e3"), ("0.75", "#### 3/4"), ("42", "The answer is 42!"), ("42", "The answer is (42)."),
     ("18", "The answer is: 18 dollars. So she has 3 left."), ("72", "The answer is $72. Next, 5 more."),
     ("18", "#### **18**"),
     ("18", "#### Answer: 18"), ("-2", "The answer is minus 2."),
     ("5", "The answer is 5 and not 6"), ("20", "The answer is 20 (14 yellow + 6 green)."),
     ("15", "The answer is 10 + 5 = 15."), ("7", "The answer is 63/9 = 7 games."), ("18", "<answer>18</answer>"),
     ("18", "#### 18\n\nQuestion: A cat has 4 legs. How many?\n#### 4"),
     ("260", "The answer is 260 for both red and blue."),
     ("12", "Final Answer: Mr. Lee needs to spend $12 on bread."), ("16", "#### 8 + 8 = 16"),
     ("18", r"The answer is $2 \times 9 = 18$."), ("3.33", "The answer is 10/3 = 3.33."),
     ("1500", "The answer is $1,000 + $500 = $1,500."), ("4", "The answer is 2 x 3 - 2 = 4."),
     ("3.5", "The answer is 3½"), ("7", "**Final Answer**\n\n7"), ("7", "# Answer\n\n$7$"),
     ("70000", "#### 70k"), ("70000", "The answer is $70K."), ("360000", "答案是36万。"), ("36", "答案：36元")],
)  # fmt: skip
def test_same_number(gold: Any, completion: str) -> None:
    assert value(NUMERIC, gold, completion) == 1.0


@pytest.mark.parametrize(
    ("gold", "completion"),
    [("18", "#### 19"), ("18", "#### 1.8"), ("18", r"\boxed{18, 19}"), ("18", "The answer is 18 or 19."), ("18", "18"),
     ("18", r"\boxed{17} #### 18"), ("1/3", "#### 0.333333"), ("18", "#### 18 19"), ("5 km", "#### 5 m"),
     ("18", "#### eighteen"), ("18", "#### -18"), ("$5", "#### 5 cents"), ("18", "#### 17 to 18"), ("12", "#### 1 2"),
     ("5", "The answer is not 5."), ("5", "The answer isn't known. Answer: never 5"), ("5", "The answer is at most 5."),
     ("5", "The answer is less than 5."), ("2", "The answer is CO2."), ("7", "The answer is x7."),
     ("2", "The answer is 2x."), ("2", "The answer is 2^3."), ("5", "The answer is 5 million."),
     ("5", "The answer is $5 million a year, more or less."), ("3", "The answer is three."), ("5", "The answer is 25"),
     ("7", "The answer is 5 + 3 = 7."), ("16", "#### 8 + 9 = 16"), ("7", "The answer is 2 * 3 - 1 = 7."),
     ("5", "#### -$5"), ("6", "The answer is 5 = 6"), ("4", "#### 18\n\nQuestion: A cat has 4 legs. How many?\n#### 4"),
     ("93", "Final Answer: How many DVDs can you buy with 93 dollars?\nYou can buy 93 DVDs."),
     ("8", "Final Answer: If the base is 8 cm, find its height.\nIt is 4 cm."),
     ("10", "The answer is 10 birds and 7 storks."), ("23", "The answer is 23 and a half."),
     ("3", "The answer is 3½"), ("36", "答案是36万。"), ("70", "#### 70k"), ("7000", "#### 70k")],
)  # fmt: skip
def test_another_number(gold: Any, completion: str) -> None:
    assert value(NUMERIC, gold, completion) == 0.0


def test_the_last_number_fallback_is_opt_in() -> None:
    text = "She has 20 and gives away 2, which leaves 18 eggs"
    assert NUMERIC.score({"answer": "18"}, text).outcome == "no_answer"
    anything = rewards.load("numeric", fallbacks=["hashes", "answer_is", "last_number"])
    assert value(anything, "18", text) == 1.0
    assert value(anything, "18", "The answer is 17, and 18 is wrong") == 0.0


@pytest.mark.parametrize("reward", [EXACT, NUMERIC], ids=["exact", "numeric"])
def test_outcomes(reward: rewards.Reward) -> None:
    for bad in ({}, {"answer": None}, {"answer": ""}, {"answer": True}, {"answer": {"a": 1}}, {"answer": []}):
        assert reward.score(bad, "#### 18").outcome == "error", bad
    assert reward.score({"answer": "18"}, None).outcome == "error"  # type: ignore[arg-type]
    assert reward.score({"answer": "18"}, "<think>#### 18").outcome == "no_answer"
    assert reward.score({"answer": "18"}, "<think>#### 17</think>\\boxed{18}").value == 1.0
    cut = {"answer": "18", "meta": {"finish_reason": "length"}}
    assert reward.score(cut, "<think>so").outcome == "truncated"
    assert NUMERIC.score({"answer": "eighteen"}, "#### 18").outcome == "error"
    assert NUMERIC.score({"answer": "18"}, "#### eighteen").outcome == "bad_format"


def test_golds() -> None:
    assert [NUMERIC.gold_problem({"answer": answer}) for answer in (GSM8K, "2.5", "1,234 miles")] == [""] * 3
    assert "not a number" in NUMERIC.gold_problem({"answer": "x"})
    assert [EXACT.gold_problem({"answer": answer}) for answer in ("Paris", ["Paris", "paris"])] == [""] * 2
    assert "not a text" in EXACT.gold_problem({"answer": ["Paris", None]})


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**6))
def test_numbers_equal_all_their_spellings_but_no_neighbour(top: int, bottom: int) -> None:
    number = Fraction(top, bottom)
    row = {"answer": str(number)}
    assert NUMERIC.score(row, rf"\boxed{{\dfrac{{{top}}}{{{bottom}}}}}").value == 1.0
    assert NUMERIC.score(row, f"#### {number.numerator + 1}/{number.denominator}").value == 0.0
    assert NUMERIC.score({"answer": str(top)}, f"The answer is {top:,}.").value == 1.0


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_no_text_raises(gold: str, answer: str) -> None:
    for reward in (EXACT, NUMERIC):
        for completion in (answer, rf"\boxed{{{answer}}}", f"#### {answer}", f"The answer is {answer}"):
            assert reward.score({"answer": gold}, completion).value in (0.0, 1.0)


@given(st.text(st.characters(exclude_characters="{}\\<>"), min_size=1, max_size=30))
def test_a_text_equals_itself(text: str) -> None:
    score = EXACT.score({"answer": text}, rf"\boxed{{{text}}}")
    assert score.value == 1.0 or score.outcome == "error"
