"""Stop strings for rollouts, `rollout.custom: {stop: ["</response>"]}`, which verl's sampling parameters lack.

Sampling ends after the stop string, which is kept in the completion for the reward.
"""

from types import ModuleType
from typing import Any

import wrapt


def install(single_turn: ModuleType) -> None:
    """Add the config's stop strings to the sampling parameters of verl's agent loop."""

    @wrapt.patch_function_wrapper(single_turn, "SingleTurnAgentLoop.run")
    def with_stop(run: Any, loop: Any, args: tuple[dict[str, Any]], kwargs: dict[str, Any]) -> Any:
        (sampling_params,) = args
        if stop := (loop.rollout_config.get("custom") or {}).get("stop"):
            sampling_params = {**sampling_params, "stop": list(stop), "include_stop_str_in_output": True}
        return run(sampling_params, **kwargs)
