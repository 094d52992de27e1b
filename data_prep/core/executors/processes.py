"""Shards in several processes on this machine, none of which outlives the process that started it."""

import ctypes
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

from data_prep.core.executors.serial import as_done
from data_prep.core.shards import Call, Job, Work, opened
from data_prep.errors import DataError

PR_SET_PDEATHSIG = 1  # linux/prctl.h

_work: Work | None = None  # one per process, set by its initializer


def work(job: Job, calls: Sequence[Call], workers: int) -> Generator[tuple[int, Any], None, None]:
    """Run the calls; each result is yielded when it is done. Raises DataError when a process dies."""
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_enter, initargs=(job, os.getpid())
    )
    try:
        yield from as_done(pool, _call, calls, 2 * workers)
    except BrokenProcessPool as error:
        raise DataError(
            f"{job.dir}: a worker process of step {job.name!r} died (out of memory?); "
            "finished shards are kept: run the same command again, with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _enter(job: Job, parent: int) -> None:
    """Open the step in a process of the pool; the process ends with its parent."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
    _die_with_parent(parent)
    stack = ExitStack()
    _work = stack.enter_context(opened(job))
    multiprocessing.util.Finalize(None, stack.close, exitpriority=10)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even by `kill -9` (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _call(call: Call) -> tuple[int, Any]:
    assert _work is not None
    return _work(call)
