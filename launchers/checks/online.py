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
from launchers.recipe.schema import Algorithm, Rollout, Stop

SECTIONS = ("rollout", "reward", "algorithm", "validation", "stop")


def faults(resolved: Resolved) -> Iterator[Fault]:
    """What is wrong between the keys of one recipe; each key by itself is right already."""
    recipe = resolved.recipe
    if not is_online(recipe):
        scored = recipe.reward is not None and recipe.reward_model is not None and recipe.reward.name == "model"
        for name in SECTIONS:
            if getattr(recipe, name) is not None and not (name == "reward" and scored):
                yield resolved.fault(
                    name, f"says something about online RL, and method is {recipe.method}: leave it out"
                )
        if scored:
            yield from _reward(resolved)
        return
    for name in ("rollout", "reward", "algorithm"):
        if getattr(recipe, name) is None:
            yield resolved.fault(name, f"missing: method {recipe.method} needs it")
    if recipe.train.max_length is not None:
        yield resolved.fault(
            "train.max_length", "follows from rollout.max_prompt_length and rollout.max_response_length: leave it out"
        )
    if recipe.train.packing:
        yield resolved.fault("train.packing", "online RL pads or packs by itself: leave it out")
    if recipe.train.epochs is not None and recipe.train.epochs != int(recipe.train.epochs):
        yield resolved.fault("train.epochs", f"online RL takes whole passes, not {recipe.train.epochs:g}: give steps")
    if recipe.validation and not harnesses.ours(recipe.eval):
        needed = "validates on the tasks of eval.tasks that configs/tasks has, and there is none: give one"
        yield resolved.fault("validation", needed)
    if recipe.stop and (recipe.stop.patience or recipe.stop.collapse):
        yield from _stop(resolved, recipe.stop)
    if recipe.rollout and recipe.algorithm:
        yield from _batches(resolved, recipe.rollout)
        yield from _algorithm(resolved, recipe.rollout, recipe.algorithm)
    if recipe.reward:
        yield from _reward(resolved)


def _stop(resolved: Resolved, stop: Stop) -> Iterator[Fault]:
    """Validations are averaged over the benchmarks, which then measure one thing."""
    recipe = resolved.recipe
    if not recipe.validation:
        yield resolved.fault("stop", "patience and collapse look at validations: give validation.every")
        return
    named = [name for name in (recipe.eval.tasks if recipe.eval else ()) if name in tasks.names()]
    metrics = {tasks.read(name).measured: name for name in named}
    if len(metrics) > 1:
        shown = " and ".join(f"{name} {metric.name}" for metric, name in metrics.items())
        yield resolved.fault("stop", f"looks at the mean over the benchmarks, and these differ: {shown}")
        return
    for metric in metrics:
        if stop.patience and stop.min_gain is None and metric.unit != "%":
            yield resolved.fault("stop.min_gain", f"missing: the smallest gain in {metric.name} that counts")


def _batches(resolved: Resolved, rollout: Rollout) -> Iterator[Fault]:
    """A rollout is cut into whole optimiser steps of whole groups."""
    batch = resolved.recipe.train.global_batch
    completions = rollout.prompts * rollout.samples
    fitting = [n * rollout.samples for n in range(1, rollout.prompts + 1) if rollout.prompts % n == 0]
    if batch in fitting:
        return
    near = sorted(sorted(fitting, key=lambda one: abs(one - batch))[:4])
    yield resolved.fault(
        "train.global_batch",
        f"{batch} does not cut a rollout of {rollout.prompts} prompts × {rollout.samples} samples = {completions} into "
        f"equal optimiser steps of whole groups: {', '.join(map(str, near))} would",
    )


def _algorithm(resolved: Resolved, rollout: Rollout, algorithm: Algorithm) -> Iterator[Fault]:
    low, high = algorithm.clip_low, algorithm.clip_high
    if (algorithm.advantages == "gae") != (resolved.recipe.method == "ppo"):
        allowed = "gae" if resolved.recipe.method == "ppo" else "none, group or group_then_batch"
        yield resolved.fault("algorithm.advantages", f"method {resolved.recipe.method} takes {allowed}")
    if resolved.recipe.method == "grpo" and rollout.samples < 2:
        yield resolved.fault("rollout.samples", "group size 1 gives zero advantage: use 2 or more (8 is usual)")
    if algorithm.critic and algorithm.advantages != "gae":
        yield resolved.fault("algorithm.critic", "only gae has a critic: leave it out")
    if algorithm.loss == "clip_higher" and not low < high:
        yield resolved.fault("algorithm.clip_high", f"clip_higher needs more than clip_low {low:g}: DAPO takes 0.28")
    if algorithm.loss == "ppo_clip" and low != high:
        yield resolved.fault("algorithm.loss", f"ppo_clip has one range, not {low:g} and {high:g}: take clip_higher")
    if (algorithm.kl == "none") != (algorithm.kl_coef == 0):
        reason = (
            "has no effect without algorithm.kl (reward or loss)" if algorithm.kl_coef else "0 makes algorithm.kl idle"
        )
        yield resolved.fault("algorithm.kl_coef", f"{reason}; Minimum O1 takes kl: reward, kl_coef: 0.01")
    if resolved.recipe.method == "ppo" and algorithm.advantages == "gae" and algorithm.truncated != "keep":
        yield resolved.fault("algorithm.truncated", "gae does not look at it: give keep, and reward the length instead")
    if (algorithm.truncated == "penalise") != (algorithm.truncated_penalty != 0):
        yield resolved.fault("algorithm.truncated_penalty", "goes with truncated: penalise, as a number below 0")
    if algorithm.truncated_penalty > 0:
        yield resolved.fault("algorithm.truncated_penalty", f"{algorithm.truncated_penalty:g} would reward truncation")


def _reward(resolved: Resolved) -> Iterator[Fault]:
    reward = resolved.recipe.reward
    assert reward is not None
    if other := _other_thinking(reward.params, resolved.recipe.thinking):
        yield resolved.fault(
            "reward.params", f"thinking {other!r} is not the recipe's, {resolved.recipe.thinking!r}: leave it out"
        )
    key = "reward.name"
    try:
        made_by = rewards.reward_class(reward.name)
        key = "reward.params"
        params = with_thinking(reward.name, reward.params, resolved.recipe.thinking)
        made = made_by.create(reward.name, service.filled(resolved, params))
    except UserError as error:
        yield from error.faults
        return
    except rewards.RewardError as error:
        yield resolved.fault(key, str(error))
        return
    if reward.acc is not None and reward.name != "combine":
        yield resolved.fault("reward.acc", "names a part of a combined reward: leave it out")
    if made.grouped and reward.workers != 1:
        yield resolved.fault("reward.workers", f"{reward.name} compares the completions of a prompt: give 1")


def _other_thinking(params: Mapping[str, Any], thinking: str | None) -> Any:
    """A thinking format that a reward names and the recipe does not."""
    if thinking is None:
        return None
    parts = params.get("parts")
    inner = [part.get("params", {}) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return next(
        (options["thinking"] for options in (params, *inner) if options.get("thinking", thinking) != thinking), None
    )
