"""Rewards: `load(name, **params)` gives an object whose `score(row, completion)` returns a typed `Score`.

The same object serves rejection sampling, pairs, difficulty selection, online RL and evaluation. Names are imported
lazily, so that the sandbox's processes start without pydantic.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.base import OUTCOMES, FailureLimit, Outcome, Reward, Score, code_hash
    from rewards.errors import RewardError, TooManyFailures
    from rewards.registry import ACCURACIES, REGISTRY, load, place_of, reward_class

__all__ = [
    "ACCURACIES", "OUTCOMES", "REGISTRY", "FailureLimit", "Outcome", "Reward", "RewardError", "Score",
    "TooManyFailures", "code_hash", "load", "place_of", "reward_class",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for module in ("errors", "base", "registry") if name in __all__ else ():
        if hasattr(loaded := importlib.import_module(f"rewards.{module}"), name):
            return getattr(loaded, name)
    raise AttributeError(f"module 'rewards' has no attribute {name!r}")
