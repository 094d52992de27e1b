"""Whether a program's output is the expected one. Runs where no candidate's code runs.

Standard output is compared line by line, all lines of both sides; results of calls by exact JSON types. What
is lenient (tolerance, spacing, order of lines) is asked for by name.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

Spacing = Literal["lines", "tokens", "unordered"]

_BLANK = b" \t\r\x0b\x0c"
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_MOST_DIGITS = 4000  # CPython refuses longer integers, and reading them is quadratic


def same_output(got: bytes, wanted: str, spacing: Spacing = "lines", tolerance: float = 0.0) -> bool:
    """Whether `got` is the text `wanted`, whitespace at the end of lines and blank lines at the end aside.

    spacing: "tokens" ignores where lines and runs of blanks break, "unordered" the order of lines.
    tolerance: numbers of which one is not an integer may differ by so much, absolutely or relative to `wanted`.
    """
    # A lone surrogate in JSON is no valid UTF-8; such an expected text is compared as the bytes it stands for.
    ours, theirs = _lines(got), _lines(wanted.encode("utf-8", "surrogatepass"))
    if spacing == "tokens":
        ours, theirs = [b" ".join(b" ".join(ours).split())], [b" ".join(b" ".join(theirs).split())]
    elif spacing == "unordered":
        ours, theirs = sorted(ours), sorted(theirs)
    if ours == theirs:
        return True
    if not tolerance or len(ours) != len(theirs):
        return False
    return all(a == b or _near_lines(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))


def _lines(text: bytes) -> list[bytes]:
    return [line.rstrip(_BLANK) for line in text.rstrip(_BLANK + b"\n").split(b"\n")]


def _near_lines(got: bytes, wanted: bytes, tolerance: float) -> bool:
    ours, theirs = got.split(), wanted.split()
    return len(ours) == len(theirs) and all(
        a == b or _near_tokens(a, b, tolerance) for a, b in zip(ours, theirs, strict=True)
    )


def _near_tokens(got: bytes, wanted: bytes, tolerance: float) -> bool:
    if not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    if _INTEGER.fullmatch(got) and _INTEGER.fullmatch(wanted):
        return _digits(got) == _digits(wanted)
    return near(float(got), float(wanted), tolerance)


def _digits(integer: bytes) -> bytes:
    """An integer's text without `+` and leading zeros."""
    digits = integer.lstrip(b"+-").lstrip(b"0") or b"0"
    return b"-" + digits if integer.startswith(b"-") and digits != b"0" else digits


def near(got: float, wanted: float, tolerance: float) -> bool:
    """|got - wanted| ≤ tolerance · max(1, |wanted|), as judges of programming contests have it."""
    return math.isfinite(got) and abs(got - wanted) <= tolerance * max(1.0, abs(wanted))


def same_result(got: bytes, wanted: Any, tolerance: float = 0.0) -> bool:
    """Whether the JSON text `got` is the JSON value `wanted`: same types, same values, same order.

    true is not 1. 2 is not 2.0 unless there is a tolerance. tolerance: for numbers of which one is a float, as in
    `same_output`. NaN and infinities equal themselves. Text that is no JSON equals nothing.
    """
    try:
        value = json.loads(got, parse_int=_integer)
    except (ValueError, RecursionError):
        return False
    pairs = [(value, wanted)]  # a stack: results may be nested deeper than Python can recurse
    while pairs:
        a, b = pairs.pop()
        if type(a) is list and type(b) is list and len(a) == len(b):
            pairs.extend(zip(a, b, strict=True))
        elif type(a) is dict and type(b) is dict and a.keys() == b.keys():
            pairs.extend((a[key], b[key]) for key in a)
        elif isinstance(a, (list, dict)) or not _same_scalar(a, b, tolerance):
            return False
    return True


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError("an integer too long to read")
    return int(text)


def _same_scalar(got: Any, wanted: Any, tolerance: float) -> bool:
    if type(got) is type(wanted) and (got == wanted or (got != got and wanted != wanted)):  # NaN is not itself
        return True
    kinds = {type(got), type(wanted)}
    if not tolerance or float not in kinds or not kinds <= {int, float}:
        return False
    try:
        return near(float(got), float(wanted), tolerance)
    except OverflowError:  # an integer beyond any float
        return False
