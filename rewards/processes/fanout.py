"""Spreads a batch of a pure reward over worker processes; rewards whose class says `fans_out` use it.

The workers are those of pool.py: exec'd, so that it works after fork, under spawn, from any thread and inside
Ray workers. They rebuild the reward from its name and parameters, and get the columns it needs, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from typing import Any

from rewards.base import Reward, Row, Score, params_of
from rewards.processes.pool import DeadlineError, shared

_MODULE = "rewards.processes.fanout"
_CHUNKS_PER_WORKER = 4  # so that a slow chunk at the end does not leave the others idle
_CHUNK_ROWS = 1024
_DEADLINE = 600.0  # seconds for a chunk, waiting included: a machine that is this busy has other troubles
_ALWAYS = ("id", "group", "meta")  # columns that a reward may use when they are there


def spread(reward: Reward, rows: Sequence[Row], completions: Sequence[str], workers: int) -> list[Score]:
    """Grade completions[i] of rows[i] in `workers` processes, in order.

    Raises WorkerError when a chunk kills two workers. A chunk over its deadline has outcome "timeout".
    """
    columns = (*reward.needs, *_ALWAYS)
    size = max(1, min(_CHUNK_ROWS, -(-len(rows) // (workers * _CHUNKS_PER_WORKER))))
    starts = range(0, len(rows), size)
    work = {"reward": reward.name, "params": params_of(reward)}

    def grade(start: int) -> list[Score]:
        chunk = [{key: row[key] for key in columns if key in row} for row in rows[start : start + size]]
        texts = list(completions[start : start + size])
        try:
            reply = shared(_MODULE, workers).ask({**work, "rows": _packed(chunk), "completions": texts}, _DEADLINE)
        except DeadlineError as problem:
            return [Score(0.0, "timeout", {"problem": str(problem)}) for _ in chunk]
        return [Score(*score) for score in reply["scores"]]

    with ThreadPoolExecutor(workers) as threads:
        return list(chain.from_iterable(threads.map(grade, starts)))


def _packed(rows: Sequence[Row]) -> list[tuple[bool, Row]]:
    """(whole, columns) of each row: the siblings of a group differ in little, so only what differs is sent."""
    packed: list[tuple[bool, Row]] = []
    before: Row = {}
    for row in rows:
        whole = row.keys() != before.keys()
        packed.append((whole, row if whole else {key: row[key] for key in row if row[key] != before[key]}))
        before = row
    return packed


def _unpacked(packed: Sequence[tuple[bool, Row]]) -> list[Row]:
    rows: list[Row] = []
    for whole, columns in packed:
        rows.append(columns if whole else {**rows[-1], **columns})
    return rows


@lru_cache(maxsize=16)
def _built(name: str, params: str) -> Reward:
    from rewards.registry import load

    return load(name, **json.loads(params))


def handle(request: Mapping[str, Any]) -> dict[str, Any]:
    """In a worker: {"reward", "params", "rows", "completions"} to {"scores": [[value, outcome, details]]}."""
    reward = _built(request["reward"], json.dumps(request["params"], sort_keys=True))
    scores = reward.score_many(_unpacked(request["rows"]), request["completions"])
    return {"scores": [[score.value, score.outcome, score.details] for score in scores]}


def warm_up() -> None:
    """Import, before workers are forked and locked down, whatever fans out."""
    from rewards.registry import REGISTRY, reward_class

    for name in REGISTRY:
        reward_class(name)
