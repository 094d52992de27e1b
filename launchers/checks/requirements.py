"""Checks that pending steps have what they need: API keys, a sandbox, a Hub token.

They run before anything expensive starts; otherwise a run fails for want of them hours later.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import rewards
from data_prep.core import pipeline
from data_prep.core.pipeline import Spec, StepSpec
from data_prep.core.registry import step_class
from data_prep.errors import DataError
from data_prep.inference.api.keys import read_keys
from data_prep.sources import tasks
from launchers.errors import Fault
from launchers.plan.plan import Plan

KEYS = {"data": "data", "eval": "eval.tasks"}  # part to the recipe key that determines its pipelines


Requirement = tuple[Literal["keys", "programs", "gated"], str]  # API keys, a sandbox, access to a gated task's rows


def problem(requirement: Requirement, base: Path) -> str | None:
    """Why a requirement is not met and what to do (never contains a secret); None if it is met."""
    kind, value = requirement
    try:
        if kind == "gated":
            return _no_token(value)
        if kind == "keys":
            read_keys(value, base)
        else:
            from rewards.sandbox import Sandbox, environment  # imported here, as below: slow

            environment.packages()
            Sandbox().close()  # steps open their own
    except (DataError, rewards.RewardError) as error:
        return str(error)
    return None


def faults(made: Plan, parts: Sequence[str]) -> list[Fault]:
    """The unmet requirements of these parts, one fault each, with the first step that has it."""
    first: dict[tuple[Requirement, Path], tuple[str, Spec, StepSpec]] = {}
    for part, spec, step in _pending(made, parts):
        for requirement in _requirements(step):
            first.setdefault((requirement, spec.base), (part, spec, step))
    return [
        Fault(made.resolved.where(KEYS[part]), spec.name, f"step {step.name!r}: {reason}")
        for (requirement, base), (part, spec, step) in first.items()
        if (reason := problem(requirement, base)) is not None
    ]


def _pending(made: Plan, parts: Sequence[str]) -> Iterator[tuple[str, Spec, StepSpec]]:
    """(part, pipeline, step) of the steps of these parts that are not done."""
    commanded: dict[tuple[str, str], set[str]] = {}  # (part, pipeline file) to step names
    for command in made.commands:
        if command.phase in parts and command.argv[1:4] == ("-m", "data_prep", "run"):
            file, names = command.argv[4], command.argv[6]
            commanded.setdefault((command.phase, file), set()).update(names.split(","))
    for (part, file), steps in commanded.items():
        spec = made.specs[file]
        done = _done(spec)
        for step in spec.steps:
            if step.name in steps and step.name not in done:
                yield part, spec, step


def _done(spec: Spec) -> set[str]:
    """Names of the finished steps; steps from one that needs a model not yet trained onwards are not."""
    try:
        return {step.name for step in pipeline.plan(spec) if step.state == "done"}
    except DataError as error:
        names = [step.name for step in spec.steps]
        before = spec.steps[: names.index(error.step)] if error.step in names else ()
        return _done(spec.model_copy(update={"steps": before})) if before else set()


def _requirements(step: StepSpec) -> Iterator[Requirement]:
    params: Any = step_class(step.kind).Params.model_validate(step.params)
    if source := getattr(params, "api_key_env", None):
        yield "keys", source
    if _runs_programs(step.kind, params):
        yield "programs", ""
    if step.kind in ("load", "decontaminate"):
        for name in params.names if step.kind == "load" else params.against:
            task = tasks.read(name)
            if task.gated and name not in params.paths and not (params.mirror and task.mirror):
                yield "gated", name


def _runs_programs(kind: str, params: Any) -> bool:
    if kind == "score":
        made = rewards.load(params.reward, **params.params)
    elif kind == "load" and params.check_gold:
        made = rewards.load(params.check_gold.name, **params.check_gold.params)
    else:
        return kind == "verify_questions" or (kind == "gold" and bool(params.check))
    from rewards.code.reward import CodeReward

    return any(isinstance(reward, CodeReward) for reward in single_rewards(made))


def single_rewards(reward: rewards.Reward) -> Iterator[rewards.Reward]:
    """The reward itself; for a combined reward its components."""
    from rewards.combine import CombineReward

    if isinstance(reward, CombineReward):
        for part in reward.parts:
            yield from single_rewards(part.made)
    else:
        yield reward


def _no_token(name: str) -> str | None:
    """Why a gated task cannot be downloaded; None if it is cached or there is a token (its terms are not checked)."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.file_download import repo_folder_name

    hub = tasks.read(name).hub
    assert hub is not None
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub.id, repo_type="dataset")
    if get_token() or (folder / "snapshots" / hub.revision).is_dir():  # cached: no token needed
        return None
    return (
        f"task {name!r} is gated and there is no token: accept its terms at https://huggingface.co/datasets/{hub.id} "
        "and set HF_TOKEN, or give a local file in paths"
    )
