"""Drops rows that repeat a question of a benchmark, and keeps the evidence.

- decontaminate: {against: "${eval.tasks}"}                     every task that the recipe is evaluated on
- decontaminate: {against: [math500, aime24], fields: [prompt, completion], near: null}

A drop's reason names the task; its detail the question's id, the rule and the shared words (`data_prep.overlap` has
the rules). The manifest counts them, and `shards/*.drops.jsonl` holds them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from data_prep import tasks
from data_prep.errors import DataError
from data_prep.likeness import said
from data_prep.overlap import Benchmark, Rules
from data_prep.step import Apply, Context, Drop, Output, Params, Row, Step
from data_prep.steps.dedup import Field_
from data_prep.steps.load import Load, LoadParams


class DecontaminateParams(Params):
    """against: tasks of configs/tasks; null switches a rule off. paths, mirror: as `load` has them."""

    against: tuple[str, ...] = Field(min_length=1)
    fields: tuple[Field_, ...] = Field(("prompt",), min_length=1)
    any_of: int | None = Field(13, ge=5)  # words of an n-gram, of which one is enough
    of: int = Field(8, ge=5)  # words of the n-grams of a question, of which `share` are
    share: float | None = Field(0.7, gt=0, le=1)
    near: float | None = Field(0.8, gt=0, le=1)  # Jaccard similarity of word 5-grams
    paths: dict[str, str] = Field(default_factory=dict)  # task -> local file to read in its place
    mirror: bool = False
    workers: int = Field(1, ge=1)

    @field_validator("against")
    @classmethod
    def _known_tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(tasks.known(name) for name in value)

    @model_validator(mode="after")
    def _paths_of_tasks(self) -> Self:
        for name in self.paths:
            if name not in self.against:
                raise ValueError(f"paths: {name!r} is not among the tasks of against")
        return self

    @property
    def rules(self) -> Rules:
        return Rules(self.any_of, self.of, self.share, self.near)

    @property
    def benchmarks(self) -> Load:
        return Load(LoadParams.model_validate({"tasks": self.against, "paths": self.paths, "mirror": self.mirror}))


class Decontaminate(Step):
    """Training rows in, those that repeat no benchmark out."""

    kind = "decontaminate"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    unkeyed: ClassVar[tuple[str, ...]] = ("paths", "mirror", "workers")
    Params = DecontaminateParams
    params: DecontaminateParams

    def processes(self) -> int:
        """As many as asked for."""
        return self.params.workers

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The benchmarks by content or pin. Raises DataError when a file is missing."""
        return self.params.benchmarks.fingerprint(base)

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Read the benchmarks once for all shards. Raises DataError for one that has no questions."""
        questions = [
            (str(row["source"]), str(row["id"]), said(row, ("prompt",)))
            for row in self.params.benchmarks.apply((), ctx)
            if not isinstance(row, Drop)
        ]
        found = {task for task, _, _ in questions}
        for task in self.params.against:
            if task not in found:
                raise DataError(f"against: task {task!r} gives no questions to compare with")
        known = Benchmark(questions, self.params.rules)
        yield lambda rows, shard: self._judged(rows, known)

    def _judged(self, rows: Sequence[Row], known: Benchmark) -> Output:
        texts = [said(row, self.params.fields) for row in rows]
        for row, match in zip(rows, known.matches(texts), strict=True):
            if match is None:
                yield row
            else:
                detail = f"{match.question}: {match.rule}: {match.words!r}"
                yield Drop(f"repeats {match.task}", row["id"], detail)
