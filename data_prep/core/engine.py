"""Runs one step: shard by shard, atomically, resumably, in this process or on a pool.

A step's directory holds `shards/00000.jsonl` with `00000.drops.jsonl` and `00000.json` (its statistics) and,
once all are there, `manifest.json`. A shard's rows are renamed into place last, so a shard that exists is
finished: `kill -9` costs the shards in flight, and the next run makes only what is missing. The engine
decides where shards run, never what is in them: the bytes are the same on one process and on many.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_prep.core.files import locked, require_space, settle, sweep, write_atomic, write_together
from data_prep.core.fingerprint import value_hash
from data_prep.core.manifest import Manifest, Stats, counts_line, read_manifest, shard_paths, shard_stats
from data_prep.core.rows import check, encode, parse
from data_prep.core.step import Apply, Context, Drop, Output, Row, Step, load_class
from data_prep.core.stored import StoredRow, StoredRows, stored
from data_prep.core.totals import read_totals
from data_prep.errors import DataError, LimitPassed, explain

Fault = Callable[[Row], Drop | None]


@dataclass(frozen=True)
class Job:
    """All that a process must know to work on a step; plain data, so that it travels to a pool."""

    name: str
    kind: str
    place: str  # of the step's class, module:Class; a pool's process may know fewer kinds than this one
    key: str  # of the plan: the work, and the keys of its inputs
    work: str  # hash of kind, parameters, fingerprint and code, whatever the inputs are
    dir: Path
    base: Path
    params: dict[str, Any]
    fingerprint: dict[str, Any]
    code: str
    input_keys: tuple[str, ...] = ()
    input_dirs: tuple[Path, ...] = ()
    max_drop_share: float = 0.05

    def step(self) -> Step:
        cls = load_class(self.place)
        return cls(cls.Params.model_validate(self.params))

    def context(self, workers: int = 1, rows: int | None = None) -> Context:
        return Context(dir=self.dir, base=self.base, workers=workers, rows=rows)

    @property
    def shards(self) -> Path:
        return self.dir / "shards"


class Progress:
    """What the engine tells while it works; this one says nothing."""

    def start(self, job: Job, total: int | None, done: int) -> None:
        """A step begins: `total` input rows (None when unknown), of which `done` were done before."""

    def advance(self, rows: int) -> None:
        """So many more input rows are done."""

    def waiting(self, job: Job) -> None:
        """Another process holds this step's lock."""

    def finish(self, job: Job, manifest: Manifest, cached: bool) -> None:
        """The step is complete."""


def run_step(job: Job, progress: Progress | None = None) -> Manifest:
    """Run a step or what is left of it; a finished one returns at once.

    Raises DataError (status 2), or LimitPassed (status 3) when too many rows are bad or `verdict` objects.
    """
    progress = progress or Progress()
    try:
        job.dir.mkdir(parents=True, exist_ok=True)
        with locked(job.dir / "lock", lambda: progress.waiting(job)):
            os.utime(job.dir / "lock")  # the last use, for `prune`
            if manifest := read_manifest(job.dir):
                progress.finish(job, manifest, True)
                return manifest
            if manifest := _reuse(job):
                progress.finish(job, manifest, True)
                return manifest
            job.shards.mkdir(exist_ok=True)  # under the lock: its holder may be emptying it
            sweep(job.dir)
            sweep(job.shards)
            manifest = _complete(job, progress)
    except OSError as error:
        raise explain(error, job.dir) from error
    progress.finish(job, manifest, False)
    return manifest


def _content(job: Job) -> Path:
    """Where a step of the same work on the same input rows is linked, whatever the keys of its inputs."""
    shas = [manifest.sha256 for one in job.input_dirs if (manifest := read_manifest(one))]
    return job.dir.parent / "contents" / f"{job.dir.name.rpartition('-')[0]}-{value_hash([job.work, shas])[:16]}"


def _reuse(job: Job) -> Manifest | None:
    """The manifest of a finished step of the same content, whose files become this step's by links, or None."""
    source = _content(job).resolve()
    manifest = read_manifest(source) if job.input_dirs else None
    if manifest is None or source == job.dir.resolve():
        return None
    for entry in source.iterdir():
        target = job.dir / entry.name
        if entry.name not in ("lock", "manifest.json"):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            target.symlink_to(Path("..", source.name, entry.name))
    manifest = replace(manifest, name=job.name, key=job.key, inputs=list(job.input_keys))
    write_atomic(job.dir / "manifest.json", [json.dumps(asdict(manifest), indent=1).encode(), b"\n"])
    return manifest


def _link_content(job: Job) -> None:
    """Let later steps of the same content find this one."""
    link = _content(job)
    link.parent.mkdir(exist_ok=True)
    aside = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(Path("..", job.dir.name))
    aside.rename(link)


