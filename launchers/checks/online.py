"""Checks of online RL recipes that do not depend on the trainer: required sections, batch sizes, algorithm settings."""

from collections.abc import Iterator, Mapping
from typing import Any

import rewards
from data_prep.sources import tasks
from launchers import harnesses
from launchers.errors import Fault, UserError
from launchers.plan import service
from launchers.recipe.compose import Resolved
from launchers.recipe.online import is_online, with_thinking
from launchers.recipe.schema import Algorithm, Recipe, Rollout, Stop

SECTIONS = ("rollout", "reward", "algorithm", "validation", "stop")
Findings = Iterator[tuple[str, str]]  # (key, message)


def faults(resolved: Resolved) -> list[Fault]:
    """Inconsistencies between the keys of a recipe; the schema has validated each key by itself."""
    findings = _online(resolved) if is_online(resolved.recipe) else _offline(resolved)
    return [resolved.fault(key, message) for key, message in findings]


def _offline(resolved: Resolved) -> Findings:
    recipe = resolved.recipe
    scored = recipe.reward is not None and recipe.reward_model is not None and recipe.reward.name == "model"
    for name in SECTIONS:
        if getattr(recipe, name) is not None and not (name == "reward" and scored):
            yield name, f"is for online RL, but method is {recipe.method}: remove it"
    if scored:
        yield from _reward(resolved)


def _online(resolved: Resolved) -> Findings:
    recipe, train = resolved.recipe, resolved.recipe.train
    for name in ("rollout", "reward", "algorithm"):
        if getattr(recipe, name) is None:
            yield name, f"missing: required by method {recipe.method}"
    if train.max_length is not None:
        parts = "rollout.max_prompt_length and rollout.max_response_length"
        yield "train.max_length", f"is the sum of {parts}: remove it"
    if train.packing:
        yield "train.packing", "does not apply to online RL: remove it"
    if train.epochs is not None and train.epochs != int(train.epochs):
        yield "train.epochs", f"must be an integer in online RL, not {train.epochs:g}: set train.steps instead"
    if recipe.validation and not harnesses.ours(recipe.eval):
        yield "validation", "needs a task of configs/tasks in eval.tasks, and there is none: add one"
    if recipe.stop and (recipe.stop.patience or recipe.stop.collapse):
        yield from _stop(recipe, recipe.stop)
    if recipe.rollout and recipe.algorithm:
        yield from _batches(train.global_batch, recipe.rollout)
        yield from _algorithm(recipe.method, recipe.rollout, recipe.algorithm)
    if recipe.reward:
        yield from _reward(resolved)


def _stop(recipe: Recipe, stop: Stop) -> Findings:
    """Early stopping averages over the benchmarks, so they must share one metric."""
    if not recipe.validation:
        yield "stop", "patience and collapse need validations: set validation.every"
        return
    named = [name for name in (recipe.eval.tasks if recipe.eval else ()) if name in tasks.names()]
    metrics = {tasks.read(name).measured: name for name in named}
    if len(metrics) > 1:
        shown = " and ".join(f"{name} {metric.name}" for metric, name in metrics.items())
        yield "stop", f"averages over the benchmarks, but their metrics differ: {shown}"
        return
    for metric in metrics:
        if stop.patience and stop.min_gain is None and metric.unit != "%":
            yield "stop.min_gain", f"missing: the smallest gain in {metric.name} that counts"


def _batches(batch: int, rollout: Rollout) -> Findings:
    """A rollout must split into equal optimiser steps of complete groups."""
    fitting = [n * rollout.samples for n in range(1, rollout.prompts + 1) if rollout.prompts % n == 0]
    if batch not in fitting:
        near = sorted(sorted(fitting, key=lambda size: abs(size - batch))[:4])
        product = f"{rollout.prompts} prompts × {rollout.samples} samples = {rollout.prompts * rollout.samples}"
        would = f"equal optimiser steps of complete groups: use {', '.join(map(str, near))}"
        yield "train.global_batch", f"{batch} does not split a rollout of {product} into {would}"


def _algorithm(method: str, rollout: Rollout, algorithm: Algorithm) -> Findings:
    low, high, penalty = algorithm.clip_low, algorithm.clip_high, algorithm.truncated_penalty
    if (algorithm.advantages == "gae") != (method == "ppo"):
        allowed = "gae" if method == "ppo" else "none, group or group_then_batch"
        yield "algorithm.advantages", f"method {method} needs {allowed}"
    if method == "grpo" and rollout.samples < 2:
        yield "rollout.samples", "group size 1 gives zero advantage: use 2 or more (8 is usual)"
    if algorithm.critic and algorithm.advantages != "gae":
        yield "algorithm.critic", "only gae uses a critic: remove it"
    if algorithm.loss == "clip_higher" and not low < high:
        yield "algorithm.clip_high", f"clip_higher needs a value above clip_low {low:g}: DAPO uses 0.28"
    if algorithm.loss == "ppo_clip" and low != high:
        yield (
            "algorithm.loss",
            f"ppo_clip needs equal clip_low and clip_high, not {low:g} and {high:g}: use clip_higher",
        )
    if (algorithm.kl == "none") != (algorithm.kl_coef == 0):
        zero, unused = "0 disables algorithm.kl", "has no effect without algorithm.kl (reward or loss)"
        reason = unused if algorithm.kl_coef else zero
        yield "algorithm.kl_coef", f"{reason}; Minimum O1 uses kl: reward, kl_coef: 0.01"
    if method == "ppo" and algorithm.advantages == "gae" and algorithm.truncated != "keep":
        yield "algorithm.truncated", "gae ignores it: use keep, and penalise length in the reward instead"
    if (algorithm.truncated == "penalise") != (penalty != 0):
        yield "algorithm.truncated_penalty", "must be below 0 with truncated: penalise, and 0 otherwise"
    if penalty > 0:
        yield "algorithm.truncated_penalty", f"{penalty:g} would reward truncation"


def _reward(resolved: Resolved) -> Findings:
    reward, thinking = resolved.recipe.reward, resolved.recipe.thinking
    assert reward is not None
    if other := _other_thinking(reward.params, thinking):
        yield "reward.params", f"thinking {other!r} differs from the recipe's {thinking!r}: remove it"
    key = "reward.name"
    try:
        made_by = rewards.reward_class(reward.name)
        key = "reward.params"
        made = made_by.create(
            reward.name, service.filled(resolved, with_thinking(reward.name, reward.params, thinking))
        )
    except UserError as error:  # of reward.params
        yield from ((fault.key, fault.message) for fault in error.faults)
        return
    except rewards.RewardError as error:
        yield key, str(error)
        return
    if reward.acc is not None and reward.name != "combine":
        yield "reward.acc", "applies only to reward combine: remove it"
    if made.grouped and reward.workers != 1:
        yield "reward.workers", f"must be 1: {reward.name} compares the completions of a prompt"


def _other_thinking(params: Mapping[str, Any], thinking: str | None) -> Any:
    """A thinking format in a reward's parameters that differs from the recipe's; None if there is none."""
    parts = params.get("parts")
    inner = [part.get("params", {}) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    named = [options["thinking"] for options in (params, *inner) if options.get("thinking", thinking) != thinking]
    return named[0] if named and thinking is not None else None
