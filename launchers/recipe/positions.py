"""A YAML loader that records the file and line of every value.

It reads YAML 1.2's core types (`1e-5` is a number, `no` is a string), rejects duplicate and non-text keys, and never
constructs objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_prep.core import documents
from launchers.errors import Fault, UserError, fail


@dataclass(frozen=True)
class Tree:
    """A scalar, a list of trees or a dict of trees, and where it was written ("file:line")."""

    value: Any
    where: str

    def plain(self) -> Any:
        """The value without positions."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def at(self, path: tuple[str | int, ...]) -> Tree | None:
        """The tree at a path of keys and indices; None if the path does not exist."""
        node = self
        for part in path:
            try:
                node = node.value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return node

    def mapped(self, change: Callable[[Tree], Tree]) -> Tree:
        """The tree with `change` applied to every value, inner ones first."""
        value = self.value
        if isinstance(value, dict):
            value = {key: child.mapped(change) for key, child in value.items()}
        elif isinstance(value, list):
            value = [child.mapped(change) for child in value]
        return change(Tree(value, self.where))

    def where_of(self, path: tuple[str | int, ...]) -> str:
        """Where the value at `path`, or else its nearest ancestor, was written."""
        while path:
            if node := self.at(path):
                return node.where
            path = path[:-1]
        return self.where

    def leaves(self, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Tree]]:
        """Every scalar (and empty container) with its path."""
        if isinstance(self.value, dict) and self.value:
            for key, child in self.value.items():
                yield from child.leaves((*path, key))
        elif isinstance(self.value, list) and self.value:
            for index, child in enumerate(self.value):
                yield from child.leaves((*path, index))
        else:
            yield path, self


def dotted(path: tuple[str | int, ...]) -> str:
    """`("eval", "tasks", 0)` as `eval.tasks[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


class _Loader(documents.Loader):  # type: ignore[misc]
    """PyYAML with YAML 1.2's plain scalars."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _scalar(node: yaml.ScalarNode) -> Any:
    """The node's value. Raises ValueError if it is not a plain scalar."""
    kind, text = node.tag.rsplit(":", 1)[-1], node.value
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if len(text) > 40:
        raise ValueError("a number of more than 40 characters")
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise ValueError(f"tag {node.tag} is not allowed")


def _convert(node: yaml.Node, file: str, faults: list[Fault], seen: set[int]) -> Tree:
    where = f"{file}:{node.start_mark.line + 1}"
    if id(node) in seen:  # an alias; nested ones expand exponentially
        faults.append(Fault(where, "", "aliases are not allowed: use `extends` to share values"))
        return Tree(None, where)
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        try:
            return Tree(_scalar(node), where)
        except ValueError as error:
            faults.append(Fault(where, "", f"not a plain value: {error}"))
            return Tree(None, where)
    if isinstance(node, yaml.SequenceNode):
        return Tree([_convert(child, file, faults, seen) for child in node.value], where)
    assert isinstance(node, yaml.MappingNode)
    children: dict[str, Tree] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        at = f"{file}:{key_node.start_mark.line + 1}"
        if key is None or key == "<<" or not key.isprintable():
            faults.append(Fault(at, "", "a key must be plain text (use `extends` to share values)"))
            continue
        if key in children:
            first = children[key].where.rsplit(":", 1)[-1]
            faults.append(Fault(at, key, f"duplicate key (first in line {first}): keep one"))
        child = _convert(value_node, file, faults, seen)
        children[key] = Tree(child.value, at)
    return Tree(children, where)


@cache  # a plan reads its family's pipelines and its hardware a dozen times
def parse(text: str, file: str) -> Tree:
    """A YAML document as a tree. Raises UserError for syntax errors, duplicate keys and unsupported values."""
    try:
        node = documents.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        details = " ".join(part for part in (error.problem, error.context) if part)
        if "\t" in "".join(text.splitlines()[line - 1 : line]):
            details = "a tab: indent with spaces"
        raise fail(f"not valid YAML: {details}", f"{file}:{line}") from None
    except yaml.YAMLError as error:
        raise fail(f"not valid YAML: {str(error).splitlines()[0]}", f"{file}:1") from None
    if node is None:
        return Tree({}, f"{file}:1")
    faults: list[Fault] = []
    tree = _convert(node, file, faults, set())
    if faults:
        raise UserError(*faults)
    return tree


def load(path: Path, shown: str) -> Tree:
    """Load a YAML file that must contain a mapping. `shown` is its name in messages."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise fail(f"not UTF-8 text (byte {error.start})", shown) from None
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}", shown) from None
    tree = parse(text, shown)
    if not isinstance(tree.value, dict):
        raise fail("must be a mapping of keys to values", tree.where)
    return tree


def merge(below: Tree, above: Tree) -> Tree:
    """`above` merged over `below`: mappings key by key, everything else is replaced."""
    if isinstance(below.value, dict) and isinstance(above.value, dict):
        merged = dict(below.value)
        for key, child in above.value.items():
            merged[key] = merge(merged[key], child) if key in merged else child
        return Tree(merged, above.where)
    return above
