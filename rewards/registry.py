"""Rewards by name. Your own reward is a subclass of `rewards.base.Reward`, named as `module:Class`."""

import importlib
from typing import Any

from rewards.base import Reward
from rewards.errors import RewardError, nearest
from rewards.imports import imported

REGISTRY = {
    "bertscore": "rewards.text.bertscore:BertScore",
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

# Rewards whose mean is an accuracy; reports name the mean of other rewards after the reward.
ACCURACIES = frozenset({"choice", "code", "exact", "math", "numeric"})


def place_of(name: str) -> str:
    """`module:Class` of a reward's name, which may itself be `module:Class`. Raises RewardError for an unknown name."""
    if ":" not in name and name not in REGISTRY:
        known = f"rewards: {', '.join(REGISTRY)}, or package.module:Class"
        raise RewardError(f"unknown reward {name!r}{nearest(name, REGISTRY)}; {known}")
    return name if ":" in name else REGISTRY[name]


def reward_class(name: str) -> type[Reward]:
    """The class registered as `name`, or at `module:Class`. Raises RewardError, naming the nearest reward."""
    module, _, attribute = place_of(name).partition(":")
    try:
        reward = getattr(importlib.import_module(module), attribute) if name in REGISTRY else imported(name)
    except ValueError as error:
        raise RewardError(f"reward {name!r}: {error}") from None
    if not (isinstance(reward, type) and issubclass(reward, Reward)):
        raise RewardError(f"reward {name!r} is not a subclass of rewards.base.Reward")
    return reward


def load(name: str, /, **params: Any) -> Reward:
    """The reward `name` with these parameters. Raises RewardError for an unknown name, parameter or value."""
    return reward_class(name).create(name, params)
