"""Python values as flat JSON tables, for the channel between a program and its tests (channel.py).

A container is a node of the table and refers to what it holds by number, so nesting of any depth, shared objects and
cycles all survive, and nothing here recurses. Decoding builds values of the types listed here and nothing else: it
runs no code of the other side. Standard library only; arrays need numpy on both sides.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import fractions
import itertools
import json
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

MOST_ITEMS = 100_000  # taken from an iterator that is handed over, which may have no end
_MOST_INT = 1 << 63  # larger ones in hexadecimal, which is read in linear time

Node = list[Any]
Encoder = Callable[[Any], Node]  # of a value that is no data; raises what its side answers with
Decoder = Callable[[Node], Any]

_INLINE = frozenset((type(None), bool, float, str))
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_MAPPINGS: dict[str, Any] = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}
MUTABLE = frozenset(("list", "set", "deque", "dict", "Counter", "OrderedDict", "bytearray", "object"))
# tag: type, its parts, how it is made of them
_ATOMS: dict[str, tuple[Any, Callable[[Any], Sequence[Any]], Callable[..., Any]]] = {
    "int": (int, lambda v: (hex(v),), lambda text: int(text, 16)),
    "float": (float, lambda v: (float.__float__(v),), float),
    "str": (str, lambda v: (str.__str__(v),), str),
    "bytes": (bytes, lambda v: (v.hex(),), bytes.fromhex),
    "bytearray": (bytearray, lambda v: (v.hex(),), bytearray.fromhex),
    "complex": (complex, lambda v: (v.real, v.imag), complex),
    "range": (range, lambda v: (v.start, v.stop, v.step), range),
    "slice": (slice, lambda v: (v.start, v.stop, v.step), slice),
    "Fraction": (fractions.Fraction, lambda v: (v.numerator, v.denominator), fractions.Fraction),
    "Decimal": (decimal.Decimal, lambda v: (str(v),), decimal.Decimal),
    "datetime": (datetime.datetime, lambda v: (v.isoformat(),), datetime.datetime.fromisoformat),
    "date": (datetime.date, lambda v: (v.isoformat(),), datetime.date.fromisoformat),
    "time": (datetime.time, lambda v: (v.isoformat(),), datetime.time.fromisoformat),
    "timedelta": (datetime.timedelta, lambda v: (v.days, v.seconds, v.microseconds), datetime.timedelta),
    "ellipsis": (type(...), lambda v: (), lambda: ...),
    "NotImplemented": (type(NotImplemented), lambda v: (), lambda: NotImplemented),
}
_VIEWS: dict[str, Callable[[list[Any]], Any]] = {
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
}
_ITERABLES: tuple[Any, ...] = ([], (), {}, set(), "", "é", b"", range(0), {}.values(), {}.items(), reversed([]))
_ITERATORS: tuple[Any, ...] = (
    *{type(iter(items)) for items in _ITERABLES}, map, filter, zip, enumerate, reversed, itertools.chain,
    itertools.islice,
)  # fmt: skip
_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d+")


_BUILTIN_TYPES: dict[type, str] = {kind: name for name, kind in vars(builtins).items() if isinstance(kind, type)}


def tag_of(value: Any) -> str:
    """The tag of data by its type, of a subclass by the first base that has one; "" for what is no data."""
    for kind in type(value).__mro__:
        if kind in _TAGS:
            return _TAGS[kind]
    return ""


_TAGS: dict[Any, str] = {
    **{kind: tag for tags in (_SEQUENCES, _MAPPINGS) for tag, kind in tags.items()},
    **{kind: tag for tag, (kind, _, _) in _ATOMS.items()},
    type({}.keys()): "dict_keys", type({}.values()): "dict_values", type({}.items()): "dict_items", defaultdict: "dict",
    **dict.fromkeys(_ITERATORS, "iterator"),
}  # fmt: skip


class Values:
    """Encodes and decodes for one side.

    other, made: nodes of what is no data. classes: whose instances are sent by their attributes. consumed: types
    whose instances are sent as iterators over their items.
    """

    def __init__(self, other: Encoder, made: Decoder, consumed: tuple[type, ...] = ()) -> None:
        self._other, self._made, self.consumed = other, made, consumed
        self.classes: dict[str, type] = {}

    def encode(
        self, value: Any, objects: Iterable[Any] = (), nodes: Sequence[Node] = ()
    ) -> tuple[Any, list[Node], list[Any]]:
        """(reference to `value`, nodes, their objects). objects, nodes: a table to begin with, as `decode` had it:
        what can have changed in it is encoded again, under its number.
        """
        objects = list(objects)
        numbers = {id(item): number for number, item in enumerate(objects)}

        def refer(item: Any) -> Any:
            kind = type(item)
            if kind in _INLINE or (kind is int and -_MOST_INT < item < _MOST_INT):
                return item
            number = numbers.setdefault(id(item), len(objects))
            if number == len(objects):
                objects.append(item)  # which also keeps its id from being used again
            return [number]

        root = refer(value)
        made: list[Node] = []
        while len(made) < len(objects):
            at = len(made)
            kept = at < len(nodes) and nodes[at][0] not in MUTABLE
            made.append(nodes[at] if kept else self._node(objects[at], refer))
        return root, made, objects

    def _node(self, value: Any, refer: Callable[[Any], Any]) -> Node:
        tag = tag_of(value)
        if tag == "tuple" and isinstance(fields := getattr(value, "_fields", None), tuple):
            return ["namedtuple", type(value).__name__, list(fields), [refer(item) for item in value]]
        if tag in _SEQUENCES or tag in _VIEWS:
            items = list(value)
            return [tag, items if _all_inline(items) else [refer(item) for item in items]]
        if tag in _MAPPINGS:
            return [tag, [refer(key) for key in dict.keys(value)], [refer(item) for item in dict.values(value)]]
        if tag in _ATOMS:
            return [tag, *map(refer, _ATOMS[tag][1](value))]
        if tag == "iterator" or isinstance(value, self.consumed):
            return ["iterator", [refer(item) for item in itertools.islice(value, MOST_ITEMS)]]
        kind = type(value)
        if self.classes.get(kind.__name__) is kind and hasattr(value, "__dict__"):
            return ["object", kind.__name__, list(vars(value)), [refer(item) for item in vars(value).values()]]
        if isinstance(value, type) and value in _BUILTIN_TYPES:
            return ["type", _BUILTIN_TYPES[value]]
        numpy = sys.modules.get("numpy")
        array = numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))
        if array and _DTYPE.fullmatch(value.dtype.str):
            return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]
        return self._other(value)

    def decode(self, nodes: Sequence[Node], known: Sequence[Any] = ()) -> list[Any]:
        """The object of each node; the first ones are given by `known`. Raises ValueError for no such table."""
        try:
            return _Decoded(self, nodes, known).objects
        except (TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RecursionError) as problem:
            raise ValueError(f"unreadable values: {type(problem).__name__}") from None

    def shell(self, node: Node) -> Any:
        """An object that is filled afterwards; None for a node whose parts must exist before it."""
        tag = node[0]
        if tag == "object":
            return object.__new__(self.classes[node[1]])
        if tag in MUTABLE and tag != "bytearray":
            return (_SEQUENCES.get(tag) or _MAPPINGS[tag])()
        return None

    def atom(self, node: Node, get: Callable[[Any], Any]) -> Any:
        """What stands for a node that is no shell, its parts made."""
        tag = node[0]
        if tag in _ATOMS:
            return _ATOMS[tag][2](*map(get, node[1:]))
        if tag in _VIEWS or tag in _SEQUENCES or tag == "iterator":
            return (_VIEWS.get(tag) or _SEQUENCES.get(tag) or iter)([get(item) for item in node[1]])
        if tag == "namedtuple":
            return _namedtuple(node[1], tuple(node[2]))(*map(get, node[3]))
        if tag == "type":
            kind = getattr(builtins, node[1])
            if not isinstance(kind, type):
                raise ValueError("no type")
            return kind
        if tag == "array":
            if not _DTYPE.fullmatch(node[1]):
                raise ValueError("no array of plain values")
            import numpy

            return numpy.frombuffer(bytearray.fromhex(node[3]), dtype=node[1]).reshape(node[2])[()]
        return self._made(node)


def fill(target: Any, node: Node, get: Callable[[Any], Any]) -> None:
    """Give a mutable object what its node says, instead of what it holds."""
    tag = node[0]
    if tag == "object":
        vars(target).clear()
        vars(target).update(zip(map(str, node[2]), map(get, node[3]), strict=True))
    elif tag == "bytearray":
        target[:] = bytes.fromhex(node[1])
    else:
        target.clear()
        if tag in _MAPPINGS:
            dict.update(target, zip(map(get, node[1]), map(get, node[2]), strict=True))
        else:
            (target.update if tag == "set" else target.extend)([get(item) for item in node[1]])


class _Decoded:
    """Builds the objects of a table: shells first, then what is immutable from its parts up, then the contents."""

    def __init__(self, values: Values, nodes: Sequence[Node], known: Sequence[Any]) -> None:
        self._values, self._nodes = values, nodes
        self.objects: list[Any] = list(known)
        shells = [values.shell(node) for node in nodes[len(known) :]]
        self.objects += shells
        self._open = {number for number in range(len(known), len(nodes)) if self.objects[number] is None}
        for number in list(self._open):
            self._build(number)
        filled = [(shell, node) for shell, node in zip(shells, nodes[len(known) :], strict=True) if shell is not None]
        for shell, node in sorted(filled, key=lambda pair: pair[1][0] != "object"):  # a set may ask for their hashes
            fill(shell, node, self.get)

    def get(self, reference: Any) -> Any:
        return self.objects[reference[0]] if type(reference) is list else reference

    def _build(self, number: int) -> None:
        stack, seen = [number], set()
        while stack:
            top = stack[-1]
            if top not in self._open:
                stack.pop()
                continue
            missing = [part for part in _parts(self._nodes[top]) if part in self._open]
            if missing and top in seen:
                raise ValueError("a tuple that holds itself")
            if missing:
                seen.add(top)
                stack += missing
            else:
                self.objects[top] = self._values.atom(self._nodes[top], self.get)
                self._open.remove(top)


def _parts(node: Node) -> list[int]:
    """Numbers of the nodes that an immutable node refers to."""
    if node[0] in _SEQUENCES or node[0] in _VIEWS or node[0] in ("iterator", "namedtuple"):
        return [item[0] for item in node[-1] if type(item) is list]
    return [item[0] for item in node[1:] if type(item) is list] if node[0] in _ATOMS else []


@lru_cache(maxsize=64)
def _namedtuple(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def _all_inline(items: list[Any]) -> bool:
    kinds = set(map(type, items))
    return kinds <= _INLINE or (kinds == {int} and min(items) > -_MOST_INT and max(items) < _MOST_INT)


def same_node(one: Node, other: Node) -> bool:
    """By text: True is not 1, and NaN is itself."""
    return json.dumps(one) == json.dumps(other)
