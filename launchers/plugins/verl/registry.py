"""Registers the losses and advantages of `policy_loss.py` with verl.

| name | verl key | requires |
|---|---|---|
| ppo_clip | actor.policy_loss.loss_mode | loss_agg_mode=token-mean, clip_ratio_low = clip_ratio_high |
| clip_higher | the same | loss_agg_mode=token-mean, clip_ratio_low < clip_ratio_high |
| sequence_mean | the same | loss_agg_mode=seq-mean-token-mean |
| dr_grpo | the same | loss_agg_mode=seq-mean-token-sum-norm, loss_scale_factor=<max response length> |
| gspo | the same; replaces verl's own gspo | loss_agg_mode=seq-mean-token-mean |
| adv_none, adv_group, adv_group_then_batch | algorithm.adv_estimator | |

verl aggregates entropy and KL terms by `actor.loss_agg_mode`, so that key must match the loss; otherwise the config is
rejected. KL: none; k1 in reward (algorithm.use_kl_in_reward=True kl_penalty=k1 kl_ctrl.kl_coef); k3 in loss
(actor.use_kl_loss=True kl_loss_type=k3 kl_loss_coef).

Truncated completions: +algorithm.truncated=keep, mask (advantage 0) or penalise (+algorithm.truncated_penalty is added
to the score), with +algorithm.truncated_limit=${data.max_response_length}. A masked completion contributes nothing to
the loss but is counted in its denominator, which verl computes before the loss is called.

A completion that could not be graded (outcome error or timeout) is masked out of the update and excluded from its
group's mean and standard deviation: its score of 0 is not a grade, and would be the best one among negative scores.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
import wrapt
from torch import Tensor

from launchers.plugins.verl import policy_loss as ours

AGGREGATION: dict[ours.Reduction, str] = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "fixed_length": "seq-mean-token-sum-norm",
}
LOSSES: dict[str, ours.Reduction] = {
    "ppo_clip": "token_mean",
    "clip_higher": "token_mean",
    "sequence_mean": "sequence_mean",
    "dr_grpo": "fixed_length",
    "gspo": "sequence_mean",
}
ESTIMATORS: dict[str, tuple[ours.Scaling, bool]] = {
    "adv_none": ("none", False),
    "adv_group": ("group", False),
    "adv_group_then_batch": ("group", True),
}


def register(core_algos: ModuleType) -> None:
    """Register all names with verl; called in each process once `verl.trainer.ppo.core_algos` is imported."""
    for name, reduction in LOSSES.items():
        core_algos.register_policy_loss(name)(_loss(name, reduction))
    for name, (scaling, over_batch) in ESTIMATORS.items():
        core_algos.register_adv_est(name)(_estimator(scaling, over_batch))


def clip_range(name: str, config: Any) -> tuple[float, float]:
    """Clip range (low, high). Raises ValueError if the loss does not allow it."""
    low, high = float(config.clip_ratio_low), float(config.clip_ratio_high)
    if name == "clip_higher" and not low < high:
        raise ValueError(f"clip_higher needs clip_ratio_low < clip_ratio_high, not {low:g} and {high:g}")
    if name == "ppo_clip" and low != high:
        raise ValueError(f"ppo_clip needs equal clip_ratio_low and clip_ratio_high, not {low:g} and {high:g}")
    return low, high


def _loss(name: str, reduction: ours.Reduction) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str,
        config: Any,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        if loss_agg_mode != AGGREGATION[reduction]:
            raise ValueError(
                f"loss_mode {name} needs actor.loss_agg_mode={AGGREGATION[reduction]}, not {loss_agg_mode}"
            )
        low, high = clip_range(name, config)
        if name == "gspo":
            losses = ours.gspo(log_prob, old_log_prob, advantages, low, high, response_mask)
            ratio = ours.sequence_log_ratio(log_prob, old_log_prob, response_mask).exp()[:, None].expand_as(log_prob)
        else:
            losses = ours.ppo_clip(log_prob, old_log_prob, advantages, low, high)
            ratio = ours.log_ratio(log_prob, old_log_prob).exp()
        if rollout_is_weights is not None:  # verl's correction for differences between rollout engine and trainer
            losses = losses * rollout_is_weights
        parts = config.global_batch_info
        scope = ours.BatchTotals(parts["batch_num_tokens"], parts["global_batch_size"], parts["dp_size"])
        total = ours.reduce_loss(losses, response_mask, reduction, scope, config.loss_scale_factor)
        below, above = ours.clip_shares(ratio, advantages, low, high, response_mask).tolist()
        drift = ours.masked_mean(old_log_prob - log_prob, response_mask).item()  # k1
        metrics = {"actor/pg_clipfrac": above, "actor/pg_clipfrac_lower": below, "actor/ppo_kl": drift}
        return ours.finite(f"loss {name}", total), metrics

    return loss


# The scores of the batch whose advantages are being computed; see hand_over_scores.
_SCORES: ContextVar[Tensor | None] = ContextVar("scores", default=None)


def hand_over_scores(ray_trainer: ModuleType) -> None:
    """Give our estimators the scores without KL, and mask completions that could not be graded for all estimators.

    verl passes estimators `token_level_rewards`, from which the KL penalty is already subtracted. The course scales the
    scores by group and subtracts KL afterwards, which needs the two separately. So the function that calls the
    estimators is wrapped to store the scores of its batch in a context variable.
    """

    @wrapt.patch_function_wrapper(ray_trainer, "compute_advantage")
    def with_scores(compute: Any, _: None, args: tuple[Any], kwargs: dict[str, Any]) -> Any:
        (data,) = args
        token = _SCORES.set(data.batch["token_level_scores"])
        decided = _decided(data.non_tensor_batch, len(data))
        data.batch["response_mask"] = data.batch["response_mask"] * decided[:, None].to(data.batch["response_mask"])
        try:
            return compute(data, **kwargs)
        finally:
            _SCORES.reset(token)


def _decided(of_samples: Mapping[str, Any], count: int) -> Tensor:
    """(B,) whether a completion was graded. Raises RuntimeError if none was."""
    failed = torch.zeros(count, dtype=torch.bool)
    for name in ("is_error", "is_timeout"):  # from rewards.serving.verl; other reward functions have none
        if name in of_samples:
            failed |= torch.tensor([bool(flag) for flag in of_samples[name]])
    if failed.all():
        raise RuntimeError("none of this step's completions could be graded: see outcome/error and outcome/timeout")
    return ~failed


def _estimator(scaling: ours.Scaling, over_batch: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    def estimate(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any, config: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        per_token = _SCORES.get()
        if per_token is None:
            raise RuntimeError("no scores: verl called the estimator outside of compute_advantage")
        mask = response_mask.to(per_token.dtype)
        scores = ours.finite("the batch's scores", per_token.sum(-1))
        scores, counted = _truncation(scores, mask, config)
        advantages = ours.advantages(
            scores, list(index), mask, scaling, over_batch, token_level_rewards - per_token, counted
        )
        return advantages, advantages

    return estimate


def _truncation(scores: Tensor, mask: Tensor, config: Any) -> tuple[Tensor, Tensor | None]:
    policy = config.get("truncated", "keep")
    if policy == "keep":
        return scores, None
    cut = ours.truncated_rows(mask, int(config.truncated_limit))
    if policy == "mask":
        return scores, ~cut
    if policy == "penalise":
        return scores + float(config.truncated_penalty) * cut.to(scores.dtype), None
    raise ValueError(f"algorithm.truncated must be keep, mask or penalise, not {policy!r}")
