"""Shows the state of each run in a folder, derived from the files of the run.

make status        python -m launchers status [FAMILY/RECIPE] [--out DIR] [--json]
"""

import datetime
import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from launchers.errors import RunError, UserError
from launchers.recipe.compose import shown
from launchers.report.format import clock
from launchers.run import directory as rundir
from launchers.run import events
from launchers.targets import slurm

FACTS = ("loss", "reward", "accuracy", "margin")  # metrics of a training's last step that are shown


@dataclass(frozen=True)
class Status:
    """One run. state: done, running, queued (in Slurm), failed, stopped (killed, or between parts), new, unreadable, or
    unknown (it has Slurm jobs, but Slurm does not answer).

    heartbeat: time of the last event or heartbeat, UTC. jobs: Slurm job ids; scheduler: (id, name, state, reason) of
    each. eta_s: seconds to the last step at the newest attempt's speed. metrics: of the last step. logs: the newest
    attempt's folder.
    """

    recipe: str
    scale: str
    state: str
    logs: str
    run: str
    step: int | None = None
    steps: int | None = None
    heartbeat: str = ""
    jobs: list[str] = field(default_factory=list)
    scheduler: list[tuple[str, str, str, str]] = field(default_factory=list)
    eta_s: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def of_runs(runs: Sequence[Path]) -> list[Status]:
    """The states of run directories, with a single Slurm query."""
    records = {run: rundir.record(run) for run in runs}
    jobs = [job for record in records.values() for job in record.get("slurm_jobs", {})]
    try:
        known = slurm.states_and_ends(jobs)
    except RunError:
        return [_status(run, record, None) for run, record in records.items()]
    return [_status(run, record, known) for run, record in records.items()]


def _status(run: Path, record: dict[str, Any], slurm_states: dict[str, tuple[str, str]] | None) -> Status:
    """`slurm_states`: None if Slurm does not answer."""
    if "recipe" not in record:
        return Status("/".join(run.parts[-3:-1]), "", "unreadable", str(run / "logs"), str(run))
    happened = list(events.read(run))
    steps = [event for event in happened if event["event"] == "train_step" and event.get("label") == "after"]
    attempts = sorted((path for path in (run / "logs").glob("*") if path.is_dir()), reverse=True)
    jobs: dict[str, str] = record.get("slurm_jobs", {})
    known = {job: slurm_states[job] for job in jobs if job in slurm_states} if slurm_states is not None else {}
    state = _state(run, happened, known, [job for job in rundir.newest_jobs(jobs) if job in known])
    if jobs and slurm_states is None and state not in ("running", "done", "unreadable"):
        state = "unknown"
    return Status(
        recipe=str(record["recipe"]),
        scale=str(record.get("scale") or ""),
        state=state,
        step=steps[-1]["step"] if steps else None,
        steps=steps[-1]["total"] if steps else None,
        heartbeat=_heartbeat(run, happened),
        jobs=list(jobs),
        scheduler=[(job, jobs[job], *known[job]) for job in jobs if job in known],
        eta_s=_eta(steps),
        metrics={key: steps[-1][key] for key in FACTS if key in steps[-1]} if steps else {},
        logs=str(attempts[0] if attempts else run / "logs"),
        run=str(run),
    )


def _heartbeat(run: Path, happened: Sequence[dict[str, object]]) -> str:
    """The later of the last event and the last heartbeat (the latter by the file server's clock)."""
    times = [str(happened[-1]["time"])[:19]] if happened else []
    if (beat := run / events.HEARTBEAT).exists():
        times.append(datetime.datetime.fromtimestamp(beat.stat().st_mtime, datetime.UTC).isoformat()[:19])
    return max(times, default="")


def _eta(steps: Sequence[dict[str, Any]]) -> float | None:
    """Estimated from the steps of the newest attempt, which begins where the step number last did not increase."""
    first = max((at for at in range(1, len(steps)) if steps[at]["step"] <= steps[at - 1]["step"]), default=0)
    if len(steps) - first < 2:
        return None
    start, last = steps[first], steps[-1]
    took = datetime.datetime.fromisoformat(last["time"]) - datetime.datetime.fromisoformat(start["time"])
    return float(took.total_seconds() / (last["step"] - start["step"]) * (last["total"] - last["step"]))


def _state(
    run: Path, happened: Sequence[dict[str, object]], jobs: dict[str, tuple[str, str]], newest: Sequence[str]
) -> str:
    if is_locked(run):
        return "running"
    try:
        if happened and rundir.at(run).finished:  # builds the plan, which takes 0.2 s
            return "done"
    except (UserError, DataError):
        return "unreadable"
    standing = {job: slurm.standing(*known) for job, known in jobs.items()}
    for label in ("running", "queued"):
        if label in standing.values():
            return label
    ends = [event for event in happened if event["event"] == "phase_end"]
    if "failed" in map(standing.get, newest) or (ends and ends[-1].get("error")):
        return "failed"
    return "stopped" if happened else "new"


def is_locked(run: Path) -> bool:
    """Whether a process holds the run's lock (on other machines only if the file system shares locks)."""
    try:
        with (run / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def of_all(out: Path, recipe: str | None = None) -> list[Status]:
    """Every run in `out`, newest heartbeat first."""
    statuses = of_runs([path.parent for path in sorted(out.glob(f"{recipe or '*/*'}/*/run.json"))])
    if recipe is None:
        statuses += filter(None, map(_submitted_study, sorted(out.glob("studies/*/*/study.json"))))
    return sorted(statuses, key=lambda one: one.heartbeat, reverse=True)


def _submitted_study(record: Path) -> Status | None:
    """The state of a study or sweep with jobs in Slurm (its runs may have no directory yet); None without jobs."""
    from launchers.run import submit  # imported here: only needed with Slurm

    try:
        read = json.loads(record.read_text())
        jobs = submit.alive_by_comment(record.parent.name) if read["status"] == "submitted" else []
    except (OSError, ValueError, KeyError, RunError):
        return None
    if not jobs:
        return None
    name, folder = f"studies/{read['family']}", record.parent
    return Status(name, read["scale"] or "", "queued", str(folder / "logs"), str(folder), jobs=jobs)


def print_all(statuses: Sequence[Status]) -> None:
    """Print one line per run."""
    if not statuses:
        print("no runs yet")
    for item in statuses:
        name = f"{item.recipe}{f' ({item.scale})' if item.scale else ''}"
        step = f"step {item.step} of {item.steps}" if item.step is not None else ""
        waiting = [f"{name} {state.lower()}" for _, name, state, _ in item.scheduler if state != "COMPLETED"]
        job = f"job {item.jobs[-1]}{': ' if waiting else ''}{', '.join(waiting)}" if item.jobs else ""
        if item.eta_s is not None and item.state == "running":
            job = f"{clock(item.eta_s)} left  {job}"
        job = "  ".join([*(f"{key} {value:.3g}" for key, value in item.metrics.items()), job])
        print(
            f"{item.state:<10} {name:<32} {step:<18} {item.heartbeat:<20} {job:<12} {shown(Path(item.logs))}".rstrip()
        )
