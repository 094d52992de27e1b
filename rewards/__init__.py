"""Rewards: `load(name, **params)` gives an object whose `score(row, completion)` returns a typed `Score`.

The same object serves rejection sampling, pairs, difficulty selection, online RL and evaluation. Names are imported
when they are used, so that the sandbox's processes start without pydantic.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.base import OUTCOMES as OUTCOMES
    from rewards.base import FailureLimit as FailureLimit
    from rewards.base import Outcome as Outcome
    from rewards.base import Reward as Reward
    from rewards.base import Score as Score
    from rewards.base import code_hash as code_hash
    from rewards.errors import RewardError as RewardError
    from rewards.errors import TooManyFailures as TooManyFailures
    from rewards.registry import ACCURACIES as ACCURACIES
    from rewards.registry import REGISTRY as REGISTRY
    from rewards.registry import load as load
    from rewards.registry import place_of as place_of
    from rewards.registry import reward_class as reward_class

_MODULES = {"RewardError": "errors", "TooManyFailures": "errors"}
_MODULES |= dict.fromkeys(("ACCURACIES", "REGISTRY", "load", "place_of", "reward_class"), "registry")
_MODULES |= dict.fromkeys(("OUTCOMES", "FailureLimit", "Outcome", "Reward", "Score", "code_hash"), "base")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rewards' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rewards.{_MODULES[name]}"), name)