def _complete(job: Job, progress: Progress) -> Manifest:
    step, inputs = job.step(), Inputs.of(job)
    total = None if step.scope == "source" else inputs.rows
    size = step.source_bytes(job.base) if total is None else inputs.size
    if not step.tells_inputs_apart:
        _check_ids(job)
    require_space(job.dir, int(size * step.growth), f"step {job.name!r}")
    try:
        if step.scope == "shard":
            stats = _run_shards(job, step, inputs, progress)
        else:
            stats = _run_once(job, step, inputs, total, progress)
        _judge(job, step, stats, stats.rows_in)
    except LimitPassed:
        _discard_guilty(job, step)
        raise
    if not stats.rows_out:
        why = f": {counts_line(stats.drops)}" if stats.drops else ""
        if any(example["detail"] for examples in stats.examples.values() for example in examples):
            why += f"; for instance {_instance(stats)}"
        origin = f" from {read}" if (read := step.reads(job.base)) else ""
        raise DataError(f"step {job.name!r} leaves no rows of {stats.rows_in:,}{origin}{why}")
    return _write_manifest(job, stats)


_ID = re.compile(rb'\{"id":("(?:[^"\\]|\\.)*")')  # rows begin with it


def _check_ids(job: Job) -> None:
    """Raise DataError where two inputs have a row of the same id, which steps that group by prompt would merge."""
    owners: dict[bytes, str] = {}
    for one in job.input_dirs if len(job.input_dirs) > 1 else ():
        for path in shard_paths(one):
            with path.open("rb") as file:
                for line in file:
                    if (found := _ID.match(line)) and owners.setdefault(found.group(1), one.name) != one.name:
                        raise DataError(
                            f"step {job.name!r}: two inputs, {owners[found.group(1)]} and {one.name}, have a row of id "
                            f"{found.group(1).decode()}: give one of the loads an `id_prefix`"
                        )


def _run_once(job: Job, step: Step, inputs: Inputs, total: int | None, progress: Progress) -> Stats:
    """Source and whole steps: one call makes everything, cut into shards as it comes; its rows are read when used."""
    shutil.rmtree(job.shards)
    job.shards.mkdir()
    progress.start(job, total, 0)
    stats, index = Stats(), 0
    with step.open(job.context(step.processes())) as apply:
        rows = StoredRows([path for path, _ in inputs.files], _reading(step))
        bad = rows.admit(_door(step, inputs))
        outputs = chain(bad, apply(rows, 0) if rows or not bad else ())
        started = time.monotonic()
        while chunk := list(islice(outputs, step.shard_rows)):
            stats.add(_write_shard(job, step, index, chunk, len(chunk), started))
            progress.advance(len(chunk))
            index, started = index + 1, time.monotonic()
    settle(job.shards)  # all at once: until the manifest stands, such a step starts over
    stats.rows_in = stats.rows_in if total is None else total
    return stats


