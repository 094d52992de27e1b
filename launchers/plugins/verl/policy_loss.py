"""Policy losses and advantages for online RL, in plain torch; `registry.py` registers them with verl.

    $(python3 -m launchers.envs verl --device cpu) -m pytest tests/plugins/policy_loss_in_torch.py

Shapes: B rows (one completion each) by T tokens. Log-probabilities are in nats. A mask is 1 on the tokens of a
completion and 0 on padding; None means all tokens, as for packed rows of shape (1, tokens). Losses are minimised: they
are the negated objectives of the papers. KL estimates are verl's (core_algos.kl_penalty).

| method | loss | advantages | KL | clip | truncated |
|---|---|---|---|---|---|
| GRPO, DeepSeekMath 2402.03300 | sequence_mean | group | k3 in loss, 0.04 | 0.2 | kept |
| Minimum O1's course trainer | ppo_clip | group_then_batch | k1 in reward, 0.01 | 0.2 | scored -1 by its reward |
| DAPO 2503.14476 | clip_higher | group | none | 0.2, 0.28 | masked (or penalised, the soft variant) |
| Dr. GRPO 2503.20783 | dr_grpo | none | none | 0.2 | kept |
| GSPO 2507.18071 | gspo | group | none | 3e-4, 4e-4 | kept |
| PPO 1707.06347 | ppo_clip | verl's gae, with a critic | k1 in reward | 0.2 | kept |
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["token_mean", "sequence_mean", "fixed_length"]
Scaling = Literal["none", "group"]

LOG_RATIO_LIMIT = 20.0  # keeps exp() finite if two policies have diverged; e^20 is clipped in any case
GROUP_EPSILON = 1e-8  # as in the course; smaller than any standard deviation of a real reward
ADVANTAGE_LIMIT = 10.0  # the course clamps group z-scores to this
VARIANCE_FLOOR = 1e-8  # as in OpenRLHF, for the normalisation over a batch


@dataclass(frozen=True)
class BatchTotals:
    """Token and sequence counts of the whole batch, so that micro batch losses sum to its loss; None: a single batch.

    `ranks`: data-parallel processes. Their gradients are averaged afterwards, so each loss is multiplied by it.
    """

    tokens: float | None = None
    sequences: float | None = None
    ranks: int = 1


SINGLE_BATCH = BatchTotals()


def _mask(like: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(like) if mask is None else mask.to(like.dtype)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over unmasked tokens; 0 if there are none."""
    weights = _mask(values, mask)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def reduce_loss(
    losses: Tensor,
    mask: Tensor | None = None,
    how: Reduction = "token_mean",
    scope: BatchTotals = SINGLE_BATCH,
    length: float | None = None,
) -> Tensor:
    """(B, T) losses to a scalar.

    token_mean: mean over all tokens, so long completions have more weight (DAPO, eq. 8).
    sequence_mean: mean over a completion's tokens, then over completions (DeepSeekMath, eq. 3).
    fixed_length: sum over tokens divided by the constant `length`, then mean over completions: no length bias
    (Dr. GRPO, 3.1).
    Completions without tokens are excluded from means. Raises ValueError for fixed_length without `length`.
    """
    weights = _mask(losses, mask)
    if how == "token_mean":
        return (losses * weights).sum() / _at_least_one(scope.tokens, weights.sum()) * scope.ranks
    per_row, tokens = (losses * weights).sum(-1), weights.sum(-1)
    if how == "sequence_mean":
        per_row = per_row / tokens.clamp(min=1)
    elif length is None:
        raise ValueError("fixed_length needs the length to divide by (verl: actor.loss_scale_factor)")
    else:
        per_row = per_row / length
    return per_row.sum() / _at_least_one(scope.sequences, (tokens > 0).sum()) * scope.ranks


def _at_least_one(given: float | Tensor | None, counted: Tensor) -> float | Tensor:
    return counted.clamp(min=1) if given is None else given


def log_ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """(B, T) log of new over old probability of each token."""
    return (log_probs - old_log_probs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A) per token (PPO 1707.06347, eq. 7)."""
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def ppo_clip(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """(B, T) losses of PPO; with high > low it is DAPO's clip-higher (2503.14476, eq. 10)."""
    return clipped(log_ratio(log_probs, old_log_probs).exp(), advantages, low, high)


