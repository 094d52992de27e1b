"""Chooses rows: by outcome, score, level, label or pass rate, and so many per prompt or at all.

- select: {min_score: 1, outcome: scored, per_prompt: 4, order: shortest}
- select: {pass_rate: [0.2, 0.8]}
- select: {n: 1000, balance_by: level, seed: 1}

Filters come first, then pass_rate, quantile, per_prompt, balance_by and n. What is chosen depends on the rows
and the seed, not on the order in which they come; what is kept stays in that order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from typing_extensions import Self

from data_prep.step import Context, Drop, Output, Params, Row, Step
from data_prep.tasks import Scalar
from rewards import OUTCOMES


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower bound comes first: [{value[1]:g}, {value[0]:g}]")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Order = Literal["first", "shortest", "random"]


class SelectParams(Params):
    """All that is given must hold; ranges include both ends."""

    outcome: tuple[str, ...] = ()
    min_score: float | None = None
    max_score: float | None = None
    level: Range | None = None  # of meta.level
    meta: dict[str, tuple[Scalar, ...]] = Field(default_factory=dict)  # field of meta -> values allowed
    pass_rate: Range | None = None  # share of a prompt's samples that pass, over all its rows
    pass_score: float = 1.0  # a sample passes with at least this score
    quantile: Range | None = None  # of the scores, 0 the lowest to 1 the highest
    per_prompt: int | None = Field(None, ge=1)
    order: Order = "first"  # which ones of a prompt
    balance_by: str | None = None  # a field of meta, or source: equally many rows of each of its values
    n: int | None = Field(None, ge=1)  # drawn at random; an upper bound
    seed: int = 0

    @field_validator("outcome", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("outcome")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for outcome in value:
            if outcome not in OUTCOMES:
                raise ValueError(f"no outcome {outcome!r}; outcomes are {', '.join(OUTCOMES)}")
        return value

    @field_validator("meta", mode="before")
    @classmethod
    def _values(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: one if isinstance(one, list | tuple) else (one,) for key, one in value.items()}

    @model_validator(mode="after")
    def _something(self) -> Self:
        idle = type(self).model_fields.keys() - {"order", "seed", "pass_score"}
        if all(getattr(self, name) in (None, (), {}) for name in idle):
            raise ValueError("selects nothing: give one of " + ", ".join(sorted(idle)))
        return self


class Select(Step):
    """Fewer rows, unchanged; each row left out is a drop with its reason."""

    kind = "select"
    scope = "whole"
    Params = SelectParams
    params: SelectParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows that pass every stage, in the order in which they came."""
        reasons = {index: reason for index, row in enumerate(rows) if (reason := self._refused(row))}
        rates = self._rates(rows) if self.params.pass_rate else {}
        stages: list[tuple[str, Callable[[list[int]], Iterable[int]]]] = []
        if span := self.params.pass_rate:
            stages.append(
                (
                    "pass rate outside range",
                    lambda left: [i for i in left if _within(rates[prompt_of(rows[i])], span)],
                )
            )
        if self.params.quantile:
            stages.append(("score outside quantile", lambda left: self._quantile(rows, left)))
        if self.params.per_prompt:
            stages.append(("over per_prompt", lambda left: self._per_prompt(rows, left)))
        if self.params.balance_by:
            stages.append(("over balance", lambda left: self._balanced(rows, left)))
        if self.params.n:
            stages.append(("not drawn", lambda left: self._drawn(rows, left, self.params.n)))
        left = [index for index in range(len(rows)) if index not in reasons]
        for reason, stage in stages:
            kept = set(stage(left))
            reasons.update({index: reason for index in left if index not in kept})
            left = [index for index in left if index in kept]
        for index, row in enumerate(rows):
            yield self._drop(reasons[index], row) if index in reasons else row

    def _drop(self, reason: str, row: Row) -> Drop:
        return Drop(reason, str(row.get("id", "")), bad=reason.startswith("missing"))

    def _refused(self, row: Row) -> str | None:
        """Why the row by itself is not wanted."""
        wanted, meta = self.params, row.get("meta", {})
        by_score = (wanted.min_score, wanted.max_score, wanted.pass_rate, wanted.quantile)
        if "score" not in row and any(one is not None for one in by_score):
            return "missing score"
        if wanted.outcome and row.get("outcome") not in wanted.outcome:
            return f"outcome {row.get('outcome')}"
        if wanted.min_score is not None and row["score"] < wanted.min_score:
            return "score below minimum"
        if wanted.max_score is not None and row["score"] > wanted.max_score:
            return "score above maximum"
        if wanted.level is not None and not _within(_number(meta.get("level")), wanted.level):
            return "level outside range"
        for field, values in wanted.meta.items():
            if meta.get(field) not in values:
                return f"{field} not wanted"
        return None

    def _rates(self, rows: Sequence[Row]) -> dict[str, float]:
        """Share of each prompt's scored rows that pass, whatever the other filters say of them."""
        scores: dict[str, list[bool]] = defaultdict(list)
        for row in rows:
            if "score" in row:
                scores[prompt_of(row)].append(row["score"] >= self.params.pass_score)
        return {prompt: sum(passed) / len(passed) for prompt, passed in scores.items()}

    def _quantile(self, rows: Sequence[Row], left: list[int]) -> list[int]:
        assert self.params.quantile is not None
        low, high = self.params.quantile
        ranked = sorted(left, key=lambda index: (rows[index]["score"], self._rank(rows[index])))
        return ranked[round(low * len(ranked)) : round(high * len(ranked))]

    def _per_prompt(self, rows: Sequence[Row], left: list[int]) -> list[int]:
        def order(index: int) -> tuple[Any, ...]:
            row = rows[index]
            first = (int(row.get("meta", {}).get("sample", 0)), str(row["id"]))
            by_order = {
                "first": (),
                "shortest": (len(row.get("completion", "")),),
                "random": (self._rank(row),),
            }
            return (*by_order[self.params.order], *first)

        groups = _grouped(left, lambda index: prompt_of(rows[index]))
        return [index for group in groups for index in sorted(group, key=order)[: self.params.per_prompt]]

    def _balanced(self, rows: Sequence[Row], left: list[int]) -> list[int]:
        """Equally many of each value: as many as the rarest has, or an equal share of `n`."""
        groups = _grouped(left, lambda index: _label(rows[index], str(self.params.balance_by)))
        if not groups:
            return []
        size = min(len(group) for group in groups)
        if self.params.n:
            size = min(size, self.params.n // len(groups))
        return [index for group in groups for index in self._drawn(rows, group, size)]

    def _drawn(self, rows: Sequence[Row], left: list[int], count: int | None) -> list[int]:
        return sorted(left, key=lambda index: self._rank(rows[index]))[:count]

    def _rank(self, row: Row) -> str:
        """A row's place in a shuffle that only the seed and its id decide."""
        return hashlib.sha256(f"{self.params.seed}:{row['id']}".encode()).hexdigest()


def prompt_of(row: Row) -> str:
    """What a row's samples are grouped by."""
    return str(row.get("meta", {}).get("prompt_id", row["id"]))


def _label(row: Row, field: str) -> str:
    return str(row.get("source") if field == "source" else row.get("meta", {}).get(field))


def _number(value: Any) -> float:
    """A level as a number: 3, "3" and MATH's "Level 3"; nan, which no range holds, for anything else."""
    try:
        return float(str(value).removeprefix("Level "))
    except ValueError:
        return float("nan")


def _within(value: float, span: tuple[float, float]) -> bool:
    return span[0] <= value <= span[1]


def _grouped(items: Iterable[int], key: Callable[[int], str]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
