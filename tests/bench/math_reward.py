"""How fast the math reward grades, beside plain math-verify on the same pairs.

make bench
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Sequence

import rewards

Pair = tuple[str, str]  # gold, completion


def integers(count: int) -> list[Pair]:
    """Right and wrong integers, as most benchmarks hold them."""
    draw = random.Random(0)
    golds = [draw.randint(-(10**6), 10**6) for _ in range(count)]
    return [(str(gold), f"so \\boxed{{{gold + draw.choice((0, 1)):,}}}") for gold in golds]


def fractions(count: int) -> list[Pair]:
    """Rationals in two spellings."""
    draw = random.Random(1)
    terms = [(draw.randint(1, 99), draw.randint(2, 99)) for _ in range(count)]
    return [(f"\\frac{{{a}}}{{{b}}}", f"\\boxed{{{2 * a}/{2 * b}}}") for a, b in terms]


def expressions(count: int) -> list[Pair]:
    """What needs algebra."""
    draw = random.Random(2)
    terms = [(draw.randint(2, 99), draw.randint(2, 99)) for _ in range(count)]
    return [(f"(x+{a})(x-{b})", f"\\boxed{{x^2+({a}-{b})x-{a * b}}}") for a, b in terms]


def ours(pairs: Sequence[Pair]) -> int:
    """Pairs that the reward takes for right."""
    rows = [{"answer": gold} for gold, _ in pairs]
    scores = rewards.load("math", cache=0).score_many(rows, [completion for _, completion in pairs])
    return sum(score.value == 1 for score in scores)


def plain(pairs: Sequence[Pair]) -> int:
    """Pairs that math-verify takes for right, called as its README does."""
    from math_verify import parse, verify

    return sum(verify(parse(f"${gold}$"), parse(completion)) for gold, completion in pairs)


def measure(grade: Callable[[Sequence[Pair]], int], pairs: list[Pair]) -> tuple[int, float, float]:
    """Right answers, pairs per wall second, CPU milliseconds per pair (children that have ended included)."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    before, began = cpu(), time.perf_counter()
    right = grade(pairs)
    return right, len(pairs) / (time.perf_counter() - began), 1000 * (cpu() - before) / len(pairs)


def main() -> None:
    """Print the table."""
    ours(expressions(2))  # both start their parsers before the clock does
    plain(expressions(2))
    print(f"{'pairs':<14} {'grader':<12} {'right':>6} {'pairs/s':>9} {'own CPU ms':>11}")
    for name, pairs in (
        ("integers", integers(2000)),
        ("fractions", fractions(1000)),
        ("expressions", expressions(100)),
    ):
        for label, grade in (("rewards.math", ours), ("math-verify", plain)):
            right, rate, cpu = measure(grade, pairs)
            print(f"{name:<14} {label:<12} {right:>6} {rate:>9.0f} {cpu:>11.3f}")


if __name__ == "__main__":
    main()
