"""Learning rate schedules equal to LlamaFactory's (transformers 5.6, optimization.py)."""

import functools
import math
from typing import Any


def share_of_peak(step: int, *, steps: int, warmup: int, shape: str, floor: float) -> float:
    """Learning rate of a step (from 0) as a fraction of the peak."""
    if step < warmup:
        return step / warmup
    if shape == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    if shape == "linear":
        return max(0.0, 1.0 - done)
    return floor + (1 - floor) * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))


def warmup_steps(ratio: float, steps: int) -> int:
    """Warm-up steps: rounded up, less than the whole run."""
    return min(math.ceil(ratio * steps), steps - 1)


def warmed_up(
    optimizer: Any,
    *,
    shape: str,
    warmup_ratio: float,
    min_ratio: float,
    num_training_steps: int,
    last_epoch: int = -1,
) -> Any:
    """torchtune's lr_scheduler component: constant, linear or cosine (down to min_ratio) after a linear warm-up."""
    from torch.optim.lr_scheduler import LambdaLR

    warmup = warmup_steps(warmup_ratio, num_training_steps)
    rate = functools.partial(share_of_peak, steps=num_training_steps, warmup=warmup, shape=shape, floor=min_ratio)
    return LambdaLR(optimizer, rate, last_epoch)
