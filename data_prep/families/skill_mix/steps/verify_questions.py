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
from typing import Any, ClassVar

import rewards
from data_prep.core.files import write_atomic
from data_prep.core.step import Apply, Context, Drop, Output, Row, Step
from data_prep.errors import DataError
from data_prep.families.skill_mix.validity import Demands, refused, verify
from rewards.code.suites import read
from rewards.sandbox import shared


class VerifyQuestions(Step):
    """Questions to valid questions."""

    kind = "verify_questions"
    needs: ClassVar[tuple[str, ...]] = ("references", "tests")
    unkeyed: ClassVar[tuple[str, ...]] = ("workers",)
    shard_rows = 8  # one takes seconds, and a kill costs the shards in flight
    Params = Demands
    params: Demands

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
            found = verify(row, self.params, shared())
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
