"""`rouge_l` equals its definition, whatever the text; `bleu_rouge_f1` is the harmonic mean of both parts."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rewards
from rewards.text.tokenise import rouge_tokens
from tests.rewards import plain_scores

ROUGE = rewards.load("rouge_l")
BOTH = rewards.load("bleu_rouge_f1")
words = st.lists(st.sampled_from(("a", "b", "cat", "Cat", "3.5", "x_y", "é", "中", "K", "İ", "!", "\n")), max_size=15)
texts = words.map(" ".join)


def test_values_worked_out_by_hand() -> None:
    row = {"references": ["the cat sat on the mat"]}
    assert ROUGE.score(row, "the mat sat on the cat").value == pytest.approx(4 / 6)  # the … sat on the
    assert ROUGE.score(row, "THE-CAT").value == pytest.approx(2 * 1 * (2 / 6) / (1 + 2 / 6))
    assert ROUGE.score({"references": ["no", "a b", "a b c d"]}, "a b").details == {"tokens": 2, "best": 1}


@settings(max_examples=200)
@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_rouge_equals_its_definition(text: str, references: list[str]) -> None:
    assume(rouge_tokens(text) and any(map(rouge_tokens, references)))
    assert ROUGE.score({"references": references}, text).value == plain_scores.rouge_l(text, references)


@given(st.text(), st.lists(st.text(), max_size=3), st.data())
def test_any_text_has_a_value_between_0_and_1(text: str, references: list[str], data: st.DataObject) -> None:
    for reward in (ROUGE, BOTH):
        score = reward.score({"references": references}, text)
        assert 0 <= score.value <= 1
        assert score.outcome in ("scored", "no_answer", "error")
        shuffled = data.draw(st.permutations(references))
        assert reward.score({"references": shuffled}, text).value == score.value


@given(texts)
def test_a_text_equals_itself(text: str) -> None:
    assume(rouge_tokens(text))
    assert ROUGE.score({"references": ["other", text]}, text).value == 1


def test_references_and_texts_without_tokens() -> None:
    assert ROUGE.score({"references": [" ", ""]}, "a").outcome == "error"
    score = ROUGE.score({"references": ["!", "a"]}, "a")
    assert (score.value, score.details["best"]) == (1, 1)
    assert ROUGE.score({"references": ["a"]}, "…").outcome == "no_answer"
    assert ROUGE.score({"references": 5}, "a").outcome == "error"


def test_more_distinct_words_than_16_bits() -> None:
    many = " ".join(f"w{i}" for i in range(70_000))  # past U+D800: surrogates are letters like others here
    assert ROUGE.score({"references": [many]}, "w0 w55296 w69999").details["tokens"] == 3
    assert ROUGE.score({"references": [many]}, "w0 w55296 w69999").value == pytest.approx(6 / 70_003)


def test_harmonic_mean_of_bleu_and_rouge() -> None:
    row, text = {"references": ["the cat sat on the mat", "a dog"]}, "<answer>the cat lay on a mat</answer>"
    bleu, rouge = rewards.load("bleu").score(row, text).value, ROUGE.score(row, text).value
    score = BOTH.score(row, text)
    assert score.value == pytest.approx(2 / (1 / bleu + 1 / rouge))
    assert (score.details["bleu"]["value"], score.details["rouge_l"]["value"]) == (bleu, rouge)
    strict = rewards.load("bleu_rouge_f1", variant="sacrebleu")
    assert strict.score({"references": ["a b"]}, "c d").value == 0
    assert BOTH.score(row, "").outcome == "no_answer"
