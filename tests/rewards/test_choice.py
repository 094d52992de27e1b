"""The choice reward: what counts as a decision, what is only a letter in a text, and outcomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards
from rewards.math.choice import decide

CHOICE = rewards.load("choice")

DECISIONS: list[tuple[str, str | None]] = [
    # statements
    ("The answer is (C).", "C"), ("the answer is C", "C"), ("The correct answer is: C", "C"), ("Answer: C", "C"),
    ("**Answer:** C", "C"), ("**Answer: C**", "C"), ("The answer is **C**.", "C"), ("Final answer: (C) 42 cm", "C"),
    ("The answer is:\n\nC", "C"), ("The correct choice is C, since B is too small.", "C"), ("ANSWER: C", "C"),
    ("The answer is option C.", "C"), ("The best option is (C), 42.", "C"), ("answer is (c)", "C"),
    ("So the answer is $C$.", "C"), (r"The answer is $\text{C}$.", "C"), (r"The answer is \(\mathbf{C}\).", "C"),
    ("Therefore, the answer should be C because it is prime.", "C"), ("I choose C.", "C"), ("I'll go with (C)", "C"),
    ("C is the correct answer.", "C"), ("(C) is the right choice", "C"), ("Option C is the correct one.", "C"),
    ("**C** is the correct answer", "C"), ("The answer is C: 42", "C"), ("The answer is C - the third", "C"),
    ("My answer is \"C\".", "C"), ("The answer is `C`", "C"), ("The answer is [C]", "C"), ("The answer = C", "C"),
    ("The correct answer must be (C) Vitamin A", "C"), ("The answer is C. D is wrong because it is odd.", "C"),
    ("The answer is A.", "A"), ("The answer is (A) a triangle", "A"), ("The answer is A because 2 is even", "A"),
    # boxes
    (r"\boxed{C}", "C"), (r"$\boxed{\text{C}}$", "C"), (r"\boxed{(C)}", "C"), (r"\boxed{\textbf{(C) } 42}", "C"),
    (r"\boxed{C) 42}", "C"), (r"\boxed{C: 42}", "C"), (r"\boxed{\text{Option C}}", "C"), (r"\boxed{c}", "C"),
    (r"\boxed{\mathrm{C}}", "C"), (r"\boxed{C.}", "C"), (r"\boxed{\text{(A) a triangle}}", "A"),
    # bold and last lines
    ("It must be\n**C**", "C"), ("So it is **(C)**", "C"), ("After all this, **C**.", "C"), ("Long thoughts.\nC", "C"),
    ("Long thoughts.\n(C)", "C"), ("Long thoughts.\nC.", "C"), ("Long thoughts.\n\n**C**\n", "C"), ("C", "C"),
    ("Thoughts.\nOption C", "C"), ("Thoughts.\n(C) 42", "C"), ("Thoughts.\nC) 42", "C"), ("**C) 42 cm**", "C"),
    # changes of mind
    ("The answer is A. Wait, no. The answer is C.", "C"), (r"\boxed{A} Hmm, no: \boxed{C}", "C"),
    (r"\boxed{A}. On reflection the correct answer is (C).", "C"), ("Answer: A\nAnswer: C", "C"),
    ("I think the answer is B. No: (C) is the correct answer.", "C"), (r"The answer is A, or rather \boxed{C}", "C"),
    ("Answer: C. Why not the others?\n**A)** too small\n**B)** too big\n**D)** odd", "C"),
    ("The answer is (C).\nA. small\nB. large", "C"),
    # the article, and letters that are no answer
    ("The answer is a triangle.", None), ("The answer is A triangle.", None), ("A is the first letter.", None),
    ("A triangle has three sides.", None), ("a", "A"), ("Take a look at B and D.", None), (r"\boxed{a triangle}", None),
    (r"\boxed{A triangle}", None), ("The answer is Bob.", None), ("The answer is not C.", None), ("", None),
    ("The answer is C-14 dating.", None), ("The answer is B cells.", None), ("The answer is D'Alembert.", None),
    ("If B is the answer, then x is odd.", None), ("Which one of A, B, C and D is the answer?", None), ("I am", None),
    ("The answer is vitamin C", None), ("A) small\nB) medium\nC) large\nD) huge", None),
    ("Choice is an illusion", None),
    ("(A) is incorrect. (B) may be better.", None), ("Thoughts.\n**(A)** is wrong", None),
    ("Thoughts.\n(A) can't be true", None), ("Thoughts.\n(C) is correct.", "C"), ("Thoughts: **C** is the best", "C"),
    ("The answer is E.", None), (r"\boxed{E}", None), (r"\boxed{42}", None), (r"\boxed{C", None),
    ("Thoughts.\nA dog", None),
    ("Options:\n(A) 1\n(B) 2", None), ("The answer is 5.\nCheers", None), ("The answer is C2.", None),
    # lists
    ("The answer is A or C.", "A, C"), ("The answer is (A) and (C)", "A, C"), (r"\boxed{A, C}", "A, C"),
    (r"\boxed{A,B,C,D}", "A, B, C, D"), ("Answer: A/C", "A, C"), ("The answer is C, A or B", "C, A, B"),
    (r"\boxed{\text{A and C}}", "A, C"), ("**A or C**", "A, C"), ("The answer is (A), (C).", "A, C"),
    ("The answer is C and C.", "C"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "letters"), DECISIONS)
def test_decisions(text: str, letters: str | None) -> None:
    found = decide(text, "ABCD")
    assert (found.letters if found else None) == letters, found


def test_outcomes() -> None:
    def outcome(row: Any, text: Any, **params: Any) -> tuple[str, float]:
        score = rewards.load("choice", **params).score(row, text)
        return score.outcome, score.value

    row = {"answer": "C"}
    assert outcome(row, "The answer is C.") == ("scored", 1.0)
    assert outcome(row, "The answer is A or C.") == ("scored", 0.0)
    assert outcome(row, "It is 5.") == ("no_answer", 0.0)
    assert outcome(row, r"\boxed{42}") == ("bad_format", 0.0)
    assert outcome(row, "<think>The answer is C.</think> D") == ("scored", 0.0)
    assert outcome(row, "<think>The answer is C.") == ("no_answer", 0.0)
    assert outcome(row, "<think>The answer is C.", thinking="none") == ("scored", 1.0)
    assert outcome({"answer": "C", "meta": {"finish_reason": "length"}}, "Let me see") == ("truncated", 0.0)
    assert outcome({"answer": "C", "meta": {"finish_reason": "length"}}, "Answer: C. So") == ("scored", 1.0)
    assert outcome({"answer": "(C)"}, r"\boxed{C}") == ("scored", 1.0)
    assert outcome({"answer": "E"}, "E", letters="ABCDE") == ("scored", 1.0)
    for bad in ({}, {"answer": None}, {"answer": "E"}, {"answer": 2}, {"answer": "C", "choices": "abc"},
                {"answer": "C", "choices": [1, 2]}, {"answer": "C", "choices": ["x"] * 5}):  # fmt: skip
        assert outcome(bad, "The answer is C.") == ("error", 0.0), bad
    assert outcome(row, None) == ("error", 0.0)


def test_the_text_of_a_choice_stands_for_its_letter() -> None:
    row = {"answer": "B", "choices": ["5 cm", r"$\frac{1}{2}$ cm", "a triangle", "5 cm"]}
    for text in (r"\boxed{\dfrac12 \text{ cm}}", r"The answer is $\frac{1}{2}$ cm.", "B", r"\boxed{B}"):
        assert CHOICE.score(row, text).value == 1.0, text
    assert CHOICE.score(row, r"\boxed{5 cm}").outcome == "bad_format"  # two choices say so
    assert CHOICE.score({**row, "answer": "A triangle"}, "The answer is a triangle.").value == 1.0
    assert CHOICE.score({**row, "answer": "C"}, "The answer is a triangle.").details["answer"] == "C"


def test_golds() -> None:
    assert CHOICE.check_gold({"answer": "A"}) == ("letter", "")
    assert CHOICE.check_gold({"answer": "B", "choices": ["1", "2", "3", "4"]}) == ("letter and text", "")
    assert "is none of A, B, C, D" in CHOICE.check_gold({"answer": "F"})[1]
    twice = CHOICE.check_gold({"answer": "B", "choices": ["1", "1", "3", "4"]})
    assert "is not recognised" in twice[1]


@pytest.mark.parametrize("letters", ["", "A", "abc", "AAB", "A B"])
def test_letters_are_checked(letters: str) -> None:
    with pytest.raises(rewards.RewardError, match="letters must be different capitals"):
        rewards.load("choice", letters=letters)


pieces = st.sampled_from(
    ["The answer is ", "A", "B", "C", " or ", ", ", "\n", "**", r"\boxed{", "}", "(", ")", " is the answer", ".", " a "]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join) | st.text(max_size=60))
def test_any_text_gives_letters_or_nothing(text: str) -> None:
    found = decide(text, "ABCD")
    if found is not None:
        assert set(found.letters.split(", ")) <= set("ABCD")


@given(st.lists(pieces, max_size=8).map("".join), st.sampled_from("ABCD"))
def test_a_plain_last_statement_always_counts(before: str, letter: str) -> None:
    found = decide(f"{before}\n\nThe answer is ({letter}).", "ABCD")
    assert found is not None
    assert found.letters == letter or r"\boxed{" in before
