"""Checks a verl config in verl's environment, without a GPU and before Ray starts.

A training's folder contains verl.yaml, a hydra config based on verl's ppo_trainer, and optional layers: cpu.yaml, the
changes for a CPU, and native.yaml, the recipe's `native` keys. A fault is one line, with the recipe's key and line if
origins.json has them.
"""

import contextlib
import copy
import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "launchers.plugins.verl")  # our losses and advantages

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launchers.plugins.verl import check_data
from launchers.plugins.verl.check_data import ACTOR, REF, ROLLOUT, NativeFault
from launchers.plugins.verl.dump_keys import ADDED
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

__all__ = ["CannotCompose", "NativeFault", "compose", "explain", "faults"]

# Exceptions that verl's own checks raise for user errors.
REFUSALS = (
    AssertionError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError, OSError,
    HydraException, OmegaConfBaseException,
)  # fmt: skip
# Trees that verl converts to dataclasses during a run. It first rewrites the reference policy's tree, and never
# converts `reward` or `global_profiler`, whose conversion would fail.
DATACLASSES = ("algorithm", ACTOR, f"{REF}.fsdp_config", ROLLOUT, "skip", "critic")
Origins = Mapping[str, Sequence[str]]


class CannotCompose(ValueError):
    """An unreadable config; the message is one line that begins with the file."""


def compose(folder: Path) -> DictConfig:
    """The config of a training's folder: verl.yaml merged with the existing layers. Raises CannotCompose.

    Layers are plain YAML, merged key by key; `faults` finds unknown keys. A hydra defaults list cannot be used, because
    hydra reads hydra.searchpath, which verl.yaml needs, only from the primary config.
    """
    path = folder / "verl.yaml"
    try:
        with hydra.initialize_config_dir(str(folder.resolve()), version_base=None):
            config = hydra.compose("verl")
        OmegaConf.set_struct(config, False)
        for path in (folder / "cpu.yaml", folder / "native.yaml"):
            if path.exists():
                config.merge_with(OmegaConf.load(path))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError) as problem:
        raise CannotCompose(f"{path.name}: {' '.join(str(problem).split())}") from problem
    return config


def faults(config: DictConfig, data: bool = True) -> list[NativeFault]:
    """Faults found by verl's own checks, and faults of the reward and, with `data`, of the model and the rows.

    Keys of `native` are checked by backends/verl.py.
    """
    usable = copy.deepcopy(config)
    OmegaConf.set_struct(usable, False)
    if problems := _verls_own(usable):  # further checks need a config that verl accepts
        return problems
    grader = check_data.reward(config)
    if isinstance(grader, NativeFault):
        return [grader]
    if not data:
        return []
    policy = check_data.model(config, "actor_rollout_ref")
    critic = check_data.model(config, "critic") if need_critic(usable) else None
    problems = [model for model in (policy, critic) if isinstance(model, NativeFault)]
    if not isinstance(policy, NativeFault):
        problems += [*check_data.of_model(config, policy.config), *check_data.prompts(config, policy)]
    return list(dict.fromkeys([*problems, *check_data.golds(config, grader)]))


def _verls_own(usable: DictConfig) -> list[NativeFault]:
    """Faults raised by verl's dataclasses and its validation, the first one per tree.

    Removes keys from the config that these do not know, or for which verl would download files.
    """
    wrong: list[NativeFault] = []
    missing = [key for key, value in leaves(usable) if value == "???" and not key.startswith("reward.reward_model.")]
    if missing:
        return [NativeFault(key, "has no value") for key in missing]
    critic, path = need_critic(usable), usable.critic.model
    usable.critic.model = None  # verl would download it
    for tree in DATACLASSES:
        if tree == "critic" and not critic:
            continue
        node = OmegaConf.select(usable, tree)
        for name in (key.rpartition(".")[2] for key in ADDED if key.startswith(f"{tree}.")):
            node.pop(name, None)  # read from the config directly; the dataclass has no such field
        if problem := _refusal(lambda node=node: omega_conf_to_dataclass(node)):
            wrong.append(_named(usable, tree, problem))
    if not wrong and (problem := _refusal(lambda: validate_config(usable, need_reference_policy(usable), critic))):
        wrong.append(_named(usable, "", problem))
    usable.critic.model = path
    return wrong


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and unresolved values of nested mappings; lists and empty mappings are values."""
    plain = OmegaConf.to_container(tree, resolve=False) if OmegaConf.is_config(tree) else tree
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _refusal(ask: Callable[[], Any]) -> str | None:
    """The message of the exception that `ask` raises; None if it raises none."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ask()
        except REFUSALS as problem:
            return str(problem).strip() or repr(problem)
    return None


def _named(usable: DictConfig, tree: str, problem: str) -> NativeFault:
    """The fault, with the key that verl's message names, if it names one."""
    if full := re.search(r"^full_key: (\S+)$", problem, re.MULTILINE):
        tree = full[1]
        problem = re.sub(r"^full_key:.*|^Error in call to target '[^']*':", "", problem, flags=re.MULTILINE)
    node = OmegaConf.select(usable, tree) if tree else usable
    keys = [key for key, value in leaves(node, f"{tree}." if tree else "") if "${" not in str(value)]
    words = set(re.findall(r"[a-z]+_\w+", problem))  # words that can only be keys
    named = [key for key in keys if key.rpartition(".")[2] in words]
    named.sort(key=lambda key: (not key.startswith("actor_rollout_ref."), len(key)))
    return NativeFault(named[0] if named else tree, f"verl rejects it: {' '.join(problem.split())}")


def explain(problems: Iterable[NativeFault], origins: Origins) -> list[str]:
    """One line per fault: `file:line: our key: message` if origins has the key or a parent of it, else verl's key."""
    lines = []
    for fault in problems:
        above = [key for key in origins if fault.key == key or fault.key.startswith(f"{key}.")]
        ours, where = origins[max(above, key=len)] if above else (fault.key, "verl.yaml")
        native = "" if ours.endswith(fault.key) else f" (verl's {fault.key})"
        lines.append(f"{where}: {ours}: {fault.message}{native}")
    return lines
