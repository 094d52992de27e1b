"""Grades completions with a reward: `score`, `outcome` and, where short, `meta.score_details`.

- score: {reward: math, workers: 4}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue, model_validator
from typing_extensions import Self

import rewards
from data_prep.errors import DataError
from data_prep.step import Apply, Context, Params, Row, Step

MAX_DETAILS = 2000  # characters of JSON; longer details stay out of the row
FAULTY = ("error", "timeout")  # outcomes that say nothing about the completion


class ScoreParams(Params):
    """A reward by name with its parameters; see `rewards.REGISTRY`."""

    reward: str
    params: dict[str, JsonValue] = Field(default_factory=dict)
    max_error_share: float = Field(0.02, ge=0, le=1)  # of rows whose outcome is error or timeout
    workers: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _loads(self) -> Self:
        rewards.reward_class(self.reward).create(self.reward, self.params)
        return self


class ScoreStep(Step):
    """Rows with completions to rows with scores; none is dropped."""

    kind = "score"
    present: ClassVar[tuple[str, ...]] = ("completion",)  # a model that says nothing has not answered
    unkeyed: ClassVar[tuple[str, ...]] = ("workers", "max_error_share")
    packages: ClassVar[tuple[str, ...]] = ("math-verify", "rapidfuzz")
    shard_rows = 500
    Params = ScoreParams
    params: ScoreParams

    def __init__(self, params: ScoreParams) -> None:
        super().__init__(params)
        self._reward = rewards.load(params.reward, **params.params)
        self.scope = "whole" if self._reward.grouped else "shard"  # a group's completions are scored together

    def processes(self) -> int:
        """As many as asked for."""
        return self.params.workers

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """All code of the rewards: a reward may use any of it."""
        return {"rewards": rewards.code_hash()}

    def tally(self, row: Row) -> str | None:
        """The manifest counts rows by outcome."""
        return str(row["outcome"])

    def verdict(self, counts: Mapping[str, int], rows: int) -> str | None:
        """Scores are not to be trusted when too many of them are faults of the grader."""
        faulty = sum(counts.get(outcome, 0) for outcome in FAULTY)
        if faulty <= self.params.max_error_share * rows:
            return None
        return (
            f"{faulty:,} of {rows:,} rows end in {' or '.join(FAULTY)}, more than max_error_share "
            f"{self.params.max_error_share:g} allows: look at their meta.score_details"
        )

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """See that what the reward depends on is there, once for all shards. Raises DataError."""
        at_once = self.params.workers if self._reward.grouped else 1  # shards have a process each already

        def apply(rows: Any, shard: int) -> Iterator[Row]:
            with _told():
                scores = self._reward.score_many(rows, [row["completion"] for row in rows], at_once)
            return (_scored(row, score) for row, score in zip(rows, scores, strict=True))

        with _told():
            self._reward.check_ready()
        yield apply


@contextmanager
def _told() -> Iterator[None]:
    """What a reward cannot do (no server, no walls for programs) as this package's error."""
    try:
        yield
    except rewards.RewardError as problem:
        raise DataError(str(problem)) from problem


def _scored(row: Row, score: rewards.Score) -> Row:
    done = {**row, "score": score.value, "outcome": score.outcome}
    if score.details and len(json.dumps(score.details)) <= MAX_DETAILS:
        done["meta"] = {**row.get("meta", {}), "score_details": score.details}
    return done
