"""Rewards: `load(name, **params)` gives an object whose `score(row, completion)` returns a typed `Score`.

One door for rejection sampling, pairs, difficulty selection, online RL and evaluation. A reward is one module
and one line in `REGISTRY`; modules are imported when they are named, so `import rewards` costs milliseconds.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl
"""

from __future__ import annotations

import importlib
from typing import Any

from rewards.base import (
    OUTCOMES,
    FailureLimit,
    Outcome,
    Reward,
    RewardError,
    Score,
    TooManyFailures,
    code_hash,
    nearest,
)

__all__ = [
    "OUTCOMES",
    "REGISTRY",
    "FailureLimit",
    "Outcome",
    "Reward",
    "RewardError",
    "Score",
    "TooManyFailures",
    "code_hash",
    "load",
    "reward_class",
]

REGISTRY: dict[str, str] = {
    "bleu": "rewards.text.bleu:Bleu",
    "bleu_rouge_f1": "rewards.text.bleu_rouge:BleuRougeF1",
    "choice": "rewards.math.choice:ChoiceReward",
    "code": "rewards.code.reward:CodeReward",
    "language_mix": "rewards.text.language_mix:LanguageMix",
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
    """The class registered as `name`. Raises RewardError, naming the nearest reward, for an unknown one."""
    if name not in REGISTRY:
        raise RewardError(f"unknown reward {name!r}{nearest(name, REGISTRY)}; rewards: {', '.join(REGISTRY)}")
    module, attribute = REGISTRY[name].split(":")
    found: type[Reward] = getattr(importlib.import_module(module), attribute)
    assert issubclass(found, Reward)
    return found


def load(name: str, /, **params: Any) -> Reward:
    """The reward `name` with these parameters. Raises RewardError for an unknown name, parameter or value."""
    return reward_class(name).create(name, params)
