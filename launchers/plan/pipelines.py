"""Resolves a recipe's `data` and `model` to local paths and to the pipelines of its family.

A pipeline is a list of steps in `recipes/<family>/data.yaml`. A path as `data` is a pipeline of one `load`; in a family
with a pipeline `file`, it replaces the first step of the recipe's own pipeline. The launcher appends the step that
writes the trainer's files.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.pipeline import Spec, StepSpec
from data_prep.errors import DataError
from data_prep.sources import tasks
from data_prep.steps.export import Export, ExportParams
from data_prep.steps.load import Load, LoadParams
from launchers import envs
from launchers.errors import Fault, UserError, did_you_mean, fail
from launchers.machines import hardware
from launchers.plan import contamination, service
from launchers.recipe import compose
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import Overrides, Resolved
from launchers.recipe.positions import Tree, dotted

MAY_BE_NULL = ("revision",)  # recipe values that may be null where a pipeline uses them (local models have none)
FILE = "file"  # name of a family's pipeline that loads a file given as `data`
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def data_path(resolved: Resolved) -> Path | None:
    """The local file that `data` names, relative to where it was written; None if it names a pipeline."""
    text = resolved.recipe.data
    if "/" not in text and "." not in text and "*" not in text:
        return None
    return resolved.path("data")


def data_name(resolved: Resolved) -> str:
    """The name of the data: the pipeline's, or the file's without extension."""
    path = data_path(resolved)
    return resolved.recipe.data if path is None else path.stem


def paths_of(resolved: Resolved, names: Iterable[str]) -> dict[str, str]:
    """The local files that `eval.paths` sets for these tasks."""
    given = resolved.recipe.eval.paths if resolved.recipe.eval else {}
    return {name: str(resolved.path(f"eval.paths.{name}")) for name in names if name in given}


def with_local_model(resolved: Resolved) -> Resolved:
    """The recipe with a local model's path made absolute. Raises UserError if there is no such folder."""
    path = resolved.path("model")
    if (path / "config.json").is_file():
        absolute = str(path.resolve())
        value = {**resolved.tree.value, "model": Tree(absolute, resolved.where("model"))}
        recipe = resolved.recipe.model_copy(update={"model": absolute})
        return replace(resolved, recipe=recipe, tree=Tree(value, resolved.tree.where))
    if HUB_ID.fullmatch(resolved.recipe.model) and not path.exists():
        return resolved
    why = "has no config.json" if path.is_dir() else "is neither a local folder nor a Hub id (owner/name)"
    raise UserError(resolved.fault("model", f"{resolved.recipe.model!r} {why}"))


def _substitute(tree: Tree, resolved: Resolved) -> Tree:
    """Replace references such as `${train.seed}` by the recipe's values. Raises UserError for missing values."""
    faults: list[Fault] = []

    def substituted(node: Tree) -> Tree:
        if not (isinstance(node.value, str) and node.value.startswith("${") and node.value.endswith("}")):
            return node
        if node.value == service.KEY and resolved.recipe.reward_model is not None:
            return Tree(service.address(resolved), node.where)
        key = node.value[2:-1]
        value: Any = resolved.recipe
        for part in key.split("."):
            value = getattr(value, part, None)
        if value is None and key not in MAY_BE_NULL:
            faults.append(Fault(node.where, node.value, "the recipe does not set this key"))
        return Tree([Tree(item, node.where) for item in value] if isinstance(value, list) else value, node.where)

    filled = tree.mapped(substituted)
    if faults:
        raise UserError(*faults)
    return filled


def family_pipelines(resolved: Resolved) -> Tree:
    """The pipelines of the recipe's family, by name."""
    path = resolved.folder / "data.yaml"
    shown = str(path.relative_to(envs.REPO))
    return yaml_tree.load(path, shown) if path.exists() else Tree({}, shown)


def check_data(resolved: Resolved, export: dict[str, Any]) -> None:
    """Raises UserError for anything wrong in the recipe's data pipeline."""
    spec = make_spec(data_name(resolved), resolved, data_steps(resolved, export))
    evaluated, trained = resolved.recipe.eval.tasks if resolved.recipe.eval else [], contamination.trained(spec)
    jobs = {job.name: job.step() for job in pipeline.jobs(spec)}
    unchanged = all(isinstance(step, Load) or step.passes for name, step in jobs.items() if name in trained)
    writer = Export(ExportParams.model_validate(export))
    try:
        for name, step in jobs.items():
            if isinstance(step, Load):
                if name in trained and (why := contamination.clash(step.params, evaluated)):
                    raise DataError(f"step {name!r} {why}", name)
                if name in trained and unchanged and step.params.path:
                    step.preview(spec.base, writer)
                else:
                    step.peek(spec.base)
    except DataError as error:
        raise fail(str(error), _step_where(_pipeline(resolved), error.step), spec.name) from None


def preview(resolved: Resolved, export: dict[str, Any]) -> str | None:
    """The first records of a local `data` file as the trainer gets them; None if no `load` reads it.

    Raises UserError.
    """
    path = data_path(resolved)
    if path is None:
        return None
    (step, *_), _ = pipeline.parse(data_name(resolved), _pipeline(resolved).plain())
    if step.kind != Load.kind:
        return None
    try:
        writer = Export(ExportParams.model_validate(export))
        return f"{path}: {Load(LoadParams.model_validate(step.params)).preview(resolved.folder, writer)}"
    except DataError as error:
        raise UserError(resolved.fault("data", str(error))) from None


