"""study.json of a folder runs/studies/<family>/<time>-<hash>/, beside report.html and logs/: cells, runs, states.

The runs themselves lie where `make <recipe>` would put them.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launchers import harnesses
from launchers.errors import RunError
from launchers.recipe.compose import Resolved
from launchers.render import write
from launchers.study.spec import Study

RECORD = "study.json"
FEW_SEEDS = 3  # with fewer, chance in training can hardly be told from an effect


@dataclass
class Entry:
    """One cell with one seed. `run` is relative to the study's folder; `seconds` are what this command waited."""

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
    """study.json: `head` is what is asked and what each cell's recipe became, `entries` are the runs."""

    path: Path
    head: dict[str, Any]
    entries: list[Entry]

    @classmethod
    def read(cls, path: Path) -> Record:
        """What a study's folder holds."""
        head = json.loads((path / RECORD).read_text())
        return cls(path, head, [Entry(**entry) for entry in head["runs"]])

    def save(self, status: str) -> dict[str, Any]:
        """Write study.json; returns what is in it."""
        record = {**self.head, "status": status, "runs": [asdict(entry) for entry in self.entries]}
        write(self.path / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return record

    def publish(self, status: str = "") -> dict[str, Any]:
        """Write study.json, and the report of what there is; returns the record with both paths.

        Without a status the study has ended: well where all runs are done.
        """
        from launchers.study import page

        ended = "done" if all(entry.status == "done" for entry in self.entries) else "failed"
        record = self.save(status or ended)
        return {"study": str(self.path), "report": str(page.build(self.path)), **record}


def locate(study: Study, resolved: dict[str, Resolved], out: Path) -> Record:
    """The study to go on with, found by its hash, or a new one: its runs waiting, seed by seed. Writes nothing."""
    root = out.absolute() / "studies" / study.family
    digest = study.digest(resolved)
    folders = sorted(root.glob(f"*-{digest}"))
    path = folders[-1] if folders else root / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{digest}"
    cells = {}
    for name in study.order():
        settings = resolved[name].recipe.model_dump(mode="json")
        cells[name] = {**study.file.cells[name].model_dump(mode="json"), "settings": settings}
    count, begun = len(study.file.seeds), (path / RECORD).is_file()
    few = f"{count} seed{'s' * (count > 1)}: with fewer than {FEW_SEEDS}, differences by chance look like effects"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    head = {
        "family": study.family,
        "scale": study.scale,
        "created": Record.read(path).head["created"] if begun else now,
        "overrides": [f"{key}={text}" for key, text, _ in study.extra],
        "warnings": [few] if count < FEW_SEEDS else [],
        "by": study.file.by,
        "metric": harnesses.measured(next(iter(resolved.values())).eval.tasks).model_dump(),
        "seeds": study.file.seeds,
        "questions": [question.model_dump() for question in study.file.questions],
        "cells": cells,
    }
    return Record(path, head, [Entry(cell, seed) for seed in study.file.seeds for cell in study.order()])


def verdict(record: dict[str, Any]) -> None:
    """Raises RunError when runs failed or were blocked: each in a line."""
    lost = [entry for entry in record["runs"] if entry["status"] != "done"]
    if lost:
        lines = [f"{entry['cell']} seed {entry['seed']} {entry['status']}: {entry['reason']}" for entry in lost]
        count = f"{len(lost)} of {len(record['runs'])} runs did not finish; the same command tries them again"
        raise RunError("\n".join([*lines, f"{count}: {record['report']}"]))
