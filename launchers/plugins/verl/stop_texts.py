"""Rollouts that end at a text, `rollout.custom: {stop: ["</response>"]}`: verl's sampling parameters have no stop.

Nothing behind the text is sampled, so nothing behind it is trained on. It stays in the completion, for the reward.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any


def install(single_turn: ModuleType) -> None:
    """Add the stop texts of the config to the sampling parameters that verl's agent loop passes on."""
    loop = single_turn.SingleTurnAgentLoop
    run = loop.run

    @functools.wraps(run)
    async def with_stop(self: Any, sampling_params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if stop := (self.rollout_config.get("custom") or {}).get("stop"):
            sampling_params = {**sampling_params, "stop": list(stop), "include_stop_str_in_output": True}
        return await run(self, sampling_params, *args, **kwargs)

    loop.run = with_stop
