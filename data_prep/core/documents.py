"""YAML documents composed by libyaml, which is an order of magnitude faster than PyYAML's own parser."""

from __future__ import annotations

from typing import Any

import yaml

DEEPEST = 100  # levels of mappings and lists: libyaml's composer recurses in C, without a bound of its own
Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def compose(text: str, loader: Any = Loader) -> yaml.Node | None:
    """The document's root; None where it is empty. Raises yaml.MarkedYAMLError, also for one nested too deeply."""
    if " " * DEEPEST in text or sum(map(text.count, "[{-?")) > DEEPEST:  # others cannot nest so deeply
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} levels", problem_mark=mark)
    return yaml.compose(text, Loader=loader)
