"""Advantages for online RL in plain torch; `registry.py` gives them to verl by name. The losses are verl's own.

    $(python3 -m launchers.envs verl --device cpu) -m pytest tests/plugins/advantages_in_torch.py

Shapes: B rows (one completion each) by T tokens. A mask is 1 on the tokens of a completion and 0 on padding.

| method | algorithm.loss | advantages | KL | clip | truncated |
|---|---|---|---|---|---|
| GRPO, DeepSeekMath 2402.03300 | sequence_mean | group | k3 in loss, 0.04 | 0.2 | kept |
| Minimum O1's course trainer | ppo_clip | group_then_batch | k1 in reward, 0.01 | 0.2 | scored -1 by its reward |
| DAPO 2503.14476 | clip_higher | group | none | 0.2, 0.28 | masked (or penalised, its soft form) |
| Dr. GRPO 2503.20783 | dr_grpo | none | none | 0.2 | kept |
| GSPO 2507.18071 | gspo | group | none | 3e-4, 4e-4 | kept |
| PPO 1707.06347 | ppo_clip | verl's gae, with a critic | k1 in reward | 0.2 | kept |
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

Scaling = Literal["none", "group"]

GROUP_EPSILON = 1e-8  # the course's, below any spread of a real reward
ADVANTAGE_LIMIT = 10.0  # the course clamps group z-scores to this
VARIANCE_FLOOR = 1e-8  # OpenRLHF's, for the normalisation over a batch


def truncated_rows(mask: Tensor, limit: int) -> Tensor:
    """(B,) completions that used every token they were allowed: the test of verl's response_length/clip_ratio.

    One that ended by itself exactly at the limit counts too: the mask does not tell them apart.
    """
    return mask.sum(-1) >= limit


def group_advantages(scores: Tensor, groups: Sequence[Hashable], scaling: Scaling) -> Tensor:
    """(B,) scores minus the mean of their group (the completions of one prompt).

    none: not scaled (Dr. GRPO). group: divided by the group's unbiased standard deviation and clamped to ±10
    (DeepSeekMath 4.1.2 and the course). Equal scores, and a completion without others, have advantage 0.
    """
    result = torch.zeros_like(scores)
    for group in set(groups):
        rows = [row for row, other in enumerate(groups) if other == group]
        of_group = scores[rows]
        if len(rows) < 2 or bool((of_group == of_group[0]).all()):  # else rounding of the mean is blown up to ±1
            continue
        centred = of_group - of_group.mean()
        if scaling == "group":
            centred = (centred / (of_group.std() + GROUP_EPSILON)).clamp(-ADVANTAGE_LIMIT, ADVANTAGE_LIMIT)
        result[rows] = centred
    return result


def normalise_over_batch(advantages: Tensor, mask: Tensor) -> Tensor:
    """(B, T) to mean 0 and variance 1 over all tokens that count, 0 elsewhere (OpenRLHF; the course's second step)."""
    weights = mask.to(advantages.dtype)
    count = weights.sum().clamp(min=1)
    centred = (advantages - (advantages * weights).sum() / count) * weights
    return centred * (centred.square().sum() / count).clamp(min=VARIANCE_FLOOR).rsqrt()


def advantages(
    scores: Tensor,
    groups: Sequence[Hashable],
    mask: Tensor,
    scaling: Scaling = "group",
    over_batch: bool = False,
    penalties: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """(B, T) advantages from one score per completion.

    The group-relative score stands on every token. `penalties` (B, T), e.g. minus beta times k1, come after the
    scaling, each token bearing its own and all later ones (the course's trainer). `over_batch` then normalises over
    all tokens. Rows where `counted` (B,) is False have advantage 0 and no part in the batch's mean and variance; they
    still belong to their group, as in DAPO. Rows without any token belong to none.
    """
    weights = mask.to(scores.dtype)
    result = torch.zeros_like(weights)
    rows = (weights.sum(-1) > 0).nonzero()[:, 0]
    result[rows] = group_advantages(scores[rows], [groups[row] for row in rows], scaling)[:, None] * weights[rows]
    if penalties is not None:
        later = (penalties * weights).flip(-1).cumsum(-1).flip(-1)
        result = result + later * weights
    if counted is not None:
        weights = weights * counted[:, None].to(weights.dtype)
    return normalise_over_batch(result, weights) if over_batch else result * weights


def finite(name: str, value: Tensor) -> Tensor:
    """The value itself. Raises ValueError when it holds a NaN or an infinity: one step on it would ruin the weights."""
    if not math.isfinite(float(value.detach().abs().sum())):
        raise ValueError(f"{name} is not finite; the scores or log-probabilities of this batch hold a NaN or infinity")
    return value
