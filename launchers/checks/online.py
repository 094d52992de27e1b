"""What online RL asks of a recipe, whoever trains it: sections that belong together, and batches that divide."""

from __future__ import annotations

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
Found = Iterator[tuple[str, str]]  # a key, and what is wrong with it


def faults(resolved: Resolved) -> list[Fault]:
    """What is wrong between the keys of one recipe; each key by itself is right already."""
    found = _online(resolved) if is_online(resolved.recipe) else _offline(resolved)
    return [resolved.fault(key, message) for key, message in found]


def _offline(resolved: Resolved) -> Found:
    recipe = resolved.recipe
    scored = recipe.reward is not None and recipe.reward_model is not None and recipe.reward.name == "model"
    for name in SECTIONS:
        if getattr(recipe, name) is not None and not (name == "reward" and scored):
            yield name, f"says something about online RL, and method is {recipe.method}: leave it out"
    if scored:
        yield from _reward(resolved)


def _online(resolved: Resolved) -> Found:
    recipe, train = resolved.recipe, resolved.recipe.train
    for name in ("rollout", "reward", "algorithm"):
        if getattr(recipe, name) is None:
            yield name, f"missing: method {recipe.method} needs it"
    if train.max_length is not None:
        parts = "rollout.max_prompt_length and rollout.max_response_length"
        yield "train.max_length", f"follows from {parts}: leave it out"
    if train.packing:
        yield "train.packing", "online RL pads or packs by itself: leave it out"
    if train.epochs is not None and train.epochs != int(train.epochs):
        yield "train.epochs", f"online RL takes whole passes, not {train.epochs:g}: give steps"
    if recipe.validation and not harnesses.ours(recipe.eval):
        yield "validation", "validates on the tasks of eval.tasks that configs/tasks has, and there is none: give one"
    if recipe.stop and (recipe.stop.patience or recipe.stop.collapse):
        yield from _stop(recipe, recipe.stop)
    if recipe.rollout and recipe.algorithm:
        yield from _batches(train.global_batch, recipe.rollout)
        yield from _algorithm(recipe.method, recipe.rollout, recipe.algorithm)
    if recipe.reward:
        yield from _reward(resolved)


def _stop(recipe: Recipe, stop: Stop) -> Found:
    """Validations are averaged over the benchmarks, which then measure one thing."""
    if not recipe.validation:
        yield "stop", "patience and collapse look at validations: give validation.every"
        return
    named = [name for name in (recipe.eval.tasks if recipe.eval else ()) if name in tasks.names()]
    metrics = {tasks.read(name).measured: name for name in named}
    if len(metrics) > 1:
        shown = " and ".join(f"{name} {metric.name}" for metric, name in metrics.items())
        yield "stop", f"looks at the mean over the benchmarks, and these differ: {shown}"
        return
    for metric in metrics:
        if stop.patience and stop.min_gain is None and metric.unit != "%":
            yield "stop.min_gain", f"missing: the smallest gain in {metric.name} that counts"


def _batches(batch: int, rollout: Rollout) -> Found:
    """A rollout is cut into whole optimiser steps of whole groups."""
    fitting = [n * rollout.samples for n in range(1, rollout.prompts + 1) if rollout.prompts % n == 0]
    if batch not in fitting:
        near = sorted(sorted(fitting, key=lambda size: abs(size - batch))[:4])
        product = f"{rollout.prompts} prompts × {rollout.samples} samples = {rollout.prompts * rollout.samples}"
        would = f"equal optimiser steps of whole groups: {', '.join(map(str, near))} would"
        yield "train.global_batch", f"{batch} does not cut a rollout of {product} into {would}"


def _algorithm(method: str, rollout: Rollout, algorithm: Algorithm) -> Found:
    low, high, penalty = algorithm.clip_low, algorithm.clip_high, algorithm.truncated_penalty
    if (algorithm.advantages == "gae") != (method == "ppo"):
        allowed = "gae" if method == "ppo" else "none, group or group_then_batch"
        yield "algorithm.advantages", f"method {method} takes {allowed}"
    if method == "grpo" and rollout.samples < 2:
        yield "rollout.samples", "group size 1 gives zero advantage: use 2 or more (8 is usual)"
    if algorithm.critic and algorithm.advantages != "gae":
        yield "algorithm.critic", "only gae has a critic: leave it out"
    if algorithm.loss == "clip_higher" and not low < high:
        yield "algorithm.clip_high", f"clip_higher needs more than clip_low {low:g}: DAPO takes 0.28"
    if algorithm.loss == "ppo_clip" and low != high:
        yield "algorithm.loss", f"ppo_clip has one range, not {low:g} and {high:g}: take clip_higher"
    if (algorithm.kl == "none") != (algorithm.kl_coef == 0):
        idle, useless = "0 makes algorithm.kl idle", "has no effect without algorithm.kl (reward or loss)"
        reason = useless if algorithm.kl_coef else idle
        yield "algorithm.kl_coef", f"{reason}; Minimum O1 takes kl: reward, kl_coef: 0.01"
    if method == "ppo" and algorithm.advantages == "gae" and algorithm.truncated != "keep":
        yield "algorithm.truncated", "gae does not look at it: give keep, and reward the length instead"
    if (algorithm.truncated == "penalise") != (penalty != 0):
        yield "algorithm.truncated_penalty", "goes with truncated: penalise, as a number below 0"
    if penalty > 0:
        yield "algorithm.truncated_penalty", f"{penalty:g} would reward truncation"


def _reward(resolved: Resolved) -> Found:
    reward, thinking = resolved.recipe.reward, resolved.recipe.thinking
    assert reward is not None
    if other := _other_thinking(reward.params, thinking):
        yield "reward.params", f"thinking {other!r} is not the recipe's, {thinking!r}: leave it out"
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
        yield "reward.acc", "names a part of a combined reward: leave it out"
    if made.grouped and reward.workers != 1:
        yield "reward.workers", f"{reward.name} compares the completions of a prompt: give 1"


def _other_thinking(params: Mapping[str, Any], thinking: str | None) -> Any:
    """A thinking format that a reward names and the recipe does not."""
    parts = params.get("parts")
    inner = [part.get("params", {}) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    named = [options["thinking"] for options in (params, *inner) if options.get("thinking", thinking) != thinking]
    return named[0] if named and thinking is not None else None
