"""Recipes that start from another recipe's model (`model_of: sky_t1/7b_sft`), which runs first, at the same scale.

`model` is then the model that the other recipe started from; plans and checks use it until that recipe is trained. A
model given on the command line replaces both.
"""

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
    """The recipe of `model_of`, with those overrides that also apply to it (PASSED_ON)."""
    if (name := resolved.begins_with) is None:
        return None
    kept = tuple(setting for setting in resolved.overrides.settings if setting[0].partition(".")[0] in PASSED_ON)
    return _ready(name, Overrides(resolved.scale, kept))


def first(resolved: Resolved, out: Path) -> Run | None:
    """The run of the recipe in `model_of`, finished or not; None without `model_of`."""
    earlier = _earlier(resolved)
    return rundir.locate(with_trained_model(earlier, out), out) if earlier else None


def with_trained_model(resolved: Resolved, out: Path) -> Resolved:
    """The recipe with the trained model of `model_of`, or the copy for `zero`, if that exists; else unchanged."""
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
    """The path of the base model's copy for `zero`; None for a recipe without it."""
    recipe = resolved.recipe
    if recipe.zero is None:
        return None
    model = find_model(recipe.model, recipe.revision, REPO)
    template = (zero.TEMPLATES / f"{recipe.zero}.jinja").read_text("utf-8")
    identity = value_hash([*model.identity().values(), template, zero.VERSION])
    return cache_dir() / "models" / f"{Path(recipe.model).name}-{recipe.zero}-{identity[:12]}"


def do_first(resolved: Resolved, out: Path) -> None:
    """Run or resume the recipes that a recipe starts from, or copy its base model for `zero`.

    Raises UserError or RunError.
    """
    recipe = resolved.recipe
    if recipe.zero is not None and (copy := _zero_copy(resolved)) is not None and not (copy / zero.DONE).is_file():
        print(f"{resolved.name}: copying {recipe.model} with chat template {recipe.zero}: {copy}", file=sys.stderr)
        model = REPO / recipe.model
        try:
            zero.write_copy(str(model) if model.is_dir() else recipe.model, recipe.revision, recipe.zero, copy)
        except DataError as error:
            raise fail(str(error), resolved.where("zero"), "zero") from None
    if (earlier := _earlier(resolved)) is None:
        return
    do_first(earlier, out)
    before = rundir.locate(with_trained_model(earlier, out), out)
    if not before.finished:
        print(
            f"{resolved.name} starts from the model of {earlier.name}, which runs first: {before.path}", file=sys.stderr
        )
        running.execute(before)


def require_trained(resolved: Resolved, out: Path) -> None:
    """Raises UserError if the recipe of `model_of` has not been trained."""
    before = first(resolved, out)
    if before is not None and not before.finished:
        name, scale = before.plan.resolved.name, f" SCALE={resolved.scale}" if resolved.scale else ""
        message = f"starts from the model of {name}, which is not trained yet: run `make {name}{scale}` first"
        raise fail(message, resolved.name, "model_of")
