"""A training's rows as its trainer sees them: made if missing, inspected in the trainer's environment, shown.

make tokens/<family>/<recipe>        python -m launchers tokens <family>/<recipe>
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from launchers import envs
from launchers.backends.base import Job
from launchers.checks import tokens
from launchers.errors import RunError
from launchers.report.format import count, visible
from launchers.run import directory as rundir
from launchers.run import execute as running
from launchers.run.directory import Run
from launchers.targets import local


def inspect(run: Run) -> list[dict[str, Any]]:
    """tokens.json of the recipe and of each control. Raises RunError where the trainer cannot read the rows at all."""
    if any(run.plan.rows(job) is None for job in run.plan.jobs):
        running.execute(run, ("data",))
    rundir.prepare(run)
    return [inspect_job(run, job) for job in run.plan.jobs]


def inspect_job(run: Run, job: Job) -> dict[str, Any]:
    """Inspect one training's rows, on a CPU."""
    folder = run.path / job.output
    log = run.path / "logs" / f"tokens{f'-{job.label}' if job.folder else ''}.log"
    (folder / tokens.FILE).unlink(missing_ok=True)
    backend = run.plan.backend
    python = envs.ensure(backend.env, None if envs.has_gpu() else "cpu")
    environ = {
        **os.environ,
        **local.environ(run.plan),
        **dict(backend.commands(job)[0].environ),
        "CUDA_VISIBLE_DEVICES": "",
    }
    with log.open("wb") as sink:
        done = subprocess.run(
            [str(python), "-m", backend.inspects, str(folder)], env=environ, stdout=sink, stderr=subprocess.STDOUT,
            cwd=envs.REPO, check=False,
        )  # fmt: skip
    if not (folder / tokens.FILE).is_file():
        reason = backend.reason(log.read_text(errors="replace"))
        raise RunError(f"the rows could not be inspected: {reason} (exit {done.returncode})\n  log: {log}")
    found: dict[str, Any] = json.loads((folder / tokens.FILE).read_text())
    return {"training": job.label, **found}


def print_tokens(found: dict[str, Any]) -> None:
    """For people: the first rows, tokens with loss in green, special tokens inverted; then counts, notes and faults."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for row in found["shown"]:
        part = f" ({row['part']})" if row["part"] else ""
        console.print(
            f"row {row['row']}{part}: {count(row['length'])} tokens, {count(row['trained'])} with loss", style="bold"
        )
        text = Text()
        for piece, loss, special in row["tokens"]:
            style = ("green" if loss else "bright_black") + (" reverse" if special else "")
            text.append(str(visible(piece)) if piece != "\n" else "⏎\n", style=style)
        console.print(text)
        if not console.is_terminal:
            trained = "".join(piece for piece, loss, _ in row["tokens"] if loss)
            console.print(f"with loss: {visible(trained)!r}")
    counts = found["counts"]
    console.print(
        f"{found['trainer']}, template {found['template']}: {count(counts['sequences'])} sequences looked at "
        f"({count(found['rows'])} rows), {count(counts['tokens'])} tokens, {count(counts['trained'])} with loss; "
        f"longest {count(counts['longest'])}, {count(counts.get('cut', 0))} cut off by max_length"
    )
    for note in found["notes"]:
        console.print(f"note: {note}")


def at_hand(run: Run) -> bool:
    """Whether rows, environment and tokenizer are on this machine, so that a check can look without making any."""
    from huggingface_hub import try_to_load_from_cache

    backend, recipe = run.plan.backend, run.plan.resolved.recipe
    built = envs.is_built(backend.env, None if envs.has_gpu() else "cpu")
    local = Path(recipe.model).is_dir() or isinstance(
        try_to_load_from_cache(recipe.model, "tokenizer_config.json", revision=recipe.revision), str
    )
    return built and local and run.plan.rows() is not None


def refuse(found: list[dict[str, Any]]) -> None:
    """Raises RunError with a line per fault, and the control it is of."""
    faults = [(one["training"], fault) for one in found for fault in one["faults"]]
    if faults:
        raise RunError("\n".join(f"{name}: {fault}" if name != "after" else fault for name, fault in faults))
