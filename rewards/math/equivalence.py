r"""Equality of an answer and the gold by structure: lists, tuples, intervals, matrices, units, words, numbers.

`equal` returns True or False where exact arithmetic and structure decide, and None where an expression needs algebra.
A `leaf` function decides such expressions. The same code runs twice: in the caller's process without a leaf (and
without sympy), and in a worker process with math-verify as the leaf.

Equal values pass in any notation. A rounded decimal, an open end for a closed one, another unit, or a list that only
contains the gold fails. A unit, percent sign or `x =` may be missing on one side, and the order of an unbracketed list
does not matter.
"""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import chain
from typing import Literal

from rewards.math import parts, scalars
from rewards.math.latex import GREEK, NOTATION, balanced, clean, join_thousands, rational, split_top, squeeze, unwrap
from rewards.math.quantity import quantity, same_unit, without_spelling

Verdict = bool | None
Leaf = Callable[[str, str], Verdict]
NEXT: Literal["next rule"] = "next rule"
Ruling = Verdict | Literal["next rule"]  # a rule's result; NEXT if the rule does not apply

MAX_ITEMS = 64
_APPROX = re.compile(r"\\(?:approx|simeq)(?![a-zA-Z])")
NEAR = r"\approx "  # prefix of a leaf's answer argument: compare approximately
_LEAD, _TITLE, _QUALIFIER = (re.compile(NOTATION["additions"][name]) for name in ("lead", "title", "qualifier"))
# An indefinite integral with its constant of integration.
_CONSTANT = re.compile(r"((?:[^cCkK\\]|\\[A-Za-z]+(?![A-Za-z])|\\[^A-Za-z])+?) ?\+ ?([cCkK])")
_BOUND = r"[A-Z][A-Za-z]*(?:_(?:\{\w+\}|\w))?"  # the name of a point, a segment, an area
_LABEL = re.compile(
    rf"{parts.NAME.pattern}|\\over(?:line|rightarrow)\{{[A-Za-z]+\}}|[A-Za-z] ?\\o(?:dot|times) ?[A-Za-z]"
    r"|\|(?:[A-Z]+'*|[-+ a-dru-wz]+)\||\\(?:sin|cos|tan|cot|sec|csc) ?\(?\\?[A-Za-z]+\)?"
    r"|\\frac\{(?:d|\\partial)[^{}]*\}\{(?:d|\\partial)[^{}]*\}"
    rf"|\\frac\{{{_BOUND}\}}\{{{_BOUND}\}}|{_BOUND} ?[:/] ?{_BOUND}|[A-Za-z]+(?: [A-Za-z]+)+"
)
# An expression in one unknown, whose value differs from the unknown's: `2x`, `\\frac{x}{2}`, `x^2`, `\\log_2 x`.
_OTHER = r"(?:\\(?:frac|sqrt|cdot|log|ln|binom|[lr](?:floor|ceil))(?![A-Za-z])|e\^|[-+0-9.*/^(){} |!_\[\]])"
_UNKNOWN = re.compile(rf"{_OTHER}*(\\(?:{'|'.join(GREEK)})(?![A-Za-z])|[A-EH-Za-eh-z]){_OTHER}*(?:\1{_OTHER}*)*")
# A sequence or function at a shifted or scaled variable: `a_{n-1}`, `f(2x)`.
_SHIFTED = re.compile(
    r"[A-Za-z] ?(?:_\{([0-9]*[a-z][-+0-9]+|[0-9]+[a-z])\}|\(([0-9]*[a-z] ?[-+][ 0-9]+|[0-9]+ ?[a-z])\))"
)
_NAMES = re.compile(r"(?:[A-Za-z, ]|\\(?:land|wedge))+")
_CLOSED_INFINITY = re.compile(r"\[ ?-\\infty|\\infty ?\]")
_INDEX = re.compile(r"_\{?[0-9]\}?$")  # x_1 and x_2 are values of x
_FUNCTION = re.compile(r"[A-Za-z](?:\^\{-1\})?\([a-z]\)")  # f(x), which an answer may name y or f
_ORDINAL = re.compile(r"(?<=[0-9]) ?(?:\^\{ ?)?(?:st|nd|rd|th)(?: ?\})?(?= ?(?:,|$))")
_INNER_DEGREES = re.compile(r" ?degree(?= ?[-+)}])")  # 90^\circ - A
_IMPLIES = re.compile(r"\\(?:Rightarrow|Longrightarrow|implies|therefore)(?![a-zA-Z])")
_PADDED = re.compile(r"(?<![0-9.])0[0-9]")  # 000 is not a list item
_NOT = re.compile(r"(?:neither|not|never)(?![A-Za-z])")  # a negated answer
_DECIMAL = re.compile(r"[+-]?[0-9]*\.?[0-9]*")
_SPACED_GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:, [0-9]{3})+")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_GREEK = re.compile(rf"\\(?:{'|'.join(GREEK)})(?![a-zA-Z])")
_EMPTY_SET = frozenset(
    {r"\emptyset", r"\{\}", r"\phi", "nosolution", "nosolutions", "norealsolution", "norealsolutions"}
    | {"Nosolution", "Nosolutions", "Norealsolution", "Norealsolutions"}
)


