"""Train and validation rows by prompt: two steps of one seed that differ in `part` share no prompt.

- split: {name: train, inputs: [score], validation: 0.05, part: train, seed: 1}
- split: {name: validation, inputs: [score], validation: 0.05, part: validation, seed: 1}

validation: a share of the prompts. All rows of a prompt are on one side, and so are prompts that differ in case and
spacing only, whatever their ids are. Rows of the other part are counted as drops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.text.normalise import text_hash


class SplitParams(Params):
    """Which part of the prompts, and the share that is for validation."""

    validation: float = Field(gt=0, lt=1)
    part: Literal["train", "validation"]
    seed: int = 0


class Split(Step[SplitParams]):
    """All rows in, those of one part out; the others are drops."""

    kind = "split"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in their order."""
        for row in rows:
            text = f"{self.params.seed}:".encode() + text_hash(row, ("prompt",))
            rank = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")  # a prompt's place in a shuffle
            part = "validation" if rank < int(self.params.validation * 2**64) else "train"
            yield row if part == self.params.part else Drop(f"of the {part} part", row["id"])
