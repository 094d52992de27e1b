"""The plan of a run: its trainings, pipelines and evaluations, and their commands in order.

It is derived from a resolved recipe and a run directory; nothing is started or written here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.manifest import read_manifest
from data_prep.core.pipeline import Spec, StepSpec
from data_prep.core.registry import step_class
from data_prep.errors import DataError
from data_prep.sources import tasks
from launchers import backends, envs, harnesses
from launchers.backends.base import Backend, Batch, Command, EnvPython, InRun, Job
from launchers.errors import UserError, fail
from launchers.harnesses import Kind
from launchers.machines import hardware
from launchers.machines.hardware import Hardware
from launchers.plan import service
from launchers.plan.pipelines import data_name, data_steps, make_spec, paths_of, with_local_model
from launchers.recipe.compose import Resolved, patched
from launchers.recipe.online import benchmark_params, is_online
from launchers.recipe.schema import OURS
from rewards.thinking import thinking

PARTS = ("data", "train", "eval", "report")
PART_OF = {"merge": "train", "judge": "train"}  # phases that belong to another part


@dataclass(frozen=True)
class Plan:
    """A planned run. `specs` are pipelines by their path in the run directory."""

    resolved: Resolved
    hardware: Hardware
    backend: Backend
    run: Path
    jobs: tuple[Job, ...]
    specs: dict[str, Spec]
    commands: tuple[Command, ...]
    trains: bool = True  # False: the recipe's model is only evaluated

    @property
    def main(self) -> Job:
        """The recipe's training (the other jobs are controls)."""
        return self.jobs[0]

    @property
    def trained_on(self) -> list[Spec]:
        """The pipelines of the training data, including the controls'."""
        return [self.specs[data_file(job.folder)] for job in self.jobs if self.trains]

    def rows(self, job: Job | None = None) -> int | None:
        """Training rows (by default the recipe's); None before the data are made."""
        if not self.trains:
            return None
        made = read_manifest(self._data_folders[(job or self.main).folder])
        return made.rows_out if made else None

    @cached_property
    def _data_folders(self) -> dict[str, Path]:
        """Each training's data folder; cached, because computing a pipeline's key is slow."""
        return {job.folder: pipeline.find(self.specs[data_file(job.folder)]) for job in self.jobs}

    def steps(self, job: Job | None = None) -> int | None:
        """Optimiser steps; None if that depends on data that do not exist yet, or on packing."""
        job = job or self.main
        train, rows = job.resolved.recipe.train, self.rows(job)
        if train.steps:
            return train.steps
        if rows is None or train.packing or train.epochs is None or is_online(job.resolved.recipe):
            return None  # online RL drops prompts that are too long, which only the trainer can count
        return planned_steps(rows, train.epochs, job.batch)

    @property
    def adds_trackers(self) -> bool:
        """Whether trackers must be added to the trainer's environment."""
        _, added = envs.trackers(self.backend.env, self.hardware.device)
        return self.trains and bool(added & set(self.resolved.recipe.loggers))


def data_file(folder: str, part: str = "train") -> str:
    """The path of a training's pipeline in the run directory; `folder` is Job.folder."""
    return f"{folder}/data/{part}.json".removeprefix("/")


def planned_steps(rows: int, epochs: float, batch: Batch) -> int:
    """Optimiser steps of `epochs` passes: the last, smaller batch of each pass counts as a step."""
    return math.ceil(epochs * math.ceil(math.ceil(rows / (batch.micro * batch.world)) / batch.accumulation))


