r"""Algebra of the math reward, run only in the pool's worker processes.

LaTeX is parsed by latex2sympy's ANTLR grammar and compared by math-verify's `verify`, both without their
SIGALRM timeouts: the pool's parent enforces the deadline. Trust assumption: the grammar builds sympy
objects from tokens and never evaluates text. sympy's `parse_expr` and `sympify`, which do evaluate text, are
never called on an answer; math-verify's own extraction, which calls `parse_expr`, is not used.

The grammar reads much notation as a product of letters: f(x+1), A^T, f', \angle ABC, n!!. Such notation is replaced by
symbols before parsing, and the symbols by sympy objects after it (`_NOTATION`).
"""

import logging
import math
import random
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.concrete.expr_with_limits import ExprWithLimits
from sympy.core.function import AppliedUndef
from sympy.matrices.exceptions import NonSquareMatrixError

from rewards.math.equivalence import NEAR, equal
from rewards.math.latex import COMMAND, GREEK, MAX_EXPONENT, MAX_FACTORIAL, NOTATION, squeeze, too_large

logging.disable(logging.WARNING)  # both libraries warn, once per process, that their timeouts are off

_sympy: Any = sympy  # mostly untyped
_CONVERSION = ConversionConfig(lowercase_symbols=False)
_POINTS = (1.44, -2.31, 0.037, -19.6, 1234.5, -0.51, 7.75)  # where expressions with variables are compared
_STEPS = (sympy.Abs, sympy.floor, sympy.ceiling, sympy.Max, sympy.Min, sympy.sign, sympy.Mod, sympy.Piecewise)
_UNEVALUATED = (ExprWithLimits, sympy.Limit, sympy.Derivative)  # evaluation may take long
_OF_INTEGERS = (sympy.Sum, sympy.Product, sympy.factorial, sympy.binomial)

