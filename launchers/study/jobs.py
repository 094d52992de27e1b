"""A study on Slurm: jobs for each cell and seed, dependent on those of the cells it needs, and a job for the report.

    make study/<family> SLURM=1                                    (DRY_RUN=1)
    python -m launchers.study.jobs STUDY CELL SEED PART            # in a job: prepare and print the run directory
    python -m launchers.study.jobs STUDY                           # write the report of a study or sweep

A run's directory depends on the model that its cell starts from, so each job determines it when it starts.
"""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from launchers.checks import preflight
from launchers.envs import REPO
from launchers.errors import RunError, UserError, fail
from launchers.plan.plan import Plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, Resolved
from launchers.render import template, write
from launchers.run import directory as rundir
from launchers.run import failures, upstream
from launchers.run.directory import Run
from launchers.run.submit import require_not_submitted, submit_all
from launchers.study import run as studying
from launchers.study import spec
from launchers.study.run import Record
from launchers.study.spec import Study
from launchers.targets import slurm
from launchers.targets.jobs import JobPart, job_parts


@dataclass(frozen=True)
class Jobs:
    """A study's folder and its sbatch lines; dependencies are given by job name.

    recipes: recipes whose `model_of` must be trained. arrays: a sweep's runs, in the order of the array tasks.
    """

    path: Path
    lines: list[list[str]]
    recipes: list[Resolved]
    arrays: Sequence[Run] = ()


def run_of(study: Study, out: Path, name: str, seed: int) -> Run:
    """The run of a cell. Raises UserError, or RunError if a cell that it needs has not finished."""
    needed = {other: run_of(study, out, other, seed) for other in study.upstream(name)}
    if missing := [other for other, run in needed.items() if not run.finished]:
        raise RunError(f"it needs {' and '.join(missing)} of seed {seed}, which did not finish")
    return rundir.locate(upstream.with_trained_model(studying.after(study, name, seed, needed), out), out)


def prepare(study: Study, out: Path) -> Jobs:
    """Write the study's folder, with a script for each cell. Raises UserError."""
    resolved = spec.check(study, out)
    record = studying.locate(study, resolved, out)
    path, plans, parts = record.path, dict[str, Plan](), dict[str, list[JobPart]]()
    for name in study.order():
        plan = plans[name] = _plan(study, out, name)
        parts[name] = _as_one(job_parts(plan)) if study.file.cells[name].from_run else job_parts(plan)
        write_script(path, f"{name}.sbatch", slurm.sbatch_script(plan, rundir.SCRIPT), cell=name)
    record.save("submitted")
    lines, last = list[list[str]](), dict[tuple[str, int], str]()
    for entry in record.entries:
        with suppress(RunError):  # it depends on an unfinished cell
            if run_of(study, out, entry.cell, entry.seed).finished:
                continue
        plan, script = plans[entry.cell], f"{entry.cell}.sbatch"
        before = [last[key] for name in study.upstream(entry.cell) if (key := (name, entry.seed)) in last]
        for job in parts[entry.cell]:
            label = f"{study.family}-{entry.cell}-{entry.seed}-{job.name}"
            command = slurm.submit_command(plan, job, before)
            lines.append(own_line(command, path, script, str(entry.seed), job.name, name=label))
            before = [label]
        last[entry.cell, entry.seed] = before[0]
    name, plan = next(iter(plans.items()))
    command = slurm.submit_command(plan, job_parts(plan)[-1], list(last.values()), "afterany")
    lines.append(own_line(command, path, f"{name}.sbatch", "page", name=f"{study.family}-page"))
    return Jobs(path, lines, list(resolved.values()))


def _plan(study: Study, out: Path, name: str) -> Plan:
    """The plan of a cell, or of its recipe alone while a cell that it needs is unfinished."""
    seed, cell = study.file.seeds[0], study.file.cells[name]
    try:
        return run_of(study, out, name, seed).plan
    except RunError:
        settings = study.overrides(name, seed).settings
        kept = tuple(setting for setting in settings if setting[0] != "data" or not cell.from_run)
        recipe, faults = preflight.check(compose.resolve(cell.recipe, Overrides(study.scale, kept)))
        if faults:
            raise UserError(*(study.placed(name, fault) for fault in faults)) from None
        return rundir.locate(upstream.with_trained_model(recipe, out), out).plan


