"""The registry of step kinds: the general ones, and those of each family.

A family lists its own in `data_prep/families/<family>/registry.py`, as `STEPS = {"kind": "module:Class"}`. A step's
module is imported only when a pipeline uses it, so that the launcher starts fast. `package.module:Class` in a
pipeline needs no registration.
"""

import importlib
from pathlib import Path

from data_prep.core.step import Step
from data_prep.errors import nearest
from rewards.imports import imported

GENERAL = {
    "load": "data_prep.steps.load:Load",
    "generate": "data_prep.steps.generate:Generate",
    "label": "data_prep.steps.label:Label",
    "rewrite": "data_prep.steps.rewrite:Rewrite",
    "score": "data_prep.steps.score:ScoreStep",
    "difficulty": "data_prep.steps.difficulty:Difficulty",
    "select": "data_prep.steps.select:Select",
    "map": "data_prep.steps.function:Map",
    "filter": "data_prep.steps.function:Filter",
    "join": "data_prep.steps.join:Join",
    "split": "data_prep.steps.split:Split",
    "dedup": "data_prep.steps.dedup:Dedup",
    "decontaminate": "data_prep.steps.decontaminate:Decontaminate",
    "mix": "data_prep.steps.mix:Mix",
    "gold": "data_prep.steps.gold:Gold",
    "best_of_n": "data_prep.steps.best_of_n:BestOfN",
    "pairs": "data_prep.steps.pairs:Pairs",
    "length_pairs": "data_prep.steps.length_pairs:LengthPairs",
    "choose_by_likeness": "data_prep.steps.choose:Choose",
    "add_reference": "data_prep.steps.references:AddReference",
    "references_sft": "data_prep.steps.references:ReferencesSft",
    "token_limit": "data_prep.steps.token_limit:TokenLimit",
    "export": "data_prep.steps.export:Export",
}


def _family_steps() -> dict[str, str]:
    files = sorted(Path(__file__).parents[1].glob("families/*/registry.py"))
    modules = [importlib.import_module(f"data_prep.families.{file.parent.name}.registry") for file in files]
    return {kind: place for module in modules for kind, place in module.STEPS.items()}


STEPS: dict[str, str] = {**GENERAL, **_family_steps()}  # kind -> module:Class


def step_class(kind: str) -> type[Step]:
    """The class registered as `kind`, or the class at `package.module:Class`. Raises KeyError for an unknown kind."""
    return load_class(place_of(kind))


def place_of(kind: str) -> str:
    """`module:Class` of a kind. Raises KeyError."""
    return kind if ":" in kind else STEPS[kind]


def kind_fault(kind: str) -> str | None:
    """Why a kind is invalid: it is not registered, or cannot be imported, or is not a step. None if it is valid."""
    try:
        step_class(kind)
    except KeyError:
        return f"no such kind of step: {kind!r}{nearest(kind, STEPS)}"
    except ValueError as error:
        return f"no such kind of step: {kind!r}: {error}"
    return None


def load_class(place: str) -> type[Step]:
    """The step at `module:Class`. Raises ValueError."""
    target = imported(place)
    if not (isinstance(target, type) and issubclass(target, Step)):
        raise ValueError("not a subclass of data_prep.core.step.Step")
    return target
