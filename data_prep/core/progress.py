"""How data work shows itself on stderr: a live bar on a terminal, one line per finished step everywhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from data_prep.core.manifest import Manifest, counts_line
from data_prep.core.shards import Job

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """What the engine tells while it works, as one line per step, for logs."""

    def start(self, job: Job, total: int | None, done: int) -> None:
        """A step begins: `total` input rows (None when unknown), of which `done` were done before."""

    def advance(self, rows: int) -> None:
        """So many more input rows are done."""

    def waiting(self, job: Job) -> None:
        """Another process holds this step's lock."""
        print(f"{job.name}: another process works on this step; waiting for it", file=sys.stderr)

    def finish(self, job: Job, manifest: Manifest, cached: bool) -> None:
        """The step is complete."""
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
        """Show nothing more of a step that has not ended."""


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
