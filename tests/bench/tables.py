"""What the benchmarks share: CPU time of contenders that take turns, and the table it is printed as.

seconds = cpu_seconds({"ours": ours, "theirs": theirs})
show("BLEU", versus("theirs", seconds, items=800))
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def cpu_now() -> float:
    """CPU seconds that this process and its ended children have used, user and system.

    A child counts once it has been waited for: let a contender end its workers before it returns.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def cpu_seconds(contenders: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median CPU seconds of one call of each contender.

    They take turns, so that a busy spell of the machine falls on all of them; each is called once before the
    clock starts.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            before = cpu_now()
            work()
            if turn:
                taken[name].append(cpu_now() - before)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def versus(baseline: str, seconds: Mapping[str, float], items: int) -> list[dict[str, str]]:
    """Table rows: items per CPU second of each contender, and how many times the baseline's that is."""
    return [
        {
            "what": name,
            "per CPU second": f"{items / taken:,.0f}" if items / taken >= 100 else f"{items / taken:.3g}",
            f"× {baseline}": f"{seconds[baseline] / taken:.3g}",
        }
        for name, taken in seconds.items()
    ]


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table: the first row's keys are the columns, all but the first set to the right."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a log file has no width of its own
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(rows[0] if rows else ()):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)
