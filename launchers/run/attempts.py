"""Records an attempt at the start of a Slurm job, and fails jobs that should not be retried.

    python -m launchers.run.attempts RUN MAX [PART…]

Called by job.sbatch. Slurm may requeue a job, under the same job id, without limit. Exit status 3 after MAX starts, or
after IDLE training attempts without progress; 2 if the allocation does not match the run's hardware profile.
"""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from launchers.run import directory as rundir
from launchers.run import events

IDLE = 3
DRIVER = Path("/proc/driver/nvidia/gpus")


def main(argv: Sequence[str]) -> int:
    """Exit status 0 if the job may start."""
    run, most, parts = Path(argv[0]), int(argv[1]), list(argv[2:])
    job, restarts = os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    past = list(events.read(run))
    furthest: dict[str, int] = {}  # last step of each training (the recipe's and its controls')
    last = ""
    for event in past:
        if event["event"] == "train_step":
            last = str(event.get("label"))
            furthest[last] = max(event["step"], furthest.get(last, 0))
    reached = sum(furthest.values())
    events.append(
        run, "attempt", job=job, attempt=restarts + 1, parts=parts, step=reached, host=socket.gethostname(),
        nodes=os.environ.get("SLURM_JOB_NODELIST", ""), cpus=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    steps = [event["step"] for event in past if event["event"] == "attempt" and event.get("job") == job] + [reached]
    if restarts >= most:
        return _refuse(f"job {job} has already been started {restarts} times (max_attempts of the site)", 3)
    if "train" in parts and len(steps) > IDLE and len(set(steps[-IDLE - 1 :])) == 1:
        step = f"step {furthest.get(last, 0) + 1}" + (f" of training {last}" if len(furthest) > 1 else "")
        return _refuse(f"{IDLE} attempts ended before {step}: see logs, or lower train.save_every", 3)
    if "train" in parts and (fault := _machines(run)):
        return _refuse(fault, 2)
    return 0


def _machines(run: Path) -> str | None:
    """How the allocation differs from the run's hardware profile; None if it matches."""
    plan = rundir.at(run).plan
    nodes, profile = int(os.environ.get("SLURM_JOB_NUM_NODES") or 1), plan.resolved.recipe.hardware
    if nodes < plan.hardware.nodes:
        return f"the job has {nodes} nodes, but {profile} needs {plan.hardware.nodes}: submit it with make sbatch/…"
    models = {_model(path) for path in DRIVER.glob("*/information")} if plan.hardware.device == "cuda" else set()
    if others := sorted(model for model in models if plan.hardware.accelerator not in model):
        host, expected = socket.gethostname(), plan.hardware.accelerator
        print(f"warning: {host} has {', '.join(others)}, but {profile} expects {expected}")
    return None


def _model(path: Path) -> str:
    lines = [line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith("Model:")]
    return lines[0] if lines else "a GPU of unknown model"


def _refuse(why: str, status: int) -> int:
    print(f"error: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as problem:  # a shared disk that is read-only or full
        sys.exit(_refuse(str(problem), 2))
