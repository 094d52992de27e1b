"""Values of C++ tests as data: validates JSON against types, writes the driver's input and parses its output (call.h).

Runs in the caller's process. The driver's output is untrusted: parsing any bytes either returns values of the declared
types or raises ValueProblem.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.code.cpp.declaration import INTEGERS, Declaration, Type

_SHORT = 60
# Exceptions that a case may expect; the driver (driver.cpp) reports all standard classes of an exception.
RAISES = ("any", "std::exception", *(f"std::{name}" for name in (
    "logic_error", "invalid_argument", "domain_error", "length_error", "out_of_range", "runtime_error", "range_error",
    "overflow_error", "underflow_error", "bad_alloc",
)))  # fmt: skip


class ValueProblem(ValueError):
    """A value that is not of its declared type; the message contains its path."""


def fitted(value: Any, kind: Type, where: str) -> Any:
    """`value` in the canonical form of its type: integers of a float type as floats, sets sorted, maps as sorted pairs,
    structs as objects. where: its path, for error messages. Raises ValueProblem.
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
    """The value's JSON, truncated, for error messages."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def _float(value: float, kind: Type, where: str) -> float:
    """The value rounded to the C++ type: `float` has 32 bits."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0] if kind.cpp == "float" else float(value)
    except OverflowError:
        raise ValueProblem(f"{where}: {str(value)[:30]} does not fit into {kind.cpp or 'a float'}") from None


def _pairs(value: Any, kind: Type, where: str) -> list[list[Any]]:
    """A map as sorted [key, value] pairs; a JSON object's keys, which are strings, are parsed as the map's key type."""
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
    """The values, sorted. Raises ValueProblem if one occurs twice."""
    if len({json.dumps(value) for value in values}) < len(values):
        raise ValueProblem(f"{where}: a member or key occurs twice")
    return _in_order(values)


def _in_order(values: list[Any]) -> list[Any]:
    """The values, sorted; structs, which have no order, by their JSON text."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=json.dumps)


def packed(values: Sequence[Any]) -> bytes:
    """The driver's input for these arguments (see `fitted`): a JSON array, with structs as arrays of their fields."""
    text = json.dumps([_arrays(value) for value in values], ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _arrays(value: Any) -> Any:
    """The value with every object replaced by the array of its values."""
    if isinstance(value, dict):
        return [_arrays(item) for item in value.values()]
    return [_arrays(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call. value: its result, None for a void function. changed: the values of mutable references
    after it. raised: the standard classes of the exception that it threw, the most derived first; None if it returned.
    message: the exception's text.
    """

    value: Any = None
    changed: tuple[Any, ...] = ()
    raised: tuple[str, ...] | None = None
    message: str = ""


def read_outcome(data: bytes, declaration: Declaration) -> Outcome:
    """Parse what the driver, or a program that took over its process, wrote. Raises ValueProblem."""
    try:
        written = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as problem:
        raise ValueProblem(f"the result cannot be read: {str(problem)[:_SHORT]}") from None
    if isinstance(written, dict):
        names, message = str(written.get("raised", "")), str(written.get("message", ""))
        return Outcome(raised=tuple(filter(None, names.split(","))), message=message)
    void = declaration.result.kind == "void"
    kinds = declaration.changed if void else [declaration.result, *declaration.changed]
    values = fitted(written, Type("tuple", tuple(kinds)), "the result")
    return Outcome(None if void else values[0], tuple(values if void else values[1:]))
