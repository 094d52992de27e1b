"""What there is, and where each value of a recipe came from."""

from __future__ import annotations

import json
from typing import Any

from launchers.errors import UserError
from launchers.recipe import compose
from launchers.recipe.compose import ROOT, Resolved
from launchers.recipe.positions import dotted
from launchers.recipe.schema import Recipe


def _claim(name: str) -> str:
    """The first comment line of a recipe: what it is."""
    first = (ROOT / f"{name}.yaml").read_text(errors="replace").split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def catalogue() -> list[dict[str, Any]]:
    """Every recipe: name, claim, trainer, model, hardware, scales. A faulty one says so instead."""
    rows: list[dict[str, Any]] = []
    for name in compose.recipe_names():
        row: dict[str, Any] = {"recipe": name, "about": _claim(name), "scales": compose.scales_of(name)}
        try:
            recipe = compose.resolve(name).recipe
            row |= {
                "trainer": recipe.trainer,
                "model": recipe.model,
                "hardware": recipe.hardware,
                "expect": recipe.expect,
            }
        except UserError as error:
            row["fault"] = str(error.faults[0])
        rows.append(row)
    return rows


def print_catalogue(rows: list[dict[str, Any]]) -> None:
    """One line a recipe."""
    width = max((len(row["recipe"]) for row in rows), default=0)
    for row in rows:
        summary = row.get("fault") or f"{row['trainer']} · {row['model']} · {row['hardware']}"
        print(f"{row['recipe']:<{width}}  {summary}\n{'':<{width}}  {row['about']}")


def origins(resolved: Resolved) -> dict[str, str]:
    """Dotted key to where its value was written; keys that are not written come from the schema's defaults."""
    return {dotted(path): leaf.where for path, leaf in resolved.tree.leaves()}


def print_origins(resolved: Resolved) -> None:
    """The whole recipe, a line a value."""
    places = origins(resolved)
    values = {dotted(path): leaf.value for path, leaf in resolved.tree.leaves()}
    values |= {
        key: value
        for key, value in _defaults(resolved.recipe).items()
        if key not in values and not _inside(key, values)
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    wide, long = max(map(len, texts)), min(48, max(map(len, texts.values())))
    for key in sorted(texts):
        print(f"{key:<{wide}}  {texts[key]:<{long}}  {places.get(key, 'default')}")


def _inside(key: str, values: dict[str, Any]) -> bool:
    return any(other.startswith((f"{key}.", f"{key}[")) for other in values)


def _defaults(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in recipe.model_dump(mode="json").items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat
