"""What verl's configuration may hold: each key's type and choices, and the old keys that verl accepts and ignores.

    <verl python> -m launchers.plugins.verl.dump_keys > configs/native/verl.json

The launcher checks `native` with that file, without importing verl. A test compares it with the installed version.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import verl
from launchers.plugins.verl.registry import AGGREGATION
from verl.trainer.ppo import core_algos
from verl.utils.tracking import Tracking
from verl.workers.rollout.base import _ROLLOUT_REGISTRY

# reward_loop.migrate_legacy_reward_impl says which key lives on as which; main_ppo does not call it.
LEGACY = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model": "reward.reward_model",
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "reward_model.reward_loop_source": "reward.reward_manager.source",
    "reward_model.reward_loop_module_path": "reward.reward_manager.module.path",
    "reward_model.reward_loop_class_name": "reward.reward_manager.name",
    "reward_model.model": "reward.reward_model",
    "reward_model.model.path": "reward.reward_model.model_path",
    "sandbox_fusion": "reward.sandbox_fusion",
}
# Read with .get(), so neither verl's YAML nor a dataclass has them: ours (registry.py), and verl's own.
ADDED = {
    "algorithm.truncated": "str",
    "algorithm.truncated_limit": "int",
    "algorithm.truncated_penalty": "float",
    "data.cache_dir": "str",
    "data.need_tools_kwargs": "bool",
    "trainer.wandb_proxy": "str",
}
# In trees that no dataclass describes: null by default, or also a list.
TYPES = {
    "data.train_files": "any",
    "data.val_files": "any",
    "data.gen_batch_size": "int",
    "data.seed": "int",
    "data.val_batch_size": "int",
    "trainer.default_hdfs_dir": "str",
    "trainer.max_actor_ckpt_to_keep": "int",
    "trainer.max_critic_ckpt_to_keep": "int",
    "trainer.resume_from_path": "str",
    "trainer.rollout_data_dir": "str",
    "trainer.total_training_steps": "int",
    "trainer.validation_data_dir": "str",
}
# Below these any key may stand: they are handed on as keyword arguments.
FREE = ("ray_kwargs.ray_init", "reward.custom_reward_function.reward_kwargs", "reward.reward_kwargs")
# Set by verl's workers whatever the config says.
INTERNAL = {"_target_", "engine", "model_config", "global_batch_info", "profile"}
NUMBERS = (bool, int, float, str)
PRECISIONS = ("fp32", "bf16", "fp16", "float32", "bfloat16", "float16")
KL = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")  # core_algos.kl_penalty; a "+" takes k2's gradient


@dataclass(frozen=True)
class Spec:
    """A key's type (bool, int, float, str or any), and its choices if it has any.

    many: the value may be a list, each item one of the choices.
    """

    type: str
    choices: tuple[Any, ...] = ()
    many: bool = False


@dataclass
class Known:
    """Every leaf key, and the keys below which any key may stand."""

    keys: dict[str, Spec] = field(default_factory=dict)
    free: list[str] = field(default_factory=lambda: list(FREE))


def reference() -> DictConfig:
    """verl's own defaults."""
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer")


def choices() -> dict[str, tuple[Any, ...]]:
    """Values that verl compares with, or looks up in a registry, when a run is already under way."""
    actor, critic, rollout = "actor_rollout_ref.actor", "critic", "actor_rollout_ref.rollout"
    importlib.import_module("verl.experimental.reward_loop.reward_manager")  # registers them
    aggregations = tuple(dict.fromkeys([*AGGREGATION.values(), "token-sum", "seq-mean-token-sum"]))
    table: dict[str, tuple[Any, ...]] = {
        "model_engine": ("dp",),
        "algorithm.adv_estimator": tuple(sorted(map(_plain, core_algos.ADV_ESTIMATOR_REGISTRY))),
        "algorithm.kl_ctrl.type": ("fixed", "adaptive"),
        "algorithm.truncated": ("keep", "mask", "penalise"),
        "algorithm.kl_penalty": (*KL, *(f"{name}+" for name in KL)),
        f"{actor}.kl_loss_type": (*KL, *(f"{name}+" for name in KL)),
        f"{actor}.policy_loss.loss_mode": tuple(sorted(set(core_algos.POLICY_LOSS_REGISTRY) - {"bypass_mode"})),
        f"{rollout}.name": tuple(sorted(name for name, mode in _ROLLOUT_REGISTRY if mode == "async")),
        f"{rollout}.mode": ("async",),
        f"{rollout}.dtype": ("bfloat16", "float16", "float32", "auto", "half", "float"),
        "data.truncation": ("error", "left", "right", "middle"),
        "reward.reward_manager.source": ("register", "importlib"),
        "trainer.device": ("cuda", "cpu", "npu"),
        "trainer.logger": tuple(Tracking.supported_backend),
        "trainer.resume_mode": ("auto", "disable", "resume_path"),
        "trainer.v1.trainer_mode": ("sync", "colocate_async", "separate_async"),
    }
    for role in (actor, critic):
        table |= {
            f"{role}.strategy": ("fsdp", "fsdp2"),
            f"{role}.loss_agg_mode": aggregations,
            f"{role}.optim.lr_scheduler_type": ("constant", "cosine"),
            f"{role}.checkpoint.save_contents": ("model", "optimizer", "extra", "hf_model"),
            f"{role}.checkpoint.load_contents": ("model", "optimizer", "extra", "hf_model"),
        }
    for engine in (f"{actor}.fsdp_config", "actor_rollout_ref.ref.fsdp_config", "critic.fsdp"):
        table[f"{engine}.model_dtype"] = PRECISIONS
    return table


