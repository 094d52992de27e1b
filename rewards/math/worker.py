"""The algebra behind the math reward, run only in the pool's worker processes.

LaTeX is parsed by latex2sympy's ANTLR grammar and compared by math-verify's `verify`, both without their
SIGALRM timeouts: the pool's parent keeps the deadline. What is trusted: that this grammar builds sympy
objects from tokens and never evaluates text. sympy's `parse_expr` and `sympify`, which do evaluate text, are
never called on an answer; math-verify's own extraction, which calls `parse_expr`, is not used.
"""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from rewards.math.equivalence import equal

logging.disable(logging.WARNING)  # both libraries warn, once per process, that their timeouts are off

# Units are ours (rewards/math/quantity.py): math-verify would drop them, and then 5 m equals 5 km.
_NORMAL = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_CONVERSION = ConversionConfig(lowercase_symbols=False)


# The grammar drops a prime behind a number, and then 5' equals 5.
_PRIMED = re.compile(r"[0-9]\s*'")


@lru_cache(maxsize=512)
def parsed(text: str) -> sympy.Basic | sympy.MatrixBase | None:
    """The sympy object of a cleaned LaTeX text, decimals as exact rationals; None if it has no meaning."""
    if _PRIMED.search(text):
        return None
    return exact(_by_grammar(normalize_latex(text, _NORMAL), is_real=not should_treat_as_complex(text)))


def _by_grammar(text: str, is_real: bool) -> Any:
    """What latex2sympy makes of a text, None where it refuses. No code of ours runs under this `except`."""
    try:
        return latex2sympy(
            text,
            is_real=is_real,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CONVERSION,
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the grammar raises bare Exception, sympy whatever it met on the way
        return None


def exact(found: Any) -> sympy.Basic | sympy.MatrixBase | None:
    """Decimals as the rationals that were written, so that no rounded value equals an irrational; i as the
    unit.
    """
    if not isinstance(found, (sympy.Basic, sympy.MatrixBase)):
        return None
    changes: dict[Any, Any] = {number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)}
    changes |= {symbol: sympy.I for symbol in found.atoms(sympy.Symbol) if symbol.name == "i"}
    whole: Any = found
    try:
        return whole.xreplace(changes) if changes else whole  # type: ignore[no-any-return]
    except (TypeError, ValueError, ArithmeticError):
        return None  # built again, it is nothing: i < 2, a sum from 1 to i


def differ_at_a_point(a: Any, b: Any) -> bool:
    """Whether two expressions take different values where every variable has some positive value.

    Most wrong answers are refuted here, in a tenth of the time that it takes to fail at proving them equal.
    """
    if not isinstance(a, sympy.Expr) or not isinstance(b, sympy.Expr):
        return False
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    point = {name: sympy.Rational(1009 + 137 * i, 701) for i, name in enumerate(names)}
    try:
        values = [complex(side.evalf(20, subs=point)) for side in (a, b)]
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False  # no number there: infinite, undefined, a function without a value
    gap, size = abs(values[0] - values[1]), max(map(abs, values))
    return math.isfinite(size) and gap > 1e-9 * (1 + size)


def algebraically_equal(gold: str, answer: str) -> bool:
    wanted, given = parsed(gold), parsed(answer)
    if wanted is None or given is None:
        return False
    if differ_at_a_point(wanted, given):
        return False
    return bool(verify(wanted, given, timeout_seconds=None, allow_set_relation_comp=True, numeric_precision=30))


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """{"gold", "answer"} to {"equal", "by"}; {"parse"} to {"parsed"}; {"limit": …} when memory or stack run out.

    Any other exception is a defect of ours: forkserver.py reports it, and the score is an "error".
    """
    try:
        if "parse" in request:
            return {"parsed": parsed(request["parse"]) is not None}
        verdict, by = equal(request["gold"], request["answer"]), "structure"
        if verdict is None:
            verdict, by = equal(request["gold"], request["answer"], leaf=algebraically_equal), "algebra"
        return {"equal": bool(verdict), "by": by}
    except (MemoryError, RecursionError) as problem:
        return {"limit": "memory" if isinstance(problem, MemoryError) else "recursion"}


def warm_up() -> None:
    """Touch what every comparison needs (the grammar's tables, sympy's simplifier) before the first fork."""
    for gold, answer in ((r"\frac{x}{2} + \sqrt{3}", r"\sqrt{3} + 0.5x"), ("x^2 - 1 = 0", "x^2 = 1")):
        algebraically_equal(gold, answer)
