"""Pipelines (chains of steps): parsing, validation, planning and execution.

A spec is JSON that the launcher writes into the run directory; `python -m data_prep run SPEC.json` runs it.
`parse` reads the YAML form, a list of one-key mappings such as `- select: {outcome: scored}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_prep.core import engine
from data_prep.core.code_identity import code_hash
from data_prep.core.fingerprint import value_hash
from data_prep.core.manifest import Manifest, read_manifest, read_rows, shard_paths, shard_stats
from data_prep.core.progress import Progress
from data_prep.core.registry import kind_fault, place_of, step_class
from data_prep.core.shards import Execution, Job
from data_prep.core.validation import Place, find_faults
from data_prep.errors import DataError, explain, nearest, os_errors

__all__ = ["Fault", "Spec", "StepPlan", "StepSpec", "parse", "plan", "read_manifest", "read_rows", "run"]

State = Literal["done", "partial", "todo"]


class StepSpec(BaseModel):
    """One step of a pipeline; `inputs` are names of earlier steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    params: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[str, ...] = ()


class Spec(BaseModel):
    """A pipeline, ready to run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base: Path  # relative paths in parameters start here
    cache: Path  # holds one directory per step
    steps: tuple[StepSpec, ...]
    max_drop_share: float = Field(0.05, ge=0, le=1)  # share of bad rows per step
    execution: Execution = Execution()  # where shards are computed

    @field_validator("base", "cache")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @classmethod
    def read(cls, path: Path) -> Spec:
        """A spec from its JSON file. Raises DataError."""
        try:
            with os_errors(path):
                spec = cls.model_validate_json(path.read_bytes())
            wrong = check(spec.steps)
        except ValidationError as error:
            wrong = [Fault(at["loc"], at["msg"].removeprefix("Value error, ")) for at in error.errors()]
        if wrong:
            raise DataError("\n".join(f"{path}: {fault}" for fault in wrong))
        return spec


@dataclass(frozen=True)
class Fault:
    """An error in a pipeline: its path of keys and indices, and a message that says what to do."""

    path: Place
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path)) or 'pipeline'}: {self.message}"


@dataclass(frozen=True)
class StepPlan:
    """The state of one step."""

    name: str
    kind: str
    key: str
    dir: Path
    env: str  # the environment that it needs (configs/envs)
    state: State
    inputs: tuple[str, ...]
    shards_done: int
    rows_done: int  # output rows in finished shards
    rows_in: int | None  # known once its inputs are done
    rows_out: int | None  # known once it is done


def parse(name: str, items: object) -> tuple[list[StepSpec], list[Fault]]:
    """The steps of a pipeline written in YAML, and all its faults, with paths relative to the list.

    Each item is `kind` or `{kind: params}`. Among the params, `name` is the step's name (default: its kind) and
    `inputs` are the steps that it reads (default: the previous step; a source has none).
    """
    if not isinstance(items, list) or not items:
        return [], [Fault((), f"pipeline {name!r} must be a list of steps, such as `- load: {{path: rows.jsonl}}`")]
    specs: list[StepSpec] = []
    places: list[Place] = []
    faults: list[Fault] = []
    for index, item in enumerate(items):
        spec = _parse_item(index, item, specs[-1].name if specs else None)
        if isinstance(spec, Fault):
            faults.append(spec)
        else:
            specs.append(spec)
            places.append((index, spec.kind))
    if not faults:
        return specs, check(specs, places)
    for step, where in zip(specs, places, strict=True):  # inputs can only be checked if every step was parsed
        faults += _param_faults(step, where)
    return specs, faults


def _parse_item(index: int, item: object, previous: str | None) -> StepSpec | Fault:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        return Fault((index,), "each step is one kind with its parameters, such as `- dedup: {near: 0.8}`")
    ((kind, params),) = item.items()
    if kind == "pipeline":
        return Fault((index, kind), "only the first item may be another pipeline")
    if fault := kind_fault(str(kind)):
        return Fault((index, str(kind)), fault)
    if params is not None and not isinstance(params, dict):
        return Fault((index, kind), f"parameters of {kind} must be a mapping, not {type(params).__name__}")
    rest = dict(params or {})
    given = rest.pop("name", kind)
    is_source = step_class(kind).scope == "source"
    inputs = rest.pop("inputs", [] if is_source or previous is None else [previous])
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(given, str) or not given:
        return Fault((index, kind, "name"), "must be a string")
    if not isinstance(inputs, list) or not all(isinstance(item_name, str) for item_name in inputs):
        return Fault((index, kind, "inputs"), "must be a list of names of steps")
    return StepSpec(name=given, kind=kind, params=rest, inputs=tuple(inputs))


def check(steps: Sequence[StepSpec], places: Sequence[Place] = ()) -> list[Fault]:
    """All faults of a chain: kinds, parameters, names, inputs. places: each step's position in the document."""
    if not steps:
        return [Fault((), "a pipeline needs at least one step")]
    faults: list[Fault] = []
    names: set[str] = set()
    everyone = {step.name for step in steps}
    for step, where in zip(steps, places or [("steps", step.name) for step in steps], strict=True):
        if fault := kind_fault(step.kind):
            faults.append(Fault(where, fault))
            continue
        if step.name in names:
            faults.append(Fault((*where, "name"), f"two steps are named {step.name!r}; give one another `name`"))
        faults.extend(_input_faults(step, where, names, everyone))
        faults.extend(_param_faults(step, where))
        names.add(step.name)
    return faults


