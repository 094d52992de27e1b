"""The choice reward: decisions, mere mentions of letters, and outcomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards
from rewards.math.choice import _PHRASES, decide

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
    # statements in other words
    (r"\[ \text{The answer is } (D) \]", "D"), ("The correct option that describes this process is (B).", "B"),
    ("Hence, option (c) is correct.", "C"), ("The correct statement is B.", "B"), ("The correct value is c.", None),
    ("The correct statement is B cells divide.", None), ("Statement (c) is correct, (d) is not.", None),
    ("This is option D.", "D"), ("so it must be (c)", "C"), ("After checking all, D is correct.", "D"),
    ("The right answer is clearly B!", "B"), ("We select option (C).", "C"), ("Hence, (B).", "B"), ("A: C", "C"),
    ("Answer seems to be A.", "A"), ("The answer to this question is (C).", "C"),
    ("Conclusion: (B). Eliminated: (A), (C).", "B"),
    ("The answer is not B but C.", "C"), ("It's C.", "C"), ('{"answer": "C"}', "C"),
    ("Only (B) satisfies the condition.", "B"),
    ("Of these, C is the most accurate.", "C"), ("The answer must therefore be B.", "B"),
    ("<answer>(C) 42</answer>", "C"),
    (r"Answer: \textbf{(C) } 12", "C"), ("The closest option is (B), with 24.6.", "B"), ("Final answer - C", "C"),
    ("Option B (Paris) is the correct answer.", "B"), ("The answer is ‘B’.", "B"),
    ("A, B, D are wrong. C is right.", "C"),
    ("The answer is A (10^-24 %).", "A"), ("Setting these equal gives us the answer (C).", "C"),
    # options with their text
    ("b. 4", "B"), ("'D)80'", "D"), ("Option B: 42", "B"), ("B - Paris", "B"), ("(C)\n\nExplanation: A is wrong.", "C"),
    ("C. Photosynthesis\n\nExplanation: plants use light.", "C"), ("The correct statement is:\nB. Costs rise.", "B"),
    # other languages and full-width signs
    ("【答案】C", "C"), ("故选：C。", "C"), ("答案：C", "C"), ("选C", "C"), ("Ａ", "A"),
    ("只有选项C是正确的，故选C。", "C"),
    ("（Ｂ）", "B"), ("选项A、B错误，故选：D。", "D"), ("因此答案是选项B", "B"), ("答案B", "B"),
    ("【答案】 A <eoa>", "A"),
    ("Antwort:\n\nAntwort: C", "C"), ("答え：B", "B"), ("Réponse : C", "C"), ("B正确，A错误", "B"), ("정답: C", "C"),
    ("【答案】: A, C <eoa>", "A, C"), ("【答案】A、B、C <eoa>", "A, B, C"),
    ("【答案】: A和D <eoa>", "A, D"), ("故选BC", "B, C"),
    ("因此不能选C", None), ("A不正确", None), ("答案不是B", None), ("【答案】题目数据有误", None),
    ("【答案】A. ①② B. ①③ C. ②④ D. ③④ <eoa>", "A, B, C, D"),
    # options that are rejected, conditional, listed or only mentioned
    ("(A) means for all x", None), ("Now consider each choice:\n(A) means P implies Q.\n(B) means Q.", None),
    ("Therefore:\n(a) The average current through the coil is 2 amperes", None), ("A: Let's think step by step.", None),
    ("A. 1 B. 2 C. 3 D. 4", None), ("The correct answer is one of:\n\nA. $124\nB. $120\nC. $130", None),
    ("Check each option:\n\nA. (2, 15)\n   15 < 10 fails.\n\nB. (1, 5)\n   5 < 2 fails", None), ("Not C.", None),
    ("A and C are incorrect, so it must be B or D.", "B, D"), ("Neither A nor B", None), ("Option A is wrong.", None),
    ("We can rule out option C.", None), ("If the answer is A, we get a contradiction.", None), ("x = B", None),
    ("The answer is (C) is not possible.", None), ("The path goes from A to B.", None),
    ("Blood group A is rare.", None),
    ("The closest answer is (B), but it is not the correct one. Answer: None of the above.", None),
    ("7. **Heart rate**: B", None), ("Is the answer A? Let me check.", None), ("Both A and B are correct.", "A, B"),
    # what a base model writes after its answer
    ("The answer is (B).\n\nQuestion: What is 2+2?\nOptions:\nA. 1\nB. 4\nThe answer is (A).", "B"),
    (" (B).\n\nQ: Next?\nA: Let's think step by step. So the answer is (A).", "B"),
    ("B\n\nQuestion: Which planet is red?\nA. Venus\nB. Mars\nAnswer: A", "B"),
    ("The answer is C\n\n### Question\nWhat is 2+2?\nThe answer is D", "C"),
    ("The answer is (C).<|im_end|>\n<|im_start|>user\nThe answer is (D).", "C"),
    ("Let me restate.\n\nQuestion: which is prime?\nThe answer is C.", "C"),
    # lists
    ("The answer is A or C.", "A, C"), ("The answer is (A) and (C)", "A, C"), (r"\boxed{A, C}", "A, C"),
    (r"\boxed{A,B,C,D}", "A, B, C, D"), ("Answer: A/C", "A, C"), ("The answer is C, A or B", "C, A, B"),
    (r"\boxed{\text{A and C}}", "A, C"), ("**A or C**", "A, C"), ("The answer is (A), (C).", "A, C"),
    ("The answer is C and C.", "C"),
    # more forms of statements
    ("正确的是B。", "B"), ("符合题意的是 A", "A"), ("Only option C satisfies both.", "C"), ("Choose B", "B"),
    ("Answer: d) none of these", "D"), ("Answer ==> C", "C"), ("{C}", "C"), ("Ans. B", "B"),
    ("→ B", "B"), ("=> B", "B"), ("Final: B", "B"), ("A - false\nB - true", None), ("答案：【B】", "B"),
    # hedges, opinions of others, judgements of several options
    ("(C) or (D)", "C, D"), ("(C) and (D) are correct.", "C, D"), (r"\boxed{\text{(C) 12 and (D) 13}}", "C, D"),
    ("The answer is B) 12 or D) 14", "B, D"), (r"\boxed{A} \quad \text{or} \quad \boxed{D}", "A, D"),
    ("C is correct, and D is also correct.", "C, D"), ("Statement C is correct. Statement D is correct too.", "C, D"),
    ("A is correct? No, C is correct.", "C"), ("I don't think the answer is C.", None),
    ("I think the answer is C.", "C"), ("We cannot conclude that the answer is C.", None),
    ("One might think the answer is C.", None),
    ("Most students say the answer is C, but they are wrong.", None), ("I'd say the answer is C.", "C"),
    ("At first glance, the answer is C, but it is B.", "B"), ("Many would pick B, but the answer is C.", "C"),
    ("The answer is C.\n\nI don't think the answer is D.", "C"), ("A. niger is a fungus.", None),
    # statements in more words
    ("The answer is C rather than D.", "C"), ("The answer is C instead of D.", "C"), ("Answer – C", "C"),
    ("[D] is correct", "D"), ("B。不是 A", "B"), ("Only C remains.", "C"), ("The most likely diagnosis is C.", "C"),
    ("The most appropriate treatment is (C) aspirin.", "C"), ("The most common error is C.", None),
    ("The point closest to the origin is C.", None),
    ("The closest value is (C) 12.", "C"), ("The answer is 12, which corresponds to C.", "C"),
    ("The answer is 12, which does not correspond to C.", None), ("That matches option C: 12.", "C"),
    ("By elimination, C.", "C"), ("Option C is therefore correct.", "C"), ("C is the only option that works.", "C"),
    (r"\boxed{12\ (C)}", "C"), ("La respuesta correcta es C.", "C"), ("La respuesta es la opción C.", "C"),
    ("A resposta correta é C", "C"), ("La risposta corretta è C", "C"), ("정답은 C입니다.", "C"),
    ("正解はCです。", "C"),
    ("ABD", "A, B, D"), ("A、B、D", "A, B, D"), ("DAB", "D, A, B"), ("Die richtige Antwort ist B", "B"),
    ("答えは B", "B"), ("Jawaban yang benar adalah B.", "B"), ("Đáp án đúng là B.", "B"), ("Doğru cevap: B", "B"),
    ("सही उत्तर: B", "B"), ("উত্তর: B", "B"), ("Odpowiedź: B", "B"), ("الإجابة الصحيحة هي B", "B"), ("Jibu: B", "B"),
    ("La bonne réponse est la B.", "B"), ("正确答案：B（氧气）", "B"), (r"\boxed{\text{选项B}}", "B"),
    ("正确的是 B、C 两项。", "B, C"),
    # answers that are not meant, or only under a condition
    ("The least likely answer is C.", None), ("The next best answer is C.", None), ("The trap answer is C.", None),
    ("The least likely option is C, the most likely is D.", "D"), ("最不可能的答案是A", None),
    ("第二好的答案是A，最好的答案是B。", "B"), ("错误的答案是A", None), ("如果答案是C，那么矛盾。", None),
    ("C would be the correct answer if friction were ignored.", None), ("假设选C，则有矛盾。", None), ("不应选C", None),
    ("C is the correct answer if we ignore friction.\nIt matters.", None), ("The answer is C... no wait.", None),
    ("Let's evaluate option B.", None), ("Option B seems plausible at first.", None), ("误选B的同学忽略了重力", None),
    ("It isn't listed; B is closest but wrong.", None), ("B is the right side of the equation.", None),
    ("Option B is the best-known example.", None), ("B is the final product.", None), ("有同学选B", None),
    ("The answer should not be C.", None), ("Neither B nor C is correct.", None),
    ("It is false that C is correct.", None), ("A is wrong and the answer is C.", "C"),
    ("C seems correct but fails for x = 0.", None), ("C is correct only if x > 0.", None), (r"\boxed{\vec{B}}", None),
    # more forms of plain decisions
    ("I'm going with B.", "B"), ("The only one that fits is B.", "B"), ("∴ B", "B"), ("答えは「B」です。", "B"),
    ("Die richtige Antwort lautet B.", "B"), ("Opción correcta: B", "B"), ("A alternativa correta é a B.", "B"),
    ("C is not the answer; B is.", "B"), ("It is AC.", "A, C"), ("Options B and D are correct.", "B, D"),
    ("Statements (B) and (D) are true.", "B, D"), ("All of A, B and D are correct.", "A, B, D"),
    ("(A) and (B) are wrong.", None), ("**B** – because the reaction is exothermic.", "B"), ("[[B]]", "B"),
    ("So B is our answer.", "B"), ("We are left with B.", "B"), ("This rules out D, making B the right choice.", "B"),
    ("The answer is B.\n\nThe following are multiple choice questions.\n\nWhat is g?\nA. 1\nAnswer: D", "B"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "letters"), DECISIONS)
def test_decisions(text: str, letters: str | None) -> None:
    decision = decide(text, "ABCD")
    assert (decision.letters if decision else None) == letters, decision


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The answer is (J).", "J"), ("Thus, the answer is h.", "H"), ("The answer is C because I computed it.", "C"),
        ("I(Y;Z) = H(Y) - H(Y|Z)", None), ("Computing:\nI(Y;Z) = 0", None), ("I think it depends.", None),
        ("The answer might be C. It could also be F.", None), ("The answer is F(x) = 2.", None),
        ("I am not sure.", None),
        (r"We get $\boxed{\langle H\rangle \ll E}$." "\n\n**Answer: D**", "D"), (r"\boxed{E: A risk score}", "E"),
    ],
)  # fmt: skip
def test_decisions_among_ten_options(text: str, letters: str | None) -> None:
    decision = decide(text, "ABCDEFGHIJ")
    assert (decision.letters if decision else None) == letters, decision


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


def test_the_text_of_a_choice_counts_as_its_letter() -> None:
    row = {"answer": "B", "choices": ["5 cm", r"$\frac{1}{2}$ cm", "a triangle", "5 cm"]}
    for text in (r"\boxed{\dfrac12 \text{ cm}}", r"The answer is $\frac{1}{2}$ cm.", "B", r"\boxed{B}"):
        assert CHOICE.score(row, text).value == 1.0, text
    assert CHOICE.score(row, r"\boxed{5 cm}").outcome == "bad_format"  # two choices say so
    assert CHOICE.score({**row, "answer": "A triangle"}, "The answer is a triangle.").value == 1.0
    assert CHOICE.score({**row, "answer": "C"}, "The answer is a triangle.").details["answer"] == "C"
    planets = {"answer": "B", "choices": ["Venus", "Mars", "Pluto", "2"]}
    for text in ("The answer is Mars. It is red.", "Mars", "Venus is too hot.\n(B) Mars", "**Answer: Mars**"):
        assert CHOICE.score(planets, text).value == 1.0, text
    assert CHOICE.score(planets, "1. Venus is hot.\n2. Mars is cold").outcome == "no_answer"


@pytest.mark.parametrize(
    ("gold", "text", "value"),
    [("BD", "故选：BD。", 1), ("B, D", r"\boxed{B, D}", 1), ("B、D", "故选B、D", 1),
     ("BD", "The answer is D and B.", 1),
     ("BD", "故选：ABD。", 0), ("BD", "The answer is B.", 0), ("(D) Alina", "The answer is (D).", 1),
     ("D. Alina", "The answer is A.", 0), ("D) Alina", r"\boxed{\text{D) Alina}}", 1)],
)  # fmt: skip
def test_golds_may_be_several_letters_or_a_letter_with_its_text(gold: str, text: str, value: float) -> None:
    assert CHOICE.gold_problem({"answer": gold}) == ""
    score = CHOICE.score({"answer": gold}, text)
    assert (score.value, score.outcome) == (value, "scored"), score


def test_golds() -> None:
    assert CHOICE.gold_problem({"answer": "A"}) == ""
    assert CHOICE.gold_problem({"answer": "B", "choices": ["1", "2", "3", "4"]}) == ""
    assert "is none of A, B, C, D" in CHOICE.gold_problem({"answer": "F"})
    twice = CHOICE.gold_problem({"answer": "B", "choices": ["1", "1", "3", "4"]})
    assert "is not recognised" in twice


@pytest.mark.parametrize("letters", ["", "A", "abc", "AAB", "A B"])
def test_letters_are_checked(letters: str) -> None:
    with pytest.raises(rewards.RewardError, match="letters: must be different capitals"):
        rewards.load("choice", letters=letters)


pieces = st.sampled_from(
    ["The answer is ", "A", "B", "C", " or ", ", ", "\n", "**", r"\boxed{", "}", "(", ")", " is the answer", ".", " a "]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join) | st.text(max_size=60))
def test_any_text_gives_letters_or_nothing(text: str) -> None:
    decision = decide(text, "ABCD")
    if decision is not None:
        assert set(decision.letters.split(", ")) <= set("ABCD")


@given(st.lists(pieces, max_size=8).map("".join), st.sampled_from("ABCD"))
def test_a_plain_final_statement_always_counts(before: str, letter: str) -> None:
    decision = decide(f"{before}\n\nThe answer is ({letter}).", "ABCD")
    assert decision is not None
    assert decision.letters == letter or r"\boxed{" in before


@pytest.mark.parametrize("phrase", [*_PHRASES["stated"], *_PHRASES["judged"]], ids=lambda phrase: phrase["example"])
def test_the_example_of_a_phrase_decides(phrase: dict[str, str]) -> None:
    decision = decide(f"{phrase['example']}\nas the figure shows to all of us", "ABCD")
    assert decision is not None
    assert (decision.letters, decision.by) == ("C", "says" if phrase in _PHRASES["stated"] else "judges")
