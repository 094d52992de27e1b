"""Progress on stderr: a live bar on a terminal, and one line per finished step everywhere."""

import sys
from typing import TYPE_CHECKING

from data_prep.core.manifest import Manifest, counts_line
from data_prep.core.shards import Job

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """Callbacks of the engine; prints one line per step, for logs."""

    def start(self, job: Job, total: int | None, done: int) -> None:
        """A step begins: `total` input rows (None if unknown), `done` of them finished earlier."""

    def advance(self, rows: int) -> None:
        """`rows` more input rows are finished."""

    def waiting(self, job: Job) -> None:
        """Another process holds this step's lock."""
        print(f"{job.name}: another process is running this step; waiting for it", file=sys.stderr)

    def finish(self, job: Job, manifest: Manifest, cached: bool) -> None:
        """The step is finished."""
        parts = [f"{manifest.rows_in:,} in", f"{manifest.rows_out:,} out"]
        if manifest.drops:
            parts.append(f"{sum(manifest.drops.values()):,} dropped ({counts_line(manifest.drops)})")
        if manifest.counts:
            parts.append(counts_line(manifest.counts))
        if "usd" in manifest.cost:
            parts.append(f"${manifest.cost['usd']:,.2f}")
        parts.append("cached" if cached else f"{manifest.seconds:.1f} s")
        print(f"{job.name}: {' · '.join(parts)}", file=sys.stderr)

    def stop(self) -> None:
        """Stop showing the current step."""


class Live(Progress):
    """A bar while a step runs, replaced by its line."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def start(self, job: Job, total: int | None, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._bar.add_task(job.name, total=total, completed=done)

    def advance(self, rows: int) -> None:
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], rows)

    def finish(self, job: Job, manifest: Manifest, cached: bool) -> None:
        self.stop()
        super().finish(job, manifest, cached)

    def stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
