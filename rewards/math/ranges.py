"""Intervals, however written: `[2,5)`, `2 \\le x < 5`, `x < 1 or x > 2`, unions of these."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.math.latex import split_top, unwrap

COMMA = re.compile(r"[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:land|lor|wedge|vee)(?![a-zA-Z])")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<=[)\]]) *U *(?=[(\[])")
COMPARE = re.compile(r"\\(?:le|ge)(?![a-zA-Z])|<=|>=|[<>]")
NAME = re.compile(
    r"\\angle ?[A-Za-z]+|\\?[A-Za-z]+(?:_\{?\w+\}?)?'*(?:\([\w, ]*\))?|\([A-Za-z]\w*(?:, *[A-Za-z]\w*)+\)"
)


@dataclass(frozen=True)
class Span:
    """An interval: its brackets and its ends as texts."""

    opening: str
    low: str
    high: str
    closing: str


def span(text: str) -> Span | None:
    """An interval in brackets, or an inequality in one variable with numbers on the other sides."""
    parts = unwrap(text)
    if parts and parts[0] in "([":
        ends = split_top(parts[1], COMMA)
        return Span(parts[0], ends[0], ends[1], parts[2]) if len(ends) == 2 else None
    marks = [m.group() for m in COMPARE.finditer(text)]
    signs = [("<" if mark in ("<", "<=", r"\le") else ">", mark in "<>") for mark in marks]
    sides = [side.strip() for side in COMPARE.split(text)]
    if not signs or "=" in COMPARE.sub("", text) or len({sign for sign, _ in signs}) > 1 or not all(sides):
        return None
    if signs[0][0] == ">":
        sides.reverse()
        signs.reverse()
    opening, closing = "()" if signs[0][1] else "[]"
    if len(sides) == 3 and NAME.fullmatch(sides[1]):
        return Span(opening, sides[0], sides[2], ")" if signs[1][1] else "]")
    if len(sides) == 2 and NAME.fullmatch(sides[0]) and not NAME.fullmatch(sides[1]):
        return Span("(", r"-\infty", sides[1], closing)
    if len(sides) == 2 and NAME.fullmatch(sides[1]) and not NAME.fullmatch(sides[0]):
        return Span(opening, sides[0], r"\infty", ")")
    return None


def variable(text: str) -> str:
    """The name that an inequality bounds, empty for an interval."""
    if unwrap(text):
        return ""
    return next((side.strip() for side in COMPARE.split(text) if NAME.fullmatch(side.strip())), "")


def ranges(text: str) -> list[str]:
    """Parts of a union, also where it is written `x < 1 or x > 2`."""
    parts = split_top(text, _OR)
    names = {variable(part) for part in parts}
    return parts if len(parts) > 1 and len(names) == 1 and names != {""} else split_top(text, _CUP)
