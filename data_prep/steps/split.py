"""Train/validation split by prompt: two steps with the same seed and different `part` share no prompt.

- split: {name: train, inputs: [score], validation: 0.05, part: train, seed: 1}
- split: {name: validation, inputs: [score], validation: 0.05, part: validation, seed: 1}

validation: a share of the prompts. All rows of a prompt are in the same part, as are prompts that differ only in case
and spacing, whatever their ids. Rows of the other part are counted as drops.
"""

import hashlib
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.text.normalise import text_hash


class SplitParams(Params):
    """The part to keep, and the share of validation prompts."""

    validation: float = Field(gt=0, lt=1)
    part: Literal["train", "validation"]
    seed: int = 0


class Split(Step[SplitParams]):
    """Keeps the rows of one part; drops the others."""

    kind = "split"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in input order."""
        for row in rows:
            text = f"{self.params.seed}:".encode() + text_hash(row, ("prompt",))
            rank = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")  # the prompt's shuffle rank
            part = "validation" if rank < int(self.params.validation * 2**64) else "train"
            yield row if part == self.params.part else Drop(f"of the {part} part", row["id"])
