"""Fetches on a login node what compute nodes without a network need: environments, models, benchmarks and data sets.

make stage/<family>/<recipe>        python -m launchers stage <family>/<recipe>
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.core.registry import step_class
from data_prep.inference.api.params import addresses
from launchers import envs
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
    lines += fetch_models(plan)
    for file, spec in plan.specs.items():
        loads = spec.model_copy(
            update={"steps": tuple(step for step in spec.steps if step_class(step.kind).scope == "source")}
        )
        alone = f"stage/{Path(file).name}"  # a spec that also reads the model cannot be planned before the training
        only = replace(run, plan=replace(plan, specs={**plan.specs, alone: loads}))
        running.execute(only, ("data",), tuple(planning.step_commands(loads, alone, "data", "")))
        lines += [f"rows of {file}: {step.name}" for step in loads.steps]
    write(run.path / STAGED, "\n".join(lines) + "\n")
    return lines


def fetch_models(plan: Plan) -> list[str]:
    """Fetch the Hub models of a run; returns a line for each. Raises UserError."""
    return [f"model {name}: {_fetch(name, revision)}" for name, revision in models(plan).items()]


def models(plan: Plan) -> dict[str, str | None]:
    """The Hub models of a run and their revisions."""
    recipe = plan.resolved.recipe
    asked: list[dict[str, Any]] = [step.params for spec in plan.specs.values() for step in spec.steps]
    if (given := recipe.reward_model) is not None and given.placement == "own_gpus":
        asked.append(given.model_dump(include={"model", "revision"}))
    revisions = {
        params["model"]: params.get("revision") for params in asked if "model" in params and not params.get("base_url")
    }
    revisions[recipe.model] = recipe.revision
    return {name: at for name, at in revisions.items() if HUB_ID.fullmatch(str(name)) and not Path(name).exists()}


def _fetch(model: str, revision: str | None) -> str:
    from httpx2 import HTTPError  # huggingface_hub's client
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(model, revision=revision, ignore_patterns=["*.pth", "*.gguf", "original/*"])
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise fail(f"cannot be fetched: {' '.join(str(error).split())[:200]}", key=f"model {model}") from None


def check(plan: Plan) -> None:
    """Raises UserError where the site's compute nodes have no network, and the run still needs one."""
    resolved = plan.resolved
    if not slurm.site_of(plan).offline:
        return
    asking = [
        (step.name, url) for spec in plan.trained_on for step in spec.steps
        for url in addresses(step.params.get("base_url")) if "//localhost" not in url and "//127." not in url
    ]  # fmt: skip
    if asking and plan.rows() is None:
        name, url = asking[0]
        message = f"compute nodes have no network, and step {name!r} asks {url}: make data/{resolved.name} here first"
        raise UserError(resolved.fault("site", message))
    if not (plan.run / STAGED).is_file():
        raise UserError(
            Fault("", "site", f"compute nodes have no network: make stage/{resolved.name} on a login node first")
        )
