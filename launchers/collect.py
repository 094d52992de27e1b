"""Brings what a run left in the step cache into its directory, so that the directory tells the whole story."""

from __future__ import annotations

import json
from pathlib import Path

from data_prep import pipeline
from data_prep.errors import DataError
from launchers import planned, rundir
from launchers.render import write


def collect(run: Path) -> None:
    """Copy every finished step's manifest to manifests/<nn>-<pipeline>/, and write plan.json."""
    made = rundir.at(run).plan
    run = made.run
    for index, (file, spec) in enumerate(made.specs.items()):
        control = Path(file).parts[1] if file.startswith("controls/") else ""
        folder = run / "manifests" / "-".join(part for part in (f"{index:02}", control, spec.name) if part)
        try:
            steps = pipeline.plan(spec)
        except DataError:  # it reads a model that has not been trained
            continue
        for number, step in enumerate(steps):
            manifest = step.dir / "manifest.json"
            if manifest.exists():
                write(folder / f"{number:02}-{step.name}.json", manifest.read_text())
    write(run / "plan.json", json.dumps(planned.facts(made), indent=1, ensure_ascii=False) + "\n")