def equal(gold: str, answer: str, leaf: Leaf = lambda gold, answer: None) -> Verdict:
    """Whether two answers (LaTeX or words) are equal. None: this needs algebra, and `leaf` did not decide."""
    if not balanced(answer):
        return False
    try:
        g, a = clean(gold), clean(answer)
        if not g or not a or bool(_NOT.match(g)) != bool(_NOT.match(a)):
            return False
        return _whole(g, a, leaf)
    except RecursionError:
        return False  # nested deeper than any real answer


def _whole(g: str, a: str, leaf: Leaf) -> Verdict:
    """Whether two cleaned answers are equal, with commas read as thousands separators or as list separators."""
    if _SPACED_GROUPS.fullmatch(a) and len(split_top(g, parts.COMMA)) == 1:
        a = a.replace(", ", "")
    joined_g, joined_a = join_thousands(g), join_thousands(a)
    verdict = _equal(joined_g, joined_a, leaf)
    if verdict is not True and (joined_g != g) != (joined_a != a) and not _PADDED.search(f"{g} {a}"):
        # `100,200` and `100, 200`: also compared as lists
        listed = _ordered(split_top(g, parts.COMMA), split_top(a, parts.COMMA), leaf)
        return verdict if listed is False else listed
    return verdict


def _equal(g: str, a: str, leaf: Leaf) -> Verdict:
    """Whether two cleaned texts are equal: as strings, as rationals, by the first rule that applies, or by the leaf."""
    squeezed = {squeeze(g), squeeze(a)}
    if len(squeezed) == 1 or squeezed <= _EMPTY_SET:
        return True
    x, y = rational(g), rational(a)
    if x is not None and y is not None:
        return x == y
    for rule in _RULES:
        if (ruling := rule(g, a, leaf)) != NEXT:
            return ruling
    return leaf(g, a)


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    """False if any verdict is False, else None if any is None, else True."""
    result: Verdict = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def _ordered(gs: list[str], as_: list[str], leaf: Leaf) -> Verdict:
    """Whether two lists have equal items in the same order."""
    if len(gs) != len(as_):
        return False
    return _all(_equal(g, a, leaf) for g, a in zip(gs, as_, strict=True))


def _unordered(gs: list[str], as_: list[str], leaf: Leaf) -> Verdict:
    """Whether two lists have equal items in any order. Equality is transitive, so a greedy matching suffices."""
    if len(gs) != len(as_) or len(gs) > MAX_ITEMS:
        return False
    unmatched, undecided = list(as_), False
    for g in gs:
        unknown = False
        for a in unmatched:
            verdict = _equal(g, a, leaf)
            if verdict is True:
                unmatched.remove(a)
                break
            unknown |= verdict is None
        else:
            if not unknown:
                return False
            undecided = True
    return None if undecided else True


