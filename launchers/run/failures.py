"""The last lines of a run's newest logs, and known failures recognised in them (configs/failures.yaml).

make logs RUN=<dir>        python -m launchers logs <dir>
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from launchers.envs import REPO
from launchers.errors import RunError
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import shown
from launchers.run import directory as rundir
from launchers.targets import slurm

FILE = REPO / "configs" / "failures.yaml"
TAIL_BYTES = 200_000  # of each log that is searched


@dataclass(frozen=True)
class Failure:
    """A recognised failure: its name, the log line, where that is, and what to change."""

    name: str
    line: str
    where: str
    change: str


@lru_cache(maxsize=1)
def _known() -> list[tuple[str, re.Pattern[str], str | None]]:
    tree = yaml_tree.load(FILE, str(FILE.relative_to(REPO))).plain()
    return [(name, re.compile("|".join(entry["patterns"])), entry.get("change")) for name, entry in tree.items()]


def recognise(text: str, where: str) -> list[Failure]:
    """Failures recognised in a text, each with its first line; a line matches at most one failure."""
    failures: dict[str, Failure] = {}
    for line in text.splitlines():
        name, change = next(((name, change) for name, pattern, change in _known() if pattern.search(line)), ("", None))
        if change is not None and name not in failures:
            failures[name] = Failure(name, line.strip()[:300], where, change)
    return list(failures.values())


def newest_logs(run: Path) -> list[Path]:
    """Logs of the newest attempt and of the newest Slurm job."""
    attempts = sorted(path for path in (run / "logs").glob("*") if path.is_dir())
    jobs = sorted((run / "logs").glob("slurm-*.out"), key=lambda path: path.stat().st_mtime)
    return [*sorted(attempts[-1].glob("*.log") if attempts else ()), *jobs[-1:]]


def of_run(run: Path) -> list[Failure]:
    """Failures in a run's newest logs and in the Slurm states of its newest jobs."""
    try:
        states = slurm.states_and_ends(rundir.newest_jobs(rundir.jobs(run)))
    except RunError:  # Slurm does not answer: use the logs alone
        states = {}
    failures = [failure for job, (state, _) in states.items() for failure in recognise(state, f"Slurm, job {job}")]
    for log in newest_logs(run):
        failures += recognise(tail(log), shown(log))
    return list({failure.name: failure for failure in reversed(failures)}.values())[::-1]


def tail(log: Path, lines: int | None = None) -> str:
    """The last TAIL_BYTES, or the last lines of them, of a log."""
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = handle.read().decode(errors="replace")
    return text if lines is None else "\n".join(text.splitlines()[-lines:])


def as_json(run: Path, lines: int) -> dict[str, Any]:
    """Logs with their last lines, and the recognised failures."""
    logs = {str(log): tail(log, lines) for log in newest_logs(run)}
    return {"run": str(run), "logs": logs, "failures": [vars(failure) for failure in of_run(run)]}


def print_all(report: dict[str, Any]) -> None:
    """Print logs and failures."""
    for log, text in report["logs"].items():
        print(f"== {shown(Path(log))}\n{text}\n")
    for failure in report["failures"]:
        print(f"{failure['name']}: {failure['line']}\n  {failure['where']}\n  change: {failure['change']}")
    if not report["logs"]:
        print("no logs yet")
