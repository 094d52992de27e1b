"""Looks at a verl config key by key: old trees, unknown keys, missing and unreadable values, types, choices, ranges.

hydra and verl let all of these through where no dataclass stands behind a key, and stop at the first where one does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launchers.errors import did_you_mean, nearest
from launchers.plugins.verl.dump_keys import LEGACY, Known, Spec, known, reference

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
INFINITY = math.inf
MISSING = "???"


@dataclass(frozen=True)
class NativeFault:
    """One mistake: verl's dotted key, and what is wrong, the nearest valid value, what to do."""

    key: str
    message: str


# Keys to the least and the most that makes sense; "above" says that the least itself does not.
COUNTS = [
    "data.train_batch_size", "data.gen_batch_size", "data.max_prompt_length", "data.max_response_length",
    "trainer.nnodes", "trainer.n_gpus_per_node", "trainer.total_epochs", "trainer.total_training_steps",
    "trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep", "algorithm.truncated_limit",
    "reward.num_workers",
    *(f"{ROLLOUT}.{name}" for name in (
        "n", "val_kwargs.n", "agent.num_workers", "tensor_model_parallel_size", "data_parallel_size",
        "pipeline_model_parallel_size", "log_prob_micro_batch_size_per_gpu", "max_model_len", "max_num_seqs",
        "max_num_batched_tokens", "log_prob_max_token_len_per_gpu",
    )),
    f"{REF}.log_prob_micro_batch_size_per_gpu",
    *(f"{role}.{name}" for role in (ACTOR, "critic") for name in (
        "ppo_mini_batch_size", "ppo_micro_batch_size_per_gpu", "ppo_epochs", "ppo_max_token_len_per_gpu",
        "ulysses_sequence_parallel_size",
    )),
]  # fmt: skip
RANGES: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(COUNTS, (1, INFINITY, False)),
    **dict.fromkeys([f"{ROLLOUT}.top_p", f"{ROLLOUT}.val_kwargs.top_p"], (0, 1, True)),
    **dict.fromkeys([f"{ROLLOUT}.gpu_memory_utilization"], (0, 1, True)),
    **dict.fromkeys([f"{ROLLOUT}.temperature"], (0, INFINITY, True)),  # verl divides log-probabilities' logits by it
    **dict.fromkeys([f"{ROLLOUT}.val_kwargs.temperature"], (0, INFINITY, False)),
    **dict.fromkeys(["algorithm.gamma", "algorithm.lam"], (0, 1, False)),
    **dict.fromkeys([f"{ACTOR}.optim.lr", "critic.optim.lr"], (0, INFINITY, True)),
    **dict.fromkeys([f"{ACTOR}.optim.clip_grad", "critic.optim.clip_grad"], (0, INFINITY, True)),
    **dict.fromkeys([f"{ACTOR}.optim.lr_warmup_steps_ratio", "critic.optim.lr_warmup_steps_ratio"], (0, 1, False)),
    **dict.fromkeys([f"{ACTOR}.clip_ratio_low"], (0, 1, False)),
    **dict.fromkeys([f"{ACTOR}.clip_ratio_high", f"{ACTOR}.entropy_coeff"], (0, INFINITY, False)),
    **dict.fromkeys([f"{ACTOR}.kl_loss_coef", "algorithm.kl_ctrl.kl_coef"], (0, INFINITY, False)),
    **dict.fromkeys(["data.dataloader_num_workers", "trainer.critic_warmup"], (0, INFINITY, False)),
}


class Broken(Exception):
    """A check asked for a value that is at fault itself, which has been told: there is nothing to check it with."""


class Values:
    """A config's values by dotted key. Raises Broken for one that is at fault."""

    def __init__(self, config: DictConfig, broken: Iterable[str] = ()) -> None:
        self.config = config
        self.broken = tuple(broken)

    def __getitem__(self, key: str) -> Any:
        if any(one == key or one.startswith(f"{key}.") for one in self.broken):
            raise Broken(key)
        return OmegaConf.select(self.config, key)

    @property
    def world(self) -> int:
        """GPUs that train."""
        return int(self["trainer.nnodes"] * self["trainer.n_gpus_per_node"])

    @property
    def critic(self) -> bool:
        """Whether a critic trains (verl's need_critic)."""
        try:
            said = self["critic.enable"]
            return bool(said) if said is not None else bool(self["algorithm.adv_estimator"] == "gae")
        except Broken:
            return False

    @property
    def roles(self) -> tuple[str, ...]:
        """The trees of what trains."""
        return (ACTOR, "critic") if self.critic else (ACTOR,)


@cache
def _verls() -> tuple[DictConfig, Known]:
    defaults = reference()
    return defaults, known(defaults)


