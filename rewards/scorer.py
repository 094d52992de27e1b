"""Scores rows and JSONL files, in order: `python -m rewards score`, and the data step `score`.

A row has `completion` or `completions`. Each completion is scored with its own entry of the row's `meta`, and the
completions of a group (see base.group_of) are scored together.

The same command resumes after a kill: finished rows are stored in `<output>.part`, an SQLite file, and written in order
at the end. The file records reward, parameters, code and input, so that only identical work is resumed.
"""

import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, NamedTuple

from rewards.base import FailureLimit, Reward, Row, Score, code_hash, group_of
from rewards.errors import RewardError, nearest

PER_COMPLETION = ("finish_reason", "tokens")  # fields of `meta` that may be lists with one entry per completion
_BATCH_BYTES = 64 << 20
_TABLES = """
    PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS work (about TEXT);
    CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, row TEXT, outcomes TEXT);
"""


class Line(NamedTuple):
    """A line of a JSONL file. problem: why it is not a row (then `row` is empty). size: bytes."""

    number: int
    row: dict[str, Any]
    problem: str
    size: int

    @property
    def group(self) -> str | int:
        return group_of(self.row) or self.number


def read_lines(path: Path) -> Iterator[Line]:
    """The non-blank lines of a JSONL file. Raises OSError."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                problem = "" if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"
            except (ValueError, RecursionError) as error:
                problem = f"not JSON: {str(error)[:100]}"
            yield Line(number, {} if problem else row, problem, len(line))


def check_columns(reward: Reward, source: Path, completions: bool = False) -> None:
    """Check that the first valid row of a JSONL file has the required columns; other rows are not checked.

    completions: whether rows must have `completion` or `completions`. Raises RewardError, OSError.
    """
    for row in itertools.islice((line.row for line in read_lines(source) if not line.problem), 1):
        for name in (*reward.needs, *(["completion"] if completions and "completions" not in row else [])):
            if name not in row:
                columns = ", ".join(row) or "none"
                raise RewardError(f"{source}: no column {name!r}{nearest(name, row)}; columns: {columns}")


def batches(lines: Iterable[Line], rows: int) -> Iterator[list[Line]]:
    """Batches of about `rows` lines, fewer if they are large. Adjacent lines of one group stay together."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if (len(batch) >= rows or size >= _BATCH_BYTES) and batch[-1].group != line.group:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += line.size
    if batch:
        yield batch


def score_rows(reward: Reward, rows: Sequence[Row], workers: int | None = None) -> list[list[Score]]:
    """The scores of each row's completions; empty for an invalid row (see `completions_of`)."""
    completions = [completions_of(row)[0] for row in rows]
    pairs = [
        (_with_meta(row, i), text) for row, texts in zip(rows, completions, strict=True) for i, text in enumerate(texts)
    ]
    scores = iter(reward.score_many([row for row, _ in pairs], [text for _, text in pairs], workers))
    return [list(itertools.islice(scores, len(texts))) for texts in completions]


def completions_of(row: Row) -> tuple[list[str], str]:
    """(completions, problem) of a row; completions are empty if problem is not."""
    if "completions" not in row:
        text = row.get("completion")
        return ([text], "") if isinstance(text, str) else ([], "completion must be a text")
    texts = row["completions"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return [], "completions must be a list of texts"
    return texts, ""


def _with_meta(row: Row, index: int) -> Row:
    """The row for completion `index`: each meta list named in PER_COMPLETION is replaced by its entry `index`."""
    meta = row.get("meta")
    if not isinstance(meta, dict):
        return row
    lists = {key: meta[key] for key in PER_COMPLETION if isinstance(meta.get(key), list)}
    entries = {key: values[index] for key, values in lists.items() if index < len(values)}
    return {**row, "meta": {**meta, **entries}} if entries else row


def score_file(
    reward: Reward, source: Path, output: Path, workers: int | None = None, limit: FailureLimit | None = None
) -> dict[str, int]:
    """Write every row of `source` to `output` with `scores`, a list of {value, outcome, details} per completion.

    Returns outcome counts over the whole file. Raises RewardError, TooManyFailures (rows scored so far
    stay in the part file), OSError.
    """
    limit = limit or FailureLimit()
    if output.is_dir():
        raise RewardError(f"{output}: is a directory; give a file for the scored rows")
    if source.exists() and output.exists() and output.samefile(source):
        raise RewardError(f"{output}: input and output are the same file; give another output")
    check_columns(reward, source, completions=True)
    reward.check_ready()
    with source.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    work = {"reward": reward.name, "params": reward.model_dump(), "code": code_hash(), "input": digest}
    part, ordered = (output.with_name(output.name + end) for end in (".part", ".part.ordered"))
    with _store(part, json.dumps(work, sort_keys=True)) as store:
        finished = dict(store.execute("SELECT number, outcomes FROM rows"))
        counts = Counter(outcome for outcomes in finished.values() for outcome in outcomes.split())
        lines = (line for line in read_lines(source) if line.number not in finished)
        size = max(1, reward.batch_rows * (workers or 1) // reward.batches_at_once(workers))
        for batch in _scored(reward, batches(lines, size), workers):
            rows = []
            for line, scores in batch:
                outcomes = [score.outcome for score in scores]
                counts.update(outcomes)
                row = {**line.row, "scores": [score.as_json() for score in scores]}
                rows.append((line.number, json.dumps(row), " ".join(outcomes)))
            with store:  # one transaction, so that a group is stored completely or not at all
                store.execute("BEGIN")
                store.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            limit.check(counts)
        limit.check(counts, final=True)
        with ordered.open("w", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for (row,) in store.execute("SELECT row FROM rows ORDER BY number"))
            file.flush()
            os.fsync(file.fileno())
        ordered.replace(output)
    part.unlink()
    return dict(counts)


@contextlib.contextmanager
def _store(path: Path, work: str) -> Iterator[sqlite3.Connection]:
    """The database of finished rows of `work`, locked for this process. Rows of other work are deleted.

    Raises RewardError.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as store:
        try:
            store.executescript(_TABLES)
            if store.execute("SELECT about FROM work").fetchall() != [(work,)]:
                store.executescript("DELETE FROM rows; DELETE FROM work")
                store.execute("INSERT INTO work VALUES (?)", [work])
            yield store
        except sqlite3.Error as problem:
            reason = "another process is scoring into it" if "locked" in str(problem) else str(problem)
            raise RewardError(f"{path}: {reason}") from None


Scored = list[tuple[Line, list[Score]]]


def _scored(reward: Reward, parts: Iterable[list[Line]], workers: int | None) -> Iterator[Scored]:
    """Batches with their scores, in the order in which they finish, so that a slow row does not delay others."""

    def score(batch: list[Line]) -> Scored:
        scores = score_rows(reward, [line.row for line in batch], workers)
        return [(line, row_scores or _unscored(line)) for line, row_scores in zip(batch, scores, strict=True)]

    size = reward.batches_at_once(workers)
    threads = ThreadPoolExecutor(size)
    running: set[Future[Scored]] = set()
    try:
        for batch in parts:
            running.add(threads.submit(score, batch))
            if len(running) > size:  # one batch more than threads, so that it is read while they work
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in as_completed(running))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _unscored(line: Line) -> list[Score]:
    """The scores of an invalid row: one error, or none if its list of completions is empty."""
    problem = f"not a row: {line.problem}" if line.problem else completions_of(line.row)[1]
    return [Score(0.0, "error", {"problem": f"line {line.number}: {problem}"})] if problem else []
