"""Shards one after another, in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from data_prep.core.shards import Call, Job, opened


def work(job: Job, calls: Sequence[Call], rows: int | None) -> Generator[tuple[int, Any], None, None]:
    """Do the calls in their order; `rows` that they are about, where that is known."""
    if calls:
        with opened(job, rows) as call_on_shard:
            yield from map(call_on_shard, calls)
