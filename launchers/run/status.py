"""What each run below a folder is doing, from what its folder holds.

make status        python -m launchers status [FAMILY/RECIPE] [--out DIR] [--json]
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.errors import DataError
from launchers.errors import UserError
from launchers.recipe.compose import shown
from launchers.run import directory as rundir
from launchers.run import events

QUEUE_TIMEOUT_S = 10


@dataclass(frozen=True)
class Status:
    """One run. state: done, running, queued (in Slurm), failed, stopped (killed, or between parts), new, unreadable.

    heartbeat: time of its last event, UTC. jobs: Slurm's numbers. logs: the newest attempt's folder.
    """

    recipe: str
    scale: str
    state: str
    step: int | None
    steps: int | None
    heartbeat: str
    jobs: list[str]
    logs: str
    run: str


def status(run: Path) -> Status:
    """The state of one run directory."""
    record = json.loads((run / "run.json").read_text())
    happened = list(events.read(run))
    steps = [event for event in happened if event["event"] == "train_step" and event.get("label") == "after"]
    attempts = sorted((path for path in (run / "logs").glob("*") if path.is_dir()), reverse=True)
    jobs = [str(job) for job in record.get("slurm_jobs", [])]
    return Status(
        recipe=str(record["recipe"]),
        scale=str(record.get("scale") or ""),
        state=_state(run, happened, jobs),
        step=steps[-1]["step"] if steps else None,
        steps=steps[-1]["total"] if steps else None,
        heartbeat=str(happened[-1]["time"])[:19] if happened else "",
        jobs=jobs,
        logs=str(attempts[0] if attempts else run / "logs"),
        run=str(run),
    )


def _state(run: Path, happened: Sequence[dict[str, object]], jobs: Sequence[str]) -> str:
    if is_locked(run):
        return "running"
    try:
        if rundir.at(run).finished:
            return "done"
    except (UserError, DataError):
        return "unreadable"
    if alive := queued(jobs):
        return alive[-1][1]
    ends = [event for event in happened if event["event"] == "phase_end"]
    if ends and ends[-1].get("error"):
        return "failed"
    return "stopped" if happened else "new"


def is_locked(run: Path) -> bool:
    """Whether a process on this machine (or, where the file system locks for all, on any) works on the run."""
    try:
        with (run / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def queued(jobs: Sequence[str]) -> list[tuple[str, str]]:
    """(number, "queued" or "running") of the jobs that Slurm still has; nothing where there is no Slurm."""
    if not jobs or shutil.which("squeue") is None:
        return []
    asked = ["squeue", "--noheader", "--format=%i %T", "--jobs", ",".join(jobs)]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=QUEUE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return []
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(number, "queued" if state == "PENDING" else "running") for number, state in lines]


def of_all(out: Path, recipe: str | None = None) -> list[Status]:
    """Every run below `out`, newest heartbeat first."""
    found = [status(path.parent) for path in sorted(out.glob(f"{recipe or '*/*'}/*/run.json"))]
    return sorted(found, key=lambda one: one.heartbeat, reverse=True)


def print_all(found: Sequence[Status]) -> None:
    """A line for each run, and where its logs are."""
    if not found:
        print("no runs yet")
    for one in found:
        name = f"{one.recipe}{f' ({one.scale})' if one.scale else ''}"
        step = f"step {one.step} of {one.steps}" if one.step is not None else ""
        job = f"job {one.jobs[-1]}" if one.jobs else ""
        print(f"{one.state:<10} {name:<32} {step:<18} {one.heartbeat:<20} {job:<12} {shown(Path(one.logs))}".rstrip())


def as_json(found: Sequence[Status]) -> list[dict[str, object]]:
    """The same for --json."""
    return [asdict(one) for one in found]
