"""Selects rows by outcome, score, level, label or pass rate, and up to a number per prompt or in total.

- select: {min_score: 1, outcome: scored, per_prompt: 4, order: shortest}
- select: {pass_rate: [0.2, 0.8]}
- select: {n: 1000, seed: 1}
- select: {n: 5000, take: lowest, by: score}      or middle, highest; by a field of meta: `by: meta.difficulty`

Filters are applied first, then pass_rate, per_prompt and n. The selection depends on the rows and the seed, not on the
input order; selected rows keep that order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data_prep.core.rows import prompt_of
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.core.validation import ONE_OR_MORE, Outcomes
from data_prep.sources.tasks import Scalar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower bound must come first: [{value[1]:g}, {value[0]:g}]")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Order = Literal["first", "shortest", "random"]


class SelectParams(Params):
    """All given conditions must hold; ranges are inclusive."""

    source: Annotated[tuple[str, ...], ONE_OR_MORE] = ()
    outcome: Outcomes = ()
    min_score: float | None = None
    level: Range | None = None  # range of meta.level
    between: dict[str, Range] = Field(default_factory=dict)  # meta field -> numeric range
    meta: dict[str, Annotated[tuple[Scalar, ...], ONE_OR_MORE]] = Field(default_factory=dict)  # allowed values
    pass_rate: Range | None = None  # range of the prompt's pass rate over all its rows
    pass_score: float = 1.0  # a sample passes with at least this score
    per_prompt: int | None = Field(None, ge=1)
    order: Order = "first"  # order within a prompt for per_prompt
    n: int | None = Field(None, ge=1)  # maximum number of rows
    take: Literal["random", "lowest", "middle", "highest"] = "random"  # which n rows, ordered by `by`
    by: str = Field("score", pattern=r"^(score|meta\.\w+)$")
    seed: int = 0

    @model_validator(mode="after")
    def _something(self) -> Self:
        idle = type(self).model_fields.keys() - {"order", "seed", "pass_score", "take", "by"}
        if all(getattr(self, name) in (None, (), {}) for name in idle):
            raise ValueError("no condition given: set at least one of " + ", ".join(sorted(idle)))
        if self.take != "random" and self.n is None:
            raise ValueError(f"take: {self.take} needs n")
        return self


class Select(Step[SelectParams]):
    """Keeps the selected rows unchanged; each other row is a drop with a reason."""

    kind = "select"
    scope = "whole"
    passes = True

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows that pass every stage, in input order."""
        import numpy as np

        table = self._table(rows)
        left = np.flatnonzero(table.refusal == 0)
        if self.params.pass_rate:
            low, high = self.params.pass_rate
            rates = table.rates(self.params.pass_score)[left]
            left = table.narrowed(left, left[(rates >= low) & (rates <= high)], "pass rate outside range")
        if self.params.per_prompt:
            left = table.narrowed(left, self._per_prompt(rows, table, left), "over per_prompt")
        if self.params.n:
            table.narrowed(left, self._taken(table, left, self.params.n), "not drawn")
        reasons = list(table.reasons)
        for row, refusal in zip(rows, table.refusal.tolist(), strict=True):
            reason = reasons[refusal]
            yield Drop(reason, str(row["id"]), bad=reason.startswith("missing")) if reason else row

    def _table(self, rows: Sequence[Row]) -> Table:
        given = self.params
        drawn = given.n or (given.per_prompt and given.order == "random")
        table = Table(len(rows))
        for index, row in enumerate(rows):
            if reason := self._refused(row):
                table.refuse(index, reason)
            if "score" in row:
                table.score[index] = row["score"]
            if given.take != "random":
                table.value[index] = _value(row, given.by)
            if drawn:
                table.rank[index] = number_of(f"{given.seed}:{row['id']}")
            if given.pass_rate or given.per_prompt:
                table.prompt[index] = number_of(prompt_of(row))
            if given.per_prompt:
                sample = row.get("meta", {}).get("sample")
                table.sample[index] = sample if isinstance(sample, int) and 0 <= sample < 2**63 else 0
                table.length[index] = len(row.get("completion", ""))
        return table

    def _refused(self, row: Row) -> str | None:
        params, meta = self.params, row.get("meta", {})
        if params.take != "random" and math.isnan(_value(row, params.by)):
            return f"missing {params.by}"
        if "score" not in row and (params.min_score is not None or params.pass_rate is not None):
            return "missing score"
        if params.source and row.get("source") not in params.source:
            return "source not wanted"
        if params.outcome and row.get("outcome") not in params.outcome:
            return f"outcome {row.get('outcome')}"
        if params.min_score is not None and row["score"] < params.min_score:
            return "score below minimum"
        spans = params.between if params.level is None else {"level": params.level, **params.between}
        for field, span in spans.items():
            if meta.get(field) is None:
                return f"no {field}"
            if not span[0] <= _number(meta[field]) <= span[1]:
                return f"{field} outside range"
        for field, values in params.meta.items():
            if meta.get(field) not in values:
                return f"{field} not wanted"
        return None

    def _taken(self, table: Table, left: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The `count` rows that are taken; ties are broken by the seed."""
        import numpy as np

        ordered = left[np.lexsort((table.rank[left], table.value[left]))]  # by rank alone if `take` is random
        places = {"middle": (len(ordered) - count) // 2, "highest": len(ordered) - count}
        start = max(places.get(self.params.take, 0), 0)
        return ordered[start : start + count]

    def _per_prompt(self, rows: Sequence[Row], table: Table, left: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first `per_prompt` rows of each prompt, by `order`, then sample number, then id."""
        import numpy as np

        def order(index: int) -> tuple[int, int]:
            by_order = {"first": 0, "shortest": int(table.length[index]), "random": int(table.rank[index])}
            return by_order[self.params.order], int(table.sample[index])

        kept: list[int] = []
        for group in _groups(left, table.prompt):
            keys: dict[int, tuple[Any, ...]] = {index: order(index) for index in group}
            if len(set(keys.values())) < len(group):
                keys = {index: (*key, str(rows[index]["id"])) for index, key in keys.items()}
            kept += sorted(group, key=keys.__getitem__)[: self.params.per_prompt]
        return np.array(kept, dtype=np.int64)


class Table:
    """A few numbers per row (about 50 bytes), so that a million rows need not be in memory."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self.refusal = np.zeros(size, dtype=np.uint16)  # 0, or the index of the drop reason
        self.score = np.full(size, np.nan)
        self.value = np.full(size, np.nan)  # value of `by`
        self.rank = np.zeros(size, dtype=np.uint64)  # shuffle rank from the seed and the id
        self.prompt = np.zeros(size, dtype=np.uint64)  # a hash; collision probability among a million: 3e-8
        self.sample = np.zeros(size, dtype=np.int64)
        self.length = np.zeros(size, dtype=np.int64)
        self.reasons: dict[str, int] = {"": 0}  # drop reasons; the first is for kept rows

    def refuse(self, at: int | NDArray[np.int64], reason: str) -> None:
        self.refusal[at] = self.reasons.setdefault(reason, len(self.reasons))

    def narrowed(self, left: NDArray[np.int64], kept: NDArray[np.int64], reason: str) -> NDArray[np.int64]:
        """Refuse all of `left` but `kept`; returns `kept` in order."""
        import numpy as np

        self.refuse(np.setdiff1d(left, kept, assume_unique=True), reason)
        return np.sort(kept)

    def rates(self, passing: float) -> NDArray[np.float64]:
        """For each row its prompt's pass rate over scored rows; nan if none has a score."""
        import numpy as np

        _, group = np.unique(self.prompt, return_inverse=True)
        passed = np.bincount(group, weights=self.score >= passing)  # nan does not pass
        scored = np.bincount(group, weights=~np.isnan(self.score))
        rates: NDArray[np.float64] = np.where(scored > 0, passed / np.maximum(scored, 1), np.nan)[group]
        return rates


def _number(value: Any) -> float:
    """A level as a number: 3, "3" and MATH's "Level 3"; nan, which is in no range, for anything else."""
    try:
        return float(str(value).removeprefix("Level "))
    except ValueError:
        return float("nan")


def _value(row: Row, by: str) -> float:
    """The score or a meta field as a number, nan if there is none."""
    value = row.get("score") if by == "score" else row.get("meta", {}).get(by.removeprefix("meta."))
    return _number(value)


def number_of(text: str) -> int:
    """Eight bytes of a hash as a number: a reproducible shuffle rank."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _groups(left: NDArray[np.int64], by: NDArray[Any]) -> Iterator[list[int]]:
    """The indices with equal values, in input order."""
    import numpy as np

    ordered = left[np.argsort(by[left], kind="stable")]
    cuts = np.flatnonzero(np.diff(by[ordered])) + 1
    return (group.tolist() for group in np.split(ordered, cuts) if len(group))
