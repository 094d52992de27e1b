"""`python -m rewards score`: a JSONL file into another, rows in order; the same command again resumes after a kill.

Output goes to `<output>.part`, which becomes the output at the end. `<output>.part.json` names reward, parameters, code
and input, so that only the same work is resumed; the complete lines and groups of the part are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from rewards.base import FailureLimit, Reward, Score, code_hash, params_of
from rewards.errors import RewardError
from rewards.scorer import Line, batches, check_columns, completions_of, read_lines, score_rows


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
    part, about = (output.with_name(output.name + suffix) for suffix in (".part", ".part.json"))
    counts: Counter[str] = Counter()
    with part.open("a+b") as out:
        _lock(out, part)
        if not about.exists() or about.read_text() != work:
            out.truncate(0)
            about.write_text(work)
        done = _resume(out, counts, source)
        lines = itertools.islice(read_lines(source), done, None)
        for batch in _scored(reward, batches(lines, reward.batch_rows * (workers or 1)), workers):
            for line, scores in batch:
                counts.update(score.outcome for score in scores)
                row = {**line.row, "scores": [score.as_json() for score in scores]}
                out.write(json.dumps(row).encode() + b"\n")
            out.flush()
            limit.check(counts)
        limit.check(counts, final=True)
        os.fsync(out.fileno())
        part.replace(output)
    about.unlink()
    return dict(counts)


def _lock(file: BinaryIO, path: Path) -> None:
    """Raises RewardError if another process holds the lock, or has renamed the file by now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise RewardError(f"{path}: another process is scoring into it")


Scored = list[tuple[Line, list[Score]]]


def _scored(reward: Reward, parts: Iterable[list[Line]], workers: int | None) -> Iterator[Scored]:
    """Each batch with its scores. While one is scored, the next is read and the one before is written."""

    def score(batch: list[Line]) -> Scored:
        scores = score_rows(reward, [line.row for line in batch], workers)
        return [(line, own or _unscored(line)) for line, own in zip(batch, scores, strict=True)]

    current: Future[Scored] | None = None
    with ThreadPoolExecutor(1) as thread:
        for batch in parts:
            ahead = thread.submit(score, batch)
            if current:
                yield current.result()
            current = ahead
        if current:
            yield current.result()


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


def _resume(part: BinaryIO, counts: Counter[str], source: Path) -> int:
    """Rows already in the part file, counted into `counts`; an incomplete line or group at its end is removed."""
    part.seek(0)
    ends, outcomes = [0], []
    for line in part:
        if line.endswith(b"\n"):
            outcomes.append([score["outcome"] for score in json.loads(line)["scores"]])
            ends.append(ends[-1] + len(line))
    done = len(outcomes)
    groups = [line.group for line in itertools.islice(read_lines(source), done + 1)]
    while 0 < done < len(groups) and groups[done - 1] == groups[done]:
        done -= 1
    counts.update(itertools.chain.from_iterable(outcomes[:done]))
    part.truncate(ends[done])
    return done
