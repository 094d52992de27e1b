"""A summary of a plan, as printed by `python -m launchers plan` and written to plan.json."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.pipeline import Spec
from data_prep.errors import DataError
from launchers import envs
from launchers.backends.base import Command, EnvPython, InRun
from launchers.backends.shared import read_json
from launchers.checks import tokens
from launchers.plan import contamination, service
from launchers.plan.estimate import estimate, model_sizes, packed_rows, passes, unknown, warnings
from launchers.plan.plan import Plan
from launchers.recipe.compose import shown
from launchers.run.directory import Run


def command_line(command: Command, plan: Plan) -> str:
    """The command as a shell command line."""

    def text(word: str) -> str:
        if isinstance(word, EnvPython):
            return str(envs.interpreter(word, plan.hardware.device))
        return str(plan.run / word) if isinstance(word, InRun) else word

    return shlex.join([*(f"{key}={value}" for key, value in command.environ), *map(text, command.words)])


def _pipeline_facts(spec: Spec) -> list[dict[str, Any]]:
    try:
        steps = pipeline.plan(spec)
    except DataError:  # it needs a model that has not been trained
        return [{"step": step.name, "kind": step.kind, "state": "todo", "rows": None} for step in spec.steps]
    return [
        {"step": step.name, "kind": step.kind, "state": step.state, "rows": step.rows_out, "rows_done": step.rows_done,
         "dir": str(step.dir)}
        for step in steps
    ]  # fmt: skip


def facts(plan: Plan) -> dict[str, Any]:
    """Everything known before the run, as JSON values."""
    resolved, batch = plan.resolved, plan.main.batch
    sizes = estimate(plan)
    return {
        "recipe": resolved.name,
        "family": resolved.family,
        "scale": resolved.scale,
        "model": resolved.recipe.model,
        "begins_with": resolved.begins_with,
        "trainer": resolved.recipe.trainer,
        "trains": plan.trains,
        "method": resolved.recipe.method,
        "hardware": {"profile": resolved.recipe.hardware, **plan.hardware.model_dump()},
        "batch": {
            "global": batch.global_batch, "micro": batch.micro, "accumulation": batch.accumulation,
            "world": batch.world, "packed_rows": packed_rows(plan),
        },
        "rollout": _rollout_facts(plan),
        "data": resolved.recipe.data,
        "rows": plan.rows(),
        "eval": resolved.eval.tasks if resolved.recipe.eval else [],
        "steps": {"planned": plan.steps()},
        "estimate": sizes and {"memory_gb": sizes.memory_gb, **vars(sizes)},
        "passes": passes(plan),
        "unknown": unknown(plan),
        "reward_model": _reward_model_facts(plan),
        "warnings": [*contamination.warnings(plan.trained_on), *warnings(plan), *_floating(plan), *_inspected(plan)],
        "notes": [step.params["note"] for spec in plan.trained_on for step in spec.steps if step.params.get("note")],
        "run": str(plan.run),
        "pipelines": {file: _pipeline_facts(spec) for file, spec in plan.specs.items()},
        "commands": [{"phase": c.phase, "label": c.label, "line": command_line(c, plan)} for c in plan.commands],
    }  # fmt: skip


def _floating(plan: Plan) -> list[str]:
    """Warnings about Hub models without a pinned revision."""
    recipe = plan.resolved.recipe
    models = [] if plan.resolved.begins_with else [("revision", recipe.model, recipe.revision)]
    for file, given in service.settings(plan.resolved, plan.hardware):
        if given["url"] is None:
            models.append((f"{Path(file).stem}.revision", given["model"], given["revision"]))
    return [
        f"{model} has no revision: a run uses the Hub's newest commit at its start, or offline the cached one; set "
        f"`{key}`"
        for key, model, revision in models
        if not revision and not Path(model).is_dir()
    ]


def _inspected(plan: Plan) -> list[str]:
    """Notes of an earlier inspection of the training rows (by `tokens` or a training attempt)."""
    notes = []
    for job in plan.jobs if plan.trains else ():
        inspected = read_json(plan.run / job.output / tokens.FILE) or {"notes": []}
        notes += [f"{job.label}: {note}" if job.folder else note for note in inspected["notes"]]
    return notes


def _rollout_facts(plan: Plan) -> dict[str, int] | None:
    rollout = plan.resolved.recipe.rollout
    if rollout is None:
        return None
    completions = rollout.prompts * rollout.samples
    updates = completions // plan.main.batch.global_batch
    return {"prompts": rollout.prompts, "samples": rollout.samples, "completions": completions, "updates": updates}


def _reward_model_facts(plan: Plan) -> dict[str, Any] | None:
    """The reward model server: model, placement, weights in GB per GPU (bf16), and the phases that use it."""
    given = plan.resolved.recipe.reward_model
    if given is None:
        return None
    sizes, gpus = model_sizes(given.model, given.revision), given.gpus if plan.hardware.gpus_per_node else 0
    weights = None if sizes is None else 2 * sizes.params / max(1, gpus) / 1e9
    beside = sorted({command.phase for command in plan.commands if command.service})
    return {"model": given.model, "placement": given.placement, "gpus": gpus, "weights_gb": weights, "beside": beside}


def print_facts(run: Run, plan_facts: dict[str, Any]) -> None:
    """Print the facts."""
    scale = f" at scale {plan_facts['scale']}" if plan_facts["scale"] else ""
    what = f"{plan_facts['trainer']} {plan_facts['method']} of {plan_facts['model']}"
    print(f"{plan_facts['recipe']}{scale}: {what} on {plan_facts['hardware']['profile']}")
    for label, text in _lines(plan_facts, run.finished):
        print(f"{label:<8} {text}")
    for file, pipeline_steps in plan_facts["pipelines"].items():
        print(f"\n{file}")
        for step in pipeline_steps:
            done = {
                "done": f"{step['rows']} rows cached",
                "partial": f"{step.get('rows_done')} rows done, rest to do",
            }
            print(f"  {step['step']:<12} {done.get(step['state'], step['state'])}")
    print()
    for command in plan_facts["commands"]:
        print(f"[{command['phase']}{' ' + command['label'] if command['label'] else ''}] {command['line']}")


def _lines(plan_facts: dict[str, Any], finished: bool) -> Iterator[tuple[str, str]]:
    """(label, text) lines that describe a plan."""
    batch, unknown_rows = plan_facts["batch"], "known once the data are made"
    unit = ("GPU" if plan_facts["hardware"]["gpus_per_node"] else "process") + ("s" if batch["world"] > 1 else "")
    if upstream := plan_facts["begins_with"]:
        yield (
            "begins",
            f"with the model of {upstream}, which is not trained yet; this plan uses that recipe's base model",
        )
    yield "run", f"{shown(Path(plan_facts['run']))}{'  (finished)' if finished else ''}"
    product = f"{batch['micro']} micro × {batch['accumulation']} accumulation × {batch['world']} {unit}"
    yield "batch", f"{batch['global']} = {product}"
    if packed := batch["packed_rows"]:
        yield "packed", f"about {packed:.1f} rows per sequence, {packed * batch['global']:.0f} rows per step"
    if rollout := plan_facts["rollout"]:
        updates = f"{rollout['updates']} update{'s' if rollout['updates'] > 1 else ''}"
        product = f"{rollout['prompts']} prompts × {rollout['samples']} samples"
        yield "rollout", f"{product} = {rollout['completions']}, {updates}"
    yield "data", plan_facts["data"]
    for label, number in (("rows", plan_facts["rows"]), ("steps", plan_facts["steps"]["planned"])):
        yield label, unknown_rows if number is None else str(number)
    yield "eval", ", ".join(plan_facts["eval"]) or "none"
    if plan_facts["passes"] is not None:
        yield "passes", f"{plan_facts['passes']:.1f} over the rows"
    if service := plan_facts["reward_model"]:
        gpus = f"{service['gpus']} separate GPUs"
        where = {"colocated": "the training's GPUs", "endpoint": "an endpoint"}.get(service["placement"], gpus)
        weights = f", about {service['weights_gb']:.1f} GB of weights on each" if service["weights_gb"] else ""
        yield "service", f"reward model {service['model']} on {where}{weights}, during {', '.join(service['beside'])}"
    estimated = _estimate_text(plan_facts) if plan_facts["estimate"] else ""
    yield "estimate", "; ".join(filter(None, (estimated, plan_facts["unknown"])))
    yield from (("note", note) for note in plan_facts["notes"])
    yield from (("warning", warning) for warning in plan_facts["warnings"])


def _estimate_text(plan_facts: dict[str, Any]) -> str:
    guess, memory = plan_facts["estimate"], plan_facts["hardware"]["memory_gb"]
    text = f"about {guess['memory_gb']:.1f} of {memory:g} GB per device"
    if plan_facts["hardware"]["device"] == "cuda" and guess["hours"] is not None:
        cost = f", ${guess['usd']:.2f}" if guess["usd"] is not None else ""
        text += f", {guess['hours'] * 60:.0f} min of training{cost}"
    return text
