"""Reward `rouge_l`: ROUGE-L F1 of a completion against `row["references"]`, from 0 to 1.

    python -m rewards score --reward rouge_l --input rows.jsonl --output scored.jsonl

Equal to the largest rougeL F-measure over the references of rouge-score (use_stemmer=False), which is what
evaluate's rouge gives for one sample and BLEUBERI used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

from rapidfuzz.distance import LCSseq

from rewards.base import Score
from rewards.text.references import ReferenceParams, ReferenceReward, References
from rewards.text.tokenise import rouge_tokens

_CHARACTERS = 0x110000


class Encoded(NamedTuple):
    """References with each token encoded as one character: LCSseq is fastest on str, and exact."""

    letters: dict[str, str]
    references: tuple[str, ...]


class RougeL(ReferenceReward[Encoded]):
    """ROUGE-L F1 of the text against the reference that it is closest to, from 0 to 1.

    Details: tokens, and best, the index of the reference that gave the value.
    A text without tokens has value 0, outcome "no_answer"; a reference without tokens gives 0."""

    Params = ReferenceParams
    params: ReferenceParams

    def table(self, references: References) -> Encoded | None:
        tokens = [rouge_tokens(reference) for reference in references]
        words = dict.fromkeys(word for reference in tokens for word in reference)
        if not words or len(words) > _CHARACTERS:
            return None
        letters = dict(zip(words, map(chr, range(len(words))), strict=True))
        return Encoded(letters, tuple("".join(map(letters.__getitem__, reference)) for reference in tokens))

    def compare(self, table: Encoded, texts: Sequence[str]) -> list[Score]:
        return [_score(table, rouge_tokens(text)) for text in texts]


def _score(table: Encoded, tokens: Sequence[str]) -> Score:
    if not tokens:
        return Score(0.0, "no_answer", {"problem": "the text has no token, ROUGE-L is not defined"})
    known = "".join(map(table.letters.get, tokens, repeat("")))  # the others are in no common subsequence
    values = [_f1(LCSseq.similarity(known, reference), len(tokens), len(reference)) for reference in table.references]
    best = max(values)
    return Score(best, "scored", {"tokens": len(tokens), "best": values.index(best)})


def _f1(common: int, length: int, target: int) -> float:
    """Harmonic mean of common/length and common/target, rounded as rouge-score rounds it."""
    if not common:
        return 0.0
    precision, recall = common / length, common / target
    return 2 * precision * recall / (precision + recall)