def inspect(config: DictConfig) -> tuple[list[NativeFault], DictConfig]:
    """All faults of single keys, and a config in which each broken value is verl's own default."""
    defaults, known_keys = _verls()
    raw = _container(config)
    usable = OmegaConf.create(raw)
    assert isinstance(usable, DictConfig)
    look = _Look(config, known_keys, dict(leaves(_container(defaults))))
    faults: list[NativeFault] = []
    for key, value in leaves(raw):
        message = look.fault(key, value)
        if message is not None:
            faults.append(NativeFault(key, message))
            _repair(usable, defaults, key)
    return faults, usable


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings; a list, and an empty mapping, is one value."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _container(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _repair(usable: DictConfig, defaults: DictConfig, key: str) -> None:
    """Put verl's default in a key's place; where verl has none, or it cannot stand there, take the key away."""
    above, _, name = key.rpartition(".")
    parent = OmegaConf.select(usable, above) if above else usable
    default = OmegaConf.select(defaults, above) if above else defaults
    if not isinstance(default, DictConfig):
        _repair(usable, defaults, above)
    elif isinstance(parent, DictConfig):
        if name in parent.keys():  # noqa: SIM118 - `in` says no to a value that cannot be resolved
            del parent[name]
        if name in default.keys():  # noqa: SIM118
            parent._set_item_impl(name, copy.deepcopy(default._get_node(name)))


class _Look:
    def __init__(self, config: DictConfig, known_keys: Known, defaults: dict[str, Any]) -> None:
        self.config = config
        self.known = known_keys
        self.defaults = defaults
        self.free = tuple(f"{prefix}." for prefix in known_keys.free)

    def fault(self, key: str, raw: Any) -> str | None:
        """What is wrong with one leaf, or None."""
        if key.split(".")[0] in LEGACY:
            return None if raw is None or raw == {} else _legacy(key)
        if raw is None and key in self.known.optional:
            return None
        if raw != MISSING and key in self.defaults and raw == self.defaults[key]:
            return None
        if key.endswith("_target_"):
            return "is verl's own mark of a class: take it away"
        free = key in self.known.free or key.startswith(self.free)
        if not free and (spec := self.known.keys.get(key)) is None:
            return None if raw == {} and self._is_tree(key) else self._unknown(key)
        if raw == MISSING:
            return self._missing(key)
        try:
            value = OmegaConf.select(self.config, key)
        except OmegaConfBaseException as problem:
            return f"{raw} cannot be resolved: {first_line(problem)}"
        return None if free or spec is None else _value_fault(key, value, spec)

    def _missing(self, key: str) -> str | None:
        rewards_own = key == "reward.reward_model.rollout.name"
        if rewards_own and not OmegaConf.select(self.config, "reward.reward_model.enable"):
            return None
        choices = self.known.keys[key].choices if key in self.known.keys else ()
        return f"has no value{': give one of ' + ', '.join(map(str, choices)) if choices else ''}"

    def _is_tree(self, key: str) -> bool:
        return any(one.startswith(f"{key}.") for one in self.known.keys)

    def _unknown(self, key: str) -> str:
        if self._is_tree(key):
            return "holds keys of its own and is no single value"
        above = key
        while "." in above:
            above = above.rpartition(".")[0]
            if above in self.known.keys:
                return f"verl has no such key: {above} is a single value"
        name = key.rpartition(".")[2]
        named = [one for one in self.known.keys if one.rpartition(".")[2] == name]
        near = min(named, key=len) if named else nearest(key, self.known.keys)
        return f"verl has no such key and would ignore it{f'; did you mean {near!r}?' if near else ''}"


def _legacy(key: str) -> str:
    old = max((one for one in LEGACY if key == one or key.startswith(f"{one}.")), key=len)
    return f"verl accepts this old key and ignores it: set {LEGACY[old] + key[len(old) :]}"


def _value_fault(key: str, value: Any, spec: Spec) -> str | None:
    if value is None:
        return None if spec.null else f"must have a value, of type {spec.type}"
    if spec.many:
        items = value if OmegaConf.is_list(value) else [value]
        return next((_choice(one, spec) for one in items if one not in spec.choices), None)
    wanted = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}.get(spec.type)
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and spec.type != "bool")):
        return f"must be of type {spec.type}, not {_shown(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be finite, not {value}"
    if spec.choices and value not in spec.choices:
        return _choice(value, spec)
    low, high, above = RANGES.get(key, (-INFINITY, INFINITY, False))
    if value.__class__ in (int, float) and not (low < value <= high if above else low <= value <= high):
        least = f"more than {low:g}" if above else f"at least {low:g}"
        return f"must be {least}{f' and at most {high:g}' if high < INFINITY else ''}, not {value:g}"
    return None


def _choice(value: Any, spec: Spec) -> str:
    words = [str(one) for one in spec.choices]
    hint = did_you_mean(str(value), words)
    return (
        f"{_shown(value)} is not one that verl knows; {hint}{'' if 'known' in hint else ' known: ' + ', '.join(words)}"
    )


def _shown(value: Any) -> str:
    text = repr(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
