"""The specification of a study (cells, seeds, questions), read from recipes/<family>/study.yaml and validated.

A cell is a recipe with some settings changed. `model_of: X` starts it from the model that cell X trained with the same
seed; `from_run: X` gives its data steps the samples of that run. `study.<scale>.yaml` is merged over the file as a
scale's overlay is over a recipe; `cells: {X: null}` removes a cell.

The study sets train.seed, eval.before (for cells that start from the recipe's model) and `controls: null` (cells are
compared with each other). All cells must have the same evaluation settings.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from launchers import harnesses
from launchers.checks import preflight
from launchers.errors import Fault, UserError, did_you_mean, fail
from launchers.recipe import compose
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import Overrides, Resolved, shown
from launchers.recipe.positions import Tree, dotted
from launchers.recipe.schema import ControlName, Strict
from launchers.run.directory import NOT_IDENTITY

Setting = tuple[str, str, str]  # dotted key, text, option
Keys = tuple[str | int, ...]  # a path in the study file
# Evaluation settings that must be equal in all cells; completion lengths may differ.
_LIKE = ("tasks", "paths", "n", "temperature", "top_p", "seed", "limit")
_OWN = {
    "train.seed": "use the study's `seeds`",
    "eval.before": "the study sets it for cells that start from their recipe's model",
    "controls": "cells are compared with each other",
    "from_run": "set the cell's `from_run` instead, next to `set`",
}
_OF_MODEL = {"revision": "follows from `model_of`", "model": "follows from `model_of`"}


class Cell(Strict):
    """A recipe with some settings changed, run once per seed."""

    recipe: str
    set: dict[str, Any] = {}
    """Dotted keys or nested mappings, overriding the recipe and the study's `set`."""
    model_of: ControlName | None = None
    """The cell whose trained model this one starts from."""
    from_run: ControlName | None = None
    """The cell whose run this one's data steps read."""
    trained_levels: list[str | int] | None = None
    """Question levels in its training data; the other levels measure generalisation."""


class Question(Strict):
    """A question about some cells."""

    ask: str
    compare: Annotated[list[str], Field(min_length=1)]
    measure: Literal["accuracy", "untrained"] = "accuracy"
    """untrained: the gain over the initial model on levels (or tasks) that a cell was not trained on."""


class StudyFile(Strict):
    """A study, as written."""

    seeds: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]
    by: Literal["level", "task"] = "level"
    """Group benchmark questions by level or by benchmark. Benchmarks are never trained on."""
    set: dict[str, Any] = {}
    """Settings for all cells."""
    recipes: dict[str, dict[str, Any]] = {}
    """Settings for all cells of a recipe, overriding `set`."""
    cells: Annotated[dict[ControlName, Cell], Field(min_length=1)]
    questions: Annotated[list[Question], Field(min_length=1)]


@dataclass(frozen=True)
class Study:
    """A validated study of one family at one scale; `extra`: command-line settings for all cells."""

    family: str
    scale: str | None
    file: StudyFile
    tree: Tree
    extra: tuple[Setting, ...] = ()

    def upstream(self, name: str) -> list[str]:
        """The cells that a cell needs first."""
        cell = self.file.cells[name]
        return list(dict.fromkeys(other for other in (cell.model_of, cell.from_run) if other))

    def ancestors(self, *names: str) -> set[str]:
        """The cells that these need, directly or indirectly."""
        needed: set[str] = set()
        ahead = list(names)
        while ahead:
            above = {other for other in self.upstream(ahead.pop()) if other in self.file.cells} - needed
            ahead += above
            needed |= above
        return needed

    def order(self) -> list[str]:
        """Cells in topological order, otherwise as written. The study must have no cycles."""

        def chain(name: str) -> list[str]:
            return [*(first for other in self.upstream(name) for first in chain(other)), name]

        return list(dict.fromkeys(name for cell in self.file.cells for name in chain(cell)))

    def overrides(self, name: str, seed: int, model: Path | None = None, run: Path | None = None) -> Overrides:
        """A cell's overrides, in order. `model` and `run`: results of the cells that it needs."""
        cell = self.file.cells[name]
        given = [leaf for tree in self._sets(name) for leaf in _leaves(tree)]
        settings = [(key, _text(leaf.plain()), f"--set {key}") for key, leaf in given] + list(self.extra)
        own: dict[str, Any] = {"train.seed": seed, "eval.before": cell.model_of is None, "controls": None}
        own |= {"model": str(model), "revision": None} if model else {}
        own |= {"from_run": str(run)} if run else {}
        settings += [(key, _text(value), f"--set {key}") for key, value in own.items()]
        return Overrides(self.scale, tuple(settings))

    def _sets(self, cell: str) -> list[Tree]:
        """The settings of a cell, in ascending priority."""
        paths = (("set",), ("recipes", self.file.cells[cell].recipe), ("cells", cell, "set"))
        return [tree for path in paths if (tree := self.tree.at(path))]

    def resolve(self, name: str, seed: int, model: Path | None = None, run: Path | None = None) -> Resolved:
        """A cell's recipe, ready to be planned. Raises UserError with faults located in the study file."""
        overrides = self.overrides(name, seed, model, run)
        try:
            resolved, faults = preflight.check(compose.resolve(self.file.cells[name].recipe, overrides))
        except UserError as error:
            faults = list(error.faults)
        if faults:
            raise UserError(*(self.placed(name, fault) for fault in faults))
        return resolved

    def placed(self, name: str, fault: Fault) -> Fault:
        """A fault of a cell's recipe, located at the line of the study file that causes it, if there is one."""
        places = {option: option for _, _, option in self.extra}
        for tree in reversed(self._sets(name)):
            places = {f"--set {key}": leaf.where for key, leaf in _leaves(tree)} | places
        line = self.tree.where_of(("cells", name))
        where = places.get(fault.where, line) if fault.where.startswith("--set ") or not fault.where else fault.where
        return Fault(where, f"cells.{name}: {fault.key}".rstrip(": "), fault.message)

    def digest(self, resolved: dict[str, Resolved]) -> str:
        """Hash of the study file and of every cell's resolved recipe."""
        identity = {
            "family": self.family, "scale": self.scale, "study": self.file.model_dump(mode="json"),
            "recipes": {name: recipe.recipe.model_dump(mode="json") for name, recipe in resolved.items()},
        }  # fmt: skip
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def _text(value: Any) -> str:
    """A value as the text of an override: verbatim if YAML reads that back unchanged, else JSON."""
    if isinstance(value, str):
        try:
            if yaml_tree.parse(value, "").value == value:
                return value
        except UserError:
            pass  # YAML would interpret it: quote it as JSON
    return json.dumps(value)


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Tree]]:
    """Scalars and lists with their dotted keys."""
    for key, child in tree.value.items() if isinstance(tree.value, dict) else ():
        if isinstance(child.value, dict) and child.value:
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield prefix + key, child


