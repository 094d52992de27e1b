"""Reward model servers in a plan: checks, settings, and the placeholder for their address in parameters.

`${reward_model.url}` in a pipeline or in `reward.params` becomes `service:<model identity>`, so that a step's key
depends on the model and not on a port. rewards/model/http.py reads the actual address from an environment variable set
by launchers/run/service.py.
"""

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
NOT_SERVED = {  # models that vLLM does not serve, and why
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": "its 19 objectives and gating network are custom code on the Hub",
}


def faults(resolved: Resolved, machines: Hardware, trains: bool = True) -> Iterator[Fault]:
    """Faults of the recipe's reward models; without `trains` the second judge is not used."""
    for name, given in _reward_models(resolved).items():
        yield from _faults(resolved, machines, name, given)
    if trains and _same_model(resolved):
        why = "is the reward model itself and cannot show its over-optimisation: use another model"
        yield resolved.fault("second_judge.model", why)
    if trains and resolved.recipe.second_judge and not (resolved.recipe.validation and judged_tasks(resolved)):
        needed = "scores online RL's validation samples on benchmarks with reward `model`"
        yield resolved.fault("second_judge", f"{needed}: set `validation`, and add such a benchmark to eval.tasks")


def judged_tasks(resolved: Resolved) -> list[str]:
    """The benchmarks with reward `model`, whose answers the second judge also scores."""
    known = [name for name in harnesses.ours(resolved.recipe.eval) if name in tasks.names()]  # others are faults
    return [name for name in known if tasks.read(name).reward.name == "model"]


def _faults(resolved: Resolved, machines: Hardware, name: str, given: RewardModel) -> Iterator[Fault]:
    if given.placement == "colocated" and (why := _not_colocated(resolved, machines, name, given)):
        yield resolved.fault(f"{name}.placement", f"colocated {why}; use own_gpus or endpoint")
    if (given.placement == "endpoint") != (given.url is not None):
        needed = "missing: the address of the endpoint" if given.url is None else "is for placement: endpoint only"
        yield resolved.fault(f"{name}.url", needed)
    if given.url is not None:
        try:
            server_url(given.url)
        except RewardError as problem:
            yield resolved.fault(f"{name}.url", str(problem))
    shares_node = name == "reward_model" and training_uses_server(resolved.recipe)
    if given.placement == "own_gpus" and 0 < machines.gpus_per_node < given.gpus + shares_node:
        node = f"a node of {resolved.recipe.hardware} has {machines.gpus_per_node}"
        left = f"{node}, which leaves none for training" if shares_node else node
        yield resolved.fault(f"{name}.gpus", f"{given.gpus} GPUs for the reward model, and {left}")
    if given.placement != "endpoint" and given.model in NOT_SERVED:
        remedy = "serve it with transformers, and set placement: endpoint and its url (recipes/long_cot/README.md)"
        yield resolved.fault(f"{name}.model", f"vLLM does not serve {given.model}: {NOT_SERVED[given.model]}; {remedy}")
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
            needed = "its config.json must name a …ForSequenceClassification architecture"
            yield resolved.fault(f"{name}.model", f"{' '.join(kinds)} is no reward model: {needed}")


def _not_colocated(resolved: Resolved, machines: Hardware, name: str, given: RewardModel) -> str | None:
    """Why the trainer cannot serve the model on its own GPUs; None if it can."""
    if name != "reward_model" or not training_uses_server(resolved.recipe):
        return "is for the reward model of online RL only"
    rollout = resolved.recipe.rollout
    if rollout is not None and rollout.engine != "vllm":
        return f"needs rollout.engine vllm, not {rollout.engine}"
    if max(1, machines.gpus_per_node) % given.gpus:
        return f"needs engines of {given.gpus} GPUs each, which do not divide the node's {machines.gpus_per_node}"
    return None


def _same_model(resolved: Resolved) -> bool:
    """Whether the second judge is the reward model itself, or may be (same Hub id, no revision)."""
    both = _reward_models(resolved)
    if len(both) < len(SERVICES):
        return False
    urls = {(given.url or "").rstrip("/") for given in both.values()}
    if len(urls) == 1 and urls != {""}:
        return True
    try:
        models = [_model(resolved, name) for name in both]
        same = models[0].identity() == models[1].identity()
    except (DataError, OSError):  # a missing model is reported elsewhere
        return False
    return same or (models[0].name == models[1].name and any(m.path is None and m.revision is None for m in models))


