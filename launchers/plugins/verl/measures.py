"""What a training step is measured by, beside verl's own numbers: accuracy, the reward's parts, outcomes, groups.

| metric | what |
|---|---|
| accuracy/train | mean `acc` of the completions |
| reward/part/<name> | mean of a combined reward's part, over the completions for which it was computed |
| outcome/<scored, no_answer, …> | share of the completions with that outcome |
| outcome/at_limit | share that used every token allowed |
| groups/zero_variance | share of the prompts whose completions all have one score; absent with one completion each |
| sampler/log_prob_difference | mean over tokens of abs(log p of trainer - log p of sampler), before the update |
| sampler/effective_sample_size | share of the completions that importance weights of trainer over sampler leave |
| reward/length_correlation | Pearson's, of score and tokens: near 1 a reward is earned by length |
| response_length/right, response_length/wrong | mean tokens of completions with full marks, and without |

Those that could not be graded (outcomes error and timeout) are neither right nor wrong. A metric that nothing could be
measured for is absent. The scores are the reward's own, before any KL penalty.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import wrapt
from torch import Tensor

from rewards.base import OUTCOMES

FULL_MARKS = 1 - 1e-9  # as evaluation counts them


def install(ray_trainer: ModuleType) -> None:
    """Add ours to what `compute_data_metrics` gives verl's trainer for its log."""

    @wrapt.patch_function_wrapper(ray_trainer, "compute_data_metrics")
    def with_ours(compute: Any, _: None, args: tuple[()], kwargs: dict[str, Any]) -> dict[str, Any]:
        batch = kwargs["batch"]
        allowed = batch.batch["responses"].shape[-1]
        lengths = batch.batch["attention_mask"][:, -allowed:].sum(-1)
        ours = measured(scores_of(batch), lengths.numpy(), allowed, batch.non_tensor_batch)
        if {"old_log_probs", "rollout_log_probs"} <= set(batch.batch.keys()):
            mask = batch.batch["attention_mask"][:, -allowed:].bool()
            ours |= sampler_difference(batch.batch["old_log_probs"], batch.batch["rollout_log_probs"], mask)
        return {**compute(*args, **kwargs), **ours}


def sampler_difference(trainer: Tensor, sampler: Tensor, mask: Tensor) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the trainer's. All (B, T); mask: True for completion tokens.

    The effective sample size is (sum of w)^2 / (B sum of w^2), w a completion's ratio of probabilities (Kish, 1965).
    Nothing where the trainer took the sampler's own.
    """
    difference = (trainer - sampler).double().masked_fill(~mask, 0.0)
    if not difference.any():
        return {}
    log_weights = difference.sum(-1)
    weights = (log_weights - log_weights.max()).exp()  # their scale cancels
    size = weights.sum().square() / weights.square().sum() / len(weights)
    return {
        "sampler/log_prob_difference": float(difference.abs().sum() / mask.sum()),
        "sampler/effective_sample_size": float(size),
    }


def scores_of(batch: Any) -> np.ndarray:
    """(B,) the reward of each completion of verl's batch."""
    scores: Tensor = batch.batch["token_level_scores"].sum(-1)
    return scores.numpy()


def measured(
    scores: np.ndarray, lengths: np.ndarray, allowed: int, extra: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """Our metrics of B completions.

    scores, lengths: (B,) reward, tokens. allowed: most tokens a completion may have. extra: columns of B values: `uid`,
    the completion's prompt, and what the reward function said: acc, outcome, part_<name> (None: not computed).
    """
    metrics = {"outcome/at_limit": float(np.mean(lengths >= allowed))}
    same = zero_variance(scores, extra["uid"])
    if same is not None:
        metrics["groups/zero_variance"] = same
    for key, values in extra.items():
        computed = [float(value) for value in values if value is not None] if key.startswith("part_") else []
        if computed:
            metrics[f"reward/part/{key.removeprefix('part_')}"] = float(np.mean(computed))
    outcomes = np.asarray(extra.get("outcome", ()), dtype=object)
    decided = ~np.isin(outcomes.astype(str), ("error", "timeout")) if len(outcomes) else np.ones(len(scores), bool)
    if decided.any() and np.ptp(scores[decided]) and np.ptp(lengths[decided]):
        metrics["reward/length_correlation"] = float(np.corrcoef(scores[decided], lengths[decided])[0, 1])
    if len(outcomes):
        metrics |= {f"outcome/{name}": float(np.mean(outcomes == name)) for name in OUTCOMES}
    if "acc" in extra:
        acc = np.asarray(extra["acc"], dtype=float)
        metrics["accuracy/train"] = float(acc.mean())
        for name, chosen in (("right", acc >= FULL_MARKS), ("wrong", acc < FULL_MARKS)):
            if (chosen & decided).any():
                metrics[f"response_length/{name}"] = float(lengths[chosen & decided].mean())
    return metrics


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
