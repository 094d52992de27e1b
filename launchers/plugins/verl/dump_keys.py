"""Writes verl's configuration keys with types and choices, and the legacy keys that verl accepts but ignores.

    <verl python> -m launchers.plugins.verl.dump_keys > configs/native/verl.json

The launcher checks `native` with this file, without importing verl. A test compares it with the installed version.
configs/native/verl.facts.yaml has what cannot be derived from verl's defaults, dataclasses and registries.
"""

import dataclasses
import importlib
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import verl
from launchers.envs import REPO
from launchers.plugins.verl.registry import AGGREGATION
from verl.trainer.ppo import core_algos
from verl.utils.tracking import Tracking
from verl.workers.rollout.base import _ROLLOUT_REGISTRY

FACTS: dict[str, Any] = yaml.safe_load((REPO / "configs" / "native" / "verl.facts.yaml").read_text())
ADDED: dict[str, str] = FACTS["added"]


def reference() -> DictConfig:
    """verl's own defaults."""
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer")


def registered() -> dict[str, list[str]]:
    """Values that verl looks up in registries, during a run."""
    importlib.import_module("verl.experimental.reward_loop.reward_manager")  # registers them
    aggregations = list(dict.fromkeys([*AGGREGATION.values(), "token-sum", "seq-mean-token-sum"]))
    estimators = [str(getattr(name, "value", name)) for name in core_algos.ADV_ESTIMATOR_REGISTRY]
    return {
        "algorithm.adv_estimator": sorted(estimators),
        "actor_rollout_ref.actor.loss_agg_mode": aggregations,
        "critic.loss_agg_mode": aggregations,
        "actor_rollout_ref.actor.policy_loss.loss_mode": sorted({*core_algos.POLICY_LOSS_REGISTRY} - {"bypass_mode"}),
        "actor_rollout_ref.rollout.name": sorted(name for name, mode in _ROLLOUT_REGISTRY if mode == "async"),
        "trainer.logger": list(Tracking.supported_backend),
    }


def known() -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every leaf key of verl or our plugin with its type (bool, int, float, str or any) and, if limited, its `choices`
    or the choices of a list's `items`; and the keys of free-form mappings."""
    defaults = OmegaConf.to_container(reference(), resolve=True, throw_on_missing=False)
    walked = list(_walk({key: value for key, value in defaults.items() if key not in FACTS["legacy"]}, None, ""))
    kinds = {**{key: kind for key, kind in walked if kind is not None}, **ADDED, **FACTS["types"]}
    keys: dict[str, dict[str, Any]] = {key: {"type": kind} for key, kind in kinds.items()}
    for key, values in {**FACTS["choices"], **registered()}.items():
        keys[key]["items" if key.endswith(("_contents", ".logger")) else "choices"] = values
    return keys, [*FACTS["free"], *(key for key, kind in walked if kind is None)]


def _walk(node: dict[str, Any], cls: type | None, prefix: str) -> Iterator[tuple[str, str | None]]:
    """Keys and types of a mapping in the defaults and of its dataclass (from `_target_`, or else `cls`).

    The type of a free-form mapping is None.
    """
    cls = _target(node) or cls
    hints = typing.get_type_hints(cls) if cls else {}
    set_by_verl = {*FACTS["internal"], *getattr(cls, "_mutable_fields", ())}
    fields = [field.name for field in dataclasses.fields(cls)] if cls else []
    for name in [*node, *(name for name in fields if name not in node and name not in set_by_verl)]:
        key, hint, value = f"{prefix}{name}", hints.get(name), node.get(name)
        if name == "_target_":
            continue
        if isinstance(value, dict) or (name not in node and (_dataclass(hint) or _is_mapping(hint))):
            if value == {} or _is_mapping(hint):
                yield key, None
            yield from _walk(value or {}, _dataclass(hint), f"{key}.")
        else:
            yield key, _kind(type(value) if hint is None else hint)


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
        (kind for kind in _alternatives(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
    )


def _is_mapping(hint: Any) -> bool:
    return any(alternative is dict or typing.get_origin(alternative) is dict for alternative in _alternatives(hint))


def _kind(hint: Any) -> str:
    """The name of a type in terms of YAML types."""
    kinds = [alternative for alternative in _alternatives(hint) if alternative is not type(None)]
    return kinds[0].__name__ if len(kinds) == 1 and kinds[0] in (bool, int, float, str) else "any"


def text() -> str:
    """The text of the file, one line per key."""
    specs, below = known()
    keys = ",\n".join(f'  "{key}": {json.dumps(spec)}' for key, spec in sorted(specs.items()))
    free = ",\n".join(f'  "{key}"' for key in sorted(below))
    legacy = ",\n".join(f'  "{old}": "{new}"' for old, new in FACTS["legacy"].items())
    return f'{{\n "keys": {{\n{keys}\n }},\n "free": [\n{free}\n ],\n "legacy": {{\n{legacy}\n }}\n}}\n'


if __name__ == "__main__":
    print(text(), end="")
