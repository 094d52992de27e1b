"""Runs a study: every cell with every seed as an ordinary run, one by one, and a report on all of them.

    python -m launchers study min_o1 [--scale mini] [--seeds 0,1,2] [--only cell,cell] [--set key=value]

`runs/studies/<family>/<time>-<hash>/` contains study.json (cells, runs and their states), report.html and logs/. The
run directories are those of `make <recipe>`, so finished runs are reused and interrupted ones resume. A failed cell is
recorded with its reason; cells that need it are blocked; the others continue.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from launchers import envs, harnesses
from launchers.errors import RunError, UserError
from launchers.recipe.compose import Resolved
from launchers.render import write
from launchers.run import directory as rundir
from launchers.run import events, upstream
from launchers.run.directory import Run
from launchers.run.execute import only_one
from launchers.run.supervise import die_with_parent
from launchers.study.spec import Study, check

RECORD = "study.json"
FEW_SEEDS = 3  # with fewer, effects can hardly be distinguished from noise
_REASON = 300  # characters


@dataclass
class Entry:
    """One cell with one seed. `run` is relative to the study's folder; `seconds`: wall time of its run."""

    cell: str
    seed: int
    status: str = "waiting"  # running, done, failed, blocked
    reason: str | None = None
    run: str | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.cell} seed {self.seed}"


