"""Public bug reports about text metrics, each with a minimal case and the behaviour here."""

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
def test_a_text_equal_to_its_reference_scores_1_in_any_script(text: str, variant: str) -> None:
    score = rewards.load("bleu", variant=variant).score({"references": [text]}, text)
    assert (score.value, score.outcome) == (pytest.approx(1.0), "scored")


@pytest.mark.parametrize("name", ["rouge_l", "bleu_rouge_f1", "keywords"])
@pytest.mark.parametrize(
    "text", [*ALIKE.values(), "Yes", "No", "A", "Both", "It can be either.", "не знаю", "你好，世界。"]
)
def test_every_reference_with_words_is_compared(name: str, text: str) -> None:
    """evaluate #256, #465: rouge-score's tokens are a-z and 0-9, and another script scores 0. No stop word is a key."""
    reward, other = rewards.load(name), "Οι γάτες κοιμούνται"
    for references in ([text], [text, "!"]):
        same, far = reward.score_many([{"references": references}] * 2, [text, other])
        assert (same.value, same.outcome) == (pytest.approx(1), "scored")
        assert (far.outcome, far.value < 0.5) in (("scored", True), ("no_answer", True))


@pytest.mark.parametrize("name", ["rouge_l", "bleu_rouge_f1", "keywords"])
def test_a_reference_of_punctuation_only_is_not_an_error(name: str) -> None:
    assert rewards.load(name).score({"references": ["🙂"]}, "Fine.").outcome == "scored"


def test_keywords_f1_penalises_every_other_word_for_stop_word_references() -> None:
    reward = rewards.load("keywords", measure="f1")
    assert reward.score({"references": ["Yes."]}, "Yes").value == 1
    assert reward.score({"references": ["Yes."]}, "Yes, no, both").value == pytest.approx(1 / 2)  # precision 1/3


def test_references_belong_to_their_row() -> None:
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