def _rule_approximation(g: str, a: str, leaf: Leaf) -> Ruling:
    """Approximations. In `\\sqrt{2} \\approx 1.414` the exact value comes first and is compared; the values after it
    must be near it. A number as gold may also equal the rounded value. The value of `x \\approx 5` is 5.
    """
    if not _APPROX.search(g) and not _APPROX.search(a):
        return NEXT
    sides_g, sides = (
        [side for side in split_top(text, _APPROX) if side in (r"\pi", "e") or not parts.NAME.fullmatch(side)]
        for text in (g, a)
    )
    if not sides_g or not sides:
        return False
    verdict = _equal(sides_g[0], sides[0], leaf)
    if verdict is not True and len(sides) > 1 and not _DECIMAL.fullmatch(sides[0]) and len(sides_g) == 1:
        verdict = rational(sides_g[0]) is not None and _equal(sides_g[0], sides[-1], leaf)
    return _all([verdict, *(_near(sides[0], other, leaf) for other in sides[1:])])


def _near(exact: str, rounded: str, leaf: Leaf) -> Verdict:
    """Whether the second number is within a tenth of the first."""
    x, y = (rational(value := quantity((_sides(side) or [side])[-1]).value) or value for side in (exact, rounded))
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return 10 * abs(x - y) <= abs(x)
    return leaf(str(x), f"{NEAR}{y}")


def _qualifier(text: str) -> re.Match[str] | None:
    """The qualifier after an answer, such as `for all n`, or None."""
    m = None if unwrap(text) else _QUALIFIER.search(text)
    return m if m and m.start() else None


def _rule_additions(g: str, a: str, leaf: Leaf) -> Ruling:
    """Drop a label before the answer and a qualifier after it, unless the two sides have different ones."""
    bare_g, bare_a = _LEAD.sub("", g), _LEAD.sub("", a)
    if bool(_TITLE.match(bare_g)) != bool(_TITLE.match(bare_a)):
        bare_g, bare_a = _TITLE.sub("", bare_g, 1), _TITLE.sub("", bare_a, 1)
    constants = _CONSTANT.fullmatch(bare_g), _CONSTANT.fullmatch(bare_a)
    if constants[0] and constants[1] and constants[0][2] == "C":
        bare_a = f"{constants[1][1]}+C"
    qualifiers = [m for text in (bare_g, bare_a) if (m := _qualifier(text))]
    names = [m["name"] for m in qualifiers]
    if len(qualifiers) == 1 or (
        qualifiers and (None not in names or len({scalars.plain_words(m.group()) for m in qualifiers}) == 1)
    ):
        bare_g, bare_a = (
            text[: m.start()].rstrip(" ,") if (m := _qualifier(text)) else text for text in (bare_g, bare_a)
        )
        if len(names) == 2 and names[0] != names[1]:  # `n\pi, n \in Z` for `k\pi, k \in Z`
            if re.search(rf"(?<![A-Za-z\\]){names[0]}(?![A-Za-z])", bare_a):
                return False
            bare_a = re.sub(rf"(?<![A-Za-z\\]){names[1]}(?![A-Za-z])", names[0], bare_a)
    return _equal(bare_g, bare_a, leaf) if (bare_g, bare_a) != (g, a) else NEXT


def _rule_lists(g: str, a: str, leaf: Leaf) -> Ruling:
    """Unbracketed lists, in any order; also against the same items in brackets."""
    if parts.matrix(g) and parts.matrix(a):
        return NEXT
    gs, as_ = ((not unwrap(other) and parts.column(text)) or parts.top_items(text) for text, other in ((g, a), (a, g)))
    if len(gs) == 1 and len(as_) == 1:
        return NEXT
    for many, other, flip in ((gs, a, False), (as_, g, True)):
        value = parts.IN.sub("", parts.unlabelled(other))
        bracket = unwrap(value)
        if len(many) > 1 == len(parts.top_items(other)) and bracket and len(parts.top_items(bracket[1])) > 1:
            kind, inside = bracket[0] + bracket[2], parts.top_items(bracket[1])
            named = parts.by_name(many) if kind == "()" else None
            if not named and len(inside) == 2 and "{" not in kind and (kind != "()" or value == other):
                return False  # an interval or a possible interval
            compare, items = (_ordered if kind == "()" else _unordered), named or many
            return compare(inside, items, leaf) if flip else compare(items, inside, leaf)
    return _unordered(gs, as_, leaf)


