"""Recipes that begin where another one ends: `model_of: sky_t1/7b_sft`, which is done first, at the same scale.

A recipe's `model` then says what that one started from; until it has been trained, `model` stands in for it in
plans and checks. A model given on the command line takes the place of both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from data_prep.core.fingerprint import value_hash
from data_prep.errors import DataError
from data_prep.families.long_cot import zero
from data_prep.inference.models import find_model
from launchers.checks import preflight
from launchers.envs import REPO, cache_dir
from launchers.errors import UserError, fail
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, Resolved
from launchers.run import directory as rundir
from launchers.run import execute as running
from launchers.run.directory import Run

PASSED_ON = ("hardware", "site", "time_limit", "loggers")


def _ready(name: str, overrides: Overrides) -> Resolved:
    resolved, faults = preflight.check(compose.resolve(name, overrides))
    if faults:
        raise UserError(*faults)
    return resolved


def _earlier(resolved: Resolved) -> Resolved | None:
    """The recipe that comes first, with what of the command line holds for it, too: where and how long it runs."""
    if (name := resolved.begins_with) is None:
        return None
    kept = tuple(setting for setting in resolved.overrides.settings if setting[0].partition(".")[0] in PASSED_ON)
    return _ready(name, Overrides(resolved.scale, kept))


def first(resolved: Resolved, out: Path) -> Run | None:
    """The run that trains the model which a checked recipe starts from, finished or not; None where there is none."""
    earlier = _earlier(resolved)
    return rundir.locate(begun(earlier, out), out) if earlier else None


def begun(resolved: Resolved, out: Path) -> Resolved:
    """The recipe with the model that the one before has trained, where it has; as it is where not."""
    if (copy := _zero_copy(resolved)) is not None:
        return _from_model(resolved, str(copy), "zero") if (copy / zero.DONE).is_file() else resolved
    before = first(resolved, out)
    if before is None or not before.finished:
        return resolved
    return _from_model(resolved, str(before.path / before.plan.main.model), f"model_of {before.plan.resolved.name}")


def _from_model(resolved: Resolved, model: str, where: str) -> Resolved:
    settings = (("model", model, where), ("revision", "null", "--set revision"), ("zero", "null", "--set zero"))
    return _ready(resolved.name, Overrides(resolved.scale, (*settings, *resolved.overrides.settings)))


def _zero_copy(resolved: Resolved) -> Path | None:
    """Where the base model's copy lies, or will; None for a recipe without one."""
    recipe = resolved.recipe
    if recipe.zero is None:
        return None
    model = find_model(recipe.model, recipe.revision, REPO)
    template = (zero.TEMPLATES / f"{recipe.zero}.jinja").read_text("utf-8")
    identity = value_hash([*model.identity().values(), template, zero.VERSION])
    return cache_dir() / "models" / f"{Path(recipe.model).name}-{recipe.zero}-{identity[:12]}"


def do_first(resolved: Resolved, out: Path) -> None:
    """Do the runs that a checked recipe starts from, or what is left of them, or copy its base model.

    Raises UserError or RunError.
    """
    recipe = resolved.recipe
    if recipe.zero is not None and (copy := _zero_copy(resolved)) is not None and not (copy / zero.DONE).is_file():
        print(f"{resolved.name}: a copy of {recipe.model} prompted as {recipe.zero}: {copy}", file=sys.stderr)
        model = REPO / recipe.model
        try:
            zero.write_copy(str(model) if model.is_dir() else recipe.model, recipe.revision, recipe.zero, copy)
        except DataError as error:
            raise fail(str(error), resolved.where("zero"), "zero") from None
    if (earlier := _earlier(resolved)) is None:
        return
    do_first(earlier, out)
    before = rundir.locate(begun(earlier, out), out)
    if not before.finished:
        print(f"{resolved.name} starts from the model of {earlier.name}, done first: {before.path}", file=sys.stderr)
        running.execute(before)


def refuse_untrained(resolved: Resolved, out: Path) -> None:
    """Raises UserError where the model to start from is still to be trained."""
    before = first(resolved, out)
    if before is not None and not before.finished:
        name, scale = before.plan.resolved.name, f" SCALE={resolved.scale}" if resolved.scale else ""
        message = f"starts from the model of {name}, which is still to be trained: `make {name}{scale}` first"
        raise fail(message, resolved.name, "model_of")