def derive_batch(resolved: Resolved, machines: Hardware) -> Batch:
    """global_batch = micro × accumulation × world. Raises UserError with numbers that would work.

    On several nodes the micro batch is lowered to a divisor if needed; the global batch is not changed.
    """
    train, world = resolved.recipe.train, machines.world
    smallest = 1 if machines.nodes > 1 else train.micro_batch
    for micro in range(train.micro_batch, smallest - 1, -1):
        if train.global_batch % (micro * world) == 0:
            return Batch(train.global_batch, micro, train.global_batch // (micro * world), world)
    per_pass = train.micro_batch * world
    processes = f"{world} GPU{'s' if world > 1 else ''}" if machines.gpus_per_node else "1 process"
    below = train.global_batch // per_pass * per_pass
    advice = f"train.global_batch {f'{below} or ' if below else ''}{below + per_pass}"
    micros = [m for m in range(1, min(train.global_batch // world, 4096) + 1) if train.global_batch % (m * world) == 0]
    if micros:
        closest = sorted(sorted(micros, key=lambda m: abs(m - train.micro_batch))[:4])
        advice += f", or train.micro_batch {', '.join(map(str, closest))}"
    why = f"{train.global_batch} is not divisible by micro_batch {train.micro_batch} × {processes} = {per_pass}"
    raise UserError(resolved.fault("train.global_batch", f"{why}: use {advice}"))


def eval_spec(resolved: Resolved, label: str, model: str, revision: str | None) -> Spec:
    """Load benchmarks, generate (loading the model once for all), and score in one branch per reward."""
    recipe, given = resolved.recipe, resolved.eval
    own = harnesses.ours(given)
    by_reward: dict[str, list[str]] = {}
    for name in own:
        by_reward.setdefault(tasks.read(name).reward.model_dump_json(), []).append(name)
    others = {name: named for name, named in harnesses.by_harness(given).items() if name != OURS}
    decoding = given.model_dump(include={"n", "temperature", "top_p", "max_tokens", "max_model_len", "seed"})
    engines, workers = _parallelism(resolved)
    if recipe.thinking and (stop := thinking(recipe.thinking).stop):
        decoding |= {"stop": stop, "sampling": {"include_stop_str_in_output": True}}
    generate = {"model": model, **decoding, **engines, **({"revision": revision} if revision else {})}
    load = Kind("load", _load(resolved, own, given.limit))
    made = ({"load": load} if own else {}) | {
        f"load_{name}": harnesses.load(name).prompts(resolved, named) for name, named in others.items()
    }
    steps = [StepSpec(name=name, kind=grader.kind, params=grader.params) for name, grader in made.items()]
    steps.append(StepSpec(name="generate", kind="generate", params=generate, inputs=tuple(made)))
    graded: dict[str, tuple[list[str], Kind]] = {}
    for number, names in enumerate(by_reward.values()):
        reward, end = tasks.read(names[0]).reward, f"_{number}" if len(by_reward) + len(others) > 1 else ""
        params = service.filled(resolved, benchmark_params(recipe, reward.name, reward.params))
        score = {"reward": reward.name, "params": params, "max_error_share": recipe.limits.errors, "workers": workers}
        graded[f"score{end}"] = names, Kind("score", score)
    for name, named in others.items():
        graded[f"score_{name}"] = named, harnesses.load(name).grade(resolved, named)
    for name, (named, grader) in graded.items():
        source = "generate"
        if len(graded) > 1:
            source = name.replace("score", "select")
            steps.append(StepSpec(name=source, kind="select", params={"source": named}, inputs=("generate",)))
        steps.append(StepSpec(name=name, kind=grader.kind, params=grader.params, inputs=(source,)))
    if faults := pipeline.check(steps):
        raise UserError(*(resolved.fault("eval", str(fault)) for fault in faults))
    return make_spec(f"eval-{label}", resolved, steps)


def _parallelism(resolved: Resolved) -> tuple[dict[str, int], int]:
    """An evaluation's engine parameters, and its number of grading processes."""
    given = resolved.eval
    machines = hardware.load(resolved.recipe.hardware, resolved.where("hardware"))
    gpus = machines.gpus_per_node
    if given.tensor_parallel > max(1, gpus):
        conflict = f"{given.tensor_parallel} GPUs for one engine, and a node of {resolved.recipe.hardware} has {gpus}"
        raise UserError(resolved.fault("eval.tensor_parallel", conflict))
    engines = {"tensor_parallel": given.tensor_parallel, "replicas": max(1, gpus // given.tensor_parallel)}
    return engines, given.workers or max(1, 2 * gpus)


def _load(resolved: Resolved, names: Sequence[str], limit: int | None) -> dict[str, Any]:
    """Parameters of the step that loads benchmarks."""
    prompt = resolved.recipe.system_prompt  # the task's own instructions then precede the question
    system = {"system": prompt, "instructions": "user"} if prompt else {}
    limits = {"limit": limit, "seed": resolved.eval.seed} if limit else {}
    return {"tasks": names, "paths": paths_of(resolved, names), **system, **limits}


def validation_spec(resolved: Resolved, backend: Backend) -> Spec | None:
    """The pipeline of validation rows: in online RL the benchmarks, else the rows held out by a `split` at the end of
    the pipeline; None without validation. Only its last two steps are not in the training pipeline."""
    recipe, export = resolved.recipe, backend.export(resolved.recipe) | {"dataset": "validation"}
    if is_online(recipe):
        if not (recipe.validation and recipe.eval):
            return None
        load = _load(resolved, harnesses.ours(resolved.eval), recipe.validation.limit)
        steps = [StepSpec(name="load", kind="load", params=load)]
        export |= {"split": "validation"}
    else:
        steps = data_steps(resolved, export)[:-1]
        if not backend.held_out_loss or steps[-1].kind != "split" or steps[-1].params.get("part") != "train":
            return None
        steps[-1] = steps[-1].model_copy(update={"params": {**steps[-1].params, "part": "validation"}})
    written = StepSpec(name="export", kind="export", params=export, inputs=(steps[-1].name,))
    return make_spec("validation", resolved, [*steps, written])


def step_commands(spec: Spec, file: str, phase: str, label: str, across: tuple[str, ...] = ()) -> list[Command]:
    """The commands for a spec written to `file`: one per group of consecutive steps with the same environment.

    across: Command.across for steps that run on Ray.
    """

    def env(step: StepSpec) -> str:
        cls = step_class(step.kind)
        name = cls(cls.Params.model_validate(step.params)).env()
        return "ray" if name == "core" and spec.execution.engine == "ray" else name  # environment ray is core plus Ray

    commands = []
    for name, group in groupby(spec.steps, key=env):
        steps = list(group)
        argv = (
            EnvPython(name), "-m", "data_prep", "run", InRun(file), "--steps", ",".join(step.name for step in steps),
        )  # fmt: skip
        served = any(service.uses_server(step.params) for step in steps)
        nodes = across if name == "ray" else ()
        commands.append(Command(argv, phase, label, service="reward_model" if served else "", across=nodes))
    return commands


def _metrics_command(resolved: Resolved, label: str, model: str, trains: bool) -> Command:
    decoding = resolved.eval.model_dump_json(include={"n", "temperature", "top_p", "max_tokens", "seed"})
    argv = (
        EnvPython("core"), "-m", "data_prep.evaluation.metrics", "evaluate", "--spec", InRun(f"eval/{label}.spec.json"),
        "--label", label, "--model", model, "--decoding", decoding, "--out", InRun(f"eval/{label}.json"),
        *(() if trains else ("--all-rows",)),
    )  # fmt: skip
    return Command(argv, "eval", label)


def _evaluations(jobs: Sequence[Job], trains: bool) -> list[tuple[str, Resolved, str | InRun, str | None]]:
    """(label, recipe, model, revision) of every evaluation, in execution order."""
    recipe = jobs[0].resolved.recipe
    if recipe.eval is None:
        return []
    trained = [(job.label, job.resolved, job.model, None) for job in jobs if trains]
    untrained = "before" if trains else "after"
    initial = [(untrained, jobs[0].resolved, recipe.model, recipe.revision)]
    return [*(initial if recipe.eval.before or not trains else []), *trained]


def build(resolved: Resolved, run: Path, trains: bool = True) -> Plan:
    """The plan of a recipe for a run directory (which need not exist); without `trains`, only evaluate its model.

    Raises UserError.
    """
    machines = hardware.load(resolved.recipe.hardware, resolved.where("hardware"))
    backend = backends.load(resolved.recipe.trainer)
    specs: dict[str, Spec] = {}
    jobs, commands, evaluations = [], [], []
    if trains:
        controls = [
            (f"controls/{name}", with_local_model(patched(resolved, name))) for name in resolved.recipe.controls
        ]
        versions = [("", resolved), *controls]
    else:
        batch = Batch(resolved.recipe.train.global_batch, resolved.recipe.train.micro_batch, 1, machines.world)
        versions, jobs = [], [Job(resolved, machines, batch, "", run)]
    for folder, version in versions:
        file = data_file(folder)
        specs[file] = make_spec(data_name(version), version, data_steps(version, backend.export(version.recipe)))
        held_out, validation = validation_spec(version, backend), None
        if held_out:
            specs[data_file(folder, "validation")] = held_out
            validation = _export_dir(held_out)
        left = service.training_machines(version, machines)
        job = Job(version, left, derive_batch(version, left), folder, _export_dir(specs[file]), validation,
                  backend.in_place(version.recipe))  # fmt: skip
        jobs.append(job)
        own = held_out and held_out.model_copy(update={"steps": held_out.steps[-2:]})
        for name, spec in ((file, specs[file]), (data_file(folder, "validation"), own)):
            label = job.label if folder else ""
            commands += step_commands(spec, name, "data", label, machines.across("ray")) if spec else []
    trainings = [_in_run(job, command, run) for job in jobs for command in backend.commands(job) if trains]
    for label, version, model, revision in _evaluations(jobs, trains):
        where = str(run / model) if isinstance(model, InRun) else model
        file = f"eval/{label}.spec.json"
        specs[file] = eval_spec(version, label, where, revision)
        evaluations += step_commands(specs[file], file, "eval", label)
        evaluations.append(_metrics_command(version, label, where, trains))
    for label in [job.label for job in jobs[1:]] + (["before"] if "eval/before.spec.json" in specs else []):
        if "eval/after.spec.json" in specs:
            evaluations.append(_compare(label))
    report = Command((EnvPython("core"), "-m", "launchers", "report", InRun("")), "report", "")
    everything = (*commands, *trainings, *evaluations, report)
    return Plan(resolved, machines, backend, run, tuple(jobs), specs, everything, trains)


def _in_run(job: Job, command: Command, run: Path) -> Command:
    """A training command with its reward model's server and its run name in trackers."""
    recipe = job.resolved.recipe
    if command.phase != "train":
        return command
    if set(recipe.loggers) - {"file"}:
        tracked = {"TRACKERS": ",".join(recipe.loggers), "TRACKER_PROJECT": job.resolved.family,
                   "TRACKER_RUN": f"{run.name}-{job.label}"}  # fmt: skip
        command = replace(command, environ=(*command.environ, *tracked.items()))
    return replace(command, service="reward_model" if service.training_uses_server(recipe) else "")


def _export_dir(spec: Spec) -> Path:
    try:
        return pipeline.jobs(spec)[-1].dir / "export"
    except DataError as error:
        raise fail(str(error), f"pipeline {spec.name}") from None


def _compare(label: str) -> Command:
    argv = (EnvPython("core"), "-m", "data_prep.evaluation.metrics", "compare", "--a", InRun("eval/after.json"),
            "--b", InRun(f"eval/{label}.json"), "--out", InRun("compare.json"))  # fmt: skip
    return Command(argv, "eval", f"after-{label}")
