"""Rollouts that end at a text, `rollout.custom: {stop: ["</response>"]}`: verl's sampling parameters have no stop.

Nothing behind the text is sampled, so nothing behind it is trained on. It stays in the completion, for the reward.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import wrapt


def install(single_turn: ModuleType) -> None:
    """Add the stop texts of the config to the sampling parameters that verl's agent loop passes on."""

    @wrapt.patch_function_wrapper(single_turn, "SingleTurnAgentLoop.run")
    def with_stop(run: Any, loop: Any, args: tuple[dict[str, Any]], kwargs: dict[str, Any]) -> Any:
        (sampling_params,) = args
        if stop := (loop.rollout_config.get("custom") or {}).get("stop"):
            sampling_params = {**sampling_params, "stop": list(stop), "include_stop_str_in_output": True}
        return run(sampling_params, **kwargs)
