r"""Answers of several parts: lists, matrices, systems, cases, intervals in any notation (`[2,5)`, `2 \le x < 5`)."""

import re
from typing import NamedTuple

from rewards.math.latex import split_top, unwrap

COMMA = re.compile(r"[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:land|lor|wedge|vee)(?![a-zA-Z])")
OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![a-zA-Z])")
AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<=[)\]]) *U *(?=[(\[])")
COMPARE = re.compile(r"\\(?:le|ge)(?![a-zA-Z])|<=|>=|[<>]")
NAME = re.compile(
    r"\\angle ?[A-Za-z]+|\\?[A-Za-z]+(?:_\{?\w+\}?)?'*(?:(?:\^\{-1\})?\([\w, ]*\))?|\([A-Za-z]\w*(?:, *[A-Za-z]\w*)+\)"
)
_POINT = re.compile(r"^([A-Z]'?) ?(?=\([^()]*,[^()]*\)$)")  # A(1,2) is A = (1,2)
IN = re.compile(rf"^\s*(?P<name>{NAME.pattern})\s*\\in(?![a-zA-Z])\s*")
EQUALS = re.compile(r"(?<![<>!=])=+")
_SIZE = re.compile(r"\|[A-Za-z]\|")
_OUTSIDE = re.compile(r"\|([A-Za-z])\| ?(>=?|\\ge) ?([^|<>=,;]+)")
_UNEQUAL = re.compile(r"(\\?[A-Za-z]+) ?\\ne ?(.+)")
_SET_BUILDER = re.compile(r"\\\{ *[A-Za-z] *(?:\\in *\\mathbb\{R\} *)?[|:](.+)\\\}")
_MINUS_SET = re.compile(r"(?<=[R)\]}]) ?- ?\\\{")
_CASES = re.compile(
    r"(?:\\begin\{cases\}|\\\{ ?\\begin\{array\}(?:\{[lcr ]*\})?)(.*)\\end\{(?:cases|array)\}", re.DOTALL
)
_CONDITION = re.compile(r"^(?:if|for|when|where) +")
_MATRIX = re.compile(r"\\begin\{([pbB]?(?:small)?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_COMPONENT = re.compile(r"([-+]?)([^-+ijk]{0,40})([ijk])(?![A-Za-z])")
_LEADING_PLUS = re.compile(r"(^|[(,=] ?)\+ ?")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")


class Span(NamedTuple):
    """An interval: its brackets and its ends as texts."""

    opening: str
    low: str
    high: str
    closing: str


def span(text: str) -> Span | None:
    """The interval of a bracketed pair or of an inequality in one variable; None for other texts."""
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
    if len(sides) == 2 and _SIZE.fullmatch(sides[0]):
        return Span("(" if signs[0][1] else "[", f"-({sides[1]})", sides[1], closing)
    if len(sides) == 2 and NAME.fullmatch(sides[0]) and not NAME.fullmatch(sides[1]):
        return Span("(", r"-\infty", sides[1], closing)
    if len(sides) == 2 and NAME.fullmatch(sides[1]) and not NAME.fullmatch(sides[0]):
        return Span(opening, sides[0], r"\infty", ")")
    return None


def variable(text: str) -> str:
    """The variable of an inequality, empty for an interval. In `a < b < c` it is b."""
    if unwrap(text):
        return ""
    sides = [side.strip() for side in COMPARE.split(text)]
    return next((side for side in sides[len(sides) == 3 :] if NAME.fullmatch(side)), "")


def ranges(text: str) -> list[str]:
    """Parts of a union, including one written as `x < 1 or x > 2`."""
    parts = split_top(text, OR)
    names = {variable(part) for part in parts}
    return parts if len(parts) > 1 and len(names) == 1 and names != {""} else split_top(text, _CUP)


def union(text: str, alternatives: list[str]) -> str:
    r"""Rewrites `x < 1 or x > 2` as `(-\infty,1) \cup (2,\infty)`. Other texts are returned unchanged."""
    spans = [span(part) for part in alternatives]
    return r" \cup ".join(f"{s.opening}{s.low},{s.high}{s.closing}" for s in spans if s) if all(spans) else text


def outside(text: str) -> str:
    """Rewrites `|x| > 2` as `x < -(2) or x > 2`."""
    m = _OUTSIDE.fullmatch(text)
    below = r"\le" if m and m[2] != ">" else "<"
    return f"{m[1]} {below} -({m[3]}) or {m[1]} {m[2]} {m[3]}" if m else text


def unwrapped(text: str) -> str:
    r"""The text without `x \in`, grouping braces, set-builder notation, and round brackets around a single item."""
    text = _POINT.sub(r"\1=", IN.sub("", text))
    builder = _SET_BUILDER.fullmatch(text)
    if builder and (COMPARE.search(builder[1]) or "=" in builder[1]):
        return builder[1].strip()
    parts = unwrap(text)
    if parts and parts[0] + parts[2] in ("{}", "()") and (parts[0] == "{" or len(split_top(parts[1], COMMA)) < 2):
        return parts[1] or text
    return text


def top_items(text: str) -> list[str]:
    """Top-level items of an unbracketed list, each `\\pm` expanded into its two values."""
    listed: list[str] = []
    for part in split_top(text, COMMA):
        count, brackets = len(_PLUS_MINUS.findall(part)), unwrap(part)
        if count and (brackets is None or (brackets[0] == "(" and count == 1)):  # (\pm 2, 3) is two points
            for signs in (("+", "-"), ("-", "+")):
                signed = _PLUS_MINUS.sub(lambda m, signs=signs: signs[m.group() == r"\mp"], part)  # type: ignore[misc]
                listed.append(_LEADING_PLUS.sub(r"\1", signed))
        else:
            listed.append(part)
    return listed


def unlabelled(text: str) -> str:
    """The value of `(x,y) = (1,2)` or `S = \\{1,2\\}`."""
    sides = split_top(text, EQUALS)
    return sides[1] if len(sides) == 2 and NAME.fullmatch(sides[0]) else text


def by_name(items: list[str]) -> list[str] | None:
    """The values of `x = 2, y = 3` sorted by variable, as in a tuple; None for other lists."""
    sides = [split_top(item, EQUALS) for item in items]
    if not all(len(pair) == 2 and re.fullmatch("[A-Za-z]", pair[0]) for pair in sides):
        return None
    values = dict(sides)
    return [values[name] for name in sorted(values)] if len(values) == len(items) else None


def solutions(text: str) -> str:
    """Rewrites `x = 1, y = 2 or x = 2, y = 1` as `(1,2), (2,1)`. Other texts are returned unchanged."""
    named = [by_name(top_items(part)) or [] for part in split_top(text, OR)]
    pairs = len(named) > 1 and all(len(values) > 1 for values in named)
    return ", ".join(f"({','.join(values)})" for values in named) if pairs else text


def with_holes(text: str) -> str:
    r"""Rewrites `x > 0, x \ne 1` as `(0, \infty) \setminus \{1\}`."""
    text = _MINUS_SET.sub(r" \\setminus \\{", text)
    builder = _SET_BUILDER.fullmatch(text)
    if split_top(inside := builder[1].strip() if builder else text, OR) != [inside.strip()]:
        return inside
    items = top_items(inside)
    holes = [m for item in items if (m := _UNEQUAL.fullmatch(item))]
    bounds = [item for item in items if not _UNEQUAL.fullmatch(item)]
    if not bounds and (builder or len(holes) > 1):
        bounds = [r"(-\infty,\infty)"]
    interval = span(bounds[0]) if len({m[1] for m in holes}) == len(bounds) == 1 else None
    if interval is None or variable(bounds[0]) not in ("", holes[0][1]):
        return text
    values = ",".join(m[2] for m in holes)
    return rf"{interval.opening}{interval.low},{interval.high}{interval.closing} \setminus \{{{values}\}}"


def matrix(text: str) -> list[list[str]] | None:
    """Rows of cells of a matrix, array, transposed vector, or nested list (`[[1,2],[3,4]]`); None for other texts."""
    m = _MATRIX.fullmatch(text)
    if (
        text.startswith(("(", "["))
        and text.endswith(("^T", "^{T}"))
        and (column := unwrap(text.rpartition("^")[0].strip()))
    ):
        return [[item] for item in split_top(column[1], COMMA)]
    if not m and text.startswith("[["):  # program notation
        lines = [unwrap(line) for line in split_top(text[1:-1], COMMA)]
        return [split_top(line[1], COMMA) for line in lines if line] if all(lines) else None
    if not m or r"\begin" in m[2]:
        return None
    rows = re.split(r"\\\\(?:\s*\[[^\]]*\])?", m[2].replace(r"\hline", ""))
    return [[cell.strip() for cell in row.split("&")] for row in rows if row.strip()]


def components(text: str) -> str:
    """Rewrites `i - 2j + 3k` as `(1,-2,3)`. Other texts are returned unchanged."""
    terms = _COMPONENT.findall(text)
    factors = [factor.strip().removesuffix("\\cdot") or "1" for _, factor, _ in terms]
    counts = {unit: sign.strip("+") + factor for (sign, _, unit), factor in zip(terms, factors, strict=True)}
    if _COMPONENT.sub("", text).strip() or not 1 < len(counts) == len(terms):
        return text
    return f"({','.join(counts.get(unit, '0') for unit in ('ijk' if 'k' in counts else 'ij'))})"


def column(text: str) -> list[str] | None:
    """The lines of a one-column array without brackets, None for other texts."""
    rows = matrix(text) if text.startswith(r"\begin{array}") else None
    return [row[0] for row in rows] if rows and {len(row) for row in rows} == {1} else None


def cases(text: str) -> str:
    """A system of equations as a list; a piecewise function as a list of (value, condition); other texts unchanged."""
    m = _CASES.fullmatch(unlabelled(text))
    if m is None:
        return text
    rows = [[cell.strip(" ,.;") for cell in row.split("&")] for row in m[1].split(r"\\") if row.strip()]
    return ", ".join(f"({row[0]}, {_CONDITION.sub('', row[1])})" if row[1:] else row[0] for row in rows)