_INSIDE = r" ?\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)"  # round brackets with content nested up to two levels
_OPERAND = r"([0-9]+|[A-Za-z]|\([^()]*\))"
_FREE = r"(?<![A-Za-z\\])"
_GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_SMALL = r"(?:\{([0-9]{1,4})\}|([0-9]))"  # a small whole number as an index
_HUGE = re.compile(rf"((?<![0-9.])[0-9]+|{_FREE}[A-Za-z])(?:\^(?:{_GROUP}|([0-9]))|!)")
_UNKNOWN = re.compile(r"(?<![\\A-Za-z])(?!e\^)[A-Za-z]|\\(?!pi)[a-z]")
_TOWER = re.compile(r"\^\{[^{}]*\^")
# Factors without a sign between them: the grammar would read `2(3)` as 2 + 3, and `1/2 x` as 1/(2x).
_FACTOR = re.compile(
    r"((?<![_^0-9.])[0-9.]+|\)|\\pi|Z_\{9[0-9]*\}) ?(?=\()|(?<=\)) ?(?=[0-9])"
    rf"|(/ ?[0-9.]+) ?(?=[A-Za-z]|\\(?:pi|sqrt|frac|sin|cos|tan|ln|log|{'|'.join(GREEK)})(?![A-Za-z]))"
)
# Functions with an argument that the grammar would extend: `\ln 2/\ln 3` as \ln(2/\ln 3), `\sin{x}/x` as \sin(x/x),
# `\sin x \cdot \cos x` as \sin(x\cos x).
_ATOM = (
    r"(?:[0-9.A-Za-z ]|\\frac\{[^{}]*\}\{[^{}]*\}|[_^](?:\{[^{}]*\}|\w)" rf"|\\(?:pi|{'|'.join(GREEK)})(?![A-Za-z]))"
)
_ARGUMENT = re.compile(
    r"(\\(?:(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log(?:_(?:\{[^{}]*\}|\w))?)(?:\^(?:\{[^{}]*\}|\w))?) ?"
    r"(?:\{((?:[^{}]|\{[^{}]*\})*)\}(?! ?\^)|([0-9.]+|[A-Za-z]|\\[a-z]+)(?= ?/ ?\(?[0-9.]*\\(?:ln|log|sin|cos|tan))"
    rf"|({_ATOM}+)(?=\\(?:cdot|times|div)(?![A-Za-z])))"
)
_TWO_NUMBERS = re.compile("(?<![_^0-9.])[0-9.]+ [0-9]")  # the grammar would add them
_CROSS = re.compile(r"([A-Za-z]) ?\\times ?([A-Za-z])")
_BEFORE_PRIMED = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+(?=[A-Za-z]')")
_FACTORIAL_POWER = re.compile(rf"({_OPERAND}!)\^")
_BASE = "base "  # prefix of the symbol that replaces the base of a power that is too large
_COMMANDS = frozenset(f"\\{name}" for name in [*GREEK, *NOTATION["commands"].split()])  # others are rejected


def _symbol(*parts: str) -> Any:
    """The symbol named by the parts."""
    return _sympy.Symbol(squeeze(" ".join(parts)))


def _vector(start: str, end: str) -> Any:
    """The vector between two points, so that AB = -BA."""
    return _symbol("vector", start, end) if start < end else -_symbol("vector", end, start)


def _applied(name: str, arguments: str) -> sympy.Basic | None:
    """An undefined function of the parsed arguments, None if one cannot be parsed."""
    values = [parsed(part) for part in arguments.split(",")]
    return None if None in values else sympy.Function(name)(*map(sympy.expand, values))


def _factorial_like(function: Any, *texts: str) -> Any:
    """A factorial-like function of the parsed texts, a symbol if it is too large, None if a text cannot be parsed."""
    values = [parsed(text) for text in texts]
    if all(isinstance(value, sympy.Rational) and abs(value) > MAX_FACTORIAL for value in values):
        return _symbol(str(function), *map(str, values))
    return function(*values) if all(isinstance(value, sympy.Expr) for value in values) else None


@lru_cache(maxsize=512)
def parsed(text: str) -> sympy.Basic | sympy.MatrixBase | None:
    """The sympy object of a cleaned LaTeX text, decimals as exact rationals; None if the text cannot be parsed."""
    objects: dict[str, Any] = {}

    def hide(value: Any) -> str:
        objects[name := f"Z_{{{len(objects) + 9000}}}"] = value
        return " " + name

    text = _BEFORE_PRIMED.sub(r"\g<0> ", text)
    for pattern, build in _NOTATION:
        text = pattern.sub(lambda m, build=build: hide(build(m)), text)  # type: ignore[misc]
    if too_large(text) or _TOWER.search(text):
        text = _HUGE.sub(lambda m: hide(value) if (value := _huge(m)) else m[0], text)
    text = _ARGUMENT.sub(r"\1(\2\3\4)", _FACTORIAL_POWER.sub(r"(\1)^", text))
    if None in objects.values() or "'" in text or "!!" in text or _TWO_NUMBERS.search(text) or too_large(text):
        return None
    if not _COMMANDS.issuperset(COMMAND.findall(text)):
        return None
    expression: Any = exact(_by_grammar(_FACTOR.sub(r"\1\2\\cdot ", text), is_real=not should_treat_as_complex(text)))
    if isinstance(expression, sympy.Expr) and not expression.has(*_UNEVALUATED):
        try:
            expression = cast(Any, expression).doit()  # the grammar leaves 2^{100} as a power
        except NonSquareMatrixError:
            return None  # the power of a vector
    if not objects or not isinstance(expression, sympy.Basic):
        return None if objects else expression
    expression = expression.xreplace({s: objects[s.name] for s in expression.atoms(sympy.Symbol) if s.name in objects})  # type: ignore[no-untyped-call]
    if any(symbol.name.startswith(_BASE) for symbol in expression.free_symbols):
        expression = _sympy.expand_log(expression).replace(lambda part: part.is_Mul, _absorbed)
    return cast("sympy.Basic", expression.xreplace(dict(map(_settled, expression.atoms(sympy.Symbol, sympy.Pow)))))


# Notation that is not a product of its letters: a pattern, and a function from its match to the sympy object.
_NOTATION: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Any]], ...] = tuple(
    (re.compile(pattern), build)
    for pattern, build in (
        (_FREE + r"([fgFG](?:\^(?:\{[^{}]*\}|[0-9]))?'*|[A-Za-z](?:\^\{\([0-9a-z]+\)\}|'+))" + _INSIDE,
         lambda m: _applied(m[1], m[2])),
        (_FREE + r"(?:(\\mathbb\{[EP]\}|\\operatorname\{\w+\}|[EPVfgFG]) ?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]"
         r"|([A-Za-z])\[([A-Za-z](?:[+-][0-9]+)?)\])",
         lambda m: _applied(m[1] or m[3], m[2] or m[4])),
        (r"(?:\\operatorname\{lcm\}|(?<![A-Za-z\\])lcm) ?\(([0-9]+(?:, ?[0-9]+)*)\)",
         lambda m: sympy.Integer(math.lcm(*map(int, m[1].split(","))))),
        (r"\\(Re|Im|det|dim|arg|deg|ker|nabla|partial|operatorname\{\w+\})(?![A-Za-z])(?:" + _INSIDE + "| ?([A-Za-z]))",
         lambda m: _applied(m[1], m[2] or m[3])),
        (r"\\(max|min|gcd) ?\\\{((?:[^{}\\]|\{[^{}]*\}|\\[a-z]+)*)\\\}", lambda m: parsed(rf"\{m[1]}({m[2]})")),
        (rf"\\binom{_GROUP}{_GROUP}", lambda m: _factorial_like(sympy.binomial, m[1], m[2])),
        (r"\\cis(?:" + _INSIDE + r"| ?((?:\\frac\{[^{}]*\}\{[^{}]*\}|[0-9.]+)?(?:\\[a-z]+|[a-z])?))",
         lambda m: _sympy.exp(sympy.I * (parsed(m[1] or m[2]) or sympy.nan))),
        (r"\\Gamma" + _INSIDE, lambda m: _factorial_like(sympy.gamma, m[1])),
        (rf"(?:{_FREE}C_{_SMALL}\^|(?:\{{\}} ?|(?<![\w)}}\]]))[_^]{_SMALL} ?C_){_SMALL}",
         lambda m: _sympy.binomial(*map(int, filter(None, m.groups())))),
        (r"\\(gcd) ?\(([^()]*[A-Za-z][^()]*)\)", lambda m: _applied(m[1], m[2])),  # sympy's gcd of symbols is 1
        (r"\\frac\{(?:d|\\partial) ?(\w)\}\{(?:d|\\partial) ?(\w)\}", lambda m: _symbol("derivative", *m.groups())),
        (_FREE + r"([A-Za-z](?:_(?:\{\w+\}|\w))?'+)", lambda m: _symbol(m[1])),
        (r"\\(?:measured)?angle ?([A-Z]+)", lambda m: _symbol("angle", min(m[1], m[1][::-1]))),
        (r"\\triangle ?([A-Z]+)", lambda m: _symbol("triangle", *sorted(m[1]))),
        (r"\\overrightarrow\{([A-Z])([A-Z])\}", lambda m: _vector(m[1], m[2])),
        (r"\\overline\{([A-Z])([A-Z])\}", lambda m: parsed(f"{m[1]} {m[2]}")),  # equal to plain AB
        (r"(?<![0-9.])\\(dot|ddot|hat|tilde|widehat|overline)\{([^{}]*)\}", lambda m: _symbol(m[1], m[2])),
        (_FREE + r"([A-DF-Za-df-z]|\([^()]*\))\^(T|\{T\}|\{\*\}|\{?\\dagger\}?)", lambda m: _symbol(m[1], m[2])),
        (_OPERAND + "!!(?!!)", lambda m: _factorial_like(sympy.factorial2, m[1])),
        (r"([A-Za-z]) ?\\(otimes|circ) ?([A-Za-z])", lambda m: _symbol(*m.groups())),
        (r"([A-Za-z]) ?\\odot ?([A-Za-z])", lambda m: _symbol("odot", *sorted(m.groups()))),
        (r"\\ldots", lambda m: _symbol(m[0])),
    )
)  # fmt: skip


