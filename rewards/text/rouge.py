"""Reward `rouge_l`: ROUGE-L F1 of a completion against `row["references"]`, from 0 to 1.

    python -m rewards score --reward rouge_l --input rows.jsonl --output scored.jsonl

Equal to the largest rougeL F-measure over the references of rouge-score (use_stemmer=False), which is what
evaluate's rouge gives for one sample and BLEUBERI ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Annotated, NamedTuple

from pydantic import Field
from rapidfuzz.distance import LCSseq

from rewards.base import Score
from rewards.params import RewardParams
from rewards.text.checks import AnswerTags
from rewards.text.references import ReferenceReward, References
from rewards.text.tokenise import rouge_tokens

_CHARACTERS = 0x110000


class Spelt(NamedTuple):
    """References with each token spelt as one character: LCSseq is fastest on str, and exact."""

    letters: dict[str, str]
    references: tuple[str, ...]


class RougeParams(RewardParams):
    """thinking, answer_tags: see text.part_of. cache: sets of references kept tokenised."""

    thinking: str = "none"
    answer_tags: AnswerTags = "first"
    cache: Annotated[int, Field(ge=0, le=1 << 20)] = 128


class RougeL(ReferenceReward[Spelt]):
    """ROUGE-L F1 of the text against the reference that it is closest to, from 0 to 1.

    Details: tokens, and best, the index of the reference that gave the value.
    A text without tokens has value 0, outcome "no_answer"; a reference without tokens gives 0."""

    Params = RougeParams
    params: RougeParams

    def table(self, references: References) -> Spelt | None:
        tokens = [rouge_tokens(reference) for reference in references]
        words = dict.fromkeys(word for reference in tokens for word in reference)
        if not words or len(words) > _CHARACTERS:
            return None
        letters = dict(zip(words, map(chr, range(len(words))), strict=True))
        return Spelt(letters, tuple("".join(map(letters.__getitem__, reference)) for reference in tokens))

    def compare(self, table: Spelt, texts: Sequence[str]) -> list[Score]:
        return [_score(table, rouge_tokens(text)) for text in texts]


def _score(table: Spelt, tokens: Sequence[str]) -> Score:
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
