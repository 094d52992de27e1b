"""Public faults of text metrics, each with its smallest case and what holds here."""

from __future__ import annotations

import pytest

import rewards

ALIKE = {
    "Chinese (sacrebleu #181)": "今天天气很好，我们去公园散步吧。",
    "Japanese (sacrebleu #171)": "今日は とても いい 天気 です。",
    "Hindi (evaluate #256)": "आज मौसम बहुत अच्छा है, चलो टहलने चलते हैं।",
    "one word": "yes",
}


@pytest.mark.parametrize("text", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("variant", ["nmt", "sacrebleu-effective"])
def test_a_text_that_is_its_reference_scores_1_in_any_script(text: str, variant: str) -> None:
    score = rewards.load("bleu", variant=variant).score({"references": [text]}, text)
    assert (score.value, score.outcome) == (pytest.approx(1.0), "scored")


def test_rouge_knows_latin_words_only_and_never_scores_another_script_0() -> None:
    """evaluate #256, #465: rouge-score's tokens are a-z and 0-9. Without any, nothing can be compared: an error."""
    score = rewards.load("rouge_l").score({"references": [ALIKE["Hindi (evaluate #256)"]]}, "ठीक है")
    assert score.outcome == "error"


def test_references_are_each_row_s_own_whatever_their_number() -> None:
    """sacrebleu #275, #272: [[a], [b], [c]] read as one row's three references."""
    rows = [{"references": ["a b c d"]}, {"references": ["w x y z", "e f g h"]}, {"references": ["i j k l"]}]
    values = [score.value for score in rewards.load("bleu").score_many(rows, ["a b c d", "a b c d", "a b c d"])]
    assert values[0] == 1
    assert values[1] == values[2] < 0.5


def test_a_prefix_never_beats_the_whole() -> None:
    """promptfoo #9717: an inverted brevity penalty rewarded 5 of 7 tokens."""
    words = ["the", "cat", "sat", "on", "the", "old", "mat"]
    values = [
        rewards.load("bleu").score({"references": [" ".join(words)]}, " ".join(words[:n])).value for n in range(1, 8)
    ]
    assert values == sorted(values)
    assert values[-1] == 1


@pytest.mark.parametrize("text", ["", " ", "\x0c", "\n\n"])
def test_a_text_without_a_token_is_no_answer(text: str) -> None:
    """evaluate #601: division by zero."""
    score = rewards.load("bleu").score({"references": ["a reference"]}, text)
    assert (score.value, score.outcome) == (0.0, "no_answer")
