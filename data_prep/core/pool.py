"""Shards of a step on several processes of this machine, none of which outlives the one that started it."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass

from data_prep.core.engine import Inputs, Job, make_shard
from data_prep.core.manifest import Stats
from data_prep.core.step import Apply, Step
from data_prep.errors import DataError

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Opened:
    """What a process of the pool holds between shards."""

    job: Job
    step: Step
    inputs: Inputs
    apply: Apply


_opened: Opened | None = None  # one per process, set by its initializer


def make_on_pool(job: Job, todo: Sequence[int], workers: int) -> Generator[tuple[int, Stats], None, None]:
    """Make these shards, each yielded when it is done. Raises DataError when a process dies."""
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_enter, initargs=(job, os.getpid())
    )
    try:
        futures = [pool.submit(_work, index) for index in todo]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"{job.dir}: a worker process of step {job.name!r} died (out of memory?); "
            "finished shards are kept: run the same command again, with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _enter(job: Job, parent: int) -> None:
    """Open the step in a process of the pool, and tie its life to its parent's."""
    global _opened
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _die_with_parent(parent)
    stack, step = ExitStack(), job.step()
    _opened = Opened(job, step, Inputs.of(job), stack.enter_context(step.open(job.context())))
    multiprocessing.util.Finalize(None, stack.close, exitpriority=10)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, of `kill -9` too (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _work(index: int) -> tuple[int, Stats]:
    assert _opened is not None
    return index, make_shard(_opened.job, _opened.step, _opened.inputs, _opened.apply, index)
