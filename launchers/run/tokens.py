"""Shows training rows as the trainer tokenises them; makes the data if missing.

make tokens/<family>/<recipe>        python -m launchers tokens <family>/<recipe>
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launchers import envs
from launchers.backends.base import Job
from launchers.checks import tokens
from launchers.errors import Fault, RunError
from launchers.plan import plan
from launchers.recipe.compose import Resolved
from launchers.report.format import count, visible
from launchers.run import directory as rundir
from launchers.run import execute as running
from launchers.run.directory import Run
from launchers.targets import local

if TYPE_CHECKING:
    from rich.console import Console


def inspect(run: Run) -> list[dict[str, Any]]:
    """tokens.json of the recipe and of each control. Raises RunError if the trainer cannot read the rows at all."""
    if any(run.plan.rows(job) is None for job in run.plan.jobs):
        running.execute(run, ("data",))
    rundir.prepare(run)
    return [_inspect(run, job) for job in run.plan.jobs]


def faults(resolved: Resolved) -> list[Fault]:
    """Faults in the training rows; none if rows, environment or tokenizer are not available locally."""
    if not _is_tokenizer_here(resolved):
        return []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), plan.build(resolved, Path(folder)), finished=False)
        jobs = [job for job in run.plan.jobs if run.plan.rows(job) is not None]
        if not jobs or not envs.is_built(run.plan.backend.env):
            return []
        rundir.prepare(run)
        try:
            return [resolved.fault("data", line) for line in _lines([_inspect(run, job) for job in jobs])]
        except RunError as error:
            return [resolved.fault("data", str(error).split("\n", 1)[0])]  # the log is in the temporary folder


def _is_tokenizer_here(resolved: Resolved) -> bool:
    from huggingface_hub import constants

    model, revision = resolved.recipe.model, resolved.recipe.revision
    if Path(model).is_dir():
        return True
    if not Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}").is_dir():
        return False  # the usual case, decided without the slow import below
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "tokenizer_config.json", revision=revision), str)


def _inspect(run: Run, job: Job) -> dict[str, Any]:
    """Inspect one training's rows, on the CPU."""
    folder = run.path / job.output
    log = run.path / "logs" / f"tokens{f'-{job.label}' if job.folder else ''}.log"
    (folder / tokens.FILE).unlink(missing_ok=True)
    backend = run.plan.backend
    own = {**local.environ(run.plan), **dict(backend.commands(job)[0].environ), "CUDA_VISIBLE_DEVICES": ""}
    with log.open("wb") as sink:
        done = subprocess.run(
            [str(envs.ensure(backend.env)), "-m", backend.inspects, str(folder)],
            env={**os.environ, **own}, stdout=sink, stderr=subprocess.STDOUT, cwd=envs.REPO, check=False,
        )  # fmt: skip
    if not (folder / tokens.FILE).is_file():
        reason = backend.reason(log.read_text(errors="replace"))
        raise RunError(f"the rows could not be inspected: {reason} (exit {done.returncode})\n  log: {log}")
    result: dict[str, Any] = json.loads((folder / tokens.FILE).read_text())
    return {"training": job.label, **result}


def print_all(results: list[dict[str, Any]]) -> None:
    """Print the first rows of each training, tokens with loss in green, special tokens inverted; then counts and
    notes."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for result in results:
        for row in result["shown"]:
            _print_row(console, row)
        counts = result["counts"]
        console.print(
            f"{result['trainer']}, template {result['template']}: {count(counts['sequences'])} sequences inspected "
            f"({count(result['rows'])} rows), {count(counts['tokens'])} tokens, {count(counts['trained'])} with loss; "
            f"longest {count(counts['longest'])}, {count(counts.get('cut', 0))} truncated by max_length"
        )
        for note in result["notes"]:
            console.print(f"note: {note}")


def _print_row(console: Console, row: dict[str, Any]) -> None:
    from rich.text import Text

    part = f" ({row['part']})" if row["part"] else ""
    lengths = f"{count(row['length'])} tokens, {count(row['trained'])} with loss"
    console.print(f"row {row['row']}{part}: {lengths}", style="bold")
    text = Text()
    for piece, loss, special in row["tokens"]:
        style = ("green" if loss else "bright_black") + (" reverse" if special else "")
        text.append(str(visible(piece)) if piece != "\n" else "⏎\n", style=style)
    console.print(text)
    if not console.is_terminal:
        console.print(f"with loss: {visible(''.join(piece for piece, loss, _ in row['tokens'] if loss))!r}")


def require_no_faults(results: list[dict[str, Any]]) -> None:
    """Raises RunError with one line per fault, prefixed with its control."""
    if lines := _lines(results):
        raise RunError("\n".join(lines))


def _lines(results: list[dict[str, Any]]) -> list[str]:
    named = [(result["training"], fault) for result in results for fault in result["faults"]]
    return [f"{name}: {fault}" if name != "after" else fault for name, fault in named]
