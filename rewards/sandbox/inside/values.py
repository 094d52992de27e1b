"""Encodes Python values as flat JSON tables, for the channel between a program and its tests (channel.py).

Used in both processes. A container is a node of the table and refers to its items by number, so that nesting of any
depth, shared objects and cycles are preserved, and nothing here recurses. Tables are untrusted: decoding creates only
values of the types listed here and runs no code of the other side. Standard library only; arrays need numpy on both
sides.
"""

import builtins
import datetime
import decimal
import fractions
import itertools
import pathlib
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from types import GeneratorType
from typing import Any

MOST_ITEMS = 100_000  # items encoded of an iterator, which may be infinite
_MOST_INT = 1 << 63  # larger integers are encoded in hexadecimal, which is parsed in linear time

Node = list[Any]  # a tag, then what it needs
Encoder = Callable[[Any], Node]  # for values that are not plain data
Decoder = Callable[[Node], Any]  # the inverse
KeptEncoder = Callable[[Any, str], Node | None]  # for a value and its tag, "error" for an exception

_INLINE = frozenset((type(None), bool, float, str))
_MAPPINGS: dict[str, Any] = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}
MUTABLE = frozenset((*_MAPPINGS, "list", "set", "deque", "bytearray", "object"))
CONTAINERS = (list, dict, set, deque, bytearray, Counter, OrderedDict)
# tag: type, constructor from a list of items
_SEQUENCES: dict[str, tuple[Any, Callable[[list[Any]], Any]]] = {
    **{kind.__name__: (kind, kind) for kind in (list, tuple, set, frozenset, deque)},
    "dict_keys": (type({}.keys()), lambda items: dict.fromkeys(items).keys()),
    "dict_values": (type({}.values()), lambda items: dict(enumerate(items)).values()),
    "dict_items": (type({}.items()), lambda items: dict(items).items()),
    "iterator": (type(iter([])), iter),
}
# tag: type, its parts, constructor from the parts
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
    "Path": (pathlib.PurePath, lambda v: (str(v),), pathlib.Path),
    "ellipsis": (type(...), lambda v: (), lambda: ...),
}
_TAGS: dict[Any, str] = {
    **{kind: tag for tag, kind in _MAPPINGS.items()},
    **{row[0]: tag for table in (_SEQUENCES, _ATOMS) for tag, row in table.items()},
    defaultdict: "dict",
}
_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d+")
_BUILTIN_TYPES: dict[type, str] = {kind: name for name, kind in vars(builtins).items() if isinstance(kind, type)}


