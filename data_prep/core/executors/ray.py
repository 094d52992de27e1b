"""Shards as tasks on a Ray cluster: the one at RAY_ADDRESS, or else a local one that ends with this process.

All nodes must have the environment `ray`, and see the step cache and this repository at the same paths on a shared
file system. Calls whose worker or node is lost are retried elsewhere; finished shards are kept.
"""

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

from data_prep.core.shards import Call, Job, Work, opened
from data_prep.core.step import Step
from data_prep.errors import DataError

RETRIES = 5  # of a call whose worker dies: a lost node uses up one, a shard that runs out of memory all
OBJECT_STORE_BYTES = 200_000_000  # of a local cluster: rows are passed in files
AGENT_TIMEOUT = "RAY_agent_register_timeout_ms", "180000"  # the default, 15 s, is too short for imports on a busy host
MISSING = (
    "engine ray needs the environment `ray`: build it with `python3 -m launchers.envs ray`, which prints its "
    "interpreter, and run `<interpreter> -m data_prep run …`; or choose engine processes"
)

_open: tuple[str, ExitStack, Work] | None = None  # in a worker: its current step, by key


def work(job: Job, step: Step, calls: Sequence[Call], workers: int | None) -> Generator[tuple[int, Any], None, None]:
    """Run the calls, at most `workers` at once; each result is yielded when it is done. Raises DataError."""
    connect()
    import ray
    from ray.exceptions import RayError, RayTaskError

    cpus, gpus = step.resources()
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_call)
    todo, shared = iter(calls), ray.put(job)
    window = workers or 2 * _slots(job, cpus, gpus)  # one call queued per busy slot
    running = [task.remote(shared, call) for call in islice(todo, window)]
    try:
        while running:
            done, running = ray.wait(running, num_returns=1)
            result = ray.get(done[0])
            running += [task.remote(shared, call) for call in islice(todo, 1)]
            yield result
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, FileNotFoundError | ModuleNotFoundError):
            raise DataError(
                f"step {job.name!r}: a node of the Ray cluster does not see all files ({_line(cause)}): "
                "put the repository and the cache (POSTTRAIN_CACHE) on a file system that all nodes share"
            ) from error
        raise cause from error
    except RayError as error:
        raise DataError(
            f"{job.dir}: a worker of step {job.name!r} was lost {RETRIES + 1} times (out of memory?): {_line(error)}; "
            "finished shards are kept: run the same command again"
        ) from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _slots(job: Job, cpus: float, gpus: float) -> int:
    """How many calls the cluster can run at once. Raises DataError if it cannot run any."""
    import ray

    total, slots = ray.cluster_resources(), []
    for name, amount in (("CPU", cpus), ("GPU", gpus)):
        present = total.get(name, 0)
        if amount > present:
            raise DataError(f"step {job.name!r} needs {amount:g} {name}, and the Ray cluster has {present:g}")
        slots += [int(present // amount)] if amount else []
    return min(slots)


def connect() -> None:
    """Connect this process to the cluster. Raises DataError, in one line, if that fails."""
    os.environ.setdefault(*AGENT_TIMEOUT)
    try:
        import ray
    except ModuleNotFoundError:
        raise DataError(MISSING) from None
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address == "local" else {}
    paths = [path for path in sys.path if path and not path.startswith((sys.prefix, sys.base_prefix))]
    try:
        ray.init(
            address,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
            log_to_driver=False,
            logging_level="ERROR",
            **own,
        )
    except Exception as error:  # Ray raises a bare Exception if a node does not start
        raise DataError(f"RAY_ADDRESS {address}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _call(job: Job, call: Call) -> tuple[int, Any]:
    """Runs in a worker, which keeps the step open for its next calls."""
    global _open
    if _open is None or _open[0] != job.key:
        if _open is not None:
            _open[1].close()
        stack = ExitStack()
        _open = (job.key, stack, stack.enter_context(opened(job)))
    return _open[2](call)
