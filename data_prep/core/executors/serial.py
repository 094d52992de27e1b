"""Shards in this process: one after another, or several in threads for a step that mostly waits."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from data_prep.core.shards import Call, Job, Work, opened


def work(job: Job, calls: Sequence[Call], rows: int | None) -> Generator[tuple[int, Any], None, None]:
    """Run the calls, started in order. rows: how many they cover, if known."""
    if not calls:
        return
    at_once = job.step().shards_at_once
    if at_once == 1:
        with opened(job, rows) as call_on_shard:
            yield from map(call_on_shard, calls)
        return
    # The threads end after the step: on an error, closing the step ends what they wait for.
    with ThreadPoolExecutor(at_once) as threads, opened(job, rows) as call_on_shard:
        yield from as_done(threads, call_on_shard, calls, at_once)


def as_done(pool: Executor, do: Work, calls: Sequence[Call], most: int) -> Iterator[tuple[int, Any]]:
    """Results of the calls as they finish, with at most `most` calls in flight."""
    waiting, running = iter(calls), set[Future[tuple[int, Any]]]()
    results: list[tuple[int, Any]] = []
    while running := running | {pool.submit(do, call) for call in islice(waiting, most - len(running))}:
        yield from results  # once the next calls are submitted
        done, running = wait(running, return_when=FIRST_COMPLETED)
        results = [future.result() for future in done]  # raises before more calls are submitted
    yield from results