def study_names() -> list[str]:
    """Families that have a study."""
    return sorted(path.parent.name for path in compose.ROOT.glob("*/study.yaml"))


def parse_seeds(text: str | None) -> list[int] | None:
    """`0,1,2` as seeds. Raises UserError."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) < 2**31 for word in words):
        raise fail(f"{text!r} is not a list of integers, e.g. 0,1,2", "--seeds")
    return list(dict.fromkeys(map(int, words)))


def load(
    family: str, scale: str | None = None, seeds: Sequence[int] | None = None, only: Sequence[str] | None = None,
    extra: Sequence[Setting] = (),
) -> Study:  # fmt: skip
    """Load a family's study, optionally with other seeds or fewer cells. Raises UserError with every fault."""
    if family not in study_names():
        raise fail(f"no such study; {did_you_mean(family, study_names())}", key=family)
    path = compose.ROOT / family / "study.yaml"
    tree = yaml_tree.load(path, shown(path))
    if scale:
        if scale not in compose.SCALES:
            raise fail(f"no such scale: {scale!r}; {did_you_mean(scale, compose.SCALES)}", "SCALE")
        over = path.with_name(f"study.{scale}.yaml")
        if not over.is_file():
            raise fail(f"the study of {family!r} has no {over.name}", "SCALE")
        tree = compose.without_nulls(yaml_tree.merge(tree, yaml_tree.load(over, shown(over))), ("cells",))
    study = Study(family, scale, compose.validated(tree, StudyFile), tree, tuple(extra))
    if faults := [*_names(study), *_cycles(study), *_set_faults(study)]:
        raise UserError(*faults)
    if seeds is not None:
        study = replace(study, file=study.file.model_copy(update={"seeds": list(seeds)}))
    return study if only is None else _narrowed(study, only)


def _names(study: Study) -> Iterator[Fault]:
    """Unknown names of cells and recipes, and duplicates."""
    cells, known = study.file.cells, compose.recipe_names()
    recipes: dict[Keys, str] = {("recipes", name): name for name in study.file.recipes}
    recipes |= {("cells", name, "recipe"): cell.recipe for name, cell in cells.items()}
    for path, recipe in recipes.items():
        if recipe not in known:
            yield _fault(study, path, f"no such recipe; {did_you_mean(recipe, known)}")
    for name, cell in cells.items():
        for key, other in (("model_of", cell.model_of), ("from_run", cell.from_run)):
            if other is not None and other not in cells:
                yield _fault(study, ("cells", name, key), f"no cell {other!r}; {did_you_mean(other, cells)}")
    for number, question in enumerate(study.file.questions):
        for index, other in enumerate(question.compare):
            place = ("questions", number, "compare", index)
            if other not in cells:
                yield _fault(study, place, f"no cell {other!r}; {did_you_mean(other, cells)}")
            elif other in question.compare[:index]:
                yield _fault(study, place, f"{other!r} is listed twice")
            elif question.measure == "untrained" and study.file.by == "level" and not cells[other].trained_levels:
                yield _fault(study, place, f"cell {other!r} needs `trained_levels`")
    for index, seed in enumerate(study.file.seeds):
        if seed in study.file.seeds[:index]:
            yield _fault(study, ("seeds", index), f"{seed} is listed twice")