def _rule_membership(g: str, a: str, leaf: Leaf) -> Ruling:
    """`q \\in [2, \\infty)` and `q = 2` are not answers for `a`. `f(x)` and `y` may name the same variable."""
    members = parts.IN.match(g), parts.IN.match(a)
    names = [m["name"] if m else parts.variable(text) or _labels(text) for m, text in zip(members, (g, a), strict=True)]
    differ = any(members) and all(names) and squeeze(names[0]) != squeeze(names[1])
    return False if differ and "(" not in "".join(names) else NEXT


def _labels(text: str) -> str:
    """The variable in `n = 1 or n = 2` and `n = 1, 2`, empty unless all items have the same."""
    first, *others = [split_top(item, parts.EQUALS) or [""] for item in parts.top_items(text)] or [[""]]
    name = _INDEX.sub("", first[0])
    named = len(first) == 2 and parts.NAME.fullmatch(first[0]) and not unwrap(first[1])
    return name if named and all(len(pair) == 1 or _INDEX.sub("", pair[0]) == name for pair in others) else ""


def _rule_unions(g: str, a: str, leaf: Leaf) -> Ruling:
    """Unions of intervals, in any order."""
    gs, as_ = parts.ranges(g), parts.ranges(a)
    joined = {(len(split_top(text, parts.OR)) > 1, len(split_top(text, parts.AND)) > 1) for text in (g, a)}
    if (parts.COMPARE.search(g) or _NAMES.fullmatch(g)) and joined == {(True, False), (False, True)}:
        return False  # "or" is not "and"
    if bool(_CLOSED_INFINITY.search(g)) != bool(_CLOSED_INFINITY.search(a)):
        return False
    if len(gs) == 1 and len(as_) == 1:
        return NEXT
    return True if _unordered(gs, as_, leaf) is True else leaf(parts.union(g, gs), parts.union(a, as_))


def _rule_brackets(g: str, a: str, leaf: Leaf) -> Ruling:
    """Tuples, intervals (also written as inequalities), sets in braces."""
    span_g, span_a = parts.span(g), parts.span(a)
    if span_g and span_a:
        name_g, name_a = parts.variable(g), parts.variable(a)
        brackets = (span_g.opening, span_g.closing) == (span_a.opening, span_a.closing)
        if not brackets or (name_g and name_a and name_g != name_a):
            return False
        return _ordered([span_g.low, span_g.high], [span_a.low, span_a.high], leaf)
    bracket_g, bracket_a = unwrap(g), unwrap(a)
    sets = [bracket for bracket in (bracket_g, bracket_a) if bracket and bracket[0] == r"\{"]
    if len(sets) == 1 and len(parts.top_items(sets[0][1])) == 1 and not {squeeze(g), squeeze(a)} & _EMPTY_SET:
        # a set of one element is often written as that element
        return _equal(sets[0][1], a, leaf) if bracket_g in sets else _equal(g, sets[0][1], leaf)
    if sets and (span_g or span_a):
        return False  # a set of two numbers is not an interval
    if bracket_g and bracket_a:
        if (bracket_g[0], bracket_g[2]) != (bracket_a[0], bracket_a[2]):
            return False
        compare = _unordered if bracket_g[0] == r"\{" else _ordered
        return compare(parts.top_items(bracket_g[1]), parts.top_items(bracket_a[1]), leaf)
    return NEXT


def _rule_components(g: str, a: str, leaf: Leaf) -> Ruling:
    """`2i - 3j` equals the vector `(2,-3)`. A reference answer in round brackets may be a point."""
    gold = parts.components(g) if unwrap(a) or parts.matrix(a) else g
    answer = parts.components(a) if parts.matrix(g) else a
    return _equal(gold, answer, leaf) if (gold, answer) != (g, a) else NEXT