def _reward_models(resolved: Resolved) -> dict[str, RewardModel]:
    """The recipe's reward models by key."""
    return {name: given for name in SERVICES if (given := getattr(resolved.recipe, name)) is not None}


def training_uses_server(recipe: Recipe) -> bool:
    """Whether the server runs during training (online RL); for other methods it only scores data beforehand."""
    return is_online(recipe) and recipe.reward is not None and uses_server(recipe.reward.params)


def training_machines(resolved: Resolved, machines: Hardware) -> Hardware:
    """The hardware without the GPUs that a reward model occupies during training."""
    given, gpus = resolved.recipe.reward_model, machines.gpus_per_node
    if given is None or given.placement != "own_gpus" or not gpus or not training_uses_server(resolved.recipe):
        return machines
    return machines.model_copy(update={"gpus_per_node": gpus - given.gpus})


def address(resolved: Resolved, name: str = "reward_model") -> str:
    """The placeholder for a server's address in parameters. Raises UserError if the model does not exist."""
    try:
        model = _model(resolved, name)
        return f"{SERVICE}{'/'.join(model.identity().values())}"
    except (DataError, OSError) as error:
        raise UserError(resolved.fault(f"{name}.model", str(error))) from None


def identities(resolved: Resolved) -> dict[str, Any]:
    """{"services": the identities of the recipe's reward models}; {} if there are none."""
    given = [address(resolved, name) for name in _reward_models(resolved)]
    return {"services": given} if given else {}


def _model(resolved: Resolved, name: str) -> Model:
    given, folder = _reward_models(resolved)[name], resolved.path(f"{name}.model")
    return find_model(str(folder) if folder.is_dir() else given.model, given.revision, Path.cwd())


def filled(resolved: Resolved, params: Any) -> Any:
    """A reward's parameters with the server's address filled in. Raises UserError if the recipe has no reward model."""
    if isinstance(params, dict):
        return {key: filled(resolved, value) for key, value in params.items()}
    if isinstance(params, list):
        return [filled(resolved, value) for value in params]
    if params != KEY:
        return params
    if resolved.recipe.reward_model is None:
        raise UserError(resolved.fault("reward.params", f"{KEY}: the recipe has no reward_model"))
    return address(resolved)


def uses_server(params: Any) -> bool:
    """Whether parameters refer to the reward model's server."""
    if isinstance(params, dict):
        params = list(params.values())
    if isinstance(params, list):
        return any(map(uses_server, params))
    return isinstance(params, str) and (params == KEY or params.startswith(SERVICE))


def colocated(resolved: Resolved, machines: Hardware) -> dict[str, Any] | None:
    """Settings of the reward model that the trainer serves itself; None if there is none."""
    given = resolved.recipe.reward_model
    if given is None or given.placement != "colocated":
        return None
    return _settings(resolved, machines, "reward_model", given)


def settings(resolved: Resolved, machines: Hardware) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of the files that launchers/run/service.py reads: reward_model.json, second_judge.json."""
    for name, given in _reward_models(resolved).items():
        yield f"{name}.json", _settings(resolved, machines, name, given)


def _settings(resolved: Resolved, machines: Hardware, name: str, given: RewardModel) -> dict[str, Any]:
    model = _model(resolved, name)
    config = read_json(model.path / "config.json") if model.path else {}
    # vLLM would load a local float32 model in half precision, and differences between rewards are small
    fp32 = config.get("dtype", config.get("torch_dtype")) == "float32"
    return {
        "model": model.source, "dtype": "float32" if fp32 else "auto", "revision": model.revision, "url": given.url,
        "gpus": given.gpus if machines.gpus_per_node and given.placement != "endpoint" else 0,
        "colocated": given.placement == "colocated",
        "template": str(resolved.path(f"{name}.template")) if given.template else None,
    }  # fmt: skip
