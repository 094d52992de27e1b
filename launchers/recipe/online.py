"""Whether a recipe is online RL, and reward parameters with the recipe's thinking format."""

from collections.abc import Mapping
from typing import Any

import rewards
from launchers.recipe.schema import Recipe


def is_online(recipe: Recipe) -> bool:
    """Whether the method is online RL."""
    return recipe.method in ("grpo", "ppo")


def benchmark_params(recipe: Recipe, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a benchmark's reward, with the recipe's thinking format.

    For reward `model`, the parameters of the training reward are the defaults, so that held-out answers are scored in
    the same way.
    """
    trained = recipe.reward.params if recipe.reward and recipe.reward.name == name == "model" else {}
    return {**trained, **params, **with_thinking(name, {}, recipe.thinking)}


def with_thinking(reward: str, params: Mapping[str, Any], thinking: str | None) -> dict[str, Any]:
    """A reward's parameters with the recipe's thinking format, if the reward (or a component of it) takes one."""
    if thinking is None or reward not in rewards.REGISTRY:
        return dict(params)
    if isinstance(parts := params.get("parts"), list):
        filled = [
            {**part, "params": with_thinking(part["reward"], part.get("params", {}), thinking)}
            if isinstance(part, dict) and "reward" in part else part
            for part in parts
        ]  # fmt: skip
        return {**params, "parts": filled}
    known = rewards.reward_class(reward).model_fields
    return {**({"thinking": thinking} if "thinking" in known else {}), **params}