def _absorbed(product: Any) -> Any:
    """A product with its coefficient merged into large powers: 2 * 2^{999999} as 2^{1000000}."""
    factor, rest = product.as_coeff_Mul()
    for base in (s for s in rest.free_symbols if s.name.startswith(_BASE) and s.name != f"{_BASE}e"):
        number = int(base.name.removeprefix(_BASE))
        times = _sympy.multiplicity(number, factor)
        factor, rest = factor / sympy.Integer(number) ** times, rest * base**times
    return factor * rest


def _settled(part: Any) -> tuple[Any, Any]:
    """(part, replacement). A power of a `_BASE` symbol becomes its value, or a symbol if it is still too large."""
    base, exponent = part.as_base_exp()
    if not base.is_Symbol or not base.name.startswith(_BASE):
        return part, part
    large = not exponent.is_Integer or abs(exponent) > MAX_EXPONENT
    name = base.name.removeprefix(_BASE)
    number = _sympy.E if name == "e" else sympy.Integer(name)
    return part, _symbol(name, str(exponent)) if large else number**exponent


def _huge(m: re.Match[str]) -> Any:
    """A symbol, or a power of one, for a power or factorial that is too large to compute; None for smaller ones."""
    exponent = m[2] or m[3]
    if not exponent:
        return _symbol(m[0]) if too_large(m[0]) else None
    value: Any = None if too_large(exponent) else parsed(exponent)
    if isinstance(value, sympy.Expr) and value.is_number and value.is_real:
        root, times = (m[1].isdecimal() and _sympy.perfect_power(int(m[1]))) or (m[1], 1)
        if abs(value) <= MAX_EXPONENT:
            return None
        if m[1] == "e" or (isinstance(value, sympy.Integer) and m[1].isdecimal() and abs(value) < 10**100):
            return _sympy.Symbol(f"{_BASE}{root}", positive=True) ** (times * value)  # 10^{1000000}/10^{999999} is 10
        return _symbol(str(root), str(times * value))
    of_symbol = isinstance(value, sympy.Symbol) and not _UNKNOWN.search(exponent)  # an exponent that is too large
    return _symbol(m[0]) if of_symbol or too_large(m[0]) else None


