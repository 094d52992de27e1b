"""Train and validation rows by prompt: two steps of one seed that differ in `part` share no prompt.

- split: {name: train, inputs: [score], validation: 0.05, part: train, seed: 1}
- split: {name: validation, inputs: [score], validation: 0.05, part: validation, seed: 1}

validation: a share of the prompts (below 1), or how many prompts. All rows of a prompt are on one side, and so are
prompts that differ in case and spacing only, whatever their ids are. Rows of the other part are counted as drops;
those of validation lie in `validation.jsonl` in the directory of the train part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from heapq import nsmallest
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from data_prep.core.files import whole_file
from data_prep.core.rows import encode
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.text.normalise import text_hash

HELD_OUT = "validation.jsonl"


class SplitParams(Params):
    """Which part of the prompts, and how many are for validation."""

    validation: float = Field(gt=0)
    part: Literal["train", "validation"]
    seed: int = 0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.validation >= 1 and not self.validation.is_integer():
            raise ValueError(f"validation: a share below 1 or a number of prompts, got {self.validation:g}")
        return self


class Split(Step[SplitParams]):
    """All rows in, those of one part out; the others are drops."""

    kind = "split"
    scope = "whole"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in their order. Raises DataError where a part would be empty."""
        given = self.params
        limit = int(given.validation * 2**64)
        if given.validation >= 1:
            count = int(given.validation)
            ranks = {self._rank(row) for row in rows}
            if len(ranks) <= count:
                raise DataError(f"validation: {count:,} prompts of {len(ranks):,} leave none for training")
            limit = nsmallest(count, ranks)[-1] + 1
        other = "train" if given.part == "validation" else "validation"
        with whole_file(ctx.dir / HELD_OUT) if other == "validation" else nullcontext() as held_out:
            for row in rows:
                if ("validation" if self._rank(row) < limit else "train") == given.part:
                    yield row
                    continue
                if held_out and isinstance(line := encode(row), bytes):
                    held_out.write(line)
                yield Drop(f"of the {other} part", row["id"])

    def _rank(self, row: Row) -> int:
        """A prompt's place in a shuffle, below 2**64."""
        text = f"{self.params.seed}:".encode() + text_hash(row, ("prompt",))
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
