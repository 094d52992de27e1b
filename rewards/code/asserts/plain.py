"""Python values as JSON: what a program under test and its tests may hand each other, and nothing alive.

Used inside the sandbox on both sides; standard library only. Numbers, texts, booleans and None are themselves;
anything else is [tag, …]. What is left (instances, functions) goes to `other`, which knows what the side may do.
"""

import collections
import decimal
import fractions
import itertools
import types
from collections.abc import Callable
from typing import Any

MOST_ITEMS = 100_000  # taken from an iterator, which may have no end
MOST_INT = 1 << 63  # beyond it in hexadecimal: Python refuses to read decimals of more than 4300 digits

_SEQUENCES: dict[Any, str] = {
    list: "list", tuple: "tuple", set: "set", frozenset: "frozenset", collections.deque: "deque",
}  # fmt: skip
_MAKERS: dict[str, Callable[[Any], Any]] = {tag: kind for kind, tag in _SEQUENCES.items()}
_ITERATORS: tuple[Any, ...] = (
    types.GeneratorType, map, filter, zip, enumerate, reversed, type(iter([])), type(iter(())), type(iter({})),
    type(iter(set())), type({}.keys()), type({}.values()), type({}.items()), itertools.chain, itertools.islice,
)  # fmt: skip


def encode(value: Any, other: Callable[[Any], Any]) -> Any:
    """`value` as JSON. Iterators are used up."""
    if isinstance(value, int) and not -MOST_INT < value < MOST_INT:
        return ["int", hex(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for kind, tag in _SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [encode(item, other) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[encode(key, other), encode(item, other)] for key, item in value.items()]]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes" if isinstance(value, bytes) else "bytearray", value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, fractions.Fraction):
        return ["fraction", value.numerator, value.denominator]
    if isinstance(value, decimal.Decimal):
        return ["decimal", str(value)]
    if isinstance(value, _ITERATORS):
        return ["iterator", [encode(item, other) for item in itertools.islice(value, MOST_ITEMS)]]
    return other(value)


def decode(value: Any, other: Callable[[list[Any]], Any]) -> Any:
    """What `encode` made `value` from; `other` gets the tags that it does not know."""
    if not isinstance(value, list):
        return value
    tag = value[0]
    if tag in _MAKERS or tag == "iterator":
        items = [decode(item, other) for item in value[1]]
        return iter(items) if tag == "iterator" else _MAKERS[tag](items)
    if tag == "dict":
        return {decode(key, other): decode(item, other) for key, item in value[1]}
    if tag in ("bytes", "bytearray"):
        return (bytes if tag == "bytes" else bytearray).fromhex(value[1])
    if tag in ("complex", "range", "fraction"):
        return {"complex": complex, "range": range, "fraction": fractions.Fraction}[tag](*value[1:])
    if tag == "int":
        return int(value[1], 16)
    if tag == "decimal":
        return decimal.Decimal(value[1])
    return other(value)
