"""Score a JSONL file into another: rows in order, resumed after a kill, bad rows as outcome "error".

Output goes to `<output>.part` and is renamed at the end. The first line of the part names reward, parameters,
code and input, so that only the same work is continued; complete lines and groups after it are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rewards.base import FailureLimit, Reward, Score, code_hash, group_of, params_of
from rewards.errors import RewardError, nearest

BATCH_ROWS = 64
PER_COMPLETION = ("finish_reason", "tokens")  # of a row's meta

Numbered = tuple[int, dict[str, Any], str]  # line number, row, problem (row is empty then)


def read_rows(path: Path) -> Iterator[Numbered]:
    """Rows of a JSONL file; blank lines are skipped, a line that is no JSON object comes with its problem."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as problem:
                yield number, {}, f"not JSON: {str(problem)[:100]}"
                continue
            if isinstance(row, dict):
                yield number, row, ""
            else:
                yield number, {}, f"a JSON {type(row).__name__}, not an object"


def require_columns(row: dict[str, Any], names: Sequence[str], path: Path) -> None:
    """Raise RewardError if the file's first row lacks a column: then all of them most likely do."""
    for name in names:
        if name not in row:
            raise RewardError(
                f"{path}: no column {name!r}{nearest(name, row)}; columns found: {', '.join(row) or 'none'}"
            )


def check_columns(reward: Reward, source: Path) -> None:
    """Raise RewardError if the first readable row lacks a column that the reward needs."""
    for _, row, problem in read_rows(source):
        if not problem:
            require_columns(row, reward.needs, source)
            return


def score_file(
    reward: Reward, source: Path, output: Path, workers: int | None = None, limit: FailureLimit | None = None
) -> dict[str, int]:
    """Write every row of `source` to `output` with `scores` added. Returns outcomes counted over the whole
    file.

    scores: one {value, outcome, details} per completion of the row. Raises RewardError and TooManyFailures
    (what is scored by then stays in the part file), OSError.
    """
    limit = limit or FailureLimit()
    _check_output(source, output)
    check_columns(reward, source)
    _check_completions(source)
    reward.check_ready()
    part = output.with_name(output.name + ".part")
    header = _header(reward, source)
    counts: Counter[str] = Counter()
    with part.open("a+b") as out:
        _lock(out, part)
        done = _resume(out, header, counts, source)
        with _Progress(_count_rows(source), done) as progress:
            rows = itertools.islice(read_rows(source), done, None)
            for batch in _batches(rows, BATCH_ROWS * (workers or 1)):
                for line, scores in _scored(reward, batch, workers):
                    counts.update(score.outcome for score in scores)
                    out.write(line)
                out.flush()
                progress.advance(len(batch))
                limit.check(counts)
        limit.check(counts, final=True)
        _publish(part, output, len(header))
    return dict(counts)


def _batches(rows: Iterator[Numbered], size: int) -> Iterator[list[Numbered]]:
    """About `size` rows at a time. Neighbours of one group stay together: they may be graded by each other."""
    batch: list[Numbered] = []
    for row in rows:
        if len(batch) >= size and _group(batch[-1]) != _group(row):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _group(numbered: Numbered) -> str | int:
    number, row, _ = numbered
    return group_of(row) or number


def _check_completions(source: Path) -> None:
    for _, row, problem in read_rows(source):
        if not problem and "completions" not in row:
            require_columns(row, ["completion"], source)
        if not problem:
            return


def _check_output(source: Path, output: Path) -> None:
    """Before any work: a directory cannot be replaced, and the input would lose its lines that are no rows."""
    if output.is_dir():
        raise RewardError(f"{output}: a directory; name a file for the scored rows")
    if source.exists() and output.exists() and output.samefile(source):
        raise RewardError(f"{output}: input and output are the same file; write to another one")


def _count_rows(source: Path) -> int:
    with source.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _header(reward: Reward, source: Path) -> bytes:
    digest = hashlib.sha256()
    with source.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    work = {"reward": reward.name, "params": params_of(reward), "code": code_hash(), "input": digest.hexdigest()}
    return json.dumps(work, sort_keys=True).encode() + b"\n"


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RewardError(f"{path}: another process is scoring into it") from None


def _resume(file: BinaryIO, header: bytes, counts: Counter[str], source: Path) -> int:
    """Rows already in the part file, counted into `counts`; what a kill cut short, a line or a group, is removed."""
    file.seek(0)
    if file.readline() != header:
        file.truncate(0)
        file.write(header)
        return 0
    ends, outcomes = [file.tell()], []
    for line in file:
        if not line.endswith(b"\n"):
            break
        outcomes.append([score["outcome"] for score in json.loads(line)["scores"]])
        ends.append(ends[-1] + len(line))
    done = _whole_groups(source, len(outcomes))
    counts.update(itertools.chain.from_iterable(outcomes[:done]))
    file.truncate(ends[done])
    return done


def _whole_groups(source: Path, done: int) -> int:
    """How many of the first `done` rows belong to groups that end among them."""
    groups = [_group(row) for row in itertools.islice(read_rows(source), done + 1)]
    while 0 < done < len(groups) and groups[done - 1] == groups[done]:
        done -= 1
    return done


def _publish(part: Path, output: Path, header_bytes: int) -> None:
    """The part without its header, under the final name, in one step."""
    body = part.with_name(part.name + ".body")
    with part.open("rb") as source, body.open("wb") as target:
        source.seek(header_bytes)
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    body.replace(output)
    part.unlink()


def _scored(reward: Reward, batch: Sequence[Numbered], workers: int | None) -> Iterator[tuple[bytes, list[Score]]]:
    """Each row of the batch as an output line, with its scores."""
    found = [([], f"not a row: {problem}") if problem else _completions(row) for _, row, problem in batch]
    pairs = [
        (_own_meta(row, i), text)
        for (_, row, _), (texts, _) in zip(batch, found, strict=True)
        for i, text in enumerate(texts)
    ]
    results = iter(reward.score_many([row for row, _ in pairs], [text for _, text in pairs], workers))
    for (number, row, _), (texts, problem) in zip(batch, found, strict=True):
        scores = list(itertools.islice(results, len(texts)))
        if problem:
            scores = [Score(0.0, "error", {"problem": f"line {number}: {problem}"})]
        line = json.dumps({**row, "scores": [score.as_json() for score in scores]})
        yield line.encode() + b"\n", scores


def _completions(row: dict[str, Any]) -> tuple[list[str], str]:
    """(completions, problem) of a row."""
    given = row["completions"] if "completions" in row else [row.get("completion")]
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        name = "completions" if "completions" in row else "completion"
        return [], f"{name} must be {'a list of texts' if name == 'completions' else 'a text'}"
    return given, ""


def _own_meta(row: dict[str, Any], index: int) -> dict[str, Any]:
    """Give completion `index` its own entry of meta's columns that are lists, one entry a completion."""
    meta = row.get("meta")
    lists = {key: meta.get(key) for key in PER_COMPLETION} if isinstance(meta, dict) else {}
    own = {key: value[index] for key, value in lists.items() if isinstance(value, list) and index < len(value)}
    return {**row, "meta": {**row["meta"], **own}} if own else row


class _Progress:
    """A bar on stderr when a person watches, nothing otherwise."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done = total, done
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._done)
        return self

    def advance(self, rows: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, rows)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
