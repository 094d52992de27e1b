"""Whether a recipe trains online, and the thinking format that all of its rewards share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rewards
from launchers.recipe.schema import Recipe


def is_online(recipe: Recipe) -> bool:
    """Whether the policy is trained on completions of its own."""
    return recipe.method in ("grpo", "ppo")


def benchmark_params(recipe: Recipe, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a benchmark's reward, in the recipe's thinking format.

    A reward model scores held-out answers as it scores those of the training: its parameters hold where the benchmark
    has none.
    """
    trained = recipe.reward.params if recipe.reward and recipe.reward.name == name == "model" else {}
    return {**trained, **params, **with_thinking(name, {}, recipe.thinking)}


def with_thinking(reward: str, params: Mapping[str, Any], thinking: str | None) -> dict[str, Any]:
    """A reward's parameters with the recipe's thinking format, where the reward (or a part of it) has one."""
    if thinking is None or reward not in rewards.REGISTRY:
        return dict(params)
    if isinstance(parts := params.get("parts"), list):
        fed = [
            {**part, "params": with_thinking(part["reward"], part.get("params", {}), thinking)}
            if isinstance(part, dict) and "reward" in part else part
            for part in parts
        ]  # fmt: skip
        return {**params, "parts": fed}
    known = rewards.reward_class(reward).model_fields
    return {**({"thinking": thinking} if "thinking" in known else {}), **params}
