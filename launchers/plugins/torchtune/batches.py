"""Which rows make which optimiser step, on which rank: a function of the seed and the step alone.

torchtune's own loaders drop what does not fill a batch, count in passes only, and shuffle with the seed 0. Here every
row is trained on in each pass, as with LlamaFactory: the last step of a pass has the rows that are left over.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Plan:
    """`micro` rows × `accumulation` × `world` ranks make a step. `every`: steps of a segment, after which is saved."""

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
        """What torchtune calls epochs: stretches of `every` steps, the last one shorter where they do not divide."""
        return math.ceil(self.steps / self.every)

    def slots(self, step: int) -> list[list[int]]:
        """Rows of each micro batch of a step (from 0), micro batches × ranks in turn; none is empty.

        Rows that do not fill a step are dealt out evenly. Where they are fewer than the micro batches, the pass's
        first rows come again, as accelerate does it between ranks.
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
    """Optimiser steps in which `rows` rows are seen once."""
    return math.ceil(rows / batch)


def planned(rows: int, batch: int, epochs: float | None, steps: int | None) -> int:
    """Optimiser steps of a training: given, or those of `epochs` passes (launchers/plan/plan.py counts the same)."""
    if steps:
        return steps
    assert epochs is not None
    return math.ceil(epochs * steps_per_pass(rows, batch))


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, number: int, shuffle: bool) -> tuple[int, ...]:
    """The rows of a pass in their order."""
    order = list(range(rows))
    if shuffle:
        random.Random(f"{seed} pass {number}").shuffle(order)  # noqa: S311  # an order, no secret
    return tuple(order)
