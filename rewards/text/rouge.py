"""Rewards `rouge_l`, ROUGE-L F1 of a completion against `row["references"]`, from 0 to 1, and `bleu_rouge_f1`, the
harmonic mean of `bleu` and `rouge_l`.

    python -m rewards score --reward rouge_l --input rows.jsonl --output scored.jsonl

ROUGE-L is the largest rougeL F-measure over the references of rouge-score (use_stemmer=False), which is what
evaluate's rouge gives for one sample. Its tokens are runs of a-z and 0-9; where no reference has any ("не знаю"), it
would give 0 to every text, and words and marks of any script are compared instead. Both are rewards of BLEUBERI
(training/dataset.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from rapidfuzz.distance import LCSseq

from rewards.base import Score
from rewards.text.base import ReferenceReward, References
from rewards.text.bleu import Bleu
from rewards.text.tokenise import rouge_tokens, tokens_of_any_script

_CHARACTERS = 0x110000


class Encoded(NamedTuple):
    """References with each token encoded as one character: LCSseq is fastest on str, and exact."""

    tokens: Callable[[str], list[str]]
    letters: dict[str, str]
    references: tuple[str, ...]


class RougeL(ReferenceReward):
    """ROUGE-L F1 of the text against the reference that it is closest to, from 0 to 1.

    Details: tokens, and best, the index of the reference that gave the value.
    A text without tokens has value 0, outcome "no_answer"; a reference without tokens gives 0."""

    def table(self, references: References) -> Encoded | None:
        tokens_of = rouge_tokens if any(map(rouge_tokens, references)) else tokens_of_any_script
        tokens = [tokens_of(reference) for reference in references]
        words = dict.fromkeys(word for reference in tokens for word in reference)
        if not words or len(words) > _CHARACTERS:
            return None
        letters = dict(zip(words, map(chr, range(len(words))), strict=True))
        return Encoded(tokens_of, letters, tuple("".join(map(letters.__getitem__, reference)) for reference in tokens))

    def against(self, table: Encoded, text: str) -> Score:
        tokens = table.tokens(text)
        if not tokens:
            return Score(0.0, "no_answer", {"problem": "the text has no token, ROUGE-L is not defined"})
        known = "".join(map(table.letters.get, tokens, repeat("")))  # the others are in no common subsequence
        common = [LCSseq.similarity(known, reference) for reference in table.references]
        pairs = zip(common, map(len, table.references), strict=True)  # rounded as rouge-score rounds it
        values = [_harmonic(same / len(tokens), same / length) if same else 0.0 for same, length in pairs]
        best = max(values)
        return Score(best, "scored", {"tokens": len(tokens), "best": values.index(best)})


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


_ROUGE = RougeL()


class BleuRougeF1(Bleu):
    """Harmonic mean of `bleu` and `rouge_l`, 0 if both are 0. Takes the parameters of `bleu`.

    Details: those of both under `bleu` and `rouge_l`, with their values."""

    def table(self, references: References) -> Any:
        """BLEU's and ROUGE's."""
        bleu, rouge = super().table(references), _ROUGE.table(references)
        return None if bleu is None or rouge is None else (bleu, rouge)

    def compare(self, table: Any, texts: Sequence[str]) -> list[Score]:
        bleu, rouge = table
        return list(map(_mean, super().compare(bleu, texts), _ROUGE.compare(rouge, texts)))


def _mean(bleu: Score, rouge: Score) -> Score:
    details = {name: {"value": part.value, **part.details} for name, part in (("bleu", bleu), ("rouge_l", rouge))}
    return Score(_harmonic(bleu.value, rouge.value), bleu.outcome, details)
