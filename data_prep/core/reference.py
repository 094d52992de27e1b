"""Reference of all steps and their parameters, generated from their code: as text, and as a JSON schema for editors."""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from data_prep.core.registry import STEPS, kind_fault, step_class
from data_prep.errors import DataError

_COMMENTED = re.compile(r"^ +(\w+): .*  # (.*)$", re.MULTILINE)  # a field of a class with its comment
SUBSTITUTED = {"type": "string", "pattern": r"^\$\{.+\}$"}  # a reference to a recipe value, such as ${train.seed}
NAMED = {
    "name": {"type": "string", "description": "name of this step, if two are of one kind"},
    "inputs": {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "names of earlier steps; by default the previous one",
    },
}


def listing() -> str:
    """One line per step."""
    width = max(map(len, STEPS))
    return "\n".join(f"{kind:<{width}}  {_summary(kind)}" for kind in STEPS)


def reference(kind: str) -> str:
    """A step's description, examples, and parameters with types, defaults and meanings. Raises DataError."""
    if fault := kind_fault(kind):
        raise DataError(fault)
    cls = step_class(kind)
    text = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    about = inspect.cleandoc(cls.Params.__doc__ or "")
    lines = [f"{kind}: {_summary(kind)}", "", text, "", "Parameters:", *_table(cls.Params)]
    return "\n".join([*lines, "", about] if about else lines)


def _summary(kind: str) -> str:
    return inspect.cleandoc(step_class(kind).__doc__ or "").partition("\n")[0]


def _table(model: type[BaseModel]) -> Iterator[str]:
    comments, types = dict(_comments(model)), get_type_hints(model)  # types without their validators
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else json.dumps(field.get_default(call_default_factory=True))
        kind = re.sub(r"\b\w+\.", "", inspect.formatannotation(types[name]))
        yield f"  {name}: {kind} = {default}" + (f"    # {comments[name]}" if comments.get(name) else "")


def _comments(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(field, its trailing comment) of a model and its base classes."""
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            yield from _COMMENTED.findall(inspect.getsource(cls))


def schema() -> dict[str, Any]:
    """The JSON schema of a family's data.yaml."""
    models = {kind: step_class(kind).Params for kind in STEPS}
    made, definitions = models_json_schema([(model, "validation") for model in dict.fromkeys(models.values())])
    places = {model: made[model, "validation"]["$ref"] for model in models.values()}
    for place in places.values():
        _open(definitions["$defs"][place.rpartition("/")[2]])
    items = [_item(kind, {"anyOf": [{"$ref": places[model]}, {"type": "null"}]}) for kind, model in models.items()]
    own = {"type": "object", "patternProperties": {r"^[\w.]+:\w+$": {}}, "additionalProperties": False}
    step = {"anyOf": [{"enum": list(STEPS)}, *items, _item("pipeline", {"type": "string"}), own]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipelines of a family",
        "type": "object",
        "additionalProperties": {"type": "array", "items": step},
        "$defs": definitions["$defs"],
    }


def _item(kind: str, params: dict[str, Any]) -> dict[str, Any]:
    description = {} if kind == "pipeline" else {"description": _summary(kind)}
    return {
        "type": "object",
        "properties": {kind: {**params, **description}},
        "required": [kind],
        "additionalProperties": False,
    }


def _open(model: dict[str, Any]) -> None:
    """Accept references to recipe values as parameters, single values as lists, and `name` and `inputs` of steps."""
    properties = model.setdefault("properties", {})
    for name, value in properties.items():
        if isinstance(values := value.get("additionalProperties"), dict):
            value["additionalProperties"] = _or_one(values)
        properties[name] = {"anyOf": [_or_one(value), SUBSTITUTED]}
    properties |= NAMED


def _or_one(value: dict[str, Any]) -> dict[str, Any]:
    """A schema that accepts the list or a single item."""
    return {"anyOf": [value, value["items"]]} if value.get("type") == "array" and "items" in value else value
