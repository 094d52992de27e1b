"""Rewards: `load(name, **params)` gives an object whose `score(row, completion)` returns a typed `Score`.

The same object serves rejection sampling, pairs, difficulty selection, online RL and evaluation.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl
"""

from rewards.base import OUTCOMES, FailureLimit, Outcome, Reward, Score, code_hash
from rewards.errors import RewardError, TooManyFailures
from rewards.registry import ACCURACIES, REGISTRY, load, place_of, reward_class

__all__ = [
    "ACCURACIES", "OUTCOMES", "REGISTRY", "FailureLimit", "Outcome", "Reward", "RewardError", "Score",
    "TooManyFailures", "code_hash", "load", "place_of", "reward_class",
]  # fmt: skip
