"""Submits a run to Slurm as a chain of jobs (targets/jobs.py), and cancels them.

make sbatch/<family>/<recipe>        make cancel RUN=<dir>
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launchers import envs
from launchers.errors import RunError
from launchers.run import directory as rundir
from launchers.run.directory import Run
from launchers.run.execute import only_one
from launchers.targets import slurm
from launchers.targets.jobs import environments, job_parts
from launchers.targets.slurm import ALIVE, NEVER


@dataclass(frozen=True)
class Submitted:
    """A submitted job: its id, its name, and the jobs of an earlier submission that it depends on."""

    job: str
    name: str
    after: tuple[str, ...] = ()


def alive(run: Path) -> list[str]:
    """Jobs of a run that are running or can still start, including those with the run's name as comment.

    A submission that timed out may still have been accepted; its jobs are known only by their comment. Raises RunError
    if Slurm does not answer.
    """
    known = [
        job for job, (state, why) in slurm.states(list(rundir.jobs(run))).items() if state in ALIVE and why != NEVER
    ]
    return sorted({*known, *alive_by_comment(run.name)}, key=lambda job: int(job.partition("_")[0]))


def alive_by_comment(name: str) -> list[str]:
    """Jobs that can still start, with the name of a run or a study as comment. Raises RunError."""
    listed = slurm.ask("squeue", "--noheader", "--me", "--format=%i|%r|%k")
    rows = [line.strip().split("|", 2) for line in listed.splitlines()]
    return [job for job, why, text in rows if text == name and why != NEVER]


def require_not_submitted(study: Path) -> None:
    """Raises RunError if Slurm still has jobs of a study or a sweep, whose runs would be executed twice."""
    if jobs := alive_by_comment(study.name):
        count = f"{len(jobs)} job{'s' * (len(jobs) > 1)} ({', '.join(jobs[:5])}{', …' if len(jobs) > 5 else ''})"
        raise RunError(f"{study} is already submitted ({count}): wait, or make cancel RUN={study}")


def submit(run: Run) -> list[Submitted]:
    """Submit all jobs of a run, after those of an earlier submission. Raises RunError after cancelling them again."""
    with only_one(run.path / ".submit", "submission"):
        jobs, lines = job_parts(run.plan), slurm.submit_lines(run.plan)
        for job in jobs:  # test before building gigabytes of environments
            slurm.submit(slurm.submit_command(run.plan, job), only_test=True)
        cancel(run.path, only_dead=True)
        before = alive(run.path)
        for env in environments(run.plan):
            envs.ensure(env, run.plan.hardware.device)
            if env == run.plan.backend.env and run.plan.adds_trackers:
                envs.add_trackers(env, run.plan.hardware.device)
        numbers = submit_all([slurm.submit_command(run.plan, jobs[0], before, "afterany"), *lines[1:]])
        for number, job in zip(numbers, jobs, strict=True):
            rundir.add_job(run.path, number, job.name)
    return [
        Submitted(number, job.name, () if at else tuple(before))
        for at, (number, job) in enumerate(zip(numbers, jobs, strict=True))
    ]


def submit_all(lines: Sequence[Sequence[str]]) -> list[str]:
    """Submit lines whose dependencies are names of earlier lines' jobs; returns the job ids.

    Jobs without such a dependency are held until all are submitted, because Slurm may reject a dependency on a job that
    has already ended. Raises RunError after cancelling the submitted ones.
    """
    numbers, held = dict[str, str](), list[str]()
    try:
        for line in lines:
            options = {name: value for name, _, value in (word.partition("=") for word in line)}
            kind, *after = options.get("--dependency", "").split(":")
            depends = f"--dependency={':'.join([kind, *(numbers.get(name, name) for name in after)])}"
            words = [depends if word.startswith("--dependency=") else word for word in line]
            waits = bool(numbers.keys() & set(after))
            number = slurm.submit(words if waits else [*words[:1], "--hold", *words[1:]])
            numbers[options["--job-name"]] = number
            held += [] if waits else [number]
    except RunError:
        _scancel(list(numbers.values()))
        raise
    if slurm.tool("scontrol", "release", ",".join(held)) is None:
        raise RunError(f"all jobs are submitted, but on hold: run scontrol release {','.join(held)}")
    return list(numbers.values())


def cancel(run: Path, only_dead: bool = False) -> list[str]:
    """Cancel the jobs of a run that Slurm still has, or only those that can never start; returns their ids.

    Raises RunError if Slurm does not answer.
    """
    known = slurm.states(list(rundir.jobs(run)))
    dead = [job for job, (state, why) in known.items() if state in ALIVE and why == NEVER]
    jobs = dead if only_dead else [*dict.fromkeys([*alive(run), *dead])]
    _scancel(jobs)
    return jobs


def _scancel(jobs: Sequence[str]) -> None:
    if jobs and slurm.tool("scancel", *jobs) is None:
        raise RunError(f"scancel failed: the cluster may still have the jobs {', '.join(jobs)}")