def _by_grammar(text: str, is_real: bool) -> Any:
    """latex2sympy's result for a text, None if it fails. Only library code runs under this `except`."""
    try:
        return latex2sympy(
            text, is_real=is_real, convert_degrees=False, normalization_config=None, conversion_config=_CONVERSION
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the grammar raises bare Exception, sympy various types
        return None


def exact(parsed_object: Any) -> sympy.Basic | sympy.MatrixBase | None:
    """Replaces decimals by exact rationals (a rounded value must not equal an irrational) and i by the imaginary unit.

    None if the object is not from sympy or becomes invalid.
    """
    if not isinstance(parsed_object, (sympy.Basic, sympy.MatrixBase)):
        return None
    changes: dict[Any, Any] = {number: sympy.Rational(str(number)) for number in parsed_object.atoms(sympy.Float)}
    changes |= {symbol: sympy.I for symbol in parsed_object.atoms(sympy.Symbol) if symbol.name == "i"}
    value: Any = parsed_object
    try:
        return value.xreplace(changes) if changes else value  # type: ignore[no-any-return]
    except (TypeError, ValueError, ArithmeticError):
        return None  # invalid with the imaginary unit: i < 2, a sum from 1 to i


_NO_VALUE = (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError)


def _without_rounding(value: Any, digits: int) -> Any:
    """A number without an imaginary part that is a rounding error. evalf's `chop` would also drop tiny factors."""
    real, imaginary = value.as_real_imag()
    size = abs(real) + _sympy.Float(10) ** (-digits // 10)
    return real if abs(imaginary) <= size * _sympy.Float(10) ** (-digits * 8 // 10) else value


def _same_value(a: Any, b: Any, real: bool, digits: int) -> bool | None:
    """Whether two constants agree to four fifths of `digits`, by relative error; None if one cannot be evaluated.

    real: None for two values that are not real; a real and a complex value are not equal.
    """
    try:
        difference = a - b
        if difference.is_Rational or (not real and difference.is_zero is False):
            return bool(difference == 0)
        values = [value.evalf(digits, maxn=digits) for value in (a, b)]
        if not all(value.is_number and value.is_finite for value in values):
            return None
        values = [_without_rounding(value, digits) for value in values]
        if real and not all(value.is_real for value in values):
            return False if any(value.is_real for value in values) else None
        size = max(abs(values[0]), abs(values[1]), _sympy.Float(10) ** (-digits // 10))
        return bool(abs(values[0] - values[1]) <= size * _sympy.Float(10) ** (-digits * 8 // 10))
    except _NO_VALUE:
        return None


def _odd_roots(value: Any) -> Any:
    """Replaces principal odd roots by real ones in a constant without I: \\sqrt[3]{-8} = -2."""
    if value.has(sympy.I):
        return value
    return value.replace(
        lambda part: (
            part.is_Pow and part.exp.is_Rational and part.exp.q % 2 and part.exp.q > 1 and part.base.is_negative
        ),
        lambda part: (-1) ** abs(part.exp.p) * (-part.base) ** part.exp,
    )


def _without_infinite_products(value: Any) -> Any:
    """Replaces infinite products of rational functions by numbers. Raises NotImplementedError for other products, for
    which sympy may take minutes.
    """
    products = [product for product in value.atoms(sympy.Product) if product.limits[0][2] == _sympy.oo]
    return value.xreplace({product: _infinite_product(product) for product in products}) if products else value


def _infinite_product(product: Any) -> Any:
    """An infinite product of a rational function to 40 digits, by gamma functions of its zeros and poles."""
    name, low, _ = product.limits[0]
    quotient = _sympy.fraction(_sympy.together(product.function))
    if len(product.limits) > 1 or not all(side.is_polynomial(name) for side in quotient):
        raise NotImplementedError
    above, below = (_sympy.Poly(side, name) for side in quotient)
    zeros, poles = (_sympy.roots(side, multiple=True) for side in (above, below))
    converges = above.all_coeffs()[:2] == below.all_coeffs()[:2]
    if not (converges and 8 >= len(zeros) == len(poles) == above.degree()):
        raise NotImplementedError
    factors = [_sympy.gamma(low - root) for root in poles] + [1 / _sympy.gamma(low - root) for root in zeros]
    return _sympy.N(_sympy.prod(factors), 40)


def _same_unevaluated(a: Any, b: Any) -> bool | None:
    """Whether two constants with sums or integrals are equal: True if only bound variables differ or sympy proves it,
    False if 30 digits differ or one diverges, else None.
    """
    try:
        if a.as_dummy() == b.as_dummy():
            return True
        products = any(side.has(sympy.Product) for side in (a, b))
        a, b = _without_infinite_products(a), _without_infinite_products(b)
        if not _same_value(a, b, real=products, digits=30):
            return False
        return True if products or (a - b).doit() == 0 else None
    except _NO_VALUE:
        return False  # one of them diverges


def same_values(a: Any, b: Any) -> bool | None:
    """Whether two expressions are equal: constants by many digits, others at sample points; None if undecided."""
    by_name = {symbol.name: symbol for symbol in b.free_symbols}  # a symbol is real, or complex if i occurs
    a = a.xreplace({symbol: by_name.get(symbol.name, symbol) for symbol in a.free_symbols})
    applied = sorted(a.atoms(AppliedUndef) | b.atoms(AppliedUndef), key=str)
    symbols = {application: _sympy.Symbol(f"applied {i}") for i, application in enumerate(applied)}
    a, b = (side.xreplace(symbols).replace(_is_log_of_abs, _log_of_square) for side in (a, b))
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    if not names:
        same = _same_unevaluated(a, b) if a.has(*_UNEVALUATED) or b.has(*_UNEVALUATED) else None
        return _same_value(_odd_roots(a), _odd_roots(b), real=False, digits=1000) if same is None else same
    agreed, integral = 0, a.has(*_OF_INTEGERS) or b.has(*_OF_INTEGERS)
    domains = _domains(a, b) if len(names) > 1 else []
    for k, start in enumerate(_POINTS * (2 if domains else 1)):
        # Values without simple relations: with equally spaced values, a - b would equal b - c.
        wholes = random.Random(k).sample(range(2, 13 + len(names)), len(names))  # noqa: S311 - no secret
        point = {
            name: sympy.Integer(whole) if integral else sympy.Rational(int(start * 1000) + 149 * whole * bool(i), 991)
            for i, (name, whole) in enumerate(zip(names, wholes, strict=True))
        }
        if k >= len(_POINTS):
            point |= {name: -point[name] for name in names[1::2]}
        if any(part.xreplace(point).is_negative for part in domains):
            continue
        try:
            left, right = (
                _odd_roots(_without_infinite_products(side).doit() if integral else side)
                for side in (a.xreplace(point), b.xreplace(point))
            )
        except _NO_VALUE:
            continue
        same = _same_value(left, right, real=not (a.has(sympy.I) or b.has(sympy.I)), digits=100)
        if same is False:
            return False
        agreed += bool(same)
    return True if agreed > 1 and not _has_steps(a) and not _has_steps(b) else None


def _domains(*sides: Any) -> list[Any]:
    """Arguments of logs and even roots: \\ln a + \\ln b equals \\ln(ab) at points where none of them is negative."""
    parts = [part for side in sides if not side.has(sympy.I) for part in side.atoms(sympy.log, sympy.Pow)]
    return [part.args[0] for part in parts if part.func == sympy.log or (part.exp.is_Rational and part.exp.q % 2 == 0)]


def _is_log_of_abs(part: Any) -> bool:
    absolute = part.args[0].atoms(sympy.Abs) if part.func == sympy.log else None
    return bool(absolute and part.args[0].xreplace(dict.fromkeys(absolute, sympy.S.One)).is_positive)


def _log_of_square(part: Any) -> Any:
    """Rewrites \\ln|u| as \\ln(u^2)/2, which has no steps."""
    return sympy.log(part.args[0].replace(sympy.Abs, lambda inside: inside) ** 2) / 2


def _has_steps(value: Any) -> bool:
    """Whether equality at sample points proves nothing. sympy's Abs in \\sqrt[3]{x^2} does not count as a step."""
    for part in value.atoms(sympy.Pow):
        if isinstance(part.base, sympy.Abs) and part.exp.is_Rational and part.exp.p % 2 == 0:
            value = value.xreplace({part: part.base.args[0]})
    return bool(value.has(*_STEPS, *_UNEVALUATED))


def _near_factorials(*sides: Any) -> list[Any]:
    """Rewrites symbols of large factorials as multiples of the next smaller one: 100000!/99999! becomes 100000."""
    names = {symbol.name for side in sides for symbol in side.free_symbols}
    changes: dict[Any, Any] = {}
    for low, high in pairwise(sorted(int(name[:-1]) for name in names if re.fullmatch("[0-9]+!", name))):
        if high - low <= 1000:
            smaller = _symbol(f"{low}!")
            changes[_symbol(f"{high}!")] = changes.get(smaller, smaller) * math.prod(range(low + 1, high + 1))
    return [side.xreplace(changes) for side in sides]


def algebraically_equal(gold: str, answer: str) -> bool:
    """Whether two cleaned texts are equal. An answer that starts with NEAR must only be within 10 % of the gold."""
    if _CROSS.search(gold) and _CROSS.search(answer):  # products of vectors do not commute
        gold, answer = (_CROSS.sub(r"\1 \\otimes \2", text) for text in (gold, answer))
    reference, value = parsed(gold), parsed(answer.removeprefix(NEAR))
    if reference is None or value is None:
        return False
    reference, value = _near_factorials(reference, value)
    if isinstance(reference, sympy.Expr) and isinstance(value, sympy.Expr):
        if answer.startswith(NEAR):
            gap, size = (abs(_sympy.N(number)) for number in (reference - value, reference))
            return bool(gap.is_number and size.is_number and gap <= size / 10)
        same = same_values(reference, value)
        if same is not None:
            return same
    return bool(verify(reference, value, timeout_seconds=None, allow_set_relation_comp=True, numeric_precision=30))


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Reply {"equal", "by"} to a request {"gold", "answer"}; {"limit": …} if memory or stack run out.

    Any other exception is a bug: forkserver.py reports it, and the score is an "error".
    """
    try:
        verdict, by = equal(request["gold"], request["answer"]), "structure"
        if verdict is None:
            verdict, by = equal(request["gold"], request["answer"], leaf=algebraically_equal), "algebra"
        return {"equal": bool(verdict), "by": by}
    except (MemoryError, RecursionError) as problem:
        return {"limit": "memory" if isinstance(problem, MemoryError) else "recursion"}


def warm_up() -> None:
    """Run two comparisons before the first fork, to load the grammar's tables and sympy's simplifier."""
    sys.set_int_max_str_digits(0)  # 3000! has more digits than Python's default limit of 4,300
    for gold, answer in ((r"\frac{x}{2} + \sqrt{3}", r"\sqrt{3} + 0.5x"), ("x^2 - 1 = 0", "x^2 = 1")):
        algebraically_equal(gold, answer)
