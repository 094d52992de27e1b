"""Saves a checkpoint and ends the training when its job is about to end (launchers/plugins/stop_asked.py)."""

import sys
from typing import Any

import torch
from transformers import TrainerCallback

from launchers.plugins.stop_asked import stop_asked


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]  # transformers is not in the environment that is checked
    """Saves a checkpoint after the step in which a stop was requested, then exits with status 0."""

    def __init__(self) -> None:
        self._asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Request a checkpoint."""
        if stop_asked(args.device) and state.global_step < state.max_steps:
            self._asked = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Exit once it is written, on all ranks."""
        if self._asked:
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
            print(f"stopped on request, with a checkpoint at step {state.global_step}", flush=True)
            sys.exit(0)
