"""A study on Slurm: jobs for each cell and seed, after those of the cells that it needs, and then the page.

    make study/<family> SLURM=1                                    (DRY_RUN=1)
    python -m launchers.study.jobs STUDY CELL SEED PART            # in a job: the run, which is found only now
    python -m launchers.study.jobs STUDY                           # the page of what the runs have left

What a cell begins with decides its run's directory, so that each job finds that by itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from launchers.checks import preflight
from launchers.errors import RunError, UserError
from launchers.plan.plan import Plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, Resolved
from launchers.run import directory as rundir
from launchers.run import upstream
from launchers.run.directory import Run
from launchers.run.submit import refuse_second, submit_all
from launchers.study import run as studying
from launchers.study import spec, sweep
from launchers.study.spec import Study
from launchers.targets import slurm
from launchers.targets.jobs import JobPart, job_parts


@dataclass(frozen=True)
class Jobs:
    """A study's folder and the line that submits each job, by the job's name; dependencies stand there by name."""

    path: Path
    lines: dict[str, list[str]]
    recipes: list[Resolved]


def run_of(study: Study, out: Path, name: str, seed: int) -> Run:
    """The run of a cell. Raises UserError, or RunError where a cell that it needs has not finished."""
    needed = {other: run_of(study, out, other, seed) for other in study.upstream(name)}
    if missing := [other for other, run in needed.items() if not run.finished]:
        raise RunError(f"it needs {' and '.join(missing)} of seed {seed}, which did not finish")
    return rundir.locate(upstream.begun(studying.after(study, name, seed, needed), out), out)


def prepare(study: Study, out: Path) -> Jobs:
    """Write the study's folder, with a script for each cell. Raises UserError."""
    resolved = spec.check(study, out)
    path = studying.locate(study, resolved, out)
    plans, parts = dict[str, Plan](), dict[str, list[JobPart]]()
    for name in study.order():
        plan = plans[name] = _plan(study, out, name)
        parts[name] = _as_one(job_parts(plan)) if study.file.cells[name].from_run else job_parts(plan)
        sweep.write_script(path, f"{name}.sbatch", slurm.sbatch_script(plan, rundir.SCRIPT), cell=name)
    entries = [studying.Entry(cell, seed) for seed in study.file.seeds for cell in study.order()]
    studying.save(path, studying.head(study, resolved, path), "submitted", entries)
    lines, last = dict[str, list[str]](), dict[tuple[str, int], str]()
    for entry in entries:
        if _finished(study, out, entry):
            continue
        before = [last[key] for name in study.upstream(entry.cell) if (key := (name, entry.seed)) in last]
        for job in parts[entry.cell]:
            label = f"{study.family}-{entry.cell}-{entry.seed}-{job.name}"
            line = slurm.submit_command(plans[entry.cell], job, before)
            lines[label] = _renamed(line, label, path, f"{entry.cell}.sbatch", str(entry.seed), job.name)
            before = [label]
        last[entry.cell, entry.seed] = before[0]
    label, (name, plan) = f"{study.family}-page", next(iter(plans.items()))
    line = slurm.submit_command(plan, job_parts(plan)[-1], list(last.values()), "afterany")
    lines[label] = _renamed(line, label, path, f"{name}.sbatch", "page")
    return Jobs(path, lines, list(resolved.values()))


def _plan(study: Study, out: Path, name: str) -> Plan:
    """What a cell's jobs ask for: of its recipe itself, until there is what it begins with."""
    seed, cell = study.file.seeds[0], study.file.cells[name]
    try:
        return run_of(study, out, name, seed).plan
    except RunError:
        settings = study.overrides(name, seed).settings
        kept = tuple(setting for setting in settings if setting[0] != "data" or not cell.from_run)
        recipe, faults = preflight.check(compose.resolve(cell.recipe, Overrides(study.scale, kept)))
        if faults:
            raise UserError(*(study.placed(name, fault) for fault in faults)) from None
        return rundir.locate(upstream.begun(recipe, out), out).plan


def _as_one(jobs: Sequence[JobPart]) -> list[JobPart]:
    """One job for each part, with the most GPUs: how data steps of another run's samples divide is not known yet."""
    groups = [list(group) for _, group in groupby(jobs, key=lambda job: job.part)]
    return [replace(max(group, key=lambda job: job.gpus), name=group[0].part) for group in groups]


def _finished(study: Study, out: Path, entry: studying.Entry) -> bool:
    try:
        return run_of(study, out, entry.cell, entry.seed).finished
    except RunError:
        return False


def _renamed(line: Sequence[str], label: str, path: Path, *script: str) -> list[str]:
    own = {"--job-name": label, "--comment": path.name}
    words = [f"{key}={own.get(key, value)}" for key, _, value in (word.partition("=") for word in line[2:-2])]
    return [*line[:2], *words, str(path / script[0]), *script[1:]]


def submit(jobs: Jobs) -> list[str]:
    """Submit all; returns their numbers. Raises UserError, or RunError with none of them left."""
    refuse_second(jobs.path)
    for recipe in jobs.recipes:
        upstream.refuse_untrained(recipe, jobs.path.parents[2])
    return submit_all(list(jobs.lines.values()))


def main(argv: Sequence[str]) -> int:
    """Exit status of a job's own share: its run, printed for the script, or the page."""
    path = Path(argv[0])
    record = json.loads((path / studying.RECORD).read_text())
    settings = compose.parse_settings(record["overrides"])
    study = spec.load(record["family"], record["scale"], record["seeds"], list(record["cells"]), settings)
    if len(argv) > 1:
        run = run_of(study, path.parents[2], argv[1], int(argv[2]))
        rundir.prepare(run)
        rundir.add_job(run.path, os.environ["SLURM_JOB_ID"], argv[3])
        print(run.path)
        return 0
    for entry in record["runs"]:
        try:
            run = run_of(study, path.parents[2], entry["cell"], entry["seed"])
            entry["run"] = os.path.relpath(run.path, path)
        except RunError as error:
            entry["status"], entry["reason"] = "blocked", str(error)
    studying.save(path, record, record["status"], [studying.Entry(**entry) for entry in record["runs"]])
    studying.verdict(sweep.collect(path))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
