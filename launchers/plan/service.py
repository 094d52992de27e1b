"""The reward model's server as part of a plan: its address in parameters, its settings, and what is wrong with it.

`${reward_model.url}` in a pipeline or in `reward.params` becomes `service:<identity of the model>`: a step's key then
depends on the model and never on a port. rewards/model/http.py reads the address itself from the environment, where
launchers/run/service.py puts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.inference.models import Model, find_model
from data_prep.sources import tasks
from data_prep.sources.files import read_json
from launchers import harnesses
from launchers.errors import Fault, UserError
from launchers.machines.hardware import Hardware
from launchers.recipe.compose import Resolved
from launchers.recipe.online import is_online
from launchers.recipe.schema import SERVICES, Recipe, RewardModel
from rewards.errors import RewardError
from rewards.model.http import SERVICE, server_url

KEY = "${reward_model.url}"
ELSEWHERE = {  # models that vLLM does not serve, and why
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": "its 19 objectives and their gating network are code of its own on the Hub",
}


def faults(resolved: Resolved, machines: Hardware, trains: bool = True) -> Iterator[Fault]:
    """What is wrong with the recipe's reward models; without `trains` there is nothing for a second judge to score."""
    for name, given in _given(resolved).items():
        yield from _faults(resolved, machines, name, given)
    if trains and _same_model(resolved):
        why = "is the reward model, whose over-optimisation it cannot show: take another model"
        yield resolved.fault("second_judge.model", why)
    if trains and resolved.recipe.second_judge and not (resolved.recipe.validation and judged_tasks(resolved)):
        needed = "scores validation samples of online RL whose benchmark's reward is `model`"
        yield resolved.fault("second_judge", f"{needed}: set `validation` and such a benchmark in eval.tasks")


def judged_tasks(resolved: Resolved) -> list[str]:
    """The benchmarks whose answers a reward model scores, and the second judge with it."""
    known = [name for name in harnesses.ours(resolved.recipe.eval) if name in tasks.names()]  # others are faults
    return [name for name in known if tasks.read(name).reward.name == "model"]


def _faults(resolved: Resolved, machines: Hardware, name: str, given: RewardModel) -> Iterator[Fault]:
    if given.placement == "colocated" and (why := _not_colocated(resolved, machines, name, given)):
        yield resolved.fault(f"{name}.placement", f"colocated {why}; take own_gpus or endpoint")
    if (given.placement == "endpoint") != (given.url is not None):
        needed = "missing: the address of the endpoint" if given.url is None else "is for placement: endpoint only"
        yield resolved.fault(f"{name}.url", needed)
    if given.url is not None:
        try:
            server_url(given.url)
        except RewardError as problem:
            yield resolved.fault(f"{name}.url", str(problem))
    beside = name == "reward_model" and training_asks(resolved.recipe)
    if given.placement == "own_gpus" and 0 < machines.gpus_per_node < given.gpus + beside:
        node = f"a node of {resolved.recipe.hardware} has {machines.gpus_per_node}"
        left = f"{node}, which leaves none to train on" if beside else node
        yield resolved.fault(f"{name}.gpus", f"{given.gpus} GPUs for the reward model, and {left}")
    if given.placement != "endpoint" and given.model in ELSEWHERE:
        remedy = "serve it by transformers, and set placement: endpoint and its url (recipes/long_cot/README.md)"
        yield resolved.fault(f"{name}.model", f"vLLM does not serve {given.model}: {ELSEWHERE[given.model]}; {remedy}")
    if given.template is not None and not (template := resolved.path(f"{name}.template")).is_file():
        yield resolved.fault(f"{name}.template", f"no such file: {template}")
    try:
        address(resolved, name)
        folder = _model(resolved, name).path if given.placement != "endpoint" else None
        kinds = read_json(folder / "config.json").get("architectures") or [] if folder else []
    except UserError as error:
        yield from error.faults
    except DataError as error:
        yield resolved.fault(f"{name}.model", str(error))
    else:
        if kinds and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
            needed = "vLLM classifies by a checkpoint whose config.json names a …ForSequenceClassification"
            yield resolved.fault(f"{name}.model", f"{' '.join(kinds)} is no reward model: {needed}")


def _not_colocated(resolved: Resolved, machines: Hardware, name: str, given: RewardModel) -> str | None:
    """Why the trainer cannot serve the model on its own GPUs, which it does while it asks it."""
    if name != "reward_model" or not training_asks(resolved.recipe):
        return "is for the reward model that online RL asks"
    rollout = resolved.recipe.rollout
    if rollout is not None and rollout.engine != "vllm":
        return f"shares the GPUs with vLLM's rollouts, and rollout.engine is {rollout.engine}"
    if max(1, machines.gpus_per_node) % given.gpus:
        return f"has engines on {given.gpus} GPUs each, which do not divide the node's {machines.gpus_per_node}"
    return None


