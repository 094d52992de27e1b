"""What verl's configuration may hold: each key's type and choices, and the old keys that verl accepts and ignores.

    <verl python> -m launchers.plugins.verl.dump_keys > configs/native/verl.json

The launcher checks `native` with that file, without importing verl. A test compares it with the installed version.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import verl
from launchers.plugins.annotations import dataclass_of, is_mapping, scalar
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
PRECISIONS = ("fp32", "bf16", "fp16", "float32", "bfloat16", "float16")
KL = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")  # core_algos.kl_penalty; a "+" takes k2's gradient


def reference() -> DictConfig:
    """verl's own defaults."""
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer")


def choices() -> dict[str, tuple[Any, ...]]:
    """Values that verl compares with, or looks up in a registry, when a run is already under way."""
    actor, critic, rollout = "actor_rollout_ref.actor", "critic", "actor_rollout_ref.rollout"
    importlib.import_module("verl.experimental.reward_loop.reward_manager")  # registers them
    aggregations = (
        "token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm", "token-sum", "seq-mean-token-sum",
    )  # fmt: skip
    estimators = (str(getattr(name, "value", name)) for name in core_algos.ADV_ESTIMATOR_REGISTRY)
    table: dict[str, tuple[Any, ...]] = {
        "model_engine": ("dp",),
        "algorithm.adv_estimator": tuple(sorted(estimators)),
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


@dataclass
class Known:
    """Every leaf key with its type and choices, and the keys below which any key may stand."""

    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    free: list[str] = field(default_factory=lambda: list(FREE))


def known(defaults: DictConfig) -> Known:
    """Every key that verl, or our plugin in it, reads: `defaults`, and what their dataclasses have besides."""
    tree = Known()
    resolved = OmegaConf.to_container(defaults, resolve=True, throw_on_missing=False)
    assert isinstance(resolved, dict)
    _walk({key: value for key, value in resolved.items() if key not in LEGACY}, None, "", tree)
    for key, kind in {**ADDED, **TYPES}.items():
        tree.keys[key] = {"type": kind}
    for key, values in choices().items():
        many = key.endswith(("_contents", ".logger"))  # the value is a list, each item one of the choices
        tree.keys[key]["items" if many else "choices"] = list(values)
    return tree


def _walk(node: dict[str, Any], cls: type | None, prefix: str, tree: Known) -> None:
    """Keys of a mapping in the defaults, whose dataclass is `cls` where it becomes one."""
    if "_target_" in node:
        module, _, name = node["_target_"].rpartition(".")
        target = getattr(importlib.import_module(module), name)
        cls = target if dataclasses.is_dataclass(target) else cls
    hints = typing.get_type_hints(cls) if cls else {}
    for name, value in node.items():
        key, hint = f"{prefix}{name}", hints.get(name)
        if isinstance(value, dict):
            if not value or is_mapping(hint):
                tree.free.append(key)
            _walk(value, dataclass_of(hint), f"{key}.", tree)
        elif name != "_target_":
            tree.keys[key] = {"type": scalar(type(value) if hint is None else hint)}
    if cls:
        _more(cls, hints, set(node), prefix, tree)


def _more(cls: type, hints: dict[str, Any], given: set[str], prefix: str, tree: Known) -> None:
    """Fields of a dataclass that the defaults do not name, less those that verl sets itself."""
    for name in (attribute.name for attribute in dataclasses.fields(cls)):
        if name in given or name in INTERNAL or name in getattr(cls, "_mutable_fields", ()):
            continue
        key, hint = f"{prefix}{name}", hints[name]
        if inner := dataclass_of(hint):
            _more(inner, typing.get_type_hints(inner), set(), f"{key}.", tree)
        elif is_mapping(hint):
            tree.free.append(key)
        else:
            tree.keys[key] = {"type": scalar(hint)}


def text() -> str:
    """The file, one line per key."""
    tree = known(reference())
    keys = ",\n".join(f'  "{key}": {json.dumps(spec)}' for key, spec in sorted(tree.keys.items()))
    free = ",\n".join(f'  "{key}"' for key in sorted(tree.free))
    legacy = ",\n".join(f'  "{old}": "{new}"' for old, new in LEGACY.items())
    return f'{{\n "keys": {{\n{keys}\n }},\n "free": [\n{free}\n ],\n "legacy": {{\n{legacy}\n }}\n}}\n'


if __name__ == "__main__":
    print(text(), end="")
