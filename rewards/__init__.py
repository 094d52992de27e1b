"""Rewards: `load(name, **params)` gives an object whose `score(row, completion)` returns a typed `Score`.

The same object serves rejection sampling, pairs, difficulty selection, online RL and evaluation. Modules are imported
when they are named, so `import rewards` is cheap.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl
"""

from __future__ import annotations

from rewards.base import OUTCOMES, FailureLimit, Outcome, Reward, Score, code_hash
from rewards.errors import RewardError, TooManyFailures
from rewards.registry import REGISTRY, load, reward_class

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
