"""Runs the parts of a plan as one bash script; no process outlives it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.core import guard
from launchers.backends.base import Command
from launchers.checks.preflight import check_machine
from launchers.errors import RunError, fail
from launchers.plan import contamination
from launchers.plan.plan import PARTS
from launchers.render import write
from launchers.run import directory as rundir
from launchers.run.directory import Run
from launchers.run.supervise import STOPS, die_with_parent
from launchers.targets.local import local_script

SHORT_SCRIPT = "step.sh"  # script for a subset of the run's commands


@contextmanager
def only_one(path: Path, what: str = "run") -> Iterator[None]:
    """Hold a folder's lock. Raises UserError if another process holds it."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise fail(f"another process is working on this {what}", str(path)) from None
        yield


def execute(run: Run, parts: Sequence[str] = PARTS, commands: tuple[Command, ...] | None = None) -> None:
    """Run or resume `parts` of a run. Raises UserError before it starts, RunError after a failure.

    commands: run these instead of the plan's.
    """
    doing = run.plan if commands is None else replace(run.plan, commands=commands)
    check_machine(doing, parts)
    for warning in contamination.warnings(run.plan.trained_on) if {"data", "train"} & set(parts) else ():
        print(f"warning: {warning}", file=sys.stderr)
    _check_order(run, parts)
    with only_one(run.path):
        rundir.prepare(run)
        script_name = rundir.SCRIPT if commands is None else SHORT_SCRIPT
        if commands is not None:
            write(run.path / script_name, local_script(doing), executable=True)
        rundir.update(run.path, status="running")
        for number in STOPS:
            signal.signal(number, _interrupt)
        argv = ["bash", str(run.path / script_name), *parts]
        parent, environ = os.getpid(), {**os.environ, "POSTTRAIN_LOCK_HELD": "1"}
        script = subprocess.Popen(argv, env=environ, preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL))
        try:
            status = script.wait()
        except KeyboardInterrupt:
            for pid in guard.descendants(script.pid):  # the signal may have reached only this process
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            script.wait()
            rundir.update(run.path, status="stopped")
            raise
        label = "failed" if status else "done" if rundir.finished(run.plan) else "partial"
        rundir.update(run.path, status=label)
    if status:
        raise RunError(f"the run stopped; fix the cause, then rerun the same command to resume: {run.path}")


def _interrupt(signum: int, _frame: object) -> None:
    """Stop on the first signal; ignore further ones."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _check_order(run: Run, parts: Sequence[str]) -> None:
    """Raises UserError if a part's input has not been made by the parts before it."""
    name = run.plan.resolved.name
    if "train" in parts and "data" not in parts and run.plan.rows() is None:
        raise fail(f"the training data have not been made yet: make data/{name}", str(run.path))
    if "eval" in parts and "train" not in parts and run.plan.trains:
        progress = run.plan.backend.progress(run.path / run.plan.main.output)
        if progress is None or progress.done < progress.planned:
            raise fail(f"the model has not been trained yet: make train/{name}", str(run.path))


def summary(run: Run) -> dict[str, Any]:
    """Paths, status and scores, for --json."""
    result: dict[str, Any] = {"run": str(run.path), "status": rundir.status(run.path)}
    report = run.path / "report.html"
    if report.exists():
        result["report"] = str(report)
    for file in sorted((run.path / "eval").glob("*.json")):
        if not file.name.endswith(".spec.json"):
            scores = json.loads(file.read_text())["tasks"]
            result.setdefault("eval", {})[file.stem] = {task: score["mean"] for task, score in scores.items()}
    return result
