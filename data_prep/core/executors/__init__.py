"""Where a step's shards are computed: in this process, in processes on this machine, or on a Ray cluster.

An executor takes calls and yields (shard number, result) as they finish, in any order, with a bounded number in flight.
"""

import os
from collections.abc import Generator, Sequence
from typing import Any

from data_prep.core.executors import serial
from data_prep.core.shards import Call, Job
from data_prep.core.step import Step

Results = Generator[tuple[int, Any], None, None]


def execute(job: Job, step: Step, calls: Sequence[Call], rows: int | None = None) -> Results:
    """Run the calls on the executor that the job's settings name. rows: of the whole input. Raises DataError.

    A step that needs a single process, such as one with a request journal, runs in this one. A step with its own
    environment, which has no Ray, runs in processes on this machine.
    """
    most, engine = step.processes(), job.execution.engine
    if engine == "ray" and step.env() == "core" and most != 1 and calls:
        from data_prep.core.executors import ray

        return ray.work(job, step, calls, _minimum(most, job.execution.workers))
    limit = 1 if engine == "serial" else _minimum(most, job.execution.workers)
    workers = min(cpus() if limit is None else limit, len(calls))
    if workers <= 1:
        return serial.work(job, calls, rows)
    from data_prep.core.executors import processes  # imported here: the launcher does not need it

    return processes.work(job, calls, workers)


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def _minimum(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
