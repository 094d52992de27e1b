"""Rewards by name. One of your own subclasses `rewards.base.Reward`; it is listed here or named `module:Class`."""

from __future__ import annotations

import importlib
from typing import Any

from rewards.base import Reward
from rewards.errors import RewardError, nearest

REGISTRY = {
    "bleu": "rewards.text.bleu:Bleu",
    "bleu_rouge_f1": "rewards.text.rouge:BleuRougeF1",
    "chrf": "rewards.text.chrf:Chrf",
    "choice": "rewards.math.choice:ChoiceReward",
    "code": "rewards.code.reward:CodeReward",
    "language_mix": "rewards.text.language_mix:LanguageMix",
    "embedding": "rewards.text.embedding:Embedding",
    "keywords": "rewards.text.keywords:Keywords",
    "length": "rewards.text.length:Length",
    "exact": "rewards.math.exact:ExactReward",
    "math": "rewards.math.reward:MathReward",
    "numeric": "rewards.math.exact:NumericReward",
    "model": "rewards.model.reward:ModelReward",
    "format": "rewards.format:FormatReward",
    "combine": "rewards.combine:CombineReward",
    "bleu_rm": "rewards.combine:BleuRm",
    "repetition": "rewards.text.repetition:Repetition",
    "rouge_l": "rewards.text.rouge:RougeL",
}


def reward_class(name: str) -> type[Reward]:
    """The class registered as `name`, or at `package.module:Class`. Raises RewardError, naming the nearest reward."""
    module, _, attribute = REGISTRY.get(name, name).partition(":")
    if not attribute:
        known = f"rewards: {', '.join(REGISTRY)}, or package.module:Class"
        raise RewardError(f"unknown reward {name!r}{nearest(name, REGISTRY)}; {known}")
    try:
        reward = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise RewardError(f"reward {name!r}: {problem}") from None
    if not (isinstance(reward, type) and issubclass(reward, Reward)):
        raise RewardError(f"reward {name!r} is not a subclass of rewards.base.Reward")
    return reward


def load(name: str, /, **params: Any) -> Reward:
    """The reward `name` with these parameters. Raises RewardError for an unknown name, parameter or value."""
    return reward_class(name).create(name, params)
