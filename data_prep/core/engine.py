"""Runs one step: shard by shard, atomically, resumably, on any executor.

A step's directory holds its shards (`core/shards.py`) and, once all are finished, `manifest.json`. `kill -9` loses the
shards in flight, and the next run computes only what is missing. Executors decide where shards are computed, never
their content: the bytes are the same in one process and on many machines.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_prep.core.executors import cpus, execute
from data_prep.core.files import locked, require_space, settle, sweep, temporary_path, write_json
from data_prep.core.fingerprint import value_hash
from data_prep.core.manifest import Manifest, Stats, counts_line, read_manifest, shard_paths, shard_stats
from data_prep.core.progress import Progress
from data_prep.core.shards import Call, Inputs, Job, reading, write_shard
from data_prep.core.step import Context, Step
from data_prep.core.stored import StoredRows
from data_prep.core.totals import read_totals
from data_prep.errors import DataError, LimitExceeded, os_errors

COUNTED = ("rows_in", "rows_out", "bad", "drops", "examples", "counts", "sha256")  # statistics copied into a manifest


def run_step(job: Job, progress: Progress | None = None) -> Manifest:
    """Run a step, resuming unfinished work; a finished step returns at once.

    Raises DataError (status 2), or LimitExceeded (status 3) when too many rows are bad or `verdict` objects.
    """
    progress = progress or Progress()
    with os_errors(job.dir):
        job.dir.mkdir(parents=True, exist_ok=True)
        with locked(job.dir / "lock", lambda: progress.waiting(job)):
            os.utime(job.dir / "lock")  # the last use, for `prune`
            finished = read_manifest(job.dir) or _reuse(job)
            manifest = finished or _complete(job, progress)
    progress.finish(job, manifest, cached=finished is not None)
    return manifest


def _content(job: Job) -> Path:
    """The link to a step that does the same work on the same input rows, whatever the keys of its inputs."""
    shas = [manifest.sha256 for folder in job.input_dirs if (manifest := read_manifest(folder))]
    return job.dir.parent / "contents" / f"{job.dir.name.rpartition('-')[0]}-{value_hash([job.work, shas])[:16]}"


def _reuse(job: Job) -> Manifest | None:
    """The manifest of a finished step with the same content, whose files are linked into this step; or None."""
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
    write_json(job.dir / "manifest.json", asdict(manifest))
    return manifest


def _link_content(job: Job) -> None:
    """Let later steps with the same content find this one."""
    link = _content(job)
    link.parent.mkdir(exist_ok=True)
    temporary = temporary_path(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("..", job.dir.name))
    temporary.rename(link)


def _complete(job: Job, progress: Progress) -> Manifest:
    """Do the step's remaining work; the lock is held."""
    job.shards.mkdir(exist_ok=True)
    sweep(job.dir)
    sweep(job.shards)
    step, inputs = job.step(), Inputs.of(job)
    total = None if step.scope == "source" else inputs.rows
    size = step.source_bytes(job.base) if total is None else inputs.size
    if not step.allows_repeated_ids:
        _check_ids(job)
    require_space(job.dir, int(size * step.growth), f"step {job.name!r}")
    try:
        if step.scope == "shard":
            stats = _run_shards(job, step, inputs, progress)
        elif step.scope == "split":
            stats = _run_split(job, step, inputs, progress)
        else:
            stats = _run_once(job, step, inputs, total, progress)
        _check_limits(job, step, stats, stats.rows_in)
    except LimitExceeded:
        _discard_rejected(job, step)
        raise
    if not stats.rows_out:
        why = f": {counts_line(stats.drops)}" if stats.drops else ""
        if any(example["detail"] for examples in stats.examples.values() for example in examples):
            why += f"; for example {_example(stats)}"
        origin = f" from {read}" if (read := step.reads(job.base)) else ""
        raise DataError(f"step {job.name!r} keeps none of {stats.rows_in:,} rows{origin}{why}")
    return _write_manifest(job, stats)


_ID = re.compile(rb'\{"id":("(?:[^"\\]|\\.)*")')  # rows begin with it


def _check_ids(job: Job) -> None:
    """Raise DataError if two inputs have rows with the same id, which steps that group by prompt would merge."""
    owners: dict[bytes, str] = {}
    for folder in job.input_dirs if len(job.input_dirs) > 1 else ():
        for path in shard_paths(folder):
            with path.open("rb") as file:
                for line in file:
                    match = _ID.match(line)
                    if match and owners.setdefault(match.group(1), folder.name) != folder.name:
                        raise DataError(
                            f"step {job.name!r}: two inputs, {owners[match.group(1)]} and {folder.name}, have a row "
                            f"with id {match.group(1).decode()}: give one of the loads an `id_prefix`"
                        )


def _run_once(job: Job, step: Step, inputs: Inputs, total: int | None, progress: Progress) -> Stats:
    """Source and whole steps: one call yields everything, split into shards; input rows are read lazily."""
    _start_over(job)
    progress.start(job, total, 0)
    stats, index = Stats(), 0
    with step.open(Context(job.dir, job.base, step.processes() or cpus())) as apply:
        rows = StoredRows(inputs.files, reading(step))
        bad = rows.admit(inputs.fault(step))
        outputs = chain(bad, apply(rows, 0) if rows or not bad else ())
        started = time.monotonic()
        while chunk := list(islice(outputs, step.shard_rows)):
            stats.add(write_shard(job, step, index, chunk, len(chunk), started))
            progress.advance(len(chunk))
            index, started = index + 1, time.monotonic()
    settle(job.shards)  # all at once: without its manifest such a step starts over
    stats.rows_in = stats.rows_in if total is None else total
    return stats


