"""What a training step is measured by, beside verl's own numbers: accuracy, the reward's parts, outcomes, groups.

| metric | what |
|---|---|
| accuracy/train | mean `acc` of the completions |
| reward/part/<name> | mean of a combined reward's part, over the completions for which it was computed |
| outcome/<scored, no_answer, …> | share of the completions with that outcome |
| outcome/cut_off | share that used every token allowed |
| groups/zero_variance | share of the prompts whose completions all have one score; absent with one completion each |
| response_length/right, response_length/wrong | mean tokens of completions with full marks, and without |

Those that could not be graded (outcomes error and timeout) are neither right nor wrong. A metric that nothing could be
measured for is absent. The scores are the reward's own, before any KL penalty.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from rewards.base import OUTCOMES

FULL_MARKS = 1 - 1e-9  # as evaluation counts them


def install(ray_trainer: ModuleType) -> None:
    """Add ours to what `compute_data_metrics` gives verl's trainer for its log."""
    compute = ray_trainer.compute_data_metrics

    @functools.wraps(compute)
    def with_ours(batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        allowed = batch.batch["responses"].shape[-1]
        lengths = batch.batch["attention_mask"][:, -allowed:].sum(-1)
        ours = measured(scores_of(batch), lengths.numpy(), allowed, batch.non_tensor_batch)
        return {**compute(batch, *args, **kwargs), **ours}

    ray_trainer.compute_data_metrics = with_ours


def scores_of(batch: Any) -> np.ndarray:
    """(B,) the reward of each completion of verl's batch."""
    scores: Tensor = batch.batch["token_level_scores"].sum(-1)
    return scores.numpy()


def measured(
    scores: np.ndarray, lengths: np.ndarray, allowed: int, told: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """Our metrics of B completions.

    scores, lengths: (B,) reward, tokens. allowed: most tokens a completion may have. told: columns of B values: `uid`,
    the completion's prompt, and what the reward function said: acc, outcome, part_<name> (None: not computed).
    """
    found = {"outcome/cut_off": float(np.mean(lengths >= allowed))}
    same = zero_variance(scores, told["uid"])
    if same is not None:
        found["groups/zero_variance"] = same
    for key, values in told.items():
        computed = [float(value) for value in values if value is not None] if key.startswith("part_") else []
        if computed:
            found[f"reward/part/{key.removeprefix('part_')}"] = float(np.mean(computed))
    outcomes = np.asarray(told.get("outcome", ()), dtype=object)
    if len(outcomes):
        found |= {f"outcome/{name}": float(np.mean(outcomes == name)) for name in OUTCOMES}
    if "acc" in told:
        found |= _by_accuracy(np.asarray(told["acc"], dtype=float), outcomes, lengths)
    return found


def _by_accuracy(acc: np.ndarray, outcomes: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    found = {"accuracy/train": float(acc.mean())}
    graded = ~np.isin(outcomes.astype(str), ("error", "timeout")) if len(outcomes) else np.ones(len(acc), bool)
    for name, chosen in (("right", acc >= FULL_MARKS), ("wrong", acc < FULL_MARKS)):
        if (chosen & graded).any():
            found[f"response_length/{name}"] = float(lengths[chosen & graded].mean())
    return found


def zero_variance(scores: np.ndarray, groups: Sequence[Hashable]) -> float | None:
    """Share of the groups whose scores are all equal: group advantages are 0 there, and nothing is learnt from them.

    scores: (B,). groups: (B,) names. None where every group has one member: then nothing is compared.
    """
    members: dict[Hashable, list[float]] = {}
    for group, score in zip(groups, scores.tolist(), strict=True):
        members.setdefault(group, []).append(score)
    if len(members) == len(scores):
        return None
    return sum(min(held) == max(held) for held in members.values()) / len(members)
