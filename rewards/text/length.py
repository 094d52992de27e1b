"""Reward `length`: a function of the text's length in characters, words or tokens.

    python -m rewards score --reward length --param shape=overlong --param unit=tokens --param high=4096 …

Shapes, where x is the length:
  band      1 from `low` to `high`, falling linearly to 0 at `margin` outside
  overlong  0 up to high - margin, falling linearly to -1 at `high`, then -1: DAPO's soft overlong
            punishment (arXiv 2503.14476) with L_max = high and L_cache = margin
  linear    linear from `start` at `low` to `end` at `high`, constant outside
  cosine    from `start` to `end` along half a cosine wave (arXiv 2502.03373, CosFn with low = 0)
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rewards.base import Row, Score, error
from rewards.text.base import TextReward


class Length(TextReward):
    """A function of the text's length. Details: length, unit.

    shape, low, high, margin, start, end: see above. unit: "words" are separated by white space; "tokens" is the
    row's meta.tokens, the count for the whole completion including tags.
    """

    shape: Literal["band", "overlong", "linear", "cosine"] = "band"
    unit: Literal["characters", "words", "tokens"] = "words"
    low: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    high: Annotated[int, Field(ge=1, le=1 << 40)] = 512
    margin: Annotated[int, Field(ge=0, le=1 << 40)] = 128
    start: float = 0.0
    end: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def grade_text(self, row: Row, text: str) -> Score:
        if self.unit == "tokens":
            meta = row.get("meta")
            length = meta.get("tokens") if isinstance(meta, dict) else None
            if not isinstance(length, int) or isinstance(length, bool) or length < 0:
                return error(f"the row's meta.tokens must be a count, got {str(length)[:80]}: use another unit")
        else:
            length = len(text if self.unit == "characters" else text.split())
        return Score(self.fit(length), "scored", {"length": length, "unit": self.unit})

    def fit(self, x: int) -> float:
        """The value of length x."""
        if self.shape == "overlong":
            return -_share(x, self.high - self.margin, self.high)
        if self.shape == "band":
            outside = _share(-x, -self.low, self.margin - self.low), _share(x, self.high, self.high + self.margin)
            return 1.0 - max(outside)
        share = _share(x, self.low, self.high)
        if self.shape == "linear":
            return self.start + (self.end - self.start) * share
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * share))


def _share(x: float, low: float, high: float) -> float:
    """Position of x between low (0) and high (1); if both are equal, a step from 0 to 1 above `high`."""
    return float(x > high) if low >= high else min(1.0, max(0.0, (x - low) / (high - low)))