def _run_shards(job: Job, step: Step, inputs: Inputs, progress: Progress) -> Stats:
    """Shard steps: whatever shard is missing, here or on a pool."""
    size = step.shard_rows
    indices = range((inputs.rows + size - 1) // size)
    _discard_other_cut(job, inputs, size)
    todo = [index for index in indices if not _shard_path(job, index).exists()]
    done = inputs.rows - sum(inputs.length(index, size) for index in todo)
    progress.start(job, inputs.rows, done)
    seen = Stats()
    for part in shard_stats(job.dir):
        seen.add(part)
    with closing(_make_shards(job, step, inputs, todo)) as made:
        for index, part in made:
            seen.add(part)
            progress.advance(inputs.length(index, size))
            _judge(job, step, seen, inputs.rows)  # a hopeless step ends as soon as it is known to be one
    stats = Stats()
    for part in shard_stats(job.dir):
        stats.add(part)
    return stats


def _discard_other_cut(job: Job, inputs: Inputs, size: int) -> None:
    """Remove shards that were cut at another size, and so hold other rows than their numbers say.

    How an API step is asked decides its size, and may change between runs; its answers are in the journal.
    """
    done = zip(shard_paths(job.dir), shard_stats(job.dir), strict=True)
    if any(stats.rows_in != inputs.length(int(path.stem), size) for path, stats in done):
        shutil.rmtree(job.shards)
        job.shards.mkdir()


def _make_shards(job: Job, step: Step, inputs: Inputs, todo: Sequence[int]) -> Generator[tuple[int, Stats], None, None]:
    workers = min(step.processes(), len(todo))
    if workers <= 1:
        if todo:
            rows = sum(inputs.length(index, step.shard_rows) for index in todo)
            with step.open(job.context(rows=rows)) as apply:
                for index in todo:
                    yield index, make_shard(job, step, inputs, apply, index)
        return
    from data_prep.core.pool import make_on_pool  # costs imports that a launcher need not pay

    yield from make_on_pool(job, todo, workers)


def make_shard(job: Job, step: Step, inputs: Inputs, apply: Apply, index: int) -> Stats:
    """Apply an opened shard step to its shard number `index`, and write that."""
    started = time.monotonic()
    start = index * step.shard_rows
    rows = [*map(_reading(step), inputs.lines(start, start + step.shard_rows))]
    return _write_shard(job, step, index, _through_door(_door(step, inputs), rows, apply, index), len(rows), started)


def _reading(step: Step) -> Callable[[bytes], Row]:
    """How a stored line becomes a row of this step."""
    return stored if step.passes else parse


def _door(step: Step, inputs: Inputs) -> Fault | None:
    """Says why a row may not enter the step, or None when it may; itself None where all may.

    Rows were checked when they were written, and what all of them have was written down.
    """
    needs, present = ("id", *step.needs), step.present
    return None if inputs.full.issuperset((*needs, *present)) else lambda row: check(row, needs, present)


def _through_door(fault: Fault | None, rows: Sequence[Row], apply: Apply, shard: int) -> Iterator[Row | Drop]:
    """Check rows, apply the step to the good ones, and pass on what comes out of both."""
    if fault is None:
        yield from apply(rows, shard)
        return
    good: list[Row] = []
    for row in rows:
        if drop := fault(row):
            yield drop
        else:
            good.append(row)
    if good or not rows:
        yield from apply(good, shard)


def _write_shard(job: Job, step: Step, index: int, outputs: Output, rows_in: int, started: float) -> Stats:
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
    path = _shard_path(job, index)
    dropped = (_json_line(vars(drop)) for drop in drops)
    told = [_json_line(vars(stats))]
    files = [(path.with_suffix(".drops.jsonl"), dropped), (path.with_suffix(".json"), told), (path, lines)]
    write_together(files, durable=step.scope == "shard")
    return stats


def _json_line(value: Any) -> bytes:
    """Any JSON value, lone surrogates included: what is written of a hostile row must not fail."""
    return json.dumps(value).encode() + b"\n"


def _judge(job: Job, step: Step, stats: Stats, total: int) -> None:
    """Raise LimitPassed when the counts so far are already too bad for `total` rows."""
    if stats.bad > job.max_drop_share * total:
        raise LimitPassed(
            f"step {job.name!r}: {stats.bad:,} of {total:,} rows are unusable "
            f"({counts_line(stats.drops)}), more than max_drop_share {job.max_drop_share:g} allows; "
            f"for instance {_instance(stats)}; all are listed in {job.shards}/*.drops.jsonl"
        )
    if objection := step.verdict(stats.counts, total):
        raise LimitPassed(f"step {job.name!r}: {objection}; rows are in {job.shards}")


def _instance(stats: Stats) -> str:
    """One row of the most frequent reason, and what is said of it."""
    example = stats.examples[max(stats.drops, key=lambda reason: stats.drops[reason])][0]
    return ": ".join(part for part in (example["row_id"] or "a row", example["detail"]) if part)


def _discard_guilty(job: Job, step: Step) -> None:
    """Remove the shards that the verdict is against, so that the next run tries them again."""
    for index, stats in enumerate(shard_stats(job.dir)):
        if step.verdict(stats.counts, stats.rows_in):
            _shard_path(job, index).unlink(missing_ok=True)


def _shard_path(job: Job, index: int) -> Path:
    return job.shards / f"{index:05d}.jsonl"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's and those of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _write_manifest(job: Job, stats: Stats) -> Manifest:
    paid = read_totals(job.dir)
    manifest = Manifest(
        kind=job.kind,
        name=job.name,
        key=job.key,
        params=job.params,
        fingerprint=job.fingerprint,
        code=job.code,
        inputs=list(job.input_keys),
        rows_in=stats.rows_in,
        rows_out=stats.rows_out,
        bad=stats.bad,
        drops=stats.drops,
        examples=stats.examples,
        counts=stats.counts,
        shards=len(shard_paths(job.dir)),
        sha256=stats.sha256,
        seconds=round(stats.seconds, 3),
        versions=_versions(job.step().packages),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cost=paid.summary() if paid else {},
    )
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=True)
    write_atomic(job.dir / "manifest.json", [text.encode(), b"\n"])
    if job.input_dirs:
        _link_content(job)
    return manifest


@dataclass(frozen=True)
class Inputs:
    """The rows that a step reads: its inputs' shards, end to end."""

    files: tuple[tuple[Path, int], ...]  # each with its number of rows
    rows: int
    size: int  # in bytes
    full: frozenset[str] = frozenset()  # fields that all rows have, not empty

    @classmethod
    def of(cls, job: Job) -> Inputs:
        found = [item for one in job.input_dirs for item in zip(shard_paths(one), shard_stats(one), strict=True)]
        files = tuple((path, stats.rows_out) for path, stats in found)
        size = sum(path.stat().st_size for path, _ in files)
        had = [frozenset(stats.full) for _, stats in found if stats.rows_out]
        return cls(files, sum(count for _, count in files), size, frozenset.intersection(*had) if had else frozenset())

    def length(self, shard: int, size: int) -> int:
        """Rows in shard number `shard` of `size` rows."""
        return min(size, self.rows - shard * size)

    def lines(self, start: int, stop: int) -> list[bytes]:
        """Those of the rows start..stop of the whole."""
        lines: list[bytes] = []
        position = 0
        for path, count in self.files:
            first, last = max(start - position, 0), min(stop - position, count)
            if first < last:
                with path.open("rb") as file:
                    lines.extend(islice(file, first, last))
            position += count
        return lines
