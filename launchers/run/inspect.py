"""Runs a recipe's pipeline up to one step, and shows that step's output.

make data/<family>/<recipe> STEP=label        python -m launchers data <family>/<recipe> --to label
"""

from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.manifest import counts_line, read_manifest, read_rows, shard_paths
from data_prep.core.pipeline import Spec
from launchers.backends.base import Command
from launchers.errors import fail, nearest
from launchers.plan import plan
from launchers.recipe.compose import shown
from launchers.report.format import count, visible
from launchers.run import execute as running
from launchers.run.directory import Run

FIRST = 2  # rows shown
VALUES, CHARACTERS = 14, 80  # values per row and characters per text shown


def run_to(run: Run, step: str, where: str) -> Path:
    """Run a step and its missing inputs; returns the step's directory.

    `where` is the option that named it. Raises UserError for an unknown step, RunError after a failure.
    """
    spec = run.plan.specs[plan.data_file("")]
    names = [item.name for item in spec.steps]
    if step not in names:
        near = nearest(step, names)
        hint = f"did you mean {near!r}? " if near else ""
        raise fail(f"pipeline {spec.name!r} has no step {step!r}; {hint}Its steps, in order: {', '.join(names)}", where)
    if commands := _missing(spec, step):
        running.execute(run, ("data",), commands)
    return pipeline.find(spec, step)


def _missing(spec: Spec, step: str) -> tuple[Command, ...]:
    """Commands for a step and its inputs that are not done; for the pipeline's last step also the export."""
    by_name = {item.name: item for item in spec.steps}
    ends = {step} | ({"export"} if by_name["export"].inputs == (step,) else set())
    needed: set[str] = set()
    while ends:
        needed |= ends
        ends = {name for item in ends for name in by_name[item].inputs} - needed
    state = {item.name: item.state for item in pipeline.plan(spec)}
    todo = tuple(item for item in spec.steps if item.name in needed and state[item.name] != "done")
    commands = plan.step_commands(spec.model_copy(update={"steps": todo}), plan.data_file(""), "data", "")
    return tuple(commands)


def facts(step: str, folder: Path) -> dict[str, Any]:
    """A finished step's paths, row counts, drops by reason, other counts, cost and first rows."""
    manifest = read_manifest(folder)
    assert manifest is not None, folder
    return {
        "step": step, "kind": manifest.kind, "rows": str(folder / "shards"), "manifest": str(folder / "manifest.json"),
        "rows_in": manifest.rows_in, "rows_out": manifest.rows_out, "drops": manifest.drops,
        "counts": manifest.counts, "cost": manifest.cost, "first": list(islice(read_rows(folder), FIRST)),
    }  # fmt: skip


def print_facts(step: str, folder: Path) -> None:
    """Print the facts, about one screen, with long values truncated."""
    from rich.pretty import pprint

    step_facts, files = facts(step, folder), [path.name for path in shard_paths(folder)]
    named = step if step == step_facts["kind"] else f"{step} ({step_facts['kind']})"
    taken = f"{step_facts['rows_in']:,} rows in, " if step_facts["rows_in"] else ""
    shards = files[0] if len(files) == 1 else f"{files[0]} to {files[-1]}"
    print(f"{visible(named)}: {taken}{step_facts['rows_out']:,} out")
    print(f"rows      {shown(Path(step_facts['rows']))}: {shards} (dropped rows: *.drops.jsonl)")
    print(f"manifest  {shown(Path(step_facts['manifest']))}")
    for word, counts in (("dropped", step_facts["drops"]), ("counted", step_facts["counts"])):
        if counts:
            print(f"{word:<9} {visible(counts_line(counts))}")
    if step_facts["cost"]:
        print(f"cost      {', '.join(_paid(name, value) for name, value in step_facts['cost'].items())}")
    for at, row in enumerate(step_facts["first"], 1):
        print(f"\nrow {at} of {step_facts['rows_out']:,}")
        pprint(row, indent_guides=False, expand_all=True, max_string=CHARACTERS, max_length=VALUES)


def _paid(name: str, value: float) -> str:
    return f"{value:,.2f} dollars" if name == "usd" else f"{count(value)} {name.replace('_', ' ')}"
