"""Keeps the questions that are valid when run: gold, empty solution, stub and mutants against the tests.

- verify_questions
- verify_questions: {least_tests: 5, runs: 3, test_cpu_s: 1.0, mutants: 3, killed: 2, workers: 2}

What is refused is a drop with its reason (`gold fails its tests`, `flaky test`, `mutants survive` …) and what showed
it. What was found goes into `meta.verified`; CPU times, which no two runs share, into the step's `times` folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

import rewards
from data_prep.core.files import write_atomic
from data_prep.core.step import Apply, Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.families.skill_mix.validity import Demands, refused, verify
from rewards.code.suites import read
from rewards.sandbox import shared


class VerifyQuestionsParams(Params):
    """What a valid question is, see skill_mix/validity.py; workers: processes at once."""

    least_tests: int = Field(5, ge=1)
    runs: int = Field(3, ge=1, le=20)
    test_cpu_s: float = Field(1.0, gt=0, le=600)
    mutants: int = Field(3, ge=0, le=10)
    killed: int = Field(2, ge=0, le=10)
    memory_mb: int = Field(512, ge=16)
    workers: int | None = Field(None, ge=1)  # by default what the executor has

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.killed > self.mutants:
            raise ValueError(f"killed: {self.killed} of {self.mutants} mutants cannot be asked for")
        return self

    @property
    def demands(self) -> Demands:
        return Demands(self.least_tests, self.runs, self.test_cpu_s, self.mutants, self.killed, self.memory_mb)


class VerifyQuestions(Step):
    """Questions to valid questions."""

    kind = "verify_questions"
    needs: ClassVar[tuple[str, ...]] = ("references", "tests")
    unkeyed: ClassVar[tuple[str, ...]] = ("workers",)
    shard_rows = 8  # one takes seconds, and a kill costs the shards in flight
    Params = VerifyQuestionsParams
    params: VerifyQuestionsParams

    def processes(self) -> int | None:
        """As many as asked for, by default any number."""
        return self.params.workers

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """All code of the rewards: what runs the programs is theirs."""
        return {"rewards": rewards.code_hash()}

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """See that programs can be run here, once for all shards. Raises DataError."""
        times = ctx.dir / "times"
        times.mkdir(exist_ok=True)
        with _told():
            shared()
        yield lambda rows, shard: self._verified(rows, times / f"{shard:05d}.jsonl")

    def _verified(self, rows: Sequence[Row], times: Path) -> Output:
        measured: list[dict[str, Any]] = []
        outputs = [self._judged(row, measured) for row in rows]
        write_atomic(times, (json.dumps(one).encode() + b"\n" for one in measured))
        return outputs

    def _judged(self, row: Row, measured: list[dict[str, Any]]) -> Row | Drop:
        try:
            read(row["tests"])
        except rewards.RewardError as problem:
            return Drop("unusable tests", str(row["id"]), str(problem), bad=True)
        with _told():
            found = verify(row, self.params.demands, shared())
        measured.append({"id": row["id"], **found.times})
        if found.refusal:
            return refused(row, found)
        report: Mapping[str, Any] = {**found.report, "test_cpu_s_below": self.params.test_cpu_s}
        return {**row, "meta": {**row.get("meta", {}), "verified": dict(report)}}


@contextmanager
def _told() -> Iterator[None]:
    """What this machine cannot do (no g++, no walls for programs) as this package's error."""
    try:
        yield
    except rewards.RewardError as problem:
        raise DataError(str(problem)) from problem