def _run_split(job: Job, step: Step, inputs: Inputs, progress: Progress) -> Stats:
    """Steps that look at all rows and then decide on each: both run shard by shard, on all cores."""
    _start_over(job)
    progress.start(job, inputs.rows, 0)
    count = -(-inputs.rows // step.shard_rows)
    sizes: dict[int, int] = {}  # valid rows of each shard

    def spread(method: str, argument: Any = None) -> Iterator[Any]:
        early: dict[int, Any] = {}
        place = 0
        calls = [Call(index, argument, method) for index in range(count)]
        with closing(execute(job, step, calls, inputs.rows)) as results:
            for index, (size, result) in results:
                sizes[index], early[index] = size, result
                while place in early:
                    yield early.pop(place)
                    place += 1

    rows = StoredRows(inputs.files, reading(step))
    rows.admit(inputs.fault(step))
    decisions = iter(list(step.decide(rows, spread)))  # all are made before the first is used
    calls = [Call(index, list(islice(decisions, sizes[index]))) for index in range(count)]
    with closing(execute(job, step, calls, inputs.rows)) as made:
        for index, _ in made:
            progress.advance(inputs.length(index, step.shard_rows))
    settle(job.shards)
    return _sum(job)


def _start_over(job: Job) -> None:
    shutil.rmtree(job.shards)
    job.shards.mkdir()


def _sum(job: Job) -> Stats:
    """Statistics of all shards, in order."""
    stats = Stats()
    for part in shard_stats(job.dir):
        stats.add(part)
    return stats


def _run_shards(job: Job, step: Step, inputs: Inputs, progress: Progress) -> Stats:
    """Shard steps: run the missing shards."""
    size = step.shard_rows
    _discard_other_cut(job, inputs, size)
    todo = [index for index in range(-(-inputs.rows // size)) if not job.shard(index).exists()]
    done = inputs.rows - sum(inputs.length(index, size) for index in todo)
    progress.start(job, inputs.rows, done)
    seen = _sum(job)
    with closing(execute(job, step, [Call(index) for index in todo], inputs.rows - done)) as made:
        for index, part in made:
            seen.add(part)
            progress.advance(inputs.length(index, size))
            _check_limits(job, step, seen, inputs.rows)  # fail as soon as the limit can no longer be met
    return _sum(job)


def _discard_other_cut(job: Job, inputs: Inputs, size: int) -> None:
    """Remove shards of another size: an API step's may differ between runs. Its replies are in the journal."""
    done = zip(shard_paths(job.dir), shard_stats(job.dir), strict=True)
    if any(stats.rows_in != inputs.length(int(path.stem), size) for path, stats in done):
        _start_over(job)


def _check_limits(job: Job, step: Step, stats: Stats, total: int) -> None:
    """Raise LimitExceeded if the counts so far already exceed a limit for `total` rows."""
    if stats.bad > job.max_drop_share * total:
        raise LimitExceeded(
            f"step {job.name!r}: {stats.bad:,} of {total:,} rows are unusable "
            f"({counts_line(stats.drops)}), more than the limit of {job.max_drop_share:g} "
            "(limits.bad_rows of a recipe, max_drop_share of a pipeline); "
            f"for example {_example(stats)}; all are listed in {job.shards}/*.drops.jsonl"
        )
    if objection := step.verdict(stats.counts, total):
        raise LimitExceeded(f"step {job.name!r}: {objection}; the rows are in {job.shards}")


def _example(stats: Stats) -> str:
    """A row with the most frequent drop reason, and its detail."""
    example = stats.examples[max(stats.drops, key=lambda reason: stats.drops[reason])][0]
    return ": ".join(part for part in (example["row_id"] or "a row", example["detail"]) if part)


def _discard_rejected(job: Job, step: Step) -> None:
    """Remove the shards that fail the verdict, so that the next run retries them."""
    for index, stats in enumerate(shard_stats(job.dir)):
        if step.verdict(stats.counts, stats.rows_in):
            job.shard(index).unlink(missing_ok=True)


def _write_manifest(job: Job, stats: Stats) -> Manifest:
    paid, versions = read_totals(job.dir), {"python": platform.python_version()}
    for package in job.step().packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    about_job = {name: getattr(job, name) for name in ("kind", "name", "key", "params", "fingerprint", "code")}
    counted = {name: getattr(stats, name) for name in COUNTED}
    manifest = Manifest(
        **about_job,
        **counted,
        inputs=list(job.input_keys),
        shards=len(shard_paths(job.dir)),
        seconds=round(stats.seconds, 3),
        versions=versions,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        cost=paid.summary() if paid else {},
    )
    write_json(job.dir / "manifest.json", asdict(manifest))
    if job.input_dirs:
        _link_content(job)
    return manifest
