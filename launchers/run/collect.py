"""Copies manifests and score statistics from the step cache into the run directory."""

import json
from collections.abc import Sequence
from pathlib import Path

from data_prep.core import pipeline
from data_prep.core.manifest import read_rows
from data_prep.core.pipeline import StepPlan
from data_prep.errors import DataError
from launchers.render import write
from launchers.run import directory as rundir
from launchers.run import spread
from launchers.run import summary as planned

_SPREADS = (
    ("score", "samples", spread.of_samples), ("score", "pool", spread.of_scores),
    ("choose_by_likeness", "choice", spread.of_choice), ("pairs", "pairs", spread.of_pairs),
)  # fmt: skip


def collect(run: Path) -> None:
    """Copy every finished step's manifest to manifests/<nn>-<pipeline>/, and write spreads/ and plan.json."""
    made = rundir.at(run).plan
    run = made.run
    for index, (file, spec) in enumerate(made.specs.items()):
        control = Path(file).parts[1] if file.startswith("controls/") else ""
        folder = run / "manifests" / "-".join(part for part in (f"{index:02}", control, spec.name) if part)
        try:
            steps = pipeline.plan(spec)
        except DataError:  # it needs a model that has not been trained
            continue
        for number, step in enumerate(steps):
            manifest = step.dir / "manifest.json"
            if manifest.exists():
                write(folder / f"{number:02}-{step.name}.json", manifest.read_text())
        if not file.startswith(("eval/", "controls/", "data/validation")):  # only the main training's samples
            _spread(steps, run / "spreads" / f"{folder.name}.json")
    write(run / "plan.json", json.dumps(planned.facts(made), indent=1, ensure_ascii=False) + "\n")


def _spread(steps: Sequence[StepPlan], path: Path) -> None:
    """Write the distribution of a pipeline's last scored samples and pairs, if it has any."""
    spreads = {}
    for step in steps:
        for kind, name, summary in _SPREADS if (step.dir / "manifest.json").exists() else ():
            if kind == step.kind and (facts := summary(read_rows(step.dir))):
                spreads[name] = facts
    if spreads:
        write(path, json.dumps(spreads, indent=1) + "\n")
