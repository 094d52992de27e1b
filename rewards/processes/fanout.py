"""Distributes a batch over worker processes: base of rewards with CPU-bound grading in Python.

The workers (pool.py) are started by exec, so that distribution works after fork, under spawn, from any thread and in
Ray workers. They rebuild the reward from its class, name and parameters, and receive the columns it needs as JSON.
"""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from rewards.base import Reward, Row, Score
from rewards.processes.pool import DeadlineError, shared

_MODULE = "rewards.processes.fanout"
_CHUNKS_PER_WORKER = 8  # so that a slow last chunk does not leave other workers idle
_MIN_ROWS, _MAX_ROWS, _MAX_CHARACTERS = 16, 512, 1 << 22  # limits of a chunk
_DEADLINE = 600.0  # CPU seconds per chunk


class ParallelReward(Reward):
    """A reward whose batches are distributed over processes if `score_many` gets two or more workers.

    Subclasses implement `grade`, or `grade_here` to grade many rows at once. Workers receive the columns in `needs` and
    cannot read files: a reward that loads a model sets `parallel` to False and grades in this process.
    """

    batch_rows = 512
    parallel: ClassVar[bool] = True

    def grade_here(self, rows: Sequence[Row], completions: Sequence[str]) -> list[Score]:
        """Grade in this process."""
        return Reward.grade_many(self, rows, completions)

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        """Raises WorkerError if a chunk kills two workers. A chunk over its deadline gets outcome "timeout"."""
        if workers is None or not self.parallel or not 1 < workers < len(rows):
            return self.grade_here(rows, completions)
        module, kind = type(self).__module__, type(self).__qualname__
        work = {"class": [module, kind, self.name, json.dumps(self.model_dump())]}
        size = max(_MIN_ROWS, len(rows) // (workers * _CHUNKS_PER_WORKER))
        chunks = list(_chunks(completions, min(size, _MAX_ROWS, -(-len(rows) // workers))))
        requests = (
            [{**work, "rows": _packed(rows[start:end], self.needs), "completions": completions[start:end]}]
            for start, end in chunks
        )
        scores: list[Score] = []
        replies = shared(_MODULE, workers, preload=(module,)).ask_all(requests, _DEADLINE, workers)
        for (start, end), (reply,) in zip(chunks, replies, strict=True):
            if isinstance(reply, DeadlineError):
                scores += [Score(0.0, "timeout", {"problem": str(reply)}) for _ in range(start, end)]
            elif isinstance(reply, Exception):
                raise reply
            else:
                scores += map(Score, *reply["scores"])
        return scores


def _chunks(completions: Sequence[str], max_rows: int) -> Iterator[tuple[int, int]]:
    """(start, end) of chunks of at most `max_rows` rows and, if of several rows, at most _MAX_CHARACTERS characters."""
    start = characters = 0
    for at, text in enumerate(completions):
        size = len(text) if isinstance(text, str) else 0
        characters += size
        if at > start and (at - start == max_rows or characters > _MAX_CHARACTERS):
            yield start, at
            start, characters = at, size
    yield start, len(completions)


def _packed(rows: Sequence[Row], columns: Sequence[str]) -> list[list[Any] | None]:
    """The columns of each row; None for a row equal to the previous one, as within a group."""
    packed = [[row.get(column) for column in columns] for row in rows]
    return [None if at and values == packed[at - 1] else values for at, values in enumerate(packed)]


def _unpacked(packed: Sequence[list[Any] | None], columns: Sequence[str]) -> list[Row]:
    """The inverse of `_packed`."""
    rows: list[Row] = []
    for values in packed:
        rows.append(rows[-1] if values is None else dict(zip(columns, values, strict=True)))
    return rows


@lru_cache(maxsize=16)
def _built(module: str, kind: str, name: str, params: str) -> ParallelReward:
    """The reward of class `kind` in `module`. params: as JSON."""
    reward = getattr(importlib.import_module(module), kind).create(name, json.loads(params))
    assert isinstance(reward, ParallelReward)
    return reward


def handle(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs in a worker: grades a chunk, returns {"scores": [values, outcomes, details]}."""
    reward = _built(*request["class"])
    scores = reward.grade_here(_unpacked(request["rows"], reward.needs), request["completions"])
    return {"scores": [[s.value for s in scores], [s.outcome for s in scores], [s.details for s in scores]]}