def _cycles(study: Study) -> Iterator[Fault]:
    """Cells that depend on themselves."""
    for name, cell in study.file.cells.items():
        if name in study.ancestors(name):
            place = ("cells", name, "model_of" if cell.model_of else "from_run")
            yield _fault(study, place, "circular: this cell depends on itself")


def _set_faults(study: Study) -> Iterator[Fault]:
    """Settings that are reserved for the study."""
    file = study.file
    places: dict[Keys, bool] = {("set",): False, **{("recipes", name): False for name in file.recipes}}
    places |= {("cells", name, "set"): cell.model_of is not None for name, cell in file.cells.items()}
    for place, starts_elsewhere in places.items():
        for key, leaf in _leaves(study.tree.at(place) or Tree({}, study.tree.where)):
            if why := _own(key, starts_elsewhere):
                yield Fault(leaf.where, f"{dotted(place)}.{key}", f"cannot be set: {why}")
    for key, _, option in study.extra:
        if why := _own(key, starts_elsewhere=False):
            yield Fault(option, key, f"cannot be set: {why}")


def _own(key: str, starts_elsewhere: bool) -> str:
    """Why a key, or a parent of it, is reserved for the study; "" if it is not."""
    own = _OWN | (_OF_MODEL if starts_elsewhere else {})
    return next((why for name, why in own.items() if key == name or key.startswith(f"{name}.")), "")


def _fault(study: Study, path: Keys, message: str) -> Fault:
    return Fault(study.tree.where_of(path), dotted(path), message)


def _narrowed(study: Study, only: Sequence[str]) -> Study:
    """The study with only these cells and those that they need, also in its questions."""
    cells = study.file.cells
    if unknown := [name for name in only if name not in cells]:
        raise UserError(*(Fault("--only", "", f"no cell {n!r}; {did_you_mean(n, cells)}") for n in unknown))
    kept = {*only, *study.ancestors(*only)}
    left = [(question, [name for name in question.compare if name in kept]) for question in study.file.questions]
    questions = [question.model_copy(update={"compare": names}) for question, names in left if names]
    chosen = {name: cell for name, cell in cells.items() if name in kept}
    return replace(study, file=study.file.model_copy(update={"cells": chosen, "questions": questions}))


def check(study: Study, out: Path) -> dict[str, Resolved]:
    """Resolve and check every cell's recipe with the first seed, before anything starts.

    For results of other cells that do not exist yet, the recipe's own model is used, and faults about a missing run
    are ignored. Raises UserError with the faults of all cells.
    """
    faults: list[Fault] = []
    cells: dict[str, Resolved] = {}
    for name in study.order():
        cell, seed, run = study.file.cells[name], study.file.seeds[0], None
        if cell.from_run:
            run = out.absolute() / study.file.cells[cell.from_run].recipe / f"(the run of {cell.from_run})"
        try:
            cells[name] = study.resolve(name, seed, run=run)
        except UserError as error:
            missing = [fault for fault in error.faults if run is None or str(run) not in fault.message]
            faults += [fault for fault in missing if fault not in faults]
            if not missing:  # only that run is missing
                cells[name] = compose.resolve(cell.recipe, study.overrides(name, seed, run=run))
    if faults := [*faults, *_evaluation_faults(study, cells), *_duplicates(study, cells)]:
        raise UserError(*faults)
    return cells


def _duplicates(study: Study, cells: dict[str, Resolved]) -> Iterator[Fault]:
    """Cells that are the same run, which would be compared with itself and executed by two jobs."""
    seen: dict[str, str] = {}
    for name, resolved in cells.items():
        cell, recipe = study.file.cells[name], resolved.recipe.model_dump_json(exclude=NOT_IDENTITY)
        first = seen.setdefault(f"{cell.recipe} {cell.model_of} {cell.from_run} {recipe}", name)
        if first != name:
            yield _fault(study, ("cells", name), f"the same run as cell {first!r}: change a setting, or remove it")


def _evaluation_faults(study: Study, cells: dict[str, Resolved]) -> Iterator[Fault]:
    """Cells whose evaluations are not comparable."""
    first = next(iter(cells), "")
    for name, resolved in cells.items():
        if resolved.recipe.eval is None:
            yield _fault(study, ("cells", name), "its recipe has no `eval`, so there is nothing to compare")
            continue
        metric = harnesses.measured(resolved.eval.tasks)
        for task in resolved.eval.tasks if name == first else ():
            if (other_metric := harnesses.measured([task])) != metric:
                differs = f"{task} measures {other_metric.name}, {resolved.eval.tasks[0]} {metric.name}"
                message = f"{differs}: a study compares one metric (the study's own `set`)"
                yield study.placed(name, resolved.fault("eval.tasks", message))
        other = cells[first].recipe.eval
        for key in _LIKE if other else ():
            value, expected = getattr(resolved.eval, key), getattr(other, key)
            if value != expected:
                message = f"{value!r}, but {expected!r} for cell {first!r}: all cells need the same evaluation"
                yield study.placed(name, resolved.fault(f"eval.{key}", f"{message} (the study's own `set`)"))
