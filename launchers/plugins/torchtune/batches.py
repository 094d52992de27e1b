"""Assigns rows to optimiser steps and ranks, as a function of seed and step only.

torchtune's own loaders drop incomplete batches, count only in epochs, and shuffle with seed 0. Here every row is used
in each pass, as with LlamaFactory: the last step of a pass has the remaining rows.
"""

import itertools
import math
import random
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Plan:
    """A step has `micro` rows × `accumulation` × `world` ranks. `every`: steps per segment; each ends with a save."""

    rows: int
    micro: int
    accumulation: int
    world: int
    steps: int
    every: int
    seed: int
    shuffle: bool = True

    @property
    def per_pass(self) -> int:
        """Steps of one pass over the rows."""
        return steps_per_pass(self.rows, self.micro * self.accumulation * self.world)

    @property
    def segments(self) -> int:
        """Number of segments of `every` steps (torchtune's "epochs"); the last one may be shorter."""
        return math.ceil(self.steps / self.every)

    def slots(self, step: int) -> list[list[int]]:
        """Rows of each micro batch of a step (from 0), ordered by micro batch, then rank; none is empty.

        The rows of an incomplete step are distributed evenly. If they are fewer than the micro batches, the pass's
        first rows are repeated, as accelerate does.
        """
        number, place = divmod(step, self.per_pass)
        order = _order(self.rows, self.seed, number, self.shuffle)
        size, count = self.micro * self.accumulation * self.world, self.accumulation * self.world
        taken = order[place * size : (place + 1) * size]
        more = iter(order * (count // len(order) + 1))
        taken = [*taken, *(next(more) for _ in range(count - len(taken)))]
        share, extra = divmod(len(taken), count)
        cuts = [at * share + min(at, extra) for at in range(count + 1)]
        return [list(taken[low:high]) for low, high in itertools.pairwise(cuts)]

    def micro_batches(self, step: int, rank: int) -> list[list[int]]:
        """Rows of a rank's micro batches of one step (from 0)."""
        return self.slots(step)[rank :: self.world]


def steps_per_pass(rows: int, batch: int) -> int:
    """Optimiser steps of one pass over `rows` rows."""
    return math.ceil(rows / batch)


def planned(rows: int, batch: int, epochs: float | None, steps: int | None) -> int:
    """Optimiser steps of a training: `steps`, or those of `epochs` passes (as in launchers/plan/plan.py)."""
    if steps:
        return steps
    assert epochs is not None
    return math.ceil(epochs * steps_per_pass(rows, batch))


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, number: int, shuffle: bool) -> tuple[int, ...]:
    """The row order of a pass."""
    order = list(range(rows))
    if shuffle:
        random.Random(f"{seed} pass {number}").shuffle(order)  # noqa: S311  # not for cryptography
    return tuple(order)