def _same_model(resolved: Resolved) -> bool:
    """Whether the second judge is, or without a revision may be, the reward model itself."""
    both = _given(resolved)
    if len(both) < len(SERVICES):
        return False
    urls = {(given.url or "").rstrip("/") for given in both.values()}
    if len(urls) == 1 and urls != {""}:
        return True
    try:
        models = [_model(resolved, name) for name in both]
        same = models[0].identity() == models[1].identity()
    except (DataError, OSError):  # a fault of the one that is not there
        return False
    return same or (models[0].name == models[1].name and any(m.path is None and m.revision is None for m in models))


def _given(resolved: Resolved) -> dict[str, RewardModel]:
    """The recipe's reward models by key."""
    return {name: given for name in SERVICES if (given := getattr(resolved.recipe, name)) is not None}


def training_asks(recipe: Recipe) -> bool:
    """Whether the reward of online RL asks the server; before other trainings it has scored their data and ended."""
    return is_online(recipe) and recipe.reward is not None and asked_in(recipe.reward.params)


def training_machines(resolved: Resolved, machines: Hardware) -> Hardware:
    """The GPUs that are left for a training that asks a reward model with GPUs of its own."""
    given, gpus = resolved.recipe.reward_model, machines.gpus_per_node
    if given is None or given.placement != "own_gpus" or not gpus or not training_asks(resolved.recipe):
        return machines
    return machines.model_copy(update={"gpus_per_node": gpus - given.gpus})


def address(resolved: Resolved, name: str = "reward_model") -> str:
    """What stands for the server in parameters. Raises UserError without a reward model, or one that is not there."""
    try:
        model = _model(resolved, name)
        return f"{SERVICE}{'/'.join(model.identity().values())}"
    except (DataError, OSError) as error:
        raise UserError(resolved.fault(f"{name}.model", str(error))) from None


def identities(resolved: Resolved) -> dict[str, Any]:
    """What tells the recipe's reward models from others of the same name: {"services": addresses}; {} without any."""
    given = [address(resolved, name) for name in _given(resolved)]
    return {"services": given} if given else {}


def _model(resolved: Resolved, name: str) -> Model:
    given, folder = _given(resolved)[name], resolved.path(f"{name}.model")
    return find_model(str(folder) if folder.is_dir() else given.model, given.revision, Path.cwd())


def filled(resolved: Resolved, params: Any) -> Any:
    """Parameters of a reward with the server's address. Raises UserError where the recipe has no reward model."""
    if isinstance(params, dict):
        return {key: filled(resolved, value) for key, value in params.items()}
    if isinstance(params, list):
        return [filled(resolved, value) for value in params]
    if params != KEY:
        return params
    if resolved.recipe.reward_model is None:
        raise UserError(resolved.fault("reward.params", f"{KEY}: the recipe has no reward_model"))
    return address(resolved)


def asked_in(params: Any) -> bool:
    """Whether parameters name the server."""
    if isinstance(params, dict):
        params = list(params.values())
    if isinstance(params, list):
        return any(map(asked_in, params))
    return isinstance(params, str) and (params == KEY or params.startswith(SERVICE))


def colocated(resolved: Resolved, machines: Hardware) -> dict[str, Any] | None:
    """The reward model that the trainer serves itself, as `settings` have it; None without one."""
    given = resolved.recipe.reward_model
    if given is None or given.placement != "colocated":
        return None
    return _settings(resolved, machines, "reward_model", given)


def settings(resolved: Resolved, machines: Hardware) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of the files that launchers/run/service.py reads: reward_model.json, second_judge.json."""
    for name, given in _given(resolved).items():
        yield f"{name}.json", _settings(resolved, machines, name, given)


def _settings(resolved: Resolved, machines: Hardware, name: str, given: RewardModel) -> dict[str, Any]:
    model = _model(resolved, name)
    config = read_json(model.path / "config.json") if model.path else {}
    # vLLM would halve a local float32 model, and a reward's differences are small
    fp32 = config.get("dtype", config.get("torch_dtype")) == "float32"
    return {
        "model": model.source, "dtype": "float32" if fp32 else "auto", "revision": model.revision, "url": given.url,
        "gpus": given.gpus if machines.gpus_per_node and given.placement != "endpoint" else 0,
        "colocated": given.placement == "colocated",
        "template": str(resolved.path(f"{name}.template")) if given.template else None,
    }  # fmt: skip