def _rule_matrices(g: str, a: str, leaf: Leaf) -> Ruling:
    """Matrices cell by cell; a vector may also be a tuple."""
    rows_g, rows_a = parts.matrix(g), parts.matrix(a)
    if rows_g is None and rows_a is None:
        return NEXT
    single_cell = [[len(row) for row in rows] for rows in (rows_g, rows_a) if rows] == [[1]]
    if single_cell and r"\begin" in (g if rows_g else a):  # a number; (AB)^T is not
        return _equal(rows_g[0][0] if rows_g else g, rows_a[0][0] if rows_a else a, leaf)
    for rows, other, flip in ((rows_g, a, False), (rows_a, g, True)):
        bracket = unwrap(other)
        if rows and bracket and bracket[0] == "(" and (len(rows) == 1 or len(rows[0]) == 1):
            cells, items = [cell for row in rows for cell in row], split_top(bracket[1], parts.COMMA)  # a vector
            return _ordered(items, cells, leaf) if flip else _ordered(cells, items, leaf)
    if rows_g is None or rows_a is None:
        return leaf(g, a)
    if [len(row) for row in rows_g] != [len(row) for row in rows_a]:
        return False
    return _ordered(list(chain(*rows_g)), list(chain(*rows_a)), leaf)


def _rule_equations(g: str, a: str, leaf: Leaf) -> Ruling:
    """`x = 5` equals `5` and `x = 5`; other equations are left to the leaf.

    `2x = 10 \\Rightarrow x = 5` equals `x = 5`; `x = 6 \\Rightarrow x = 5` contradicts itself and equals nothing.
    """
    if _IMPLIES.search(a) and not _IMPLIES.search(g):
        *steps, last = split_top(a, _IMPLIES) or [""]
        name, value = (_sides(last) or [""])[0], (_sides(last) or [""])[-1]
        same = (_sides(step) for step in steps)
        return _all([_equal(g, last, leaf), *(_equal(value, s[-1], leaf) for s in same if s and s[0] == name)])
    sides_g, sides_a = _sides(g), _sides(a)
    if not sides_g or not sides_a:
        return False
    if len(sides_g) == 1 and len(sides_a) == 1:
        return NEXT
    if len(sides_g) > 1 and len(sides_a) > 1 and "mod" in g and "mod" not in a:
        return False  # a residue class is not a number
    named_g, named_a = _LABEL.fullmatch(sides_g[0]), _LABEL.fullmatch(sides_a[0])
    if len(sides_g) == 1:
        return _value_of(g, sides_a, leaf)
    if len(sides_a) == 1:
        return _equal(sides_g[-1], a, leaf) if named_g else False
    if named_g and named_a:
        names = squeeze(sides_g[0]), squeeze(sides_a[0])
        aliases = ("y", names[0].partition("(")[0]) if _FUNCTION.fullmatch(names[0]) else ()
        if names[0] in (names[1], _INDEX.sub("", names[1])) or names[1] in aliases:
            return _equal(sides_g[-1], sides_a[-1], leaf)
        if not (_has_letters(sides_g[-1]) and _has_letters(sides_a[-1])):
            return False
    return leaf(g, a)


def _sides(text: str) -> list[str]:
    """Sides of an equation (`5 = x` as `x = 5`) or chain of equations; [text] without `=`, [] if a side is missing."""
    sides = split_top(text, parts.EQUALS)
    if len(sides) == 2 and parts.NAME.fullmatch(sides[1]) and not parts.NAME.fullmatch(sides[0]):
        sides = sides[::-1]
    return [] if not sides or text.startswith("=") or text.endswith("=") else sides


def _value_of(gold: str, sides: list[str], leaf: Leaf) -> Verdict:
    """Whether the last side of a chain such as `a + b = 4 + 6 = 10` equals the gold and no other side contradicts it.

    False for equations of another quantity: `2x = 10`, `a_{n-1} = 2n`.
    """
    if _SHIFTED.fullmatch(sides[0]) and _has_letters(gold) and not gold.count(sides[0][0]):
        return False
    steps = [side for side in sides[:-1] if not _LABEL.fullmatch(side)]
    if any(
        of_unknown(step)
        or (re.search("[A-Za-z]{4}|[a-z]{2} [a-z]{2}", _COMMAND.sub("", step)) and re.search("[0-9]", step))
        for step in steps
    ):
        return False  # numbers in prose may contradict the last side
    return _all(_equal(gold, side, leaf) for side in [sides[-1], *(s for s in steps if not _has_letters(s))])


