"""Gives our advantages (`advantages.py`) to verl by name, and checks what its losses and estimators are given.

`algorithm.adv_estimator` is adv_none, adv_group or adv_group_then_batch, or verl's own gae.

Truncated completions: +algorithm.truncated=keep, mask (advantage 0) or penalise (+algorithm.truncated_penalty is added
to the score), with +algorithm.truncated_limit=${data.max_response_length}. A masked completion adds nothing to the
loss but stays in its denominator, which verl counts before the loss is called.

A completion that the reward could not decide (outcome error or timeout) has no tokens in its update: its value of 0
is no verdict, and the best of a group whose other scores are negative. Its group's mean and spread are those of the
others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from launchers.plugins.verl import advantages as ours

LOSSES = ("vanilla", "gspo")  # those of verl's that launchers/backends/verl.py asks for
ESTIMATORS: dict[str, tuple[ours.Scaling, bool]] = {
    "adv_none": ("none", False),
    "adv_group": ("group", False),
    "adv_group_then_batch": ("group", True),
}


def register(core_algos: ModuleType) -> None:
    """Register our estimators with verl; called in each process once `verl.trainer.ppo.core_algos` is imported."""
    for name in LOSSES:
        core_algos.register_policy_loss(name)(_checked(name, core_algos.get_policy_loss_fn(name)))
    for name, (scaling, over_batch) in ESTIMATORS.items():
        core_algos.register_adv_est(name)(_estimator(scaling, over_batch))


def _checked(name: str, loss: Callable[..., tuple[Tensor, dict[str, Any]]]) -> Callable[..., Any]:
    """verl's loss, which ends the training at a NaN: verl itself leaves such updates out and goes on."""

    @functools.wraps(loss)
    def finite_loss(*args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        total, metrics = loss(*args, **kwargs)
        return ours.finite(f"loss {name}", total), metrics

    return finite_loss


# The scores of the batch whose advantages are being computed; see hand_over_scores.
_SCORES: ContextVar[Tensor | None] = ContextVar("scores", default=None)


def hand_over_scores(ray_trainer: ModuleType) -> None:
    """Let our estimators see the scores without KL, and none of them a completion without a verdict.

    verl gives an estimator `token_level_rewards`, from which a KL penalty has already been taken. The course scales
    the scores by group and takes KL afterwards, which cannot be told from the sum. So the function that calls the
    estimators is wrapped to keep the scores of its batch where ours can read them.
    """
    compute = ray_trainer.compute_advantage

    @functools.wraps(compute)
    def with_scores(data: Any, *args: Any, **kwargs: Any) -> Any:
        token = _SCORES.set(data.batch["token_level_scores"])
        decided = _decided(data.non_tensor_batch, len(data))
        data.batch["response_mask"] = data.batch["response_mask"] * decided[:, None].to(data.batch["response_mask"])
        try:
            return compute(data, *args, **kwargs)
        finally:
            _SCORES.reset(token)

    ray_trainer.compute_advantage = with_scores


def _decided(of_samples: Mapping[str, Any], count: int) -> Tensor:
    """(B,) whether the reward gave a verdict. Raises RuntimeError where no sample has one."""
    failed = torch.zeros(count, dtype=torch.bool)
    for name in ("is_error", "is_timeout"):  # of rewards.serving.verl; another reward function has none
        if name in of_samples:
            failed |= torch.tensor([bool(flag) for flag in of_samples[name]])
    if failed.all():
        raise RuntimeError("the reward decided none of this step's completions: see outcome/error and outcome/timeout")
    return ~failed


def _estimator(scaling: ours.Scaling, over_batch: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    def estimate(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any, config: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        per_token = _SCORES.get()
        if per_token is None:
            raise RuntimeError(
                "the scores were not handed over: verl called the estimator in a way that we do not know"
            )
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
    raise ValueError(f"algorithm.truncated is {policy!r}; it may be keep, mask or penalise")
