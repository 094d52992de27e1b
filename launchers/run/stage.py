"""Fetches on a login node what compute nodes without a network need: environments, models, benchmarks and data sets.

make stage/<family>/<recipe>        python -m launchers stage <family>/<recipe>
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launchers import envs
from launchers.backends.base import Command
from launchers.errors import Fault, UserError, fail
from launchers.plan import plan as planning
from launchers.plan.pipelines import HUB_ID
from launchers.plan.plan import Plan
from launchers.render import write
from launchers.run import execute as running
from launchers.run.directory import Run
from launchers.targets import environments, slurm

STAGED = "staged.txt"


def stage(run: Run) -> list[str]:
    """Fetch it all, the rows by doing the steps that load them; returns a line for each. Raises UserError, RunError."""
    plan, lines = run.plan, list[str]()
    for env in ("core", *environments(plan)):
        lines.append(f"environment {env}: {envs.ensure(env, None if env == 'core' else plan.hardware.device).parent}")
    lines += [f"model {name}: {_fetch(name, revision)}" for name, revision in models(plan).items()]
    if commands := tuple(_loads(plan)):
        running.execute(run, ("data",), commands)
        lines += [f"rows of {command.argv[4]}: {command.argv[6]}" for command in commands]
    write(run.path / STAGED, "\n".join(lines) + "\n")
    return lines


def faults(plan: Plan) -> Iterator[Fault]:
    """What stands against running on the site's compute nodes, where these have no network."""
    resolved = plan.resolved
    if not slurm.site_of(plan).offline:
        return
    for spec in plan.specs.values():
        for step in spec.steps:
            if (url := step.params.get("base_url")) and "//localhost" not in url and "//127." not in url:
                told = (
                    f"step {step.name!r} asks {url}, and compute nodes have no network: make data/{resolved.name} first"
                )
                yield resolved.fault("site", told)
    if not (plan.run / STAGED).is_file():
        yield resolved.fault("site", f"compute nodes have no network: make stage/{resolved.name} first")


def models(plan: Plan) -> dict[str, str | None]:
    """The Hub models of a run and their revisions."""
    recipe = plan.resolved.recipe
    found: dict[str, str | None] = {recipe.model: recipe.revision}
    if (given := recipe.reward_model) is not None and given.placement == "own_gpus":
        found[given.model] = given.revision
    for params in (step.params for spec in plan.specs.values() for step in spec.steps):
        if params.get("model") and not params.get("base_url"):
            found.setdefault(params["model"], params.get("revision"))
    return {name: revision for name, revision in found.items() if HUB_ID.fullmatch(name) and not Path(name).exists()}


def _fetch(model: str, revision: str | None) -> str:
    from httpx2 import HTTPError  # huggingface_hub's client
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(model, revision=revision, ignore_patterns=["*.pth", "*.gguf", "original/*"])
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise fail(f"cannot be fetched: {' '.join(str(error).split())[:200]}", key=f"model {model}") from None


def _loads(plan: Plan) -> Iterator[Command]:
    """Commands of the steps that read from outside, in every pipeline."""
    for file, spec in plan.specs.items():
        steps: tuple[Any, ...] = tuple(step for step in spec.steps if step.kind == "load")
        yield from planning.step_commands(spec.model_copy(update={"steps": steps}), file, "data", "")


def check(plan: Plan) -> None:
    """Raises UserError where the site's compute nodes cannot do the run for want of a network."""
    if found := list(faults(plan)):
        raise UserError(*found)