def _step_where(items: Tree, step: str | None) -> str:
    """Where a step of a pipeline was written."""
    for index, item in enumerate(items.plain()):
        kind, params = next(iter(item.items())) if isinstance(item, dict) else (item, {})
        if (params or {}).get("name", kind) == step:
            return items.where_of((index, kind))
    return items.where


def _pipeline(resolved: Resolved) -> Tree:
    """The steps of `data`: a pipeline of the family, or a `load` of a local file."""
    where, text = resolved.where("data"), resolved.recipe.data
    path = data_path(resolved)
    if path is not None:
        if not path.exists() and "*" not in str(path):
            hub = f"; a pipeline loads a Hub data set: `load: {{hub: {text}, …}}`" if HUB_ID.fullmatch(text) else ""
            raise UserError(resolved.fault("data", f"no such file: {path}{hub}"))
        if instead := _in_place_of_source(resolved, path):
            return instead
        recipe = resolved.recipe
        system = recipe.system_prompt if recipe.system_prompt in tasks.prompts() else None
        params = {"path": str(path), "system": system, "thinking": recipe.thinking}
        load = {key: Tree(value, where) for key, value in params.items() if value}
        return Tree([Tree({"load": Tree(load, where)}, where)], where)
    known = family_pipelines(resolved)
    name = resolved.recipe.data
    if name not in known.value:
        file = known.where.rsplit(":", 1)[0]
        hint = f"{did_you_mean(name, known.value)} (a path to a file of rows works too)"
        if (own := (envs.REPO / where).parent / "data.yaml") != resolved.folder / "data.yaml" and own.is_file():
            hint = f"copy it from {compose.shown(own)}, use a pipeline of this family, or move the recipe there"
        raise UserError(resolved.fault("data", f"no pipeline {name!r} in {file}; {hint}"))
    return _substitute(_expanded(known, name), resolved)


def _in_place_of_source(resolved: Resolved, path: Path) -> Tree | None:
    """The family's pipeline `file` with this path, then the recipe's steps after its first; None without either."""
    known = family_pipelines(resolved)
    if FILE not in known.value:
        return None
    settings = tuple(setting for setting in resolved.overrides.settings if setting[0] != "data")
    own = compose.resolve(resolved.name, Overrides(resolved.scale, settings))
    if own.recipe.data not in known.value:
        return None
    source = _expanded(known, FILE)
    here = replace(resolved, recipe=resolved.recipe.model_copy(update={"data": str(path)}))
    return _substitute(Tree([*source.value, *_expanded(known, own.recipe.data).value[1:]], source.where), here)


def _expanded(known: Tree, name: str, chain: tuple[str, ...] = ()) -> Tree:
    """A pipeline's steps; a first entry `- pipeline: other` is replaced by that pipeline's steps."""
    own_tree: Tree = known.value[name]
    first = own_tree.value[0] if isinstance(own_tree.value, list) and own_tree.value else None
    if first is None or not isinstance(first.value, dict) or list(first.value) != ["pipeline"]:
        return own_tree
    other = first.value["pipeline"]
    if other.value in (*chain, name):
        raise fail(f"circular: {' -> '.join((*chain, name))}", other.where, f"{name}.pipeline")
    if not isinstance(other.value, str) or other.value not in known.value:
        hint = did_you_mean(str(other.value), known.value)
        raise fail(f"no pipeline {other.value!r} here; {hint}", other.where, f"{name}.pipeline")
    first_steps = _expanded(known, other.value, (*chain, name))
    if not isinstance(first_steps.value, list):
        return first_steps  # not a pipeline: reported by pipeline.parse
    return Tree([*first_steps.value, *own_tree.value[1:]], own_tree.where)


def data_steps(resolved: Resolved, export: dict[str, Any]) -> list[StepSpec]:
    """The recipe's pipeline, followed by the step that writes the trainer's files. Raises UserError."""
    items = _pipeline(resolved)
    name = data_name(resolved)
    steps, faults = pipeline.parse(name, items.plain())
    for index, step in enumerate(steps):
        if "export" in (step.kind, step.name):
            faults.append(pipeline.Fault((index, step.kind), "the trainer's export is added automatically: remove it"))
    if faults:
        raise UserError(*(Fault(items.where_of(f.path), dotted((name, *f.path)), f.message) for f in faults))
    errors = {"max_error_share": resolved.recipe.limits.errors}
    steps = [s.model_copy(update={"params": errors | s.params}) if s.kind == "score" else s for s in steps]
    return [*steps, StepSpec(name="export", kind="export", params=export, inputs=(steps[-1].name,))]


def make_spec(name: str, resolved: Resolved, steps: Iterable[StepSpec]) -> Spec:
    return Spec(
        name=name,
        base=resolved.folder,
        cache=envs.cache_dir() / "steps",
        steps=tuple(steps),
        max_drop_share=resolved.recipe.limits.bad_rows,
        execution=hardware.load(resolved.recipe.hardware, resolved.where("hardware")).data,
    )
