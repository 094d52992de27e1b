"""`bleu` equals its definition for any text; ungradable rows and degenerate texts are reported."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rewards
from rewards.text.base import answer_text
from rewards.text.ngrams import ReferenceTable
from rewards.text.tokenise import tokens_13a
from tests.rewards import plain_scores

BLEU = rewards.load("bleu")
VARIANTS = ("nmt", "sacrebleu", "sacrebleu-effective")
PIECES = (
    *(
        "a",
        "b",
        "the",
        "The",
        "5",
        "5.",
        ".5",
        "3.4",
        "1,000",
        ",",
        "..",
        "...",
        "-",
        "--",
        "1-2",
        "x-y",
        "'s",
        "(",
        "é",
    ),
    *("&amp;", "&lt;", "<skipped>", "\n", "-\n", "\t", "\x1c", "\x85", "\u2028", "中文", "½", "$x_1$"),
)
pieces = st.lists(st.sampled_from(PIECES), max_size=20)
texts = st.builds(lambda parts, between: between.join(parts), pieces, st.sampled_from(("", " ")))


def value(text: str, *references: str, **params: object) -> float:
    return rewards.load("bleu", **params).score({"references": list(references)}, text).value


def test_values_worked_out_by_hand() -> None:
    assert value("yes", "no") == pytest.approx(0.5**0.25)  # 1/2 · 1 · 1 · 1: what +1 on every order does
    assert value("a b c d", "e f g h") == pytest.approx((1 / 5 * 1 / 4 * 1 / 3 * 1 / 2) ** 0.25)
    assert value("the the the", "the cat", max_order=1) == pytest.approx(2 / 4)  # clipped to one match
    assert value("a b", "a b c d", max_order=1) == pytest.approx(2.718281828459045 ** (1 - 4 / 2))
    assert value("a b", "a b c d", max_order=1, brevity_penalty=False) == 1
    assert value("a x", "a b", variant="sacrebleu-effective") == pytest.approx((1 / 2 * 1 / 2) ** 0.5)
    assert value("a x", "a b", variant="sacrebleu") == 0  # too short for orders 3 and 4
    assert value("A B", "a b", lowercase=True) == 1
    assert value("a b c", "a b c d e", "a b", reference_length="closest", max_order=1) == 1
    assert value("a b c", "a b c d e", "a", reference_length="closest", max_order=1) == 1  # both 2 away: the shorter


@settings(max_examples=300)
@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_nmt_equals_its_definition(text: str, references: list[str]) -> None:
    text = text.strip()
    assume(all(map(plain_scores.tokens_13a, (text, *references))))
    assert BLEU.score({"references": references}, text).value == plain_scores.nmt_bleu(text, references)


@pytest.mark.full
def test_nmt_equals_its_definition_on_50000_pairs() -> None:
    draw = random.Random(0)
    rows, made = [], []
    while len(made) < 50_000:
        words = [
            draw.choice(("", " ")).join(draw.choices(PIECES, k=draw.randint(1, 24))) for _ in range(draw.randint(2, 6))
        ]
        if all(map(plain_scores.tokens_13a, words)):
            made.append(words[0].strip())
            rows.append({"references": words[1:]})
    for row, text, score in zip(rows, made, BLEU.score_many(rows, made), strict=True):
        assert score.value == plain_scores.nmt_bleu(text, row["references"])


@settings(max_examples=500)
@given(st.text() | texts | st.text(alphabet="5a.,- \n&;"))
def test_tokens_follow_the_13a_rules(text: str) -> None:
    assert tokens_13a(text) == plain_scores.tokens_13a(text)


@settings(max_examples=300)
@given(st.lists(st.lists(st.sampled_from("abc")), min_size=1, max_size=3), st.lists(st.lists(st.sampled_from("abcd"))))
def test_matches_are_counted_for_each_text(references: list[list[str]], made: list[list[str]]) -> None:
    assume(any(references))
    expected = [[plain_scores.matches(text, references, n) for n in range(1, 6)] for text in made]
    assert ReferenceTable(references, 5).matches(made) == expected
    for text, own in zip(made, expected, strict=True):
        table = ReferenceTable(references, 5)
        assert table.matches([text]) == [own]  # compared directly
        assert table.matches([text]) == [own]  # with the table that the second text is worth


def test_more_texts_than_go_through_one_call() -> None:
    made = [["a"] * (i % 7) + ["b", "c"] for i in range(150)]
    table = ReferenceTable([["a", "a", "b", "c"]], 4)
    assert table.matches(made) == [table.matches([text])[0] for text in made]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=200)
@given(text=st.text() | texts, references=st.lists(st.text() | texts, max_size=3), data=st.data())
def test_any_text_has_a_value_between_0_and_1(
    variant: str, text: str, references: list[str], data: st.DataObject
) -> None:
    reward = rewards.load("bleu", variant=variant)
    score = reward.score({"references": references}, text)
    assert 0 <= score.value <= 1 + 1e-12
    assert score.outcome in ("scored", "no_answer", "error")
    assert (score.outcome == "scored") != ("problem" in score.details)
    shuffled = data.draw(st.permutations(references))
    assert reward.score({"references": shuffled}, text) == score


@pytest.mark.parametrize("variant", VARIANTS)
@given(text=texts, others=st.lists(texts, max_size=2))
def test_a_text_equals_itself(variant: str, text: str, others: list[str]) -> None:
    tokens = tokens_13a(text.strip())
    assume(len(tokens) >= 4)
    score = rewards.load("bleu", variant=variant, answer_tags="ignore").score(
        {"references": [text.strip(), *others]}, text
    )
    assert score.value == pytest.approx(1)


def test_batches_equal_single_calls() -> None:
    draw = random.Random(1)
    groups = [["a b c d", "b c"], ["x y z"], ["a b c d", "b c"], [], "one text"]
    rows = [{"references": references} for references in groups for _ in range(4)]
    made = [" ".join(draw.choices("abcdxyz", k=draw.randint(0, 6))) for _ in rows]
    assert BLEU.score_many(rows, made) == [BLEU.score(row, text) for row, text in zip(rows, made, strict=True)]
    assert BLEU.score_many(rows, made, workers=2) == BLEU.score_many(rows, made)


def test_a_single_text_is_a_list_of_one() -> None:
    assert BLEU.score({"references": "a b c"}, "a b") == BLEU.score({"references": ["a b c"]}, "a b")


@pytest.mark.parametrize("references", [None, [], 3, [3], {"a": 1}, [None], ["", "\f"], ""])
def test_unusable_references_are_errors(references: object) -> None:
    score = BLEU.score({"references": references}, "a b")
    assert (score.value, score.outcome) == (0, "error")
    assert "reference" in score.details["problem"]
    assert BLEU.score({}, "a").outcome == "error"
    assert BLEU.gold_problem({"references": references}) == score.details["problem"]
    assert BLEU.gold_problem({"references": "a"}) == ""


def test_inputs_that_crash_the_originals_are_reported_in_details() -> None:
    empty = BLEU.score({"references": ["a b", " ", ""]}, "a b")
    assert (empty.value, empty.details["empty_references"]) == (1, 2)
    for nothing in ("", " \n", "\x0c", "<skipped>", "<answer></answer>"):
        score = BLEU.score({"references": ["a"]}, nothing)
        assert (score.value, score.outcome, "no token" in score.details["problem"]) == (0, "no_answer", True)
    assert BLEU.score({"references": ["a"]}, None).outcome == "error"  # type: ignore[arg-type]


def test_text_in_answer_tags_is_graded() -> None:
    row = {"references": ["right answer"]}
    for text in ("<think>no</think><answer> right answer </answer> bye", "thus <answer>right answer"):
        assert BLEU.score(row, text).value == BLEU.score(row, "right answer").value
    told = rewards.load("bleu", thinking="think")
    assert told.score(row, "<think>a <answer>wrong</answer></think>right answer").value == 1
    assert told.score(row, "<think>right answer").outcome == "no_answer"
    marks = {"preset": "think", "close": "</thought>"}
    assert rewards.load("bleu", thinking=marks).score(row, "wrong</thought>right answer").value == 1
    with pytest.raises(rewards.RewardError, match="unknown thinking format 'thnk', did you mean 'think'"):
        rewards.load("rouge_l", thinking="thnk")
    both = "<answer>one</answer> and <answer>two</answer>"
    assert [answer_text(both, tags) for tags in ("first", "last", "ignore")] == ["one", "two", both]
    assert answer_text("<answer>one <answer>two</answer>", "first") == "one"
    assert answer_text("a </answer> b ", "first") == "a </answer> b"


def test_parameters_are_checked() -> None:
    with pytest.raises(rewards.RewardError, match=r"variant: Input should be 'nmt', 'sacrebleu' or .*not 'bleurt'"):
        rewards.load("bleu", variant="bleurt")
    with pytest.raises(rewards.RewardError, match="max_order: Input should be greater than or equal to 1, not 0"):
        rewards.load("bleu", max_order=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_longer_matches_never_lower_the_value(variant: str) -> None:
    reward, row = rewards.load("bleu", variant=variant), {"references": ["a b c d e"]}
    values = [
        reward.score(row, text).value for text in ("x a y b z", "a b x y z", "a b c x y", "a b c d x", "a b c d e")
    ]
    assert values == sorted(set(values))
    assert values[-1] == pytest.approx(1)
