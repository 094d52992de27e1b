"""Saves and ends a training when its job is about to end: job.sbatch makes RUN/stop at Slurm's signal.

Rank 0 looks for the file after each step, and all ranks do as it says: a file system may show it to one before another.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]  # transformers is not in the environment that is checked
    """A checkpoint after the step in which the file appeared, and then the end, with exit status 0."""

    def __init__(self, file: Path) -> None:
        self._file, self._asked = file, False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint."""
        asked = torch.tensor(int(state.is_world_process_zero and self._file.exists()), device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        if asked.item() and state.global_step < state.max_steps:
            self._asked = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End once it is written, on all ranks."""
        if self._asked:
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
            print(f"stopped as asked, with a checkpoint of step {state.global_step}", flush=True)
            sys.exit(0)


def callbacks() -> list[TrainerCallback]:
    """None outside of a run."""
    return [StopWhenAsked(Path(os.environ["RUN"], "stop"))] if os.environ.get("RUN") else []
