"""Whether a training is to save and end because its job is about to: job.sbatch makes RUN/stop at Slurm's signal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def stop_asked(device: Any = "cpu") -> bool:
    """Whether RUN/stop is there, the same on all ranks, which all have to call this; False outside of a run.

    device: where the ranks' process group takes a tensor. A file system may show the file to one rank before another,
    so that rank 0 decides.
    """
    if not os.environ.get("RUN"):
        return False
    together = torch.distributed.is_initialized()
    first = not together or torch.distributed.get_rank() == 0
    asked = torch.tensor(int(first and Path(os.environ["RUN"], "stop").exists()), device=device)
    if together:
        torch.distributed.broadcast(asked, src=0)
    return bool(asked.item())
