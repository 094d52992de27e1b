"""YAML documents, composed by libyaml, an order of magnitude faster than PyYAML's own parser."""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from data_prep.errors import DataError, os_errors

Model = TypeVar("Model", bound=BaseModel)

DEEPEST = 100  # levels of mappings and lists: libyaml's composer recurses in C without a limit
Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def compose(text: str, loader: Any = Loader) -> yaml.Node | None:
    """The document's root; None if it is empty. Raises yaml.MarkedYAMLError, also if it is nested too deeply."""
    if " " * DEEPEST in text or sum(map(text.count, "[{-?")) > DEEPEST:  # other texts cannot nest that deeply
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} levels", problem_mark=mark)
    return yaml.compose(text, Loader=loader)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file. Raises DataError."""
    with os_errors(path):
        content = path.read_bytes()
    try:
        node = compose(content.decode(), Loader)
        refuse_repeated(node)
        return node and Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-01
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def refuse_repeated(node: yaml.Node | None, *above: yaml.Node) -> None:
    """Raise ValueError for a repeated key, of which YAML silently keeps the last, or a node that contains itself."""
    if node in above:
        raise ValueError("a mapping contains an alias of itself")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: {key.value} is given twice; keep one")
            seen.add(str(key.value))
            refuse_repeated(value, *above, node)


@cache
def read_models(path: Path, model: type[Model]) -> dict[str, Model]:
    """The entries of a YAML file that maps names to a model's fields, read once. Raises DataError."""
    try:
        return TypeAdapter[dict[str, Model]](dict[str, model]).validate_python(read_yaml(path) or {})  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, known = ".".join(map(str, first["loc"])), ", ".join(model.model_fields)
        raise DataError(f"{path}: {where}: {first['msg']}; an entry holds {known}") from error
