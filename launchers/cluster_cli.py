"""The launcher's verbs for clusters: submit, stage, logs, cancel, sweep."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from launchers.cli import (
    RUNS,
    WHICH_RUN,
    FromMake,
    Json,
    Name,
    Out,
    Scale,
    Set,
    answer,
    app,
    do_study,
    locate,
    make_words,
    overrides,
    require_memory,
)
from launchers.errors import UserError, fail

RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")]


@app.command()
def submit(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, from_make: FromMake = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the submit lines and submit nothing")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Render the run and submit it to Slurm: one job per part, after remaining jobs of the same run."""
    from launchers.checks import requirements
    from launchers.plan import estimate
    from launchers.plan.plan import PARTS
    from launchers.run import directory, stage, status, submit
    from launchers.targets import slurm

    run = locate(name, overrides(scale, set_, from_make), out, first="pass" if dry_run else "refuse")
    if dry_run:
        if text := estimate.oversize(run.plan):
            print(f"warning: {text}", file=sys.stderr)
        directory.prepare(run)
        lines = [shlex.join(line) for line in slurm.submit_lines(run.plan)]
        plan = {"run": str(run.path), "submitted": False, "jobs": [{"line": line} for line in lines]}
        answer(as_json, plan, lambda: print("\n".join(lines)))
        return
    if run.finished:
        raise fail("this run is finished, nothing to submit", str(run.path))
    if status.is_locked(run.path):
        raise fail("another process is working on this run", str(run.path))
    if missing := requirements.faults(run.plan, PARTS):
        raise UserError(*missing)
    stage.check(run.plan)
    require_memory(run)
    run = directory.pinned(run)
    if run.plan.hardware.nodes > 1:  # parallel downloads by ranks need file locks, which shared disks may lack
        stage.fetch_models(run.plan)
    directory.prepare(run)
    jobs = submit.submit(run)
    lines = [f"{job.job} {job.name}" + (f" (after job {job.after[-1]} of the same run)" if job.after else "")
             for job in jobs]  # fmt: skip
    record = {"run": str(run.path), "submitted": True, "jobs": [vars(job) for job in jobs]}
    answer(as_json, record, lambda: print("\n".join(lines)))


@app.command()
def stage(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False,
    from_make: FromMake = False,
) -> None:  # fmt: skip
    """On a login node: download environments, models and rows for compute nodes without a network."""
    from launchers.run import directory, stage

    run = directory.pinned(locate(name, overrides(scale, set_, from_make), out))
    directory.prepare(run)
    lines = stage.stage(run)
    answer(as_json, {"run": str(run.path), "staged": lines}, lambda: print("\n".join(lines)))


def _require_run(run: Path) -> None:
    if not (run / "run.json").is_file():
        raise fail(f"not a run directory (it has no run.json){WHICH_RUN}", str(run))


@app.command()
def cancel(run: RunDir, as_json: Json = False) -> None:
    """Cancel the Slurm jobs of a run, or of a study or sweep."""
    from launchers.run import submit

    if not (run / "study.json").is_file():
        _require_run(run)
    jobs = submit.cancel(run)
    text = f"cancelled {' '.join(jobs)}" if jobs else "Slurm has no jobs of this run"
    answer(as_json, {"run": str(run), "cancelled": jobs}, lambda: print(text))


@app.command()
def logs(
    run: RunDir, as_json: Json = False,
    lines: Annotated[int, typer.Option("--lines", min=1, help="lines per log")] = 20,
) -> None:  # fmt: skip
    """Show the last lines of a run's newest logs, and recognised failures with their fixes."""
    from launchers.run import failures

    _require_run(run)
    report = failures.as_json(run, lines)
    answer(as_json, report, lambda: failures.print_all(report))


@app.command()
def sweep(
    name: Name, grid: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE,VALUE…")] = None,
    scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False, from_make: FromMake = False,
    on_slurm: Annotated[bool, typer.Option("--slurm", help="as Slurm arrays; default: here, one by one")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the submit lines and submit nothing")] = False,
) -> None:  # fmt: skip
    """Run every combination of the values, with every seed (seed=1,2,3), and compare them on one page."""
    from launchers.study import sweep

    given = overrides(scale, set_, from_make)
    words = grid or (make_words("GRID") if from_make else [])
    study = sweep.study_of(name, words, given.scale, given.settings)
    do_study(study, out, sweep.prepare if on_slurm or dry_run else None, dry_run, as_json)
