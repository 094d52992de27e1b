"""Types of a trainer's settings, as far as YAML can tell them apart; for the programs that list its keys."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

SCALARS = (bool, int, float, str)


def alternatives(hint: Any) -> list[Any]:
    """The members of a union but None; of another type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for member in typing.get_args(hint) if member is not type(None)]
    return [hint]


def scalar(hint: Any) -> str:
    """bool, int, float or str, "any" for all else."""
    members = alternatives(hint)
    return members[0].__name__ if len(members) == 1 and members[0] in SCALARS else "any"


def dataclass_of(hint: Any) -> type | None:
    """The dataclass among the members, if there is one."""
    members = (member for member in alternatives(hint) if isinstance(member, type) and dataclasses.is_dataclass(member))
    return next(members, None)


def is_mapping(hint: Any) -> bool:
    """Whether one of the members is a dict."""
    return any(member is dict or typing.get_origin(member) is dict for member in alternatives(hint))
