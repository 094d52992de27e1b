"""Reward `bleu`: BLEU of a completion against `row["references"]`, from 0 to 1.

    python -m rewards score --reward bleu --param variant=nmt --input rows.jsonl --output scored.jsonl

Variants, all on 13a tokens with orders 1 to 4 and counts clipped by the largest count in one reference:
  nmt                  what BLEUBERI ran: evaluate's bleu with smooth=True, i.e. compute_bleu of tensorflow/nmt
                       (nmt/scripts/bleu.py): one is added to both counts of every order, the reference length
                       is the shortest
  sacrebleu            sacrebleu.BLEU().sentence_score: an order without a match counts half of the order
                       before it that had none, the reference length is the one closest to the text's
  sacrebleu-effective  the same with effective_order=True, which is what sacrebleu.sentence_bleu does: orders
                       that the text is too short for are left out

References without a token are left out (details: empty_references); the originals fail on some of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Score
from rewards.params import RewardParams
from rewards.text.checks import AnswerTags
from rewards.text.ngrams import ReferenceTable
from rewards.text.references import ReferenceReward, References
from rewards.text.tokenise import tokens_13a

_NO_LOGARITHM = -9999999999.0  # sacrebleu's log(0)


class BleuParams(RewardParams):
    """variant: see above. lowercase: compare lower-cased texts. reference_length: which reference's length the
    brevity penalty uses ("variant": the variant's own; "closest" takes the shorter of two that are as close).
    brevity_penalty: False leaves it out. max_order: longest n-grams. thinking, answer_tags: see text.part_of.
    cache: sets of references kept tabled.
    """

    variant: Literal["nmt", "sacrebleu", "sacrebleu-effective"] = "nmt"
    lowercase: bool = False
    reference_length: Literal["variant", "shortest", "closest"] = "variant"
    brevity_penalty: bool = True
    max_order: Annotated[int, Field(ge=1, le=16)] = 4
    thinking: str = "none"
    answer_tags: AnswerTags = "first"
    cache: Annotated[int, Field(ge=0, le=1 << 20)] = 128


class Bleu(ReferenceReward[ReferenceTable]):
    """BLEU of the text against the row's references, from 0 to 1.

    Details: tokens and reference_tokens (the lengths that the brevity penalty compares), brevity_penalty.
    A text without tokens has value 0, outcome "no_answer"."""

    Params = BleuParams
    params: BleuParams

    def __init__(self, name: str, params: BleuParams) -> None:
        super().__init__(name, params)
        self._shortest = params.reference_length == "shortest" or (
            params.reference_length == "variant" and params.variant == "nmt"
        )

    def table(self, references: References) -> ReferenceTable | None:
        tokens = [self._tokens(reference) for reference in references]
        return ReferenceTable(tokens, self.params.max_order) if any(tokens) else None

    def compare(self, table: ReferenceTable, texts: Sequence[str]) -> list[Score]:
        tokens = [self._tokens(text) for text in texts]
        return [
            self._score(table.lengths, len(words), matched)
            for words, matched in zip(tokens, table.matches(tokens), strict=True)
        ]

    def _tokens(self, text: str) -> list[str]:
        if self.params.lowercase:
            text = text.lower()
        if self.params.variant != "nmt":
            text = text.rstrip()  # sacrebleu does so first, and 13a then keeps a dash that stood before a newline
        return tokens_13a(text)

    def _score(self, lengths: Sequence[int], length: int, matched: Sequence[int]) -> Score:
        filled = [one for one in lengths if one]
        details: dict[str, Any] = {}
        if len(filled) < len(lengths):
            details["empty_references"] = len(lengths) - len(filled)
        if not length:
            return Score(0.0, "no_answer", {**details, "problem": "the text has no token, BLEU is not defined"})
        target = min(filled) if self._shortest else min(filled, key=lambda one: (abs(one - length), one))
        penalty = self._penalty(length, target) if self.params.brevity_penalty else 1.0
        details |= {"tokens": length, "reference_tokens": target, "brevity_penalty": penalty}
        if self.params.variant == "nmt":
            return Score(nmt_bleu(matched, length, penalty), "scored", details)
        effective = self.params.variant == "sacrebleu-effective"
        return Score(sacrebleu_bleu(matched, length, penalty, effective), "scored", details)

    def _penalty(self, length: int, target: int) -> float:
        """exp(1 - target/length), 1 for texts that are as long; each variant rounds as its original does."""
        if self.params.variant == "nmt":
            ratio = length / target
            return 1.0 if ratio > 1.0 else math.exp(1 - 1.0 / ratio)
        return math.exp(1 - target / length) if length < target else 1.0


def nmt_bleu(matched: Sequence[int], length: int, penalty: float) -> float:
    """Geometric mean of (matches + 1) / (n-grams + 1) over the orders, for a text of `length` tokens."""
    weight = 1.0 / len(matched)
    precisions = ((found + 1.0) / (max(length - n, 0) + 1.0) for n, found in enumerate(matched))
    return math.exp(sum(weight * math.log(precision) for precision in precisions)) * penalty


def sacrebleu_bleu(matched: Sequence[int], length: int, penalty: float, effective: bool) -> float:
    """Geometric mean of precisions with "exp" smoothing (BLEU.compute_bleu in sacrebleu/metrics/bleu.py).

    0 if nothing matches. Reckoned in per cent and in sacrebleu's order, so that the float is the same; rounding
    may lift it above 1 by 1e-15, as it lifts sacrebleu's above 100.
    """
    if not any(matched):
        return 0.0
    smooth, logarithms = 1.0, []
    for n, found in enumerate(matched[:length]):
        total = length - n
        if not found:
            smooth *= 2
        logarithms.append(math.log(100.0 * found / total if found else 100.0 / (smooth * total)))
    orders = len(logarithms) if effective else len(matched)
    logarithms += [_NO_LOGARITHM] * (orders - len(logarithms))
    return penalty * math.exp(sum(logarithms) / orders) / 100
