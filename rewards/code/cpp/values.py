"""Values of C++ test data: JSON checked against types, and the bytes that the driver (call.h) reads and writes.

Numbers are 8 bytes, little-endian: integers as such, floats as IEEE doubles. bool and char are a byte, a string is
its length and its bytes, a container its length and its members, an optional a byte and perhaps a value; tuples and
structs are their parts. Bytes from a program are untrusted: whatever they hold, reading gives a value or ResultError.
"""

from __future__ import annotations

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


class ResultError(ValueError):
    """Bytes that are no result of the declared types."""


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
        return struct.unpack("<f", struct.pack("<f", value))[0] if kind.cpp == "float" else float(value)  # type: ignore[no-any-return]
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


def pack(value: Any, kind: Type) -> bytes:
    """The bytes of a fitted value."""
    match kind.kind:
        case "int":
            return struct.pack(_format(kind), value)
        case "float":
            return struct.pack("<d", value)
        case "bool":
            return b"\1" if value else b"\0"
        case "char":
            return bytes([ord(value)])
        case "str":
            text = value.encode("utf-8", "surrogateescape" if _escaped(value) else "surrogatepass")
            return struct.pack("<Q", len(text)) + text
        case "optional":
            return b"\0" if value is None else b"\1" + pack(value, kind.args[0])
        case "struct":
            return b"".join(pack(value[name], arg) for name, arg in zip(kind.fields, kind.args, strict=True))
        case "tuple":
            return b"".join(pack(item, arg) for item, arg in zip(value, kind.args, strict=True))
    start = b"" if kind.size else struct.pack("<Q", len(value))
    if kind.kind == "map":
        return start + b"".join(pack(part, arg) for pair in value for part, arg in zip(pair, kind.args, strict=True))
    if kind.args[0].kind in ("int", "float"):
        return start + struct.pack(f"<{len(value)}{_format(kind.args[0])[1:]}", *value)
    return start + b"".join(pack(item, kind.args[0]) for item in value)


def _format(kind: Type) -> str:
    return "<d" if kind.kind == "float" else "<Q" if INTEGERS[kind.cpp][0] == 0 else "<q"


def _escaped(text: str) -> bool:
    """Whether lone surrogates stand for bytes that are no UTF-8, as in strings that `Outcome` holds."""
    return any("\udc80" <= char <= "\udcff" for char in text)


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
    """What the driver wrote, or a program in its place. Raises ResultError."""
    if data[:1] == b"E":
        names, _, message = data[1:4096].decode("utf-8", "replace").partition("\n")
        return Outcome(raised=tuple(filter(None, names.split(","))), message=message)
    reader = _Bytes(data, 1)
    kinds = declaration.changed if declaration.result.kind == "void" else [declaration.result, *declaration.changed]
    values = [reader.value(kind) for kind in kinds]
    if data[:1] != b"V" or reader.at != len(data):
        raise ResultError("the driver's result is damaged")
    void = declaration.result.kind == "void"
    return Outcome(None if void else values[0], tuple(values if void else values[1:]))


class _Bytes:
    """Reads values; each takes at least one byte, so that a length is never above what is left."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise ResultError("the driver's result ends too early")
        self.at += size
        return self._data[self.at - size : self.at]

    def value(self, kind: Type) -> Any:
        match kind.kind:
            case "int" | "float":
                return struct.unpack(_format(kind), self._take(8))[0]
            case "bool":
                return self._take(1) != b"\0"
            case "char":
                return self._take(1).decode("latin-1")
            case "str":
                return self._take(self._length()).decode("utf-8", "surrogateescape")
            case "optional":
                return None if self._take(1) == b"\0" else self.value(kind.args[0])
            case "struct":
                return {name: self.value(arg) for name, arg in zip(kind.fields, kind.args, strict=True)}
            case "tuple":
                return [self.value(arg) for arg in kind.args]
        return self._container(kind, kind.size or self._length())

    def _length(self) -> int:
        (length,) = struct.unpack("<Q", self._take(8))
        if length > len(self._data) - self.at:
            raise ResultError("the driver's result ends too early")
        return int(length)

    def _container(self, kind: Type, length: int) -> Any:
        if kind.kind == "map":
            return _in_order([[self.value(arg) for arg in kind.args] for _ in range(length)])
        if kind.args[0].kind in ("int", "float"):
            numbers: Sequence[Any] = struct.unpack(f"<{length}{_format(kind.args[0])[1:]}", self._take(8 * length))
            items = list(numbers)
        else:
            items = [self.value(kind.args[0]) for _ in range(length)]
        return _in_order(items) if kind.kind == "set" else items
