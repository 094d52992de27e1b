"""Values of C++ test data: JSON checked against types, as rows hold it and as the driver (call.h) reads and writes it.

What a program wrote is untrusted: whatever it is, reading it gives a value of the declared type or a ValueProblem.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.code.cpp.declaration import INTEGERS, Declaration, Type

_SHORT = 60
# What a case may expect to be thrown; the driver reports each of an exception's standard classes.
RAISES = ("any", "std::exception", *(f"std::{name}" for name in (
    "logic_error", "invalid_argument", "domain_error", "length_error", "out_of_range", "runtime_error", "range_error",
    "overflow_error", "underflow_error", "bad_alloc",
)))  # fmt: skip


class ValueProblem(ValueError):
    """A value that its type cannot hold; the message says where."""


def fitted(value: Any, kind: Type, where: str) -> Any:
    """The value as its type has it: integers among floats as floats, sets sorted, maps as sorted pairs, structs as
    objects. Raises ValueProblem.
    """
    match kind.kind:
        case "optional":
            return None if value is None else fitted(value, kind.args[0], where)
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            low, high = INTEGERS.get(kind.cpp, (-math.inf, math.inf))
            if low <= value <= high:
                return value
            raise ValueProblem(f"{where}: {str(value)[:_SHORT]} does not fit into {kind.cpp}")
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return _float(value, kind, where)
        case "bool" if isinstance(value, bool):
            return value
        case "str" if isinstance(value, str):
            return value
        case "char" if isinstance(value, str) and len(value) == 1 and value.isascii():
            return value
        case "list" if isinstance(value, list) and kind.size in (0, len(value)):
            return [fitted(item, kind.args[0], f"{where}[{at}]") for at, item in enumerate(value)]
        case "set" if isinstance(value, list):
            return _distinct([fitted(item, kind.args[0], f"{where}[{at}]") for at, item in enumerate(value)], where)
        case "tuple" if isinstance(value, list) and len(value) == len(kind.args):
            parts = enumerate(zip(value, kind.args, strict=True))
            return [fitted(item, arg, f"{where}[{at}]") for at, (item, arg) in parts]
        case "map" if isinstance(value, dict | list):
            return _pairs(value, kind, where)
        case "struct" if isinstance(value, list) and len(value) == len(kind.fields):
            return fitted(dict(zip(kind.fields, value, strict=True)), kind, where)
        case "struct" if isinstance(value, dict) and value.keys() == set(kind.fields):
            fields = zip(kind.fields, kind.args, strict=True)
            return {name: fitted(value[name], arg, f"{where}.{name}") for name, arg in fields}
    raise ValueProblem(f"{where}: {_shown(value)} is not a value of type {kind}")


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def _float(value: float, kind: Type, where: str) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0] if kind.cpp == "float" else float(value)
    except OverflowError:
        raise ValueProblem(f"{where}: {str(value)[:30]} does not fit into {kind.cpp or 'a float'}") from None


def _pairs(value: Any, kind: Type, where: str) -> list[list[Any]]:
    """A map as sorted pairs; an object's keys are read as the map's key type, for JSON has only strings."""
    items = list(value.items()) if isinstance(value, dict) else value
    key_type, value_type = kind.args
    pairs = []
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise ValueProblem(f"{where}: a map is an object or a list of [key, value] pairs")
        key = item[0]
        if isinstance(value, dict) and key_type.kind not in ("str", "char"):
            try:
                key = json.loads(key)
            except ValueError:
                raise ValueProblem(f"{where}: key {key[:_SHORT]!r} is not a value of type {key_type}") from None
        at = f"{where}[{str(key)[:20]}]"
        pairs.append([fitted(key, key_type, f"{at} (the key)"), fitted(item[1], value_type, at)])
    _distinct([pair[0] for pair in pairs], where)
    return _in_order(pairs)


def _distinct(values: list[Any], where: str) -> list[Any]:
    if len({json.dumps(value) for value in values}) < len(values):
        raise ValueProblem(f"{where}: a member or key occurs twice")
    return _in_order(values)


def _in_order(values: list[Any]) -> list[Any]:
    """Sorted; structs, which have no order, by their text."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=json.dumps)


def packed(values: Sequence[Any]) -> bytes:
    """Fitted arguments as the driver reads them: a struct is an array of its fields."""
    text = json.dumps([_arrays(value) for value in values], ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return [_arrays(item) for item in value.values()]
    return [_arrays(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Outcome:
    """What a call did. value: the result, None of a void function. changed: the values of mutable references.

    raised: the standard classes of the exception that it threw, the most derived first; None if it returned.
    """

    value: Any = None
    changed: tuple[Any, ...] = ()
    raised: tuple[str, ...] | None = None
    message: str = ""


def read_outcome(data: bytes, declaration: Declaration) -> Outcome:
    """What the driver wrote, or a program in its place. Raises ValueProblem."""
    try:
        given = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as problem:
        raise ValueProblem(f"the result cannot be read: {str(problem)[:_SHORT]}") from None
    if isinstance(given, dict):
        names, message = str(given.get("raised", "")), str(given.get("message", ""))
        return Outcome(raised=tuple(filter(None, names.split(","))), message=message)
    void = declaration.result.kind == "void"
    kinds = declaration.changed if void else [declaration.result, *declaration.changed]
    values = fitted(given, Type("tuple", tuple(kinds)), "the result")
    return Outcome(None if void else values[0], tuple(values if void else values[1:]))