@dataclass
class Record:
    """study.json: `head` has the questions and the cells with their resolved recipes, `entries` are the runs."""

    path: Path
    head: dict[str, Any]
    entries: list[Entry]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a study's folder."""
        head = json.loads((path / RECORD).read_text())
        return cls(path, head, [Entry(**entry) for entry in head["runs"]])

    def save(self, status: str) -> dict[str, Any]:
        """Write study.json; returns its content."""
        record = {**self.head, "status": status, "runs": [asdict(entry) for entry in self.entries]}
        write(self.path / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return record

    def publish(self, status: str = "") -> dict[str, Any]:
        """Write study.json and the report; returns the record with both paths.

        Without `status` the study has ended, and its status is done if all runs are done, else failed.
        """
        from launchers.study import page

        ended = "done" if all(entry.status == "done" for entry in self.entries) else "failed"
        record = self.save(status or ended)
        return {"study": str(self.path), "report": str(page.build(self.path)), **record}


def locate(study: Study, resolved: dict[str, Resolved], out: Path) -> Record:
    """The study to resume, found by its hash, or a new one, with all runs waiting. Writes nothing."""
    root = out.absolute() / "studies" / study.family
    digest = study.digest(resolved)
    folders = sorted(root.glob(f"*-{digest}"))
    path = folders[-1] if folders else root / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{digest}"
    cells = {}
    for name in study.order():
        settings = resolved[name].recipe.model_dump(mode="json")
        cells[name] = {**study.file.cells[name].model_dump(mode="json"), "settings": settings}
    count, exists = len(study.file.seeds), (path / RECORD).is_file()
    few = f"{count} seed{'s' * (count > 1)}: with fewer than {FEW_SEEDS}, noise can look like an effect"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    head = {
        "family": study.family,
        "scale": study.scale,
        "created": Record.read(path).head["created"] if exists else now,
        "overrides": [f"{key}={text}" for key, text, _ in study.extra],
        "warnings": [few] if count < FEW_SEEDS else [],
        "by": study.file.by,
        "metric": harnesses.measured(next(iter(resolved.values())).eval.tasks).model_dump(),
        "seeds": study.file.seeds,
        "questions": [question.model_dump() for question in study.file.questions],
        "cells": cells,
    }
    return Record(path, head, [Entry(cell, seed) for seed in study.file.seeds for cell in study.order()])


def execute(study: Study, out: Path) -> dict[str, Any]:
    """Run or resume the study. Returns the record; raises UserError before anything starts."""
    record = locate(study, check(study, out), out)
    for line in record.head["warnings"]:
        print(f"warning: {line}", file=sys.stderr)
    with only_one(record.path, "study"):
        try:
            _Work(study, out, record).all()
        except KeyboardInterrupt:
            record.publish("stopped")
            raise
        return record.publish()


def after(study: Study, name: str, seed: int, needed: Mapping[str, Run]) -> Resolved:
    """A cell's recipe, with the model and run directory of the cells that it needs. Raises UserError."""
    cell = study.file.cells[name]
    model = needed[cell.model_of].path / needed[cell.model_of].plan.main.model if cell.model_of else None
    return study.resolve(name, seed, model, needed[cell.from_run].path if cell.from_run else None)


class _Work:
    """Executes the runs of a study seed by seed, so that early results cover all cells."""

    def __init__(self, study: Study, out: Path, record: Record) -> None:
        self.study, self.out, self.record = study, out, record
        self._runs: dict[tuple[str, int], Run] = {}
        earlier = Record.read(record.path).entries if (record.path / RECORD).is_file() else []
        seconds = {(entry.cell, entry.seed): entry.seconds for entry in earlier}
        for entry in record.entries:
            entry.seconds = seconds.get((entry.cell, entry.seed))

    def all(self) -> None:
        """Execute every run, continuing after failures."""
        for entry in self.record.entries:
            if missing := [name for name in self.study.upstream(entry.cell) if (name, entry.seed) not in self._runs]:
                entry.status = "blocked"
                entry.reason = f"it needs {' and '.join(missing)} of seed {entry.seed}, which did not finish"
            else:
                try:
                    self._do(entry)
                except (UserError, DataError, RunError) as error:
                    self._failed(entry, str(error))
            self._print(entry, f"{entry.status}: {entry.reason}" if entry.reason else entry.status)

    def _print(self, entry: Entry, text: str) -> None:
        """Print a line when a run starts or ends, with the study's progress."""
        count = Counter(other.status for other in self.record.entries)
        left = count["waiting"] + count["running"]
        counts = f"{count['done']} done, {count['failed']} failed, {count['blocked']} blocked, {left} left"
        print(f"study: {entry} {text} ({counts})", file=sys.stderr, flush=True)

    def _do(self, entry: Entry) -> None:
        """Find a finished run, or execute it in a separate process."""
        needed = {name: self._runs[name, entry.seed] for name in self.study.upstream(entry.cell)}
        resolved = after(self.study, entry.cell, entry.seed, needed)
        upstream.do_first(resolved, self.out)  # the recipe's own model_of, the same run for every seed
        run = rundir.locate(upstream.with_trained_model(resolved, self.out), self.out)
        entry.run = os.path.relpath(run.path, self.record.path)
        if not run.finished:
            entry.status = "running"
            self.record.save("running")
            self._print(entry, "starts")
            self._start(entry, run)
        if rundir.finished(run.plan):
            entry.status = "done"
            self._runs[entry.cell, entry.seed] = run
            if not run.finished:
                self.record.publish("running")
        elif entry.status == "running":
            self._failed(entry, "it exited with status 0 but is not finished")

    def _start(self, entry: Entry, run: Run) -> None:
        """Execute a run with `python -m launchers run`, which ends with this process; log it in the study's logs."""
        rundir.prepare(run)
        past = sum(1 for _ in events.read(run.path))
        log = self.record.path / "logs" / f"{entry.cell}-{entry.seed}.log"
        log.parent.mkdir(exist_ok=True)
        parent, began = os.getpid(), time.monotonic()
        with log.open("wb") as sink:
            command = [sys.executable, "-m", "launchers", "run", str(run.path), "--json"]
            process = subprocess.Popen(
                command, cwd=envs.REPO, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),  # one system call (Linux)
            )  # fmt: skip
            try:
                status = process.wait()
            except KeyboardInterrupt:  # from the terminal, which also interrupts the run
                process.wait()
                raise
        entry.seconds = round((entry.seconds or 0) + time.monotonic() - began, 1)
        if status:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
            errors = [*lines, *(event["error"] for event in list(events.read(run.path))[past:] if event.get("error"))]
            reason = errors[-1].removeprefix("error: ") if errors else f"exit {status}"
            self._failed(entry, f"{reason} (log: {log})")

    def _failed(self, entry: Entry, reason: str) -> None:
        entry.status, entry.reason = "failed", textwrap.shorten(reason, _REASON, placeholder="…")
        self.record.publish("running")


def verdict(record: dict[str, Any]) -> None:
    """Raises RunError if runs failed or were blocked, one line each."""
    lost = [entry for entry in record["runs"] if entry["status"] != "done"]
    if lost:
        lines = [f"{entry['cell']} seed {entry['seed']} {entry['status']}: {entry['reason']}" for entry in lost]
        count = f"{len(lost)} of {len(record['runs'])} runs did not finish; the same command retries them"
        raise RunError("\n".join([*lines, f"{count}: {record['report']}"]))