def gspo(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, low: float, high: float, mask: Tensor | None = None
) -> Tensor:
    """(B, T) losses with one ratio per completion, the geometric mean of its tokens' ratios (GSPO 2507.18071, eq. 7).

    This is the token form (eq. 14): the value is the sequence's ratio, and the gradient flows through each token's
    log-probability, so advantages may differ between tokens. For equal advantages both forms have the same gradient.
    """
    ratio = sequence_log_ratio(log_probs, old_log_probs, mask).detach()[:, None]
    return clipped((ratio + log_probs - log_probs.detach()).exp(), advantages, low, high)


def sequence_log_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B,) mean log-ratio over a completion's tokens."""
    weights = _mask(log_probs, mask)
    return (log_ratio(log_probs, old_log_probs) * weights).sum(-1) / weights.sum(-1).clamp(min=1)


def clip_shares(ratio: Tensor, advantages: Tensor, low: float, high: float, mask: Tensor | None = None) -> Tensor:
    """Fractions of tokens whose gradient is clipped, below and above: a tensor of two."""
    below = (ratio < 1 - low) & (advantages < 0)
    above = (ratio > 1 + high) & (advantages > 0)
    return torch.stack([masked_mean(which.to(ratio.dtype), mask) for which in (below, above)])


def truncated_rows(mask: Tensor, limit: int) -> Tensor:
    """(B,) completions that reached the token limit, as in verl's response_length/clip_ratio.

    Includes completions that ended exactly at the limit, which the mask cannot distinguish.
    """
    return mask.sum(-1) >= limit


def group_advantages(scores: Tensor, groups: Sequence[Hashable], scaling: Scaling) -> Tensor:
    """(B,) scores minus the mean of their group (the completions of one prompt).

    none: not scaled (Dr. GRPO). group: divided by the group's unbiased standard deviation and clamped to ±10
    (DeepSeekMath 4.1.2 and the course). Equal scores, and groups of one, have advantage 0.
    """
    result = torch.zeros_like(scores)
    for rows in _rows_by_group(groups).values():
        of_group = scores[rows]
        if len(rows) < 2 or bool((of_group == of_group[0]).all()):  # else rounding errors would be scaled up to ±1
            continue
        centred = of_group - of_group.mean()
        if scaling == "group":
            centred = (centred / (of_group.std() + GROUP_EPSILON)).clamp(-ADVANTAGE_LIMIT, ADVANTAGE_LIMIT)
        result[rows] = centred
    return result


def _rows_by_group(groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return rows


def normalise_over_batch(advantages: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T) normalised to mean 0 and variance 1 over unmasked tokens, 0 elsewhere (OpenRLHF; the course)."""
    weights = _mask(advantages, mask)
    centred = (advantages - masked_mean(advantages, weights)) * weights
    return centred * masked_mean(centred.square(), weights).clamp(min=VARIANCE_FLOOR).rsqrt()


def reward_to_go(rewards: Tensor) -> Tensor:
    """(B, T) sum of this and all later tokens' rewards, undiscounted."""
    return rewards.flip(-1).cumsum(-1).flip(-1)


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

    Every token gets the group-relative score. `penalties` (B, T), e.g. -beta·k1, are added after scaling, summed over
    the token and all later ones (the course's trainer). `over_batch` then normalises over all tokens. Rows where
    `counted` (B,) is False have advantage 0 and are excluded from the batch's mean and variance, but still belong to
    their group, as in DAPO. Rows without tokens belong to no group.
    """
    weights = mask.to(scores.dtype)
    result = torch.zeros_like(weights)
    rows = (weights.sum(-1) > 0).nonzero()[:, 0]
    result[rows] = group_advantages(scores[rows], [groups[row] for row in rows], scaling)[:, None] * weights[rows]
    if penalties is not None:
        result = result + reward_to_go(penalties * weights) * weights
    if counted is not None:
        weights = weights * counted[:, None].to(weights.dtype)
    return normalise_over_batch(result, weights) if over_batch else result * weights


def finite(name: str, value: Tensor) -> Tensor:
    """Return the value. Raises ValueError if it contains NaN or infinity, which would corrupt the weights."""
    if not math.isfinite(float(value.detach().abs().sum())):
        raise ValueError(f"{name} is not finite: scores or log-probabilities of this batch contain NaN or infinity")
    return value
