"""Whether a training should save and stop because its job is about to end: job.sbatch creates RUN/stop on a signal."""

import os
from pathlib import Path
from typing import Any

import torch


def stop_asked(device: Any = "cpu") -> bool:
    """Whether RUN/stop exists; False outside of a run. Collective: all ranks must call it and get the same result.

    device: the device of the process group's tensors. Rank 0 decides, because a file system may show the file to one
    rank before another.
    """
    if not os.environ.get("RUN"):
        return False
    together = torch.distributed.is_initialized()
    first = not together or torch.distributed.get_rank() == 0
    stop = torch.tensor(int(first and Path(os.environ["RUN"], "stop").exists()), device=device)
    if together:
        torch.distributed.broadcast(stop, src=0)
    return bool(stop.item())