def _input_faults(step: StepSpec, where: Place, before: set[str], everyone: set[str]) -> Iterator[Fault]:
    source = step_class(step.kind).scope == "source"
    if source and step.inputs:
        yield Fault((*where, "inputs"), f"{step.kind} is a source and takes no inputs")
        return
    if not source and not step.inputs:
        yield Fault(where, f"{step.kind} needs input rows: put a source before it, such as `load`")
    for name in step.inputs:
        if name == step.name or (name in everyone and name not in before):
            yield Fault((*where, "inputs"), f"{name!r} is not an earlier step; steps may only read earlier ones")
        elif name not in before:
            yield Fault((*where, "inputs"), f"no step is named {name!r}{nearest(name, before)}")


def _param_faults(step: StepSpec, where: Place) -> Iterator[Fault]:
    for place, message in find_faults(step_class(step.kind).Params, step.params, "parameter"):
        yield Fault((*where, *place), message)


def jobs(spec: Spec) -> list[Job]:
    """The steps with their keys. Raises DataError, whose `step` names the faulty step."""
    if faults := check(spec.steps):
        raise DataError("\n".join(f"pipeline {spec.name!r}: {fault}" for fault in faults))
    made: dict[str, Job] = {}
    for item in spec.steps:
        made[item.name] = _job(spec, item, [made[name] for name in item.inputs])
    return list(made.values())


def _job(spec: Spec, item: StepSpec, inputs: Sequence[Job]) -> Job:
    cls = step_class(item.kind)
    try:
        step = cls(cls.Params.model_validate(item.params))
        fingerprint = step.fingerprint(spec.base)
    except OSError as error:
        raise DataError(f"step {item.name!r}: {explain(error)}", item.name) from error
    except DataError as error:
        raise type(error)(f"step {item.name!r}: {error}", item.name) from error
    params = step.params.model_dump(mode="json")
    code = code_hash((cls.__module__, *step.modules()), spec.cache.parent)
    keyed = {name: value for name, value in params.items() if name not in cls.unkeyed}
    work = value_hash({"kind": item.kind, "params": keyed, "fingerprint": fingerprint, "code": code})
    key = value_hash({"work": work, "inputs": [job.key for job in inputs]})
    return Job(
        name=item.name,
        kind=item.kind,
        place=place_of(item.kind),
        key=key,
        work=work,
        dir=spec.cache / f"{cls.kind}-{key[:12]}",
        base=spec.base,
        params=params,
        fingerprint=fingerprint,
        code=code,
        input_keys=tuple(job.key for job in inputs),
        input_dirs=tuple(job.dir for job in inputs),
        max_drop_share=spec.max_drop_share,
        execution=spec.execution,
    )


def plan(spec: Spec) -> list[StepPlan]:
    """The state of every step, without running any. Raises DataError."""
    plans: list[StepPlan] = []
    rows: dict[str, int | None] = {}  # output rows of finished steps
    for item, job in zip(spec.steps, jobs(spec), strict=True):
        manifest, stats = read_manifest(job.dir), shard_stats(job.dir)
        rows[item.name] = manifest.rows_out if manifest else None
        before = [count for name in item.inputs if (count := rows[name]) is not None]
        made = StepPlan(
            name=item.name,
            kind=item.kind,
            key=job.key,
            dir=job.dir,
            env=job.step().env(),
            state="done" if manifest else "partial" if stats else "todo",
            inputs=item.inputs,
            shards_done=len(stats),
            rows_done=sum(shard.rows_out for shard in stats),
            rows_in=sum(before) if before and len(before) == len(item.inputs) else None,
            rows_out=rows[item.name],
        )
        plans.append(made)
    return plans


def run(spec: Spec, names: Sequence[str] | None = None, progress: Progress | None = None) -> list[Manifest]:
    """Run the steps `names` (default: all) in this interpreter, resuming unfinished work.

    Raises DataError (status 2), or LimitExceeded (status 3) if too many rows are bad.
    """
    for name in names or ():
        named(spec, name)
    manifests = []
    for item, job in zip(spec.steps, jobs(spec), strict=True):
        if names is not None and item.name not in names:
            continue
        for need, directory in zip(item.inputs, job.input_dirs, strict=True):
            if not (directory / "manifest.json").exists():
                raise DataError(f"step {item.name!r} needs step {need!r}, which has not been run")
        manifests.append(engine.run_step(job, progress))
    return manifests


def named(spec: Spec, name: str) -> StepSpec:
    """A step by its name. Raises DataError."""
    by_name = {step.name: step for step in spec.steps}
    if name not in by_name:
        raise DataError(f"pipeline {spec.name!r} has no step {name!r}{nearest(name, by_name)}")
    return by_name[name]


def find(spec: Spec, name: str | None = None) -> Path:
    """The directory of a step (default: the last). Raises DataError."""
    step = spec.steps[-1] if name is None else named(spec, name)
    return {job.name: job.dir for job in jobs(spec)}[step.name]


def drops(spec: Spec, step: StepSpec) -> Iterator[dict[str, Any]]:
    """Rows that a step dropped: reason, row_id, detail, and `row` if one of its inputs still holds it."""
    folder = find(spec, step.name)
    records = [
        json.loads(line)
        for path in shard_paths(folder)
        for line in path.with_suffix(".drops.jsonl").read_bytes().splitlines()
    ]
    ids = {record["row_id"] for record in records}
    inputs = [find(spec, name) for name in step.inputs] if ids else []
    rows = {row["id"]: row for source in inputs for row in read_rows(source) if row.get("id") in ids}
    for record in records:
        row = rows.get(record["row_id"])
        yield {**record, **({"row": row} if row else {})}
