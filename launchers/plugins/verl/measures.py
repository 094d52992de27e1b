"""Additional metrics of a training step in verl: accuracy, reward components, outcomes, groups.

| metric | meaning |
|---|---|
| accuracy/train | mean `acc` of the completions |
| reward/part/<name> | mean of a combined reward's component, over completions for which it was computed |
| outcome/<scored, no_answer, …> | fraction of the completions with this outcome |
| outcome/at_limit | fraction with the maximum number of tokens |
| groups/zero_variance | fraction of prompts whose completions all have the same score; absent for group size 1 |
| sampler/log_prob_difference | mean over tokens of abs(trainer - rollout engine log-probability), before the update |
| sampler/effective_sample_size | effective sample size of the importance weights (see below), as a fraction |
| reward/length_correlation | Pearson correlation of score and tokens; near 1 the reward favours length |
| response_length/right, response_length/wrong | mean tokens of completions with full score, and of the others |

Completions that could not be graded (outcomes error and timeout) are neither right nor wrong. Metrics without data are
absent. Scores are the reward's, before any KL penalty. Importance weights are trainer over rollout engine
probabilities of whole completions.
"""

from collections.abc import Hashable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import wrapt
from torch import Tensor

from rewards.base import OUTCOMES

FULL_SCORE = 1 - 1e-9  # as in evaluation


def install(ray_trainer: ModuleType) -> None:
    """Add our metrics to the result of verl's `compute_data_metrics`."""

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
    """Difference of trainer and rollout engine log-probabilities. All (B, T); mask: True for completion tokens.

    The effective sample size is (sum of w)^2 / (B sum of w^2), with w the probability ratio of a completion (Kish,
    1965). Empty if the trainer uses the rollout engine's log-probabilities.
    """
    difference = (trainer - sampler).double().masked_fill(~mask, 0.0)
    if not difference.any():
        return {}
    log_weights = difference.sum(-1)
    weights = (log_weights - log_weights.max()).exp()  # the scale cancels
    size = weights.sum().square() / weights.square().sum() / len(weights)
    return {
        "sampler/log_prob_difference": float(difference.abs().sum() / mask.sum()),
        "sampler/effective_sample_size": float(size),
    }


def scores_of(batch: Any) -> np.ndarray:
    """(B,) reward of each completion in verl's batch."""
    scores: Tensor = batch.batch["token_level_scores"].sum(-1)
    return scores.numpy()


def measured(
    scores: np.ndarray, lengths: np.ndarray, allowed: int, extra: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """Our metrics of B completions.

    scores, lengths: (B,) reward, tokens. allowed: maximum tokens of a completion. extra: columns of B values: `uid`,
    the completion's prompt, and results of the reward function: acc, outcome, part_<name> (None: not computed).
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
        for name, chosen in (("right", acc >= FULL_SCORE), ("wrong", acc < FULL_SCORE)):
            if (chosen & decided).any():
                metrics[f"response_length/{name}"] = float(lengths[chosen & decided].mean())
    return metrics


def zero_variance(scores: np.ndarray, groups: Sequence[Hashable]) -> float | None:
    """Fraction of groups whose scores are all equal, so that their group advantages are 0.

    scores: (B,). groups: (B,) names. None if every group has only one member.
    """
    members: dict[Hashable, list[float]] = {}
    for group, score in zip(groups, scores.tolist(), strict=True):
        members.setdefault(group, []).append(score)
    if len(members) == len(scores):
        return None
    return sum(min(held) == max(held) for held in members.values()) / len(members)