def known(defaults: DictConfig) -> Known:
    """Every key that verl, or our plugin in it, reads: `defaults`, and what their dataclasses have besides."""
    tree = Known()
    resolved = OmegaConf.to_container(defaults, resolve=True, throw_on_missing=False)
    assert isinstance(resolved, dict)
    _walk({key: value for key, value in resolved.items() if key not in LEGACY}, None, "", tree)
    for key, kind in {**ADDED, **TYPES}.items():
        tree.keys[key] = Spec(kind)
    for key, values in choices().items():
        many = key.endswith(("_contents", ".logger"))
        tree.keys[key] = dataclasses.replace(tree.keys[key], choices=values, many=many)
    return tree


def _walk(node: dict[str, Any], cls: type | None, prefix: str, tree: Known) -> None:
    """Keys of a mapping in the defaults, whose dataclass is `cls` where it becomes one."""
    cls = _target(node) or cls
    hints = typing.get_type_hints(cls) if cls else {}
    for name, value in node.items():
        if name == "_target_":
            continue
        key, hint = f"{prefix}{name}", hints.get(name)
        if isinstance(value, dict):
            if not value or _is_mapping(hint):
                tree.free.append(key)
            _walk(value, _dataclass(hint), f"{key}.", tree)
        else:
            tree.keys[key] = Spec(_kind(hint) if hint is not None else _kind_of(value))
    if cls:
        _more(cls, hints, set(node), prefix, tree)


def _more(cls: type, hints: dict[str, Any], given: set[str], prefix: str, tree: Known) -> None:
    """Fields of a dataclass that the defaults do not name, less those that verl sets itself."""
    for attribute in dataclasses.fields(cls):
        if (
            attribute.name in given
            or attribute.name in INTERNAL
            or attribute.name in getattr(cls, "_mutable_fields", ())
        ):
            continue
        key, hint = f"{prefix}{attribute.name}", hints[attribute.name]
        if inner := _dataclass(hint):
            _more(inner, typing.get_type_hints(inner), set(), f"{key}.", tree)
        elif _is_mapping(hint):
            tree.free.append(key)
        else:
            tree.keys[key] = Spec(_kind(hint))


def _target(node: dict[str, Any]) -> type | None:
    if "_target_" not in node:
        return None
    module, _, name = node["_target_"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return cls if dataclasses.is_dataclass(cls) else None


def _alternatives(hint: Any) -> list[Any]:
    return list(typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else [hint]


def _dataclass(hint: Any) -> type | None:
    return next(
        (
            hint_class
            for hint_class in _alternatives(hint)
            if isinstance(hint_class, type) and dataclasses.is_dataclass(hint_class)
        ),
        None,
    )


def _is_mapping(hint: Any) -> bool:
    return any(alternative is dict or typing.get_origin(alternative) is dict for alternative in _alternatives(hint))


def _kind(hint: Any) -> str:
    """The name of a type as far as YAML can tell types apart."""
    kinds = [alternative for alternative in _alternatives(hint) if alternative is not type(None)]
    return kinds[0].__name__ if len(kinds) == 1 and kinds[0] in NUMBERS else "any"


def _kind_of(value: Any) -> str:
    return type(value).__name__ if type(value) in NUMBERS else "any"


def _plain(name: Any) -> str:
    return str(getattr(name, "value", name))


def _line(spec: Spec) -> str:
    """`choices` of one value, or `items` of a list."""
    choices = {"items" if spec.many else "choices": list(spec.choices)} if spec.choices else {}
    return json.dumps({"type": spec.type, **choices})


def text() -> str:
    """The file, one line per key."""
    tree = known(reference())
    keys = ",\n".join(f'  "{key}": {_line(spec)}' for key, spec in sorted(tree.keys.items()))
    free = ",\n".join(f'  "{key}"' for key in sorted(tree.free))
    legacy = ",\n".join(f'  "{old}": "{new}"' for old, new in LEGACY.items())
    return f'{{\n "keys": {{\n{keys}\n }},\n "free": [\n{free}\n ],\n "legacy": {{\n{legacy}\n }}\n}}\n'


if __name__ == "__main__":
    print(text(), end="")
