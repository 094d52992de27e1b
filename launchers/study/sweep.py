"""A grid over one recipe as a study: every combination with every seed, here or as arrays on Slurm, and one page.

    make sweep/<family>/<recipe> GRID="train.learning_rate=1e-6,3e-6 seed=1,2,3"        (SLURM=1, DRY_RUN=1)
    python -m launchers.study.sweep STUDY        # the page of a sweep's folder, from what its runs have left

On Slurm each part of the runs is an array; a run's part starts when the part before of the same run has ended well.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launchers.envs import REPO
from launchers.errors import fail
from launchers.plan.plan import Plan
from launchers.recipe import compose
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import Overrides
from launchers.render import template, write
from launchers.run import directory as rundir
from launchers.run import upstream
from launchers.run.directory import Run
from launchers.run.submit import refuse_second, submit_all
from launchers.study import run as studying
from launchers.study import spec
from launchers.study.spec import Setting, Study, StudyFile
from launchers.targets import slurm
from launchers.targets.jobs import JobPart, job_parts

RUNS, SCRIPT, SEED = "runs.txt", "sweep.sbatch", ("seed", "train.seed")


def study_of(name: str, grid: Sequence[str], scale: str | None = None, extra: Sequence[Setting] = ()) -> Study:
    """The study that a grid's `key=value,value` words ask for. Raises UserError."""
    axes: dict[str, list[str]] = {}
    for key, text, _ in compose.parse_settings(grid, "GRID"):
        values = [text] if text[:1] in "[{" else [value.strip() for value in text.split(",")]
        plain = [yaml_tree.parse(value, "GRID").plain() for value in values]
        if key in axes or not all(values) or any(value in plain[:at] for at, value in enumerate(plain)):
            raise fail(f"{key}={text}: each key once, and its values once each", "GRID")
        axes[key] = values
    seeds = [axes.pop(key) for key in SEED if key in axes]
    if not axes:
        raise fail('name what varies, e.g. "train.learning_rate=1e-6,3e-6 seed=1,2,3"', "GRID")
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


@dataclass(frozen=True)
class Sweep:
    """A sweep for Slurm: its folder, its runs in order, and the lines that submit its arrays and its page."""

    path: Path
    runs: list[Run]
    lines: list[list[str]]


def prepare(study: Study, out: Path) -> Sweep:
    """Write every run's directory and the sweep's. Raises UserError."""
    resolved = spec.check(study, out)
    path = studying.locate(study, resolved, out)
    entries = [studying.Entry(cell, seed) for seed in study.file.seeds for cell in study.order()]
    runs = [rundir.locate(upstream.begun(study.resolve(entry.cell, entry.seed), out), out) for entry in entries]
    chains = [job_parts(run.plan) for run in runs]
    if len({tuple((job.name, job.nodes, job.gpus, job.cpus) for job in chain) for chain in chains}) > 1:
        raise fail("runs of one array ask for the same machines: submit each hardware by itself", "GRID")
    for entry, run in zip(entries, runs, strict=True):
        entry.run = os.path.relpath(run.path, path)
        rundir.prepare(run)
    studying.save(path, studying.head(study, resolved, path), "submitted", entries)
    write(path / RUNS, "".join(f"{run.path}\n" for run in runs))
    write_script(path, SCRIPT, (runs[0].path / "job.sbatch").read_text())
    return Sweep(path, runs, _lines(path, runs[0].plan, chains[0], len(runs)))


def write_script(path: Path, name: str, job: str, cell: str | None = None) -> None:
    """The script of a sweep's arrays, or of a study's cell, with the header of a run's job.sbatch."""
    (path / "logs").mkdir(parents=True, exist_ok=True)
    options = re.findall(r"^#SBATCH --(?!job-name|output).*$", job, re.MULTILINE)
    output = slurm.output_option(path / "logs" / ("slurm-%x-%j.out" if cell else "slurm-%A_%a.out"))
    text = template("sweep.sbatch.j2").render(header=options, output=output, path=path, repo=REPO, cell=cell)
    write(path / name, text)


def _lines(path: Path, plan: Plan, jobs: Sequence[JobPart], count: int) -> list[list[str]]:
    lines, before = [], list[str]()
    for job in (*jobs, replace(jobs[-1], name="page")):
        page = job.name == "page"
        line = slurm.submit_command(plan, job, before, "afterany" if page else "aftercorr")
        array = [] if page else [f"--array=0-{count - 1}"]
        words = [f"--comment={path.name}" if word.startswith("--comment=") else word for word in line[2:-2]]
        lines.append([*line[:2], *array, *words, str(path / SCRIPT), job.name])
        before = [slurm.job_name(plan, job.name)]
    return lines


def submit(sweep: Sweep) -> list[str]:
    """Submit the arrays and the page's job; returns their numbers. Raises RunError with none of them left."""
    limit = re.search(r"MaxArraySize\s*=\s*(\d+)", slurm.tool("scontrol", "show", "config") or "")
    if limit and len(sweep.runs) > int(limit[1]):
        raise fail(f"{len(sweep.runs)} runs, and the cluster's MaxArraySize is {limit[1]}: a smaller grid", "GRID")
    refuse_second(sweep.path)
    upstream.refuse_untrained(sweep.runs[0].plan.resolved, sweep.path.parents[2])
    jobs = submit_all(sweep.lines)
    for index, run in enumerate(sweep.runs):
        for job, line in zip(jobs, sweep.lines[:-1], strict=False):
            rundir.add_job(run.path, f"{job}_{index}", line[-1])
    return jobs


def collect(path: Path) -> dict[str, Any]:
    """Bring a sweep's record up to what its runs have left, and write its page."""
    from launchers.run import failures

    record = json.loads((path / studying.RECORD).read_text())
    for entry in record["runs"]:
        if entry["status"] == "blocked":
            continue
        run = (path / entry["run"]).resolve()
        entry["status"] = "done" if rundir.at(run).finished else "failed"
        failures_seen = failures.of_run(run) if entry["status"] == "failed" else []
        entry["reason"] = "; ".join(f"{failure.name}: {failure.change}" for failure in failures_seen) or None
    status = "done" if all(entry["status"] == "done" for entry in record["runs"]) else "failed"
    entries = [studying.Entry(**entry) for entry in record["runs"]]
    return studying.publish(path, record, status, entries)


if __name__ == "__main__":
    studying.verdict(collect(Path(sys.argv[1])))
