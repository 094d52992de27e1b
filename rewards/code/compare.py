"""Whether a program's output or result is the expected one. Runs where no candidate's code runs.

The default is exact: all lines of standard output, and results with their JSON types. Everything more lenient is asked
for by name; configs/tasks/ asks for what each benchmark's own harness does. Nothing here takes more time or memory than
the expected value accounts for, however large the output is: the first difference ends the comparison.
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
_MOST_DIGITS = 4000  # CPython refuses longer integers, and reading them is quadratic
_LONGEST_SCALAR = 32  # characters of a number's JSON text where the expected one's has one character


def same_output(
    output: bytes, expected: str, spacing: Spacing = "lines", tolerance: float = 0.0, numbers: Numbers = "text"
) -> bool:
    """Whether standard output is the text `expected`.

    spacing: "lines" ignores whitespace at the end of lines and blank lines at the end; "stripped" also whitespace
    before lines and blank lines at the start; "nonblank" also all other blank lines; "tokens" where lines and runs of
    blanks break; "unordered" is "lines" in any order.
    numbers: "text", or "value": lines that hold nothing but numbers are compared as decimals, so that 0.50 is 0.5.
    tolerance: numbers of which one is not an integer may differ by so much, absolutely or relative to the expected one.
    """
    # A lone surrogate in JSON is no valid UTF-8; such an expected text is compared as the bytes it stands for.
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
    """Whether two lines that differ as texts are the same as far as their numbers may differ."""
    if not tolerance and numbers == "text":
        return False
    expected_words = expected.split()
    ours = output.split(None, len(expected_words))
    if len(ours) != len(expected_words):
        return False
    pairs = list(zip(ours, expected_words, strict=True))
    decimal = numbers == "value" and all(map(_NUMBER.fullmatch, ours + expected_words))
    if decimal and all(a == b or Decimal(a.decode()) == Decimal(b.decode()) for a, b in pairs):
        return True
    return tolerance > 0 and all(a == b or _near_tokens(a, b, tolerance) for a, b in pairs)


def _near_tokens(output: bytes, expected: bytes, tolerance: float) -> bool:
    if not (_NUMBER.fullmatch(output) and _NUMBER.fullmatch(expected)):
        return False
    if _INTEGER.fullmatch(output) and _INTEGER.fullmatch(expected):
        return _digits(output) == _digits(expected)
    return near(float(output), float(expected), tolerance)


def same_result(result: bytes, expected: Any, tolerance: float = 0.0, types: Types = "exact") -> bool:
    """Whether the JSON text `result` is the JSON value `expected`: same values in the same order.

    types: "exact" JSON types, or "equal" as Python's == has it (2.0 is 2, True is 1). tolerance: as in `same_output`,
    for numbers of which one is a float. NaN and infinities equal themselves. Text that is no JSON equals nothing.
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
    equal = value == expected or (value != value and expected != expected)  # NaN is not itself
    if equal and (types == "equal" or type(value) is type(expected)):
        return True
    kinds = {type(value), type(expected)}
    if not tolerance or float not in kinds or not kinds <= {int, float}:
        return False
    try:
        return near(float(value), float(expected), tolerance)
    except OverflowError:  # an integer beyond any float
        return False


def _pieces(text: bytes, spacing: Spacing) -> Iterator[bytes]:
    """What is compared one by one, made as it is asked for."""
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
    """|value - expected| ≤ tolerance · max(1, |expected|), as judges of programming contests have it.

    Infinity is near itself alone, and NaN near nothing.
    """
    if not math.isfinite(value) or not math.isfinite(expected):
        return value == expected
    return abs(value - expected) <= tolerance * max(1.0, abs(expected))


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError("an integer too long to read")
    return int(text)