def _as_one(jobs: Sequence[JobPart]) -> list[JobPart]:
    """One job per part, with the largest number of GPUs: the data steps of an unfinished run cannot be split yet."""
    groups = [list(group) for _, group in groupby(jobs, key=lambda job: job.part)]
    return [replace(max(group, key=lambda job: job.gpus), name=group[0].part) for group in groups]


def write_script(path: Path, name: str, job: str, cell: str | None = None) -> None:
    """Write the script of a sweep's arrays or of a study's cell, with the header of a run's job.sbatch."""
    (path / "logs").mkdir(parents=True, exist_ok=True)
    options = re.findall(r"^#SBATCH --(?!job-name|output).*$", job, re.MULTILINE)
    output = slurm.output_option(path / "logs" / ("slurm-%x-%j.out" if cell else "slurm-%A_%a.out"))
    text = template("sweep.sbatch.j2").render(header=options, output=output, path=path, repo=REPO, cell=cell)
    write(path / name, text)


def own_line(command: Sequence[str], path: Path, *script: str, name: str = "", array: str = "") -> list[str]:
    """A run's sbatch line, changed to run a script in the study's folder with these arguments."""
    own = {"--comment": path.name} | ({"--job-name": name} if name else {})
    words = [f"{key}={own.get(key, value)}" for key, _, value in (word.partition("=") for word in command[2:-2])]
    return [*command[:2], *([array] if array else []), *words, str(path / script[0]), *script[1:]]


def submit(jobs: Jobs) -> list[str]:
    """Submit all jobs; returns their ids. Raises UserError, or RunError after cancelling the submitted ones."""
    config = slurm.tool("scontrol", "show", "config") if jobs.arrays else None
    limit = re.search(r"MaxArraySize\s*=\s*(\d+)", config or "")
    if limit and len(jobs.arrays) > int(limit[1]):
        raise fail(f"{len(jobs.arrays)} runs exceed the cluster's MaxArraySize {limit[1]}: use a smaller grid", "GRID")
    require_not_submitted(jobs.path)
    for recipe in jobs.recipes:
        upstream.require_trained(recipe, jobs.path.parents[2])
    numbers = submit_all(jobs.lines)
    for index, run in enumerate(jobs.arrays):
        for number, line in zip(numbers, jobs.lines[:-1], strict=False):
            rundir.add_job(run.path, f"{number}_{index}", line[-1])
    return numbers


def _study(record: Record) -> Study:
    head = record.head
    settings = compose.parse_settings(head["overrides"])
    return spec.load(head["family"], head["scale"], head["seeds"], list(head["cells"]), settings)


def collect(path: Path) -> dict[str, Any]:
    """Update study.json from the runs' results, and write the report."""
    record = Record.read(path)
    study = None if all(entry.run for entry in record.entries) else _study(record)
    for entry in record.entries:
        try:
            run = run_of(study, path.parents[2], entry.cell, entry.seed) if study else rundir.at(path / str(entry.run))
        except RunError as error:
            entry.status, entry.reason = "blocked", str(error)
            continue
        entry.status = "done" if run.finished else "failed"
        entry.run = os.path.relpath(run.path, path) if run.path.exists() else None
        seen = [] if run.finished else failures.of_run(run.path)
        entry.reason = "; ".join(f"{failure.name}: {failure.change}" for failure in seen) or None
    return record.publish()


def main(argv: Sequence[str]) -> None:
    """Prepare a job's run and print its directory, or write the report."""
    path = Path(argv[0])
    if len(argv) == 1:
        studying.verdict(collect(path))
        return
    run = run_of(_study(Record.read(path)), path.parents[2], argv[1], int(argv[2]))
    rundir.prepare(run)
    rundir.add_job(run.path, os.environ["SLURM_JOB_ID"], argv[3])
    print(run.path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
