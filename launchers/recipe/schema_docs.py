"""The recipe's keys for editors and readers: configs/recipe.schema.json and configs/README.md (`make schema`)."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
from typing import Any

from pydantic import BaseModel

from launchers.recipe import schema


def _described(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field. (pydantic can read them itself, at every start and at a price.)"""
    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: ast.literal_eval(text.value)
        for field, text in itertools.pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def json_schema() -> dict[str, Any]:
    """The schema for editors: a file may be partial (it extends another), so nothing is required."""
    document = schema.Recipe.model_json_schema()
    for part in (document, *document.get("$defs", {}).values()):
        part.pop("required", None)
        for key, text in _described(getattr(schema, part["title"])).items():
            part["properties"][key]["description"] = text
    eval_schema = document["properties"]["eval"]
    document["properties"]["eval"] = {"anyOf": [*eval_schema["anyOf"], {"type": "array", "items": {"type": "string"}}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Recipe", **document}


def markdown() -> str:
    """configs/README.md: every key of a recipe with its type, default and meaning."""
    tree = json_schema()
    lines = [
        "# Keys of a recipe",
        "",
        "Written by `make schema` from `launchers/recipe/schema.py`. Other files here: `hardware/` (machines),",
        "`sites/` (clusters), `tasks/` (benchmarks), `models.yaml`, `prices.yaml`, `envs/` (locked environments),",
        "`deepspeed/`, `fsdp/`, `native/` (each trainer's own keys).",
    ]
    sections = {name: part for name, part in tree["$defs"].items() if "properties" in part}
    for name, part in {"Recipe": tree, **sections}.items():
        lines += ["", f"## {name}", "", _one_line(part.get("description", "")), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key, field in part["properties"].items():
            default = f"`{json.dumps(field['default'])}`" if field.get("default") not in (None, {}, []) else ""
            lines.append(f"| `{key}` | {_type(field)} | {default} | {_one_line(field.get('description', ''))} |")
    return "\n".join(lines) + "\n"


def _type(field: dict[str, Any]) -> str:
    """A field's type in words, for a table's cell."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(part) for part in field["anyOf"] if part.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return words.get(str(field.get("type")), "mapping")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
