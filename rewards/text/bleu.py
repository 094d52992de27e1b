"""Reward `bleu`: BLEU of a completion against `row["references"]`, from 0 to 1.

    python -m rewards score --reward bleu --param variant=nmt --input rows.jsonl --output scored.jsonl

Variants, all on 13a tokens with orders 1 to 4 and counts clipped by the largest count in one reference:
  nmt                  BLEUBERI's variant: evaluate's bleu with smooth=True, i.e. compute_bleu of tensorflow/nmt
                       (nmt/scripts/bleu.py): one is added to both counts of every order, and the shortest
                       reference length is used
  sacrebleu            sacrebleu.BLEU().sentence_score: an order without a match counts half of the previous
                       order without one, and the closest reference length is used
  sacrebleu-effective  the same with effective_order=True, which is what sacrebleu.sentence_bleu does: orders
                       longer than the text are skipped

References without a token are ignored (details: empty_references); the originals fail on some of them.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Score
from rewards.text.base import ReferenceReward, References
from rewards.text.ngrams import ReferenceTable
from rewards.text.tokenise import tokens_13a


class Bleu(ReferenceReward):
    """BLEU of the text against the row's references, from 0 to 1.

    Details: tokens and reference_tokens (the lengths in the brevity penalty), brevity_penalty.
    A text without tokens has value 0, outcome "no_answer".

    variant: see above. lowercase: compare lower-cased texts. reference_length: the reference length of the
    brevity penalty ("variant": the variant's own; "closest": the shorter one in a tie).
    brevity_penalty: False disables it. max_order: maximum n-gram order.
    """

    variant: Literal["nmt", "sacrebleu", "sacrebleu-effective"] = "nmt"
    lowercase: bool = False
    reference_length: Literal["variant", "shortest", "closest"] = "variant"
    brevity_penalty: bool = True
    max_order: Annotated[int, Field(ge=1, le=16)] = 4

    def table(self, references: References) -> ReferenceTable | None:
        tokens = [self._tokens(reference) for reference in references]
        return ReferenceTable(tokens, self.max_order) if any(tokens) else None

    def compare(self, table: ReferenceTable, texts: Sequence[str]) -> list[Score]:
        tokens = [self._tokens(text) for text in texts]
        matches = table.matches(tokens)
        return [self._score(table.lengths, len(words), matched) for words, matched in zip(tokens, matches, strict=True)]

    def _tokens(self, text: str) -> list[str]:
        if self.lowercase:
            text = text.lower()
        if self.variant != "nmt":
            text = text.rstrip()  # as sacrebleu does; 13a then keeps a dash before a newline
        return tokens_13a(text)

    def _score(self, lengths: Sequence[int], length: int, matched: Sequence[int]) -> Score:
        """lengths: of the references. length: of the text. matched: n-grams of each order."""
        filled = [other for other in lengths if other]
        details: dict[str, Any] = {}
        if len(filled) < len(lengths):
            details["empty_references"] = len(lengths) - len(filled)
        if not length:
            return Score(0.0, "no_answer", {**details, "problem": "the text has no token: BLEU is undefined"})
        shortest = self.reference_length == "shortest" or (self.reference_length == "variant" and self.variant == "nmt")
        target = min(filled) if shortest else min(filled, key=lambda other: (abs(other - length), other))
        penalty = 1.0
        if self.brevity_penalty and length <= target:  # each variant rounds like its original
            penalty = math.exp(1 - 1.0 / (length / target) if self.variant == "nmt" else 1 - target / length)
        details |= {"tokens": length, "reference_tokens": target, "brevity_penalty": penalty}
        if self.variant == "nmt":
            return Score(nmt_bleu(matched, length, penalty), "scored", details)
        from sacrebleu.metrics.bleu import BLEU  # not needed for variant nmt

        totals, effective = [max(length - n, 0) for n in range(self.max_order)], self.variant == "sacrebleu-effective"
        bleu = BLEU.compute_bleu(list(matched), totals, length, length, "exp", None, effective, self.max_order)
        return Score(penalty * bleu.score / 100, "scored", details)


def nmt_bleu(matched: Sequence[int], length: int, penalty: float) -> float:
    """Geometric mean of (matches + 1) / (n-grams + 1) over the orders, for a text of `length` tokens."""
    weight = 1.0 / len(matched)
    precisions = ((matches + 1.0) / (max(length - n, 0) + 1.0) for n, matches in enumerate(matched))
    return math.exp(sum(weight * math.log(precision) for precision in precisions)) * penalty