def of_unknown(side: str) -> bool:
    """Whether a side of an equation is an expression in an unknown other than the unknown: `2x`, `\\log_2 x`, `|x|`."""
    return bool(_UNKNOWN.fullmatch(side) and not _LABEL.fullmatch(side))


def _has_letters(text: str) -> bool:
    """Whether a text contains Latin or Greek letters; other LaTeX commands do not count."""
    return bool(re.search(r"[A-Za-z]", _COMMAND.sub("", _GREEK.sub(" x", text))))


def _rule_units(g: str, a: str, leaf: Leaf) -> Ruling:
    """Quantities with units, percent signs, degrees and radians."""
    qg, qa = quantity(g), quantity(a)
    if bool(qg.unit) != bool(qa.unit):  # `3h` for `3 hours`
        letters = "".join(unit for unit in qg.unit | qa.unit if len(unit) == 1)
        qg, qa = (quantity(text, letters) if not q.unit and letters else q for text, q in ((g, qg), (a, qa)))
    if (qg.value, qa.value) == (g, a) or not qg.value or not qa.value:
        return NEXT
    for degrees, other, flip in ((qg, qa, False), (qa, qg, True)):
        if degrees.unit == {"degree"} and other.unit <= {"rad"} and r"\pi" in other.value:
            radians = rf"({degrees.value})\cdot\frac{{\pi}}{{180}}"
            return _equal(other.value, radians, leaf) if flip else _equal(radians, other.value, leaf)
    if qa.unit == {"A"} and not qg.unit:
        return False  # a variable that the reference answer lacks
    if modulus := next((int(unit[4:]) for unit in qg.unit & qa.unit if re.fullmatch("mod [0-9]+", unit)), 0):
        return (int(qg.value) - int(qa.value)) % modulus == 0
    if not same_unit(qg.unit, qa.unit) or (qg.percent != qa.percent and (qa if qg.percent else qg).unit):
        return False
    verdict = _equal(qg.value, qa.value, leaf)
    x, y = rational(qg.value), rational(qa.value)
    if qg.percent == qa.percent:
        return verdict
    if x is None or y is None:
        return verdict if qg.percent else _equal(qg.value, rf"\frac{{{qa.value}}}{{100}}", leaf)
    if qg.percent:
        return y in (x, x / 100)
    # The gold has no percent sign. Up to 1 it is a share, above 1 a percentage; a fraction between 1 and 10 such as
    # \frac{5}{4} may be either.
    shares = abs(x) <= 1 or (x.denominator > 1 and abs(x) < 10)
    return (abs(x) > 1 and y == x) or (shares and y == 100 * x)


def _rewritten(change: Callable[[str], str]) -> Callable[[str, str, Leaf], Ruling]:
    """The rule that applies `change` to both sides and compares the results, if `change` has an effect."""

    def rule(g: str, a: str, leaf: Leaf) -> Ruling:
        sides = change(g), change(a)
        return _equal(*sides, leaf) if sides != (g, a) else NEXT

    return rule


def _scalar(decide: Callable[[str, str], bool | None]) -> Callable[[str, str, Leaf], Ruling]:
    """The rule of a function that decides without a leaf; None from `decide` means the next rule."""
    return lambda g, a, leaf: NEXT if (same := decide(g, a)) is None else same


_RULES: tuple[Callable[[str, str, Leaf], Ruling], ...] = (
    _scalar(scalars.choices),
    _rewritten(lambda text: _ORDINAL.sub("", text)),
    _scalar(scalars.amounts),
    _scalar(scalars.thousands),
    _rewritten(without_spelling),
    _rewritten(parts.cases),
    _rule_additions,
    _rewritten(parts.solutions),
    _rewritten(parts.with_holes),
    _rewritten(parts.outside),
    _rule_approximation,
    _rule_membership,
    _rule_unions,
    _rule_lists,
    _rule_equations,
    _rewritten(parts.unwrapped),
    _scalar(scalars.times),
    _scalar(scalars.ratios),
    _rule_components,
    _rule_brackets,
    _rule_matrices,
    _scalar(scalars.bases),
    _rewritten(lambda text: _INNER_DEGREES.sub("", text)),
    _rule_units,
    _scalar(scalars.words),
)
