"""Public bug reports about text metrics, each with a minimal case and the behaviour here."""

from __future__ import annotations

import unicodedata

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

import rewards
from tests.rewards import plain_scores

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


UNUSUAL = {  # text, references
    "an empty reference among others": ("the cat sat on the mat", ["", "the cat sat on a mat"]),
    "punctuation": ("... !!! ???", ["... !!! ???"]),
    "Chinese with Latin words": ("使用 Python 3.11 编写代码", ["使用 Python 3.12 编写程序"]),
    "emoji": ("good job 👍🏽 👨\u200d👩\u200d👧 🎉", ["good job 👍🏽 👨\u200d👩\u200d👧 party"]),
    "decomposed accents": (unicodedata.normalize("NFD", "café déjà vu naïve"), ["café déjà vu naïve"]),
    "equal references": ("a b c d e f", ["a b c x e f"] * 3),
    "a long text": (" ".join(f"w{n % 97} the" for n in range(3000)), [" ".join(f"w{n % 89} the" for n in range(2500))]),
    "numbers": (
        "It costs $1,234.56 (approx. 3.5%) on 2024-01-02.",
        ["It costs $1,234.56 (approx. 3.5 %) on 2024-01-02"],
    ),
    "entities": ("a &amp; b &lt; c &quot;d&quot; e", ['a & b < c "d" e']),
    "hyphens at line ends": ("state-\nof-the-art re-\nsult here", ["state-of-the-art result here"]),
    "spaces of other kinds": ("a\u00a0b\u2009c\td\u2028e\r\nf", ["a b c d e f"]),
    "zero-width spaces": ("a\u200bb c d e f", ["ab c d e f"]),
    "dotted capital I": ("İstanbul ve Iğdır çok güzel", ["istanbul ve ığdır çok güzel"]),
    "formulas": (r"$\frac{1}{2} + x^2$ so $x=\sqrt{2.5}$", [r"$\frac{1}{2}+x^2$ so $x = \sqrt{2.5}$"]),
    "right to left": ("مرحبا بالعالم كيف حالك اليوم", ["مرحبا يا عالم كيف حالك اليوم"]),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_texts_score_as_in_the_libraries(name: str) -> None:
    text, references = UNUSUAL[name]
    nonempty = [reference for reference in references if reference]

    def value(reward: str, **params: object) -> float:
        return rewards.load(reward, **params).score({"references": references}, text).value

    assert value("bleu") == pytest.approx(plain_scores.nmt_bleu(text, nonempty))
    assert value("bleu", variant="sacrebleu") == pytest.approx(BLEU().sentence_score(text, nonempty).score / 100)
    assert value("chrf", word_order=2) == pytest.approx(CHRF(word_order=2).sentence_score(text, nonempty).score / 100)
    if any("a" <= letter <= "z" for letter in "".join(references).lower()):
        assert value("rouge_l") == pytest.approx(plain_scores.rouge_l(text, nonempty))


@pytest.mark.parametrize(
    ("reference", "text", "value"),
    [
        ("नमस्ते दुनिया", "नमस्ते दुनिया", 1.0),
        ("नमस्ते दुनिया", "नमक", 0.0),  # the same first letters
        ("می\u200cخواهم بروم", "بروم", 0.5),
        ("مَرحَبا بكم", "مَرحَبا", 0.5),
        ("café déjà", unicodedata.normalize("NFD", "café"), 0.5),
        ("使用Python", "使 用 python", 1.0),
    ],
)
def test_words_keep_their_combining_marks(reference: str, text: str, value: float) -> None:
    assert rewards.load("keywords", phrase=1).score({"references": [reference]}, text).value == pytest.approx(value)
