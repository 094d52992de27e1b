"""Rewards `rouge_l`, ROUGE-L F1 of a completion against `row["references"]`, from 0 to 1, and `bleu_rouge_f1`, the
harmonic mean of `bleu` and `rouge_l`.

    python -m rewards score --reward rouge_l --input rows.jsonl --output scored.jsonl

ROUGE-L is the largest rougeL F-measure over the references of rouge-score (use_stemmer=False), which is what
evaluate's rouge gives for one sample. Both are rewards of BLEUBERI (training/dataset.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

from rapidfuzz.distance import LCSseq

from rewards.base import Score
from rewards.text.base import ReferenceReward, References
from rewards.text.bleu import Bleu
from rewards.text.tokenise import rouge_tokens

_CHARACTERS = 0x110000


class Encoded(NamedTuple):
    """References with each token encoded as one character: LCSseq is fastest on str, and exact."""

    letters: dict[str, str]
    references: tuple[str, ...]


class RougeL(ReferenceReward):
    """ROUGE-L F1 of the text against the reference that it is closest to, from 0 to 1.

    Details: tokens, and best, the index of the reference that gave the value.
    A text without tokens has value 0, outcome "no_answer"; a reference without tokens gives 0."""

    def table(self, references: References) -> Encoded | None:
        tokens = [rouge_tokens(reference) for reference in references]
        words = dict.fromkeys(word for reference in tokens for word in reference)
        if not words or len(words) > _CHARACTERS:
            return None
        letters = dict(zip(words, map(chr, range(len(words))), strict=True))
        return Encoded(letters, tuple("".join(map(letters.__getitem__, reference)) for reference in tokens))

    def against(self, table: Encoded, text: str) -> Score:
        tokens = rouge_tokens(text)
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
        """BLEU's, and ROUGE's or None: references of other scripts have no ROUGE token."""
        bleu = super().table(references)
        return None if bleu is None else (bleu, _ROUGE.table(references))

    def compare(self, table: Any, texts: Sequence[str]) -> list[Score]:
        bleu, rouge = table
        without = Score(0.0, "scored", {"problem": "no reference has a token of a-z or 0-9"})
        of_rouge = [without] * len(texts) if rouge is None else _ROUGE.compare(rouge, texts)
        return list(map(_mean, super().compare(bleu, texts), of_rouge))


def _mean(bleu: Score, rouge: Score) -> Score:
    details = {name: {"value": part.value, **part.details} for name, part in (("bleu", bleu), ("rouge_l", rouge))}
    return Score(_harmonic(bleu.value, rouge.value), bleu.outcome, details)
