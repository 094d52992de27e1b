"""Reward `bleu_rouge_f1`: the harmonic mean of `bleu` and `rouge_l`, 0 if both are 0.

    python -m rewards score --reward bleu_rouge_f1 --input rows.jsonl --output scored.jsonl

One of the rewards of BLEUBERI (training/dataset.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rewards.base import Score
from rewards.text.bleu import Bleu, BleuParams
from rewards.text.ngrams import ReferenceTable
from rewards.text.references import ReferenceParams, ReferenceReward, References
from rewards.text.rouge import Encoded, RougeL


class Both(NamedTuple):
    bleu: ReferenceTable
    rouge: Encoded | None  # None: references of other scripts have no ROUGE token


class BleuRougeF1(ReferenceReward[Both]):
    """Harmonic mean of `bleu` and `rouge_l`. Takes the parameters of `bleu`.

    Details: those of both under `bleu` and `rouge_l`, with their values."""

    Params = BleuParams
    params: BleuParams

    def __init__(self, name: str, params: BleuParams) -> None:
        super().__init__(name, params)
        self._bleu, self._rouge = Bleu("bleu", params), RougeL("rouge_l", ReferenceParams(cache=0))

    def table(self, references: References) -> Both | None:
        bleu = self._bleu.table(references)
        return None if bleu is None else Both(bleu, self._rouge.table(references))

    def compare(self, table: Both, texts: Sequence[str]) -> list[Score]:
        if table.rouge is None:
            rouge = [Score(0.0, "scored", {"problem": "no reference has a token of a-z or 0-9"}) for _ in texts]
        else:
            rouge = self._rouge.compare(table.rouge, texts)
        return list(map(_mean, self._bleu.compare(table.bleu, texts), rouge))


def _mean(bleu: Score, rouge: Score) -> Score:
    total = bleu.value + rouge.value
    details = {name: {"value": part.value, **part.details} for name, part in (("bleu", bleu), ("rouge_l", rouge))}
    return Score(2 * bleu.value * rouge.value / total if total else 0.0, bleu.outcome, details)
