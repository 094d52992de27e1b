"""Compares a program's output or result with the expected one, in the caller's process; outputs are untrusted.

The default is exact: all lines of standard output, and results with their JSON types. Every leniency is a parameter;
configs/tasks/ sets what each benchmark's own harness does. Time and memory are bounded by the size of the expected
value, however large the output is: the comparison ends at the first difference.
"""

import io
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Literal

Spacing = Literal["lines", "stripped", "nonblank", "tokens", "unordered"]
Numbers = Literal["text", "value"]
Types = Literal["exact", "equal"]

_BLANK = b" \t\r\x0b\x0c"
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_NONBLANK, _TOKEN = re.compile(rb"\S[^\n]*"), re.compile(rb"\S+")
_MOST_DIGITS = 4000  # CPython rejects integers of more than 4300 digits, and parsing takes quadratic time
_LONGEST_SCALAR = 32  # a result's JSON text may be this many times as long as that of the expected value


def same_output(
    output: bytes, expected: str, spacing: Spacing = "lines", tolerance: float = 0.0, numbers: Numbers = "text"
) -> bool:
    """Whether standard output equals the text `expected`.

    spacing: "lines" ignores whitespace at the end of lines and blank lines at the end; "stripped" also whitespace
    before lines and blank lines at the start; "nonblank" also all other blank lines; "tokens" compares
    whitespace-separated tokens and ignores line breaks; "unordered" is "lines" in any order.
    numbers: "text", or "value": lines that consist of numbers are compared as decimals, so that 0.50 equals 0.5.
    tolerance: largest difference, absolute or relative to the expected number, between two numbers that are not both
    integers.
    """
    # A lone surrogate in JSON is not valid UTF-8: an expected text with one is compared as bytes.
    text = expected.encode("utf-8", "surrogatepass")
    if output == text:
        return True
    if spacing in ("lines", "stripped", "unordered"):
        strip = bytes.strip if spacing == "stripped" else bytes.rstrip
        output, text = strip(output, _BLANK + b"\n"), strip(text, _BLANK + b"\n")
        if output.count(b"\n") != text.count(b"\n"):
            return False
    return all(
        a == b or (a is not None and b is not None and _same_numbers(a, b, tolerance, numbers))
        for a, b in zip_longest(_pieces(output, spacing), _pieces(text, spacing))
    )


def _same_numbers(output: bytes, expected: bytes, tolerance: float, numbers: Numbers) -> bool:
    """Whether two lines that differ as text are equal under `tolerance` and `numbers`."""
    if not tolerance and numbers == "text":
        return False
    expected_words = expected.split()
    words = output.split(None, len(expected_words))
    if len(words) != len(expected_words):
        return False
    pairs = list(zip(words, expected_words, strict=True))
    decimal = numbers == "value" and all(map(_NUMBER.fullmatch, words + expected_words))
    if decimal and all(a == b or Decimal(a.decode()) == Decimal(b.decode()) for a, b in pairs):
        return True
    return tolerance > 0 and all(a == b or _near_tokens(a, b, tolerance) for a, b in pairs)


def _near_tokens(output: bytes, expected: bytes, tolerance: float) -> bool:
    """Whether two tokens are numbers that are equal (two integers) or within the tolerance."""
    if not (_NUMBER.fullmatch(output) and _NUMBER.fullmatch(expected)):
        return False
    if _INTEGER.fullmatch(output) and _INTEGER.fullmatch(expected):
        return _digits(output) == _digits(expected)
    return near(float(output), float(expected), tolerance)


def same_result(result: bytes, expected: Any, tolerance: float = 0.0, types: Types = "exact") -> bool:
    """Whether the JSON text `result` equals the JSON value `expected`: same values in the same order.

    types: "exact": JSON types must match, or "equal": as Python's == (2.0 equals 2, True equals 1). tolerance: as in
    `same_output`, for two numbers that are not both integers. NaN and infinities equal themselves. Text that is not
    valid JSON equals nothing.
    """
    text = json.dumps(expected, separators=(",", ":")).encode()
    if result == text:
        return True
    if len(result) > _LONGEST_SCALAR * len(text):
        return False
    try:
        value = json.loads(result, parse_int=_integer)
    except (ValueError, RecursionError):
        return False
    pairs = [(value, expected)]  # a stack: results may be nested deeper than Python can recurse
    while pairs:
        a, b = pairs.pop()
        if type(a) is list and type(b) is list and len(a) == len(b):
            pairs.extend(zip(a, b, strict=True))
        elif type(a) is dict and type(b) is dict and a.keys() == b.keys():
            pairs.extend((a[key], b[key]) for key in a)
        elif isinstance(a, (list, dict)) or not _same_scalar(a, b, tolerance, types):
            return False
    return True


def _same_scalar(value: Any, expected: Any, tolerance: float, types: Types) -> bool:
    """Whether two JSON values, of which `value` is not a container, are equal under `tolerance` and `types`."""
    equal = value == expected or (value != value and expected != expected)  # NaN does not equal itself
    if equal and (types == "equal" or type(value) is type(expected)):
        return True
    kinds = {type(value), type(expected)}
    if not tolerance or float not in kinds or not kinds <= {int, float}:
        return False
    try:
        return near(float(value), float(expected), tolerance)
    except OverflowError:  # an integer too large for a float
        return False


def _pieces(text: bytes, spacing: Spacing) -> Iterator[bytes]:
    """The lines or tokens to compare, generated lazily."""
    if spacing == "tokens":
        return (match.group() for match in _TOKEN.finditer(text))
    if spacing == "nonblank":
        return (match.group().rstrip() for match in _NONBLANK.finditer(text))
    if spacing == "stripped":
        return (line.strip() for line in io.BytesIO(text))
    lines = (line.rstrip(_BLANK + b"\n") for line in io.BytesIO(text))
    return iter(sorted(lines)) if spacing == "unordered" else lines


def _digits(integer: bytes) -> bytes:
    """An integer's text without `+` and leading zeros."""
    digits = integer.lstrip(b"+-").lstrip(b"0") or b"0"
    return b"-" + digits if integer.startswith(b"-") and digits != b"0" else digits


def near(value: float, expected: float, tolerance: float) -> bool:
    """|value - expected| ≤ tolerance · max(1, |expected|), the usual rule of programming contests.

    Infinity is near only itself; NaN is near nothing.
    """
    if not math.isfinite(value) or not math.isfinite(expected):
        return value == expected
    return abs(value - expected) <= tolerance * max(1.0, abs(expected))


def _integer(text: str) -> int:
    """The integer that `text` spells. Raises ValueError if it has too many digits."""
    if len(text) > _MOST_DIGITS:
        raise ValueError("an integer too long to read")
    return int(text)