class Values:
    """Encodes and decodes for one side.

    encode_other, decode_other: for values that are not plain data, e.g. objects of the program. classes: name -> class
    whose instances are sent as their attributes. expands: whether a generator is sent as its items, as other iterators
    are, instead of by `encode_other`. encode_kept: for exceptions and instances of subclasses of plain types, which may
    stay in the program's process: a "handle" node, or the start of a "kept" node, which the plain data completes.
    """

    def __init__(
        self,
        encode_other: Encoder,
        decode_other: Decoder,
        expands: Callable[[Any], bool] = lambda generator: False,
        encode_kept: KeptEncoder = lambda value, tag: None,
    ) -> None:
        self._encode_other, self._decode_other = encode_other, decode_other
        self._expands, self._encode_kept = expands, encode_kept
        self.classes: dict[str, type] = {}

    def encode(
        self, value: Any, objects: Iterable[Any] = (), nodes: Sequence[Node] = ()
    ) -> tuple[Any, list[Node], list[Any]]:
        """Returns (reference to `value`, nodes, objects of the nodes).

        objects, nodes: a table that `decode` read, which the new one extends: its mutable objects are encoded again,
        with the same numbers.
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
        encoded: list[Node] = []
        while len(encoded) < len(objects):
            at = len(encoded)
            unchanged = at < len(nodes) and nodes[at][0] not in MUTABLE
            encoded.append(nodes[at] if unchanged else self._node(objects[at], refer))
        return root, encoded, objects

    def _node(self, value: Any, refer: Callable[[Any], Any]) -> Node:
        """The node of a value. refer: the reference to a part, which it adds to the table."""
        kind = type(value)
        tag = _tag(kind)
        if not tag and isinstance(value, Iterator) and kind.__module__ in ("builtins", "itertools"):
            tag = "iterator" if kind is not GeneratorType or self._expands(value) else ""
        tag = "error" if isinstance(value, Exception) else tag
        if tag and kind not in _TAGS and (kept := self._encode_kept(value, tag)):
            return kept if kept[0] == "handle" else [*kept, refer(plain(value))]
        if tag == "error":
            return ["error", class_names(kind), refer(value.args), refer(vars(value))]
        if tag == "tuple" and isinstance(fields := getattr(value, "_fields", None), tuple):
            return ["namedtuple", kind.__name__, list(fields), [refer(item) for item in value]]
        if tag in _SEQUENCES:
            items = list(itertools.islice(value, MOST_ITEMS if tag == "iterator" else None))
            return [tag, items if _all_inline(items) else [refer(item) for item in items]]
        if tag in _MAPPINGS:
            return [tag, [refer(key) for key in dict.keys(value)], [refer(item) for item in dict.values(value)]]
        if tag in _ATOMS:
            return [tag, *map(refer, _ATOMS[tag][1](value))]
        if self.classes.get(kind.__name__) is kind and hasattr(value, "__dict__"):
            return ["object", kind.__name__, list(vars(value)), [refer(item) for item in vars(value).values()]]
        if isinstance(value, type) and value in _BUILTIN_TYPES:
            return ["type", _BUILTIN_TYPES[value]]
        numpy = sys.modules.get("numpy")
        array = numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))
        if array and _DTYPE.fullmatch(value.dtype.str):
            return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]
        return self._encode_other(value)

    def decode(self, nodes: Sequence[Node], known: Sequence[Any] = ()) -> list[Any]:
        """The object of each node; `known` are those of the first nodes. Raises ValueError for an invalid table."""
        try:
            return self._decode(nodes, list(known))
        except (TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RecursionError) as problem:
            raise ValueError(f"unreadable values: {type(problem).__name__}") from None

    def _decode(self, nodes: Sequence[Node], objects: list[Any]) -> list[Any]:
        """Create mutable objects empty, then immutable ones after their parts, then fill the mutable ones."""
        new = range(len(objects), len(nodes))
        objects += [self._empty(nodes[number]) for number in new]
        mutable = [number for number in new if objects[number] is not None]
        unbuilt = set(new) - set(mutable)
        stack, waiting, get = list(unbuilt), set(), reader(objects)
        while stack:
            top = stack[-1]
            missing = unbuilt.intersection(_parts(nodes[top])) if top in unbuilt else None
            if missing and top in waiting:
                raise ValueError("a tuple that holds itself")
            if missing:
                waiting.add(top)
                stack += missing
                continue
            stack.pop()
            if missing is not None:
                objects[top] = self._immutable(nodes[top], get)
                unbuilt.remove(top)
        # Objects first: their attributes must be set before a set or dict calls their __hash__.
        for number in sorted(mutable, key=lambda number: nodes[number][0] != "object"):
            fill(objects[number], nodes[number], get)
        return objects

    def _empty(self, node: Node) -> Any:
        """An empty mutable object; None if the node is immutable, so that its parts must exist before it."""
        tag = node[0]
        if tag == "object":
            return object.__new__(self.classes[node[1]])
        if tag in MUTABLE and tag != "bytearray":
            return _MAPPINGS[tag]() if tag in _MAPPINGS else _SEQUENCES[tag][0]()
        return None

    def _immutable(self, node: Node, get: Callable[[Any], Any]) -> Any:
        """The object of an immutable node. get: the object of a reference."""
        tag = node[0]
        if tag in _ATOMS:
            return _ATOMS[tag][2](*map(get, node[1:]))
        if tag in _SEQUENCES:
            return _SEQUENCES[tag][1]([get(item) for item in node[1]])
        if tag == "namedtuple":
            return _namedtuple(node[1], tuple(node[2]))(*map(get, node[3]))
        if tag in ("kept", "error"):
            return self._decode_other([*node[:2], *map(get, node[2:])])
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
        return self._decode_other(node)


def _tag(kind: type) -> str:
    """The tag of a plain type; for a subclass that of its base class."""
    return next((_TAGS[base] for base in kind.__mro__ if base in _TAGS), "")


def plain(value: Any) -> Any:
    """The plain data in an instance of a subclass of a plain type. Calls no method of the subclass."""
    tag = _tag(type(value))
    if tag in _MAPPINGS:
        return dict(zip(dict.keys(value), dict.values(value), strict=True))
    if tag in _ATOMS:
        return _ATOMS[tag][2](*_ATOMS[tag][1](value))
    base, make = _SEQUENCES[tag]
    if isinstance(fields := getattr(value, "_fields", None), tuple):
        make = _namedtuple(type(value).__name__, fields)._make
    return make(list(base.__iter__(value)))


def class_names(kind: type) -> list[list[str]]:
    """Module and name of a class and of its base classes, in method resolution order."""
    return [[base.__module__, base.__name__] for base in kind.__mro__]


def reader(objects: Sequence[Any]) -> Callable[[Any], Any]:
    """A function from a reference to its object, and from an inline value to itself."""
    return lambda reference: objects[reference[0]] if type(reference) is list else reference


def fill(target: Any, node: Node, get: Callable[[Any], Any]) -> None:
    """Replace the contents of a mutable object by those of its node. get: see `reader`."""
    tag = node[0]
    if tag == "object":
        vars(target).clear()
        set_attributes(target, zip(node[2], map(get, node[3]), strict=True))
    elif tag == "bytearray":
        target[:] = bytes.fromhex(node[1])
    else:
        target.clear()
        if tag in _MAPPINGS:
            dict.update(target, zip(map(get, node[1]), map(get, node[2]), strict=True))
        else:
            (target.update if tag == "set" else target.extend)([get(item) for item in node[1]])


def set_attributes(target: Any, attributes: Iterable[tuple[Any, Any]]) -> None:
    """Set attributes of an object, except those that would replace a method: the other side could forge its result."""
    kind = type(target)
    named = ((name, value) for name, value in attributes if type(name) is str and name != "_proxy_handle")
    vars(target).update((name, value) for name, value in named if not callable(getattr(kind, name, None)))


def _parts(node: Node) -> list[int]:
    """Numbers of the nodes that an immutable node refers to."""
    tag = node[0]
    parts = node[-1] if tag in _SEQUENCES or tag == "namedtuple" else node[1:] if tag in _ATOMS else ()
    parts = node[2:] if tag in ("kept", "error") else parts
    return [part[0] for part in parts if type(part) is list]


_namedtuple: Callable[[str, tuple[str, ...]], Any] = lru_cache(maxsize=64)(namedtuple)


def _all_inline(items: list[Any]) -> bool:
    """Whether no item needs a node of its own."""
    kinds = set(map(type, items))
    return kinds <= _INLINE or (kinds == {int} and min(items) > -_MOST_INT and max(items) < _MOST_INT)
