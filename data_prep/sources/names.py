"""What columns of records and fields of messages hold, by their names in names.toml, looked up once for each layout."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

_NAMES = tomllib.loads(Path(__file__).with_name("names.toml").read_text("utf-8"))
ROLES = {name: role for role, given in _NAMES["roles"].items() for name in given}
COLUMNS: dict[str, tuple[str, ...]] = {kind: tuple(paths) for kind, paths in _NAMES["columns"].items()}
_PATTERNS = {  # a long one is in parts
    kind: re.compile("".join(parts), re.IGNORECASE) for kind, parts in (_NAMES["fields"] | _NAMES["unheld"]).items()
}
_PAIR = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _NAMES["pair"].items()}


class Pair(NamedTuple):
    """Two columns of answers by what tells them apart (0, 1, 2, a, b), and those that say which is preferred."""

    sides: Mapping[str, str]
    choices: tuple[str, ...]
    signed: tuple[str, ...]


class Layout(NamedTuple):
    """The names of a record's columns, or of a message's fields, by what they hold.

    paths: of each kind in [columns], those that may have a value. fields: the names of each kind in [fields]. unheld:
    names with the reason to drop the record. renamed: names in another spelling, with ours. unread: names of no kind.
    """

    paths: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, tuple[str, ...]]
    unheld: tuple[tuple[str, str], ...]
    renamed: Mapping[str, str]
    pair: Pair | None
    unread: tuple[str, ...]


def layout_of(given: Mapping[str, Any]) -> Layout:
    """That of a record or message. Records of a file mostly have the same."""
    return _layout(tuple(given))


@lru_cache(4096)
def _layout(names: tuple[str, ...]) -> Layout:
    known = {root(path) for paths in COLUMNS.values() for path in paths}
    spelled = {_plain(name).lower(): name for name in reversed(names)}
    reasons = ((name, next((kind for kind in _NAMES["unheld"] if kind in kinds(name)), None)) for name in names)
    renamed = {name: ours for ours, name in spelled.items() if ours in known and ours not in names}
    pair = _pair(names)
    read = {*known, *renamed, *((*pair.sides.values(), *pair.choices, *pair.signed) if pair else ())}
    return Layout(
        {kind: tuple(p for p in paths if p in names or root(p) in names) for kind, paths in COLUMNS.items()},
        {kind: tuple(name for name in names if kind in kinds(name)) for kind in _NAMES["fields"]},
        tuple((name, reason) for name, reason in reasons if reason),
        renamed,
        pair,
        tuple(name for name in names if name not in read and not kinds(name)),
    )


def _pair(names: tuple[str, ...]) -> Pair | None:
    """The two answers of a preference whose columns differ in a number or letter; None without, or with more."""
    stems: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _PAIR["side"].fullmatch(_plain(name)):
            stems.setdefault(match[1].lower(), {})[match[2].lower()] = name
    pairs = [sides for sides in stems.values() if "".join(sorted(sides)) in ("01", "12", "ab")]
    choices, signed = (tuple(n for n in names if _PAIR[kind].fullmatch(_plain(n))) for kind in ("choice", "signed"))
    return Pair(dict(sorted(pairs[0].items())), choices, signed) if len(pairs) == 1 and (choices or signed) else None


@cache
def kinds(name: str) -> frozenset[str]:
    """The kinds of [fields] and [unheld] that a name is of."""
    return frozenset(kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(_plain(name)))


@cache
def root(path: str) -> str:
    """The column that a path such as `a.b` or `a[0]` starts in."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _plain(name: str) -> str:
    """A name without blanks, as the patterns have it."""
    return str(name).strip().replace(" ", "_")  # keys of Parquet's maps may be numbers
