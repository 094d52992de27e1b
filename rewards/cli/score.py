"""`python -m rewards score`: a JSONL file into another, rows in order; the same command again resumes after a kill.

Rows are written to `<output>.part` as they are finished, each after its line number, and put in order at the end.
`<output>.part.json` names reward, parameters, code and input, so that only the same work is resumed.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

from rewards.base import FailureLimit, Reward, Score, code_hash, params_of
from rewards.errors import RewardError
from rewards.scorer import Line, batches, check_columns, completions_of, read_lines, score_rows

Finished = dict[int, int]  # line number -> where its row stands in the part


def score_file(
    reward: Reward, source: Path, output: Path, workers: int | None = None, limit: FailureLimit | None = None
) -> dict[str, int]:
    """Write every row of `source` to `output` with `scores`, one {value, outcome, details} per completion.

    Returns the outcomes counted over the whole file. Raises RewardError and TooManyFailures (what is scored by then
    stays in the part file), OSError.
    """
    limit = limit or FailureLimit()
    if output.is_dir():
        raise RewardError(f"{output}: a directory; name a file for the scored rows")
    if source.exists() and output.exists() and output.samefile(source):
        raise RewardError(f"{output}: input and output are the same file; write to another one")
    check_columns(reward, source, completions=True)
    reward.check_ready()
    work = _work(reward, source)
    part, about, ordered = (output.with_name(output.name + end) for end in (".part", ".part.json", ".part.ordered"))
    with part.open("a+b") as out:
        _lock(out, part)
        if not about.exists() or about.read_text() != work:
            out.truncate(0)
            about.write_text(work)
        counts: Counter[str] = Counter()
        finished = _finished(out, counts)
        lines = _unfinished(read_lines(source), finished, counts, out)
        size = max(1, reward.batch_rows * (workers or 1) // reward.batches_at_once(workers))
        for batch in _scored(reward, batches(lines, size), workers):
            out.seek(0, os.SEEK_END)
            for line, scores in batch:
                finished[line.number] = out.tell()
                counts.update(score.outcome for score in scores)
                row = {**line.row, "scores": [score.as_json() for score in scores]}
                out.write(b"%d %b\n" % (line.number, json.dumps(row).encode()))
            out.flush()
            limit.check(counts)
        limit.check(counts, final=True)
        with ordered.open("wb") as rows:
            for number in sorted(finished):
                out.seek(finished[number])
                rows.write(out.readline().partition(b" ")[2])
            os.fsync(rows.fileno())
        ordered.replace(output)
        part.unlink()
    about.unlink()
    return dict(counts)


def _lock(file: BinaryIO, path: Path) -> None:
    """Raises RewardError if another process holds the lock, or has removed the file by now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise RewardError(f"{path}: another process is scoring into it")


Scored = list[tuple[Line, list[Score]]]


def _scored(reward: Reward, parts: Iterable[list[Line]], workers: int | None) -> Iterator[Scored]:
    """Each batch with its scores, as they are finished: a row that takes long delays no other one."""

    def score(batch: list[Line]) -> Scored:
        scores = score_rows(reward, [line.row for line in batch], workers)
        return [(line, own or _unscored(line)) for line, own in zip(batch, scores, strict=True)]

    size = reward.batches_at_once(workers)
    threads = ThreadPoolExecutor(size)
    running: set[Future[Scored]] = set()
    try:
        for batch in itertools.chain(parts, [None] * (size + 1)):
            if batch is not None:
                running.add(threads.submit(score, batch))
            if running and (batch is None or len(running) > size):  # the next one is read meanwhile
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _unscored(line: Line) -> list[Score]:
    """For a row without scores: an error, or nothing if its list of completions is empty."""
    problem = f"not a row: {line.problem}" if line.problem else completions_of(line.row)[1]
    return [Score(0.0, "error", {"problem": f"line {line.number}: {problem}"})] if problem else []


def _work(reward: Reward, source: Path) -> str:
    """What is scored by what, as JSON."""
    with source.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    work = {"reward": reward.name, "params": params_of(reward), "code": code_hash(), "input": digest}
    return json.dumps(work, sort_keys=True)


def _finished(part: BinaryIO, counts: Counter[str]) -> Finished:
    """Rows in the part file, counted; an incomplete line at its end is removed."""
    finished: Finished = {}
    at = 0
    part.seek(0)
    for line in part:
        if line.endswith(b"\n"):
            finished[int(line.partition(b" ")[0])] = at
            counts.update(_outcomes(line))
            at += len(line)
    part.truncate(at)
    return finished


def _outcomes(line: bytes) -> list[str]:
    return [score["outcome"] for score in json.loads(line.partition(b" ")[2])["scores"]]


def _unfinished(lines: Iterable[Line], finished: Finished, counts: Counter[str], part: BinaryIO) -> Iterator[Line]:
    """Lines that are still to be scored: all of a group, where a kill came between them."""
    for _, group in itertools.groupby(lines, lambda line: line.group):
        members = list(group)
        if any(line.number not in finished for line in members):
            for line in members:
                if line.number in finished:
                    part.seek(finished.pop(line.number))
                    counts.subtract(_outcomes(part.readline()))
                yield line
