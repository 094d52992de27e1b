"""Reward `chrf`: chrF of a completion against `row["references"]`, from 0 to 1, as sacrebleu computes it.

    python -m rewards score --reward chrf --input rows.jsonl --output scored.jsonl

The F-score of character n-grams (Popović 2015, W15-3049; with word_order 2 chrF++, W17-4770) against the best
reference. White space is ignored, so languages without spaces need no tokenisation.
"""

from functools import cached_property
from typing import Annotated

from pydantic import Field
from sacrebleu.metrics.chrf import CHRF

from rewards.base import Score
from rewards.text.base import ReferenceReward, References


class Chrf(ReferenceReward):
    """chrF of the text against the closest reference, from 0 to 1.

    A blank text has value 0, outcome "no_answer"; blank references are ignored.

    char_order, word_order: maximum n-gram orders for characters and words. beta: weight of recall over precision.
    """

    char_order: Annotated[int, Field(ge=1, le=16)] = 6
    word_order: Annotated[int, Field(ge=0, le=4)] = 0
    beta: Annotated[int, Field(ge=1, le=16)] = 2
    lowercase: bool = False

    @cached_property
    def _metric(self) -> CHRF:
        return CHRF(self.char_order, self.word_order, self.beta, self.lowercase)

    def table(self, references: References) -> list[str] | None:
        return [reference for reference in references if reference.strip()] or None

    def against(self, table: list[str], text: str) -> Score:
        if not text:
            return Score(0.0, "no_answer", {"problem": "the text is blank"})
        return Score(self._metric.sentence_score(text, table).score / 100)
