"""Rows to scores: what the command line and data pipelines share.

A row carries `completion` or `completions`; each completion is scored with its own entry of the row's `meta`, and the
completions of one group (see base.group_of) are scored together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rewards.base import Reward, Row, Score, group_of
from rewards.errors import RewardError, nearest

PER_COMPLETION = ("finish_reason", "tokens")  # columns of `meta` that may be lists with one entry per completion
_BATCH_BYTES = 64 << 20


class Line(NamedTuple):
    """A line of a JSONL file. problem: why it is not a row (`row` is empty then). size: bytes."""

    number: int
    row: dict[str, Any]
    problem: str
    size: int

    @property
    def group(self) -> str | int:
        return group_of(self.row) or self.number


def read_lines(path: Path) -> Iterator[Line]:
    """Lines of a JSONL file without the blank ones. Raises OSError."""
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
    """Check the first readable row of a JSONL file: what it lacks, all of them most likely lack.

    completions: whether rows must have `completion` or `completions`. Raises RewardError, OSError.
    """
    for row in itertools.islice((line.row for line in read_lines(source) if not line.problem), 1):
        for name in (*reward.needs, *(["completion"] if completions and "completions" not in row else [])):
            if name not in row:
                columns = ", ".join(row) or "none"
                raise RewardError(f"{source}: no column {name!r}{nearest(name, row)}; columns: {columns}")


def batches(lines: Iterable[Line], rows: int) -> Iterator[list[Line]]:
    """About `rows` lines at a time, fewer if they are large. Neighbours of one group stay together."""
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
    """The scores of each row's completions; none for a row that has a problem (see `completions_of`)."""
    texts = [completions_of(row)[0] for row in rows]
    pairs = [(_own_meta(row, i), text) for row, own in zip(rows, texts, strict=True) for i, text in enumerate(own)]
    scores = iter(reward.score_many([row for row, _ in pairs], [text for _, text in pairs], workers))
    return [list(itertools.islice(scores, len(own))) for own in texts]


def completions_of(row: Row) -> tuple[list[str], str]:
    """(completions, problem) of a row."""
    if "completions" not in row:
        text = row.get("completion")
        return ([text], "") if isinstance(text, str) else ([], "completion must be a text")
    texts = row["completions"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return [], "completions must be a list of texts"
    return texts, ""


def _own_meta(row: Row, index: int) -> Row:
    meta = row.get("meta")
    if not isinstance(meta, dict):
        return row
    lists = {key: meta[key] for key in PER_COMPLETION if isinstance(meta.get(key), list)}
    own = {key: values[index] for key, values in lists.items() if index < len(values)}
    return {**row, "meta": {**meta, **own}} if own else row
