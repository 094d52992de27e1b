"""A grid search over one recipe as a study: every combination with every seed, here or as Slurm arrays, one report.

    make sweep/<family>/<recipe> GRID="train.learning_rate=1e-6,3e-6 seed=1,2,3"        (SLURM=1, DRY_RUN=1)

On Slurm each part of the runs is an array; a run's part starts when the previous part of the same run has succeeded.
"""

import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launchers.errors import fail
from launchers.recipe import compose
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import Overrides
from launchers.render import write
from launchers.run import directory as rundir
from launchers.run import upstream
from launchers.study import run as studying
from launchers.study import spec
from launchers.study.jobs import Jobs, own_line, write_script
from launchers.study.spec import Setting, Study, StudyFile
from launchers.targets import slurm
from launchers.targets.jobs import job_parts

RUNS, SCRIPT, SEED = "runs.txt", "sweep.sbatch", ("seed", "train.seed")


def study_of(name: str, grid: Sequence[str], scale: str | None = None, extra: Sequence[Setting] = ()) -> Study:
    """The study defined by a grid's `key=value,value` words. Raises UserError."""
    axes: dict[str, list[str]] = {}
    for key, text, _ in compose.parse_settings(grid, "GRID"):
        values = [text] if text[:1] in "[{" else [value.strip() for value in text.split(",")]
        plain = [yaml_tree.parse(value, "GRID").plain() for value in values]
        if key in axes or not all(values) or any(value in plain[:at] for at, value in enumerate(plain)):
            raise fail(f"{key}={text}: keys and values must be unique and not empty", "GRID")
        axes[key] = values
    seeds = [axes.pop(key) for key in SEED if key in axes]
    if not axes:
        raise fail('no key to vary, e.g. "train.learning_rate=1e-6,3e-6 seed=1,2,3"', "GRID")
    own = compose.resolve(name, Overrides(scale, tuple(extra))).recipe.train.seed
    cells: dict[str, dict[str, Any]] = {}
    for choice in itertools.product(*axes.values()):
        chosen = dict(zip(axes, choice, strict=True))
        label = "-".join(f"{key.rpartition('.')[2]}-{value}" for key, value in chosen.items())
        cell = re.sub(r"[^\w-]+", "_", label)[:60]
        set_ = {key: yaml_tree.parse(value, "GRID").plain() for key, value in chosen.items()}
        cells[f"{cell}-{len(cells)}" if cell in cells else cell] = {"recipe": name, "set": set_}
    ask = f"Which {' and '.join(axes)} is best?"
    head = {
        "seeds": spec.parse_seeds(",".join(seeds[0])) if seeds else [own], "by": "task", "cells": cells,
        "questions": [{"ask": ask, "compare": list(cells)}],
    }  # fmt: skip
    return Study(
        name.partition("/")[0], scale, StudyFile.model_validate(head), yaml_tree.parse(json.dumps(head), "GRID"),
        tuple(extra),
    )  # fmt: skip


def prepare(study: Study, out: Path) -> Jobs:
    """Write the directories of all runs and of the sweep; one array per part, and a job for the report. Raises
    UserError."""
    record = studying.locate(study, spec.check(study, out), out)
    resolved = [study.resolve(entry.cell, entry.seed) for entry in record.entries]
    runs = [rundir.locate(upstream.with_trained_model(recipe, out), out) for recipe in resolved]
    chains = [job_parts(run.plan) for run in runs]
    if len({tuple((job.name, job.nodes, job.gpus, job.cpus) for job in chain) for chain in chains}) > 1:
        raise fail("all runs of an array need the same hardware: submit each hardware profile separately", "GRID")
    path, first = record.path, runs[0]
    for entry, run in zip(record.entries, runs, strict=True):
        entry.run = os.path.relpath(run.path, path)
        rundir.prepare(run)
    record.save("submitted")
    write(path / RUNS, "".join(f"{run.path}\n" for run in runs))
    write_script(path, SCRIPT, (first.path / "job.sbatch").read_text())
    lines, before = [], list[str]()
    for job in chains[0]:
        command = slurm.submit_command(first.plan, job, before, "aftercorr")
        lines.append(own_line(command, path, SCRIPT, job.name, array=f"--array=0-{len(runs) - 1}"))
        before = [slurm.job_name(first.plan, job.name)]
    command = slurm.submit_command(first.plan, replace(chains[0][-1], name="page"), before, "afterany")
    lines.append(own_line(command, path, SCRIPT, "page"))
    return Jobs(path, lines, [first.plan.resolved], runs)
