"""Drops rows that repeat a benchmark question, with both texts as evidence.

- decontaminate: {against: "${eval.tasks}"}                     all tasks of the recipe's evaluation
- decontaminate: {against: [math500, aime24], fields: [prompt, completion]}

`data_prep.text.overlap` defines a repeat. If all numbers agree, a text with renamed variables or people
("Ann has 3 apples" for "Tom has 3 apples"), or with its clauses in another order ("Find x. Given …" for
"Given …, find x"), is a rewording: the answer is the same. A different number, a different person asked about, an
opposite ("sells" for "buys"), or a different word where the benchmark has a rare one makes it another question. A
drop's reason names the task; its detail has three lines: the question's id and the matched share, the row's text, and
the question's text. The manifest counts drops and shows examples for each task; `shards/*.drops.jsonl` has all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from data_prep.core.step import Apply, Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.sources import tasks
from data_prep.steps.dedup import Field_
from data_prep.steps.load import Load, LoadParams
from data_prep.text.normalise import text_of

if TYPE_CHECKING:
    from data_prep.text.overlap import Benchmark, Match

RENAMED = dict.fromkeys(("any_of", "of", "share", "near"), "overlap_threshold")  # parameters of earlier versions


class DecontaminateParams(Params):
    """Parameters.

    against: tasks of configs/tasks. fields: each is compared separately. overlap_threshold: minimum share (0 to 1) of a
    question's weight that a repeat contains; rare words weigh more. paths, mirror: as in `load`.
    """

    against: tasks.TaskNames = Field(min_length=1)
    fields: tuple[Field_, ...] = Field(("prompt",), min_length=1)
    overlap_threshold: float = Field(0.75, gt=0, le=1)
    paths: dict[str, str] = Field(default_factory=dict)  # task -> local file to read instead
    mirror: bool = False
    workers: int | None = Field(None, ge=1)  # parallel processes; default: the executor's

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name in RENAMED:
                raise ValueError(f"parameter {name!r} was removed: use {RENAMED[name]!r}")
        return given

    @model_validator(mode="after")
    def _paths_of_tasks(self) -> Self:
        for name in self.paths:
            if name not in self.against:
                raise ValueError(f"paths: {name!r} is not among the tasks of against")
        return self

    @property
    def benchmarks(self) -> Load:
        return Load(LoadParams.model_validate({"tasks": self.against, "paths": self.paths, "mirror": self.mirror}))


class Decontaminate(Step[DecontaminateParams]):
    """Keeps rows that do not repeat a benchmark question."""

    kind = "decontaminate"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    unkeyed: ClassVar[tuple[str, ...]] = ("paths", "mirror", "workers")

    def processes(self) -> int | None:
        return self.params.workers

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The benchmarks' content hashes or pinned revisions. Raises DataError if a file is missing."""
        return self.params.benchmarks.fingerprint(base)

    def modules(self) -> tuple[str, ...]:
        return self.params.benchmarks.modules()

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Read the benchmarks once for all shards. Raises DataError if one has no questions."""
        from data_prep.text.overlap import Benchmark  # not needed to parse a pipeline

        questions = [
            (str(row["source"]), str(row["id"]), text_of(row, ("prompt",)))
            for row in self.params.benchmarks.apply((), ctx)
            if not isinstance(row, Drop)
        ]
        for task in self.params.against:
            if all(task != source for source, _, _ in questions):
                raise DataError(f"against: task {task!r} has no questions to compare with")
        benchmark = Benchmark(questions, self.params.overlap_threshold)
        yield lambda rows, shard: self._checked(rows, benchmark)

    def _checked(self, rows: Sequence[Row], benchmark: Benchmark) -> Output:
        fields = (benchmark.matches([text_of(row, (field,)) for row in rows]) for field in self.params.fields)
        for row, *matches in zip(rows, *fields, strict=True):
            match = next((match for match in matches if match), None)
            yield _drop(row, match) if match else row


def _drop(row: Row, match: Match) -> Drop:
    detail = f"{match.id}: {match.how}\nrow: {match.text}\nquestion: {match.question}"
    return Drop(f"repeats {match.task}", row["id"], detail)
