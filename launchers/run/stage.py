"""Downloads, on a login node, what compute nodes without a network need: environments, models, benchmarks, data sets.

make stage/<family>/<recipe>        python -m launchers stage <family>/<recipe>
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import rewards
from data_prep.core import pipeline
from data_prep.core.registry import step_class
from data_prep.inference.api.params import addresses
from launchers import envs
from launchers.checks.requirements import single_rewards
from launchers.errors import Fault, UserError, fail
from launchers.plan import plan as planning
from launchers.plan import service
from launchers.plan.pipelines import HUB_ID
from launchers.plan.plan import Plan
from launchers.recipe.schema import SERVICES
from launchers.render import write
from launchers.run import execute as running
from launchers.run.directory import Run
from launchers.targets import slurm
from launchers.targets.jobs import environments
from rewards import Reward

STAGED = "staged.txt"
UNREAD = ["*.pth", "*.gguf", "*.h5", "*.msgpack", "*.ot", "original/*"]  # weight formats that are not used


def stage(run: Run) -> list[str]:
    """Download everything, rows by running the `load` steps; returns one line each. Raises UserError, RunError."""
    plan, lines = run.plan, list[str]()
    for env in ("core", *environments(plan)):
        lines.append(f"environment {env}: {envs.ensure(env, plan.hardware.device).parent}")
    lines += fetch_models(plan)
    for file, spec in plan.specs.items():
        sources = tuple(step for step in spec.steps if step_class(step.kind).scope == "source")
        loads = spec.model_copy(update={"steps": sources})
        alone = f"stage/{Path(file).name}"  # a spec with a step that needs the trained model cannot be planned yet
        only = replace(run, plan=replace(plan, specs={**plan.specs, alone: loads}))
        running.execute(only, ("data",), tuple(planning.step_commands(loads, alone, "data", "")))
        lines += [f"rows of {file}: {step.name}" for step in loads.steps]
    write(run.path / STAGED, "\n".join(lines) + "\n")
    return lines


def fetch_models(plan: Plan) -> list[str]:
    """Download the Hub models of a run; returns one line each. Raises UserError."""
    return [f"model {name}: {_fetch(name, revision)}" for name, revision in models(plan)]


def models(plan: Plan) -> list[tuple[str, str | None]]:
    """The (Hub model, revision) pairs of a run: of trainings, controls, steps, servers and rewards."""
    used: dict[tuple[str, str | None], None] = {}
    for recipe in (plan.resolved.recipe, *(job.resolved.recipe for job in plan.jobs)):
        used[recipe.model, recipe.revision] = None
        for given in (getattr(recipe, name) for name in SERVICES):
            if given is not None and given.placement == "own_gpus":
                used[given.model, given.revision] = None
    for params in (step.params for spec in plan.specs.values() for step in spec.steps):
        if "model" in params and not params.get("base_url"):
            used[str(params["model"]), params.get("revision")] = None
    for reward in rewards_of(plan):
        if (revision := getattr(reward, "revision", None)) is not None:
            used[reward.model, revision or None] = None  # type: ignore[attr-defined]  # encoder rewards
    return [(name, at) for name, at in used if HUB_ID.fullmatch(name) and not Path(name).exists()]


def rewards_of(plan: Plan) -> Iterator[Reward]:
    """The rewards of a run's trainings and steps; for combined rewards their components."""
    named = [
        (step.params["reward"], step.params.get("params", {}))
        for spec in plan.specs.values() for step in spec.steps if step.kind == "score"
    ]  # fmt: skip
    for job in plan.jobs:
        if (given := job.resolved.recipe.reward) is not None:
            named.append((given.name, service.filled(job.resolved, given.params)))
    for name, params in named:
        yield from single_rewards(rewards.load(name, **params))


def _fetch(model: str, revision: str | None) -> str:
    from httpx2 import HTTPError  # huggingface_hub's client
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(model, revision=revision, ignore_patterns=UNREAD)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise fail(f"cannot be downloaded: {' '.join(str(error).split())[:200]}", key=f"model {model}") from None


def check(plan: Plan) -> None:
    """Raises UserError if the site's compute nodes have no network but the run needs one."""
    if slurm.site_of(plan).offline and (faults := list(_faults(plan))):
        raise UserError(*faults)


def _faults(plan: Plan) -> Iterator[Fault]:
    resolved, offline = plan.resolved, "compute nodes have no network"
    for file, spec in plan.specs.items():
        evaluates = file.startswith("eval/")
        requests = ((step.name, url) for step in spec.steps for url in addresses(step.params.get("base_url")))
        name, url = next(((name, url) for name, url in requests if not _is_local(url)), ("", ""))
        if url and (evaluates or pipeline.plan(spec)[-1].rows_out is None):
            without = "remove that task here, and evaluate it where there is a network"
            remedy = without if evaluates else f"make data/{resolved.name} here first"
            yield resolved.fault("site", f"{offline}, but step {name!r} sends requests to {url}: {remedy}")
    for name in SERVICES:
        if (given := getattr(resolved.recipe, name)) is not None and given.url and not _is_local(given.url):
            yield resolved.fault(f"{name}.url", f"{offline}, but {given.url} is remote: use placement own_gpus")
    for reward in rewards_of(plan):
        if (url := str(getattr(reward, "url", ""))).startswith("http") and not _is_local(url):
            yield resolved.fault("reward.params", f"{offline}, but {url} is remote: use reward_model")
    if not (plan.run / STAGED).is_file():
        yield Fault("", "site", f"{offline}: run make stage/{resolved.name} on a login node first")


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
