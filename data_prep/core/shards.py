"""A step's work in shards: what a process needs to compute a shard, and the files of a shard.

A step's directory holds `shards/00000.jsonl` with `00000.drops.jsonl` and `00000.json` (its statistics). A shard's rows
are renamed into place last, so a shard that exists is finished.
"""

from __future__ import annotations

import hashlib
import json
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.core.files import write_files
from data_prep.core.manifest import Stats, shard_paths, shard_stats
from data_prep.core.registry import load_class
from data_prep.core.rows import check, encode, parse
from data_prep.core.step import Context, Drop, Output, Row, Step
from data_prep.core.stored import StoredRow, stored

Fault = Callable[[Row], Drop | None]


class Execution(BaseModel):
    """Where shards are computed; it does not change their content.

    engine: `serial` in this process, `processes` on this machine, or tasks on a `ray` cluster. workers: how many run
    at once (default: the number of CPUs of the machine or cluster).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["serial", "processes", "ray"] = "processes"
    workers: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Job:
    """Everything a process needs to work on a step; plain data, so that it can be sent to other processes."""

    name: str
    kind: str
    place: str  # module:Class of the step; another process may have fewer registered kinds
    key: str  # hash of the work and the keys of the inputs
    work: str  # hash of kind, parameters, fingerprint and code, without the inputs
    dir: Path
    base: Path
    params: dict[str, Any]
    fingerprint: dict[str, Any]
    code: str
    input_keys: tuple[str, ...] = ()
    input_dirs: tuple[Path, ...] = ()
    max_drop_share: float = 0.05
    execution: Execution = field(default_factory=Execution)

    def step(self) -> Step:
        """The step, built from its parameters."""
        cls = load_class(self.place)
        return cls(cls.Params.model_validate(self.params))

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return self.dir / "shards"

    def shard(self, index: int) -> Path:
        """The file of a shard's rows."""
        return self.shards / f"{index:05d}.jsonl"


@dataclass(frozen=True)
class Inputs:
    """The rows that a step reads: its inputs' shards, concatenated."""

    files: tuple[Path, ...]
    ends: tuple[int, ...]  # per file, the cumulative number of rows
    size: int  # in bytes
    full: frozenset[str] = frozenset()  # fields that are present and not empty in all rows

    @classmethod
    def of(cls, job: Job) -> Inputs:
        """The inputs of a job; they must be finished."""
        parts = [
            item for folder in job.input_dirs for item in zip(shard_paths(folder), shard_stats(folder), strict=True)
        ]
        files = tuple(path for path, _ in parts)
        size = sum(path.stat().st_size for path in files)
        had = [frozenset(stats.full) for _, stats in parts if stats.rows_out]
        ends = tuple(accumulate(stats.rows_out for _, stats in parts))
        return cls(files, ends, size, frozenset.intersection(*had) if had else frozenset())

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.ends[-1] if self.ends else 0

    def length(self, shard: int, size: int) -> int:
        """The number of rows in shard `shard` if shards have `size` rows."""
        return min(size, self.rows - shard * size)

    def lines(self, start: int, stop: int) -> list[bytes]:
        """The lines of rows start..stop."""
        lines: list[bytes] = []
        number = bisect_right(self.ends, start)
        while number < len(self.files) and start + len(lines) < stop:
            before = self.ends[number - 1] if number else 0
            with self.files[number].open("rb") as file:
                lines.extend(islice(file, start + len(lines) - before, stop - before))
            number += 1
        return lines

    def fault(self, step: Step) -> Fault | None:
        """The validation of a row; None if the recorded statistics show that all rows are valid."""
        needs, present = ("id", *step.needs), step.present
        return None if self.full.issuperset((*needs, *present)) else lambda row: check(row, needs, present)


@dataclass(frozen=True)
class Call:
    """Work on one shard: call a `method` of the step on its rows, or, without one, write the shard's files."""

    index: int
    argument: Any = None  # of the method, or the decisions of a "split" step on the rows
    method: str = ""


Work = Callable[[Call], tuple[int, Any]]  # shard number, and the shard's statistics or the method's result


@contextmanager
def opened(job: Job, rows: int | None = None) -> Iterator[Work]:
    """Open a step in this process. rows: how many it will still receive, if known."""
    step, inputs = job.step(), Inputs.of(job)
    size, fault = step.shard_rows, inputs.fault(step)

    with step.open(Context(job.dir, job.base, rows=rows)) as apply:

        def work(call: Call) -> tuple[int, Any]:
            started = time.monotonic()
            start = call.index * size
            given = [*map(reading(step), inputs.lines(start, start + size))]
            drops = [fault(row) for row in given] if fault else []
            good = [row for row, drop in zip(given, drops, strict=True) if not drop] if fault else given
            if call.method:
                return call.index, (len(good), getattr(step, call.method)(good, call.argument))
            outputs: Output = ()
            if good or not given:
                outputs = step.emit(good, call.argument) if step.scope == "split" else apply(good, call.index)
            bad = (drop for drop in drops if drop)
            return call.index, write_shard(job, step, call.index, chain(bad, outputs), len(given), started)

        yield work


def reading(step: Step) -> Callable[[bytes], Row]:
    """The function that turns a stored line into a row for this step."""
    return stored if step.passes else parse


def write_shard(job: Job, step: Step, index: int, outputs: Output, rows_in: int, started: float) -> Stats:
    """Write one shard's three files, its rows last. Raises DataError."""
    stats = Stats(rows_in=rows_in)
    lines: list[bytes] = []
    drops: list[Drop] = []
    full: Iterable[str] | None = None
    for output in outputs:
        if isinstance(output, Drop):
            drops.append(output)
            continue
        line = output.line if isinstance(output, StoredRow) else check(output) or encode(output)
        if isinstance(line, Drop):
            drops.append(line)
            continue
        lines.append(line)
        full = [name for name in (output if full is None else full) if output.get(name)]
        if label := step.tally(output):
            stats.counts[label] = stats.counts.get(label, 0) + 1
    stats.count(drops)
    stats.rows_out, stats.full = len(lines), sorted(full or ())
    stats.sha256 = hashlib.sha256(b"".join(lines)).hexdigest()
    stats.seconds = round(time.monotonic() - started, 3)
    path = job.shard(index)
    dropped = (_json_line(vars(drop)) for drop in drops)
    files: Sequence[tuple[Path, Iterable[bytes]]] = [
        (path.with_suffix(".drops.jsonl"), dropped),
        (path.with_suffix(".json"), [_json_line(vars(stats))]),
        (path, lines),
    ]
    write_files(files, durable=step.scope == "shard")
    return stats


def _json_line(value: Any) -> bytes:
    """Any JSON value, even with lone surrogates: recording a malformed row must not fail."""
    return json.dumps(value).encode() + b"\n"
