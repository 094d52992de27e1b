"""Lists the recipes (`list`) and the origin of each value of a recipe (`show`)."""

import json
from typing import Any

from launchers.errors import UserError
from launchers.recipe import compose, positions
from launchers.recipe.compose import ROOT, Resolved
from launchers.recipe.positions import Tree, dotted


def catalogue() -> list[dict[str, Any]]:
    """Every recipe: name, description (first comment line), trainer, model, hardware, scales; or its first fault."""
    rows: list[dict[str, Any]] = []
    for name in compose.recipe_names():
        first = (ROOT / f"{name}.yaml").read_text(errors="replace").partition("\n")[0]
        about = first.lstrip("# ").strip() if first.startswith("#") else ""
        row: dict[str, Any] = {"recipe": name, "about": about, "scales": compose.scales_of(name)}
        try:
            recipe = compose.resolve(name).recipe
            row |= recipe.model_dump(include={"trainer", "model", "hardware", "expect"})
        except UserError as error:
            row["fault"] = str(error.faults[0])
        rows.append(row)
    return rows


def print_catalogue(rows: list[dict[str, Any]]) -> None:
    """Print two lines per recipe."""
    width = max((len(row["recipe"]) for row in rows), default=0)
    for row in rows:
        summary = row.get("fault") or f"{row['trainer']} · {row['model']} · {row['hardware']}"
        print(f"{row['recipe']:<{width}}  {summary}\n{'':<{width}}  {row['about']}")


def origins(resolved: Resolved) -> dict[str, str]:
    """Dotted key to file:line of its value; keys with default values are absent."""
    return {dotted(path): leaf.where for path, leaf in resolved.tree.leaves()}


def print_origins(resolved: Resolved) -> None:
    """Print the whole recipe, one value per line."""
    plain = json.dumps(resolved.recipe.model_dump(mode="json"))
    defaults = positions.parse(plain, "default").mapped(lambda node: Tree(node.value, "default"))
    leaves = dict(positions.merge(defaults, resolved.tree).leaves())
    lines = {dotted(path): (json.dumps(leaf.value, ensure_ascii=False), leaf.where) for path, leaf in leaves.items()}
    wide, long = max(map(len, lines)), min(48, max(len(text) for text, _ in lines.values()))
    for key, (text, where) in sorted(lines.items()):
        print(f"{key:<{wide}}  {text:<{long}}  {where}")
