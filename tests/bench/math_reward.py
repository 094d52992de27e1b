"""How fast the math reward grades, beside math-verify called plainly on the same pairs.

make bench/rewards

CPU time, workers' included. Fast path: groups of 8 completions of about 1,500 characters per gold, as in a rollout,
and the box alone. Mixed: the labelled pairs of tests/rewards/pairs.py, every cache empty.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import rewards
from rewards.processes.pool import shared
from tests.bench.tables import cpu_seconds, show, versus

sys.path.append(str(Path(__file__).resolve().parent.parent / "rewards"))
from pairs import EQUAL, UNEQUAL  # test modules are no package

Pair = tuple[str, str]  # gold, completion
GROUP = 8
REASONING = (
    "We know that $a+b = 12$, so \\frac{a}{b} = 3 and hence $x^{2} = 9$; now consider the other case again. " * 14
)


def integers(golds: int, before: str) -> list[Pair]:
    """Right and wrong integers, with separators."""
    draw = random.Random(0)
    values = [draw.randint(-(10**6), 10**6) for _ in range(golds)]
    return [(str(v), f"{before}\\boxed{{{v + draw.choice((0, 1)):,}}}.") for v in values for _ in range(GROUP)]


def rationals(golds: int, before: str) -> list[Pair]:
    """Fractions that are equal, in another spelling."""
    draw = random.Random(1)
    terms = [(draw.randint(1, 99), draw.randint(2, 99)) for _ in range(golds)]
    spell = ("{}/{}", "\\frac{{{}}}{{{}}}")
    return [
        (f"\\frac{{{a}}}{{{b}}}", f"{before}\\boxed{{{spell[i % 2].format(2 * a, 2 * b)}}}.")
        for a, b in terms
        for i in range(GROUP)
    ]


def expressions(golds: int) -> list[Pair]:
    """What needs algebra."""
    draw = random.Random(2)
    terms = [(draw.randint(2, 99), draw.randint(2, 99)) for _ in range(golds)]
    return [(f"(x+{a})(x-{b})", f"\\boxed{{x^2+({a}-{b})x-{a * b + i % 2}}}") for a, b in terms for i in range(GROUP)]


def mixed() -> list[Pair]:
    """Each shape of answer, right and wrong."""
    return [(gold, f"So it is $\\boxed{{{answer}}}$.") for gold, answer in (*EQUAL, *UNEQUAL)]


def ours(pairs: Sequence[Pair], workers: int = 1) -> int:
    """Pairs that the reward takes for right; its workers end with it, so that their CPU time is counted."""
    rows = [{"answer": gold} for gold, _ in pairs]
    scores = rewards.load("math", workers=workers).score_many(rows, [completion for _, completion in pairs])
    shared("rewards.math.worker", workers).close(wait=True)
    return sum(score.value == 1 for score in scores)


def plain(pairs: Sequence[Pair]) -> int:
    """Pairs that math-verify takes for right, called as its README does, in a child: its caches start empty too."""
    pid = os.fork()
    if pid == 0:
        from math_verify import parse, verify

        logging.disable(logging.WARNING)
        for gold, completion in pairs:
            verify(parse(f"${gold}$"), parse(completion))
        os._exit(0)
    os.waitpid(pid, 0)
    return 0


def fast_path() -> None:
    """Answers that no worker sees."""
    rates = []
    for name, make in (("integers", integers), ("rationals", rationals)):
        for shape, before in (("1,500 characters", REASONING), ("box alone", "")):
            pairs = make(2500, before)
            few = pairs[: 40 * GROUP]
            taken = cpu_seconds({"rewards.math.reward": lambda p=pairs: _fast(p)})["rewards.math.reward"]
            theirs = cpu_seconds({"math-verify": lambda p=few: plain(p)}, repeats=1)["math-verify"]
            rate, other = len(pairs) / taken, len(few) / theirs
            rates.append({"what": f"{name}, {shape}", "ours/s": f"{rate:,.0f}", "math-verify/s": f"{other:,.0f}",
                          "ratio": f"{rate / other:,.0f}"})  # fmt: skip
    show("math: the fast path, answers per CPU second", rates)


def _fast(pairs: Sequence[Pair]) -> None:
    rows = [{"answer": gold} for gold, _ in pairs]
    scores = rewards.load("math").score_many(rows, [completion for _, completion in pairs])
    assert all(score.details["by"] == "exact" for score in scores)


def algebra() -> None:
    """Answers that may need a worker."""
    for name, pairs in (("expressions", expressions(12)), ("mixed", mixed())):
        contenders: dict[str, Callable[[], object]] = {
            "math-verify": lambda p=pairs: plain(p),
            "rewards.math.reward": lambda p=pairs: ours(p),
            "(start of workers alone)": lambda: ours([("x+1", "\\boxed{1+x}")]),
        }
        taken = cpu_seconds(contenders, repeats=3)
        taken["rewards.math.reward, workers up"] = taken["rewards.math.reward"] - taken["(start of workers alone)"]
        show(f"math: {name}, {len(pairs)} pairs", versus("math-verify", taken, len(pairs)))


def memory() -> None:
    """Resident memory of this process over 100,000 rows, none like another."""
    reward, sizes = rewards.load("math", cache=1024), []
    for batch in range(10):
        numbers = range(batch * 10_000, (batch + 1) * 10_000)
        rows = [{"answer": f"{n}/7" if n % 100 else f"x+{n}"} for n in numbers]
        reward.score_many(
            rows, [f"{REASONING}{n}\\boxed{{{n}/7}}" if n % 100 else f"\\boxed{{{n}+x}}" for n in numbers]
        )
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    show(
        "math: memory of this process in MB",
        [{"after rows": f"{10_000 * (i + 1):,}", "MB": f"{sizes[i]:.1f}"} for i in (0, 1, 4, 9)],
    )


def main() -> None:
    """Print the tables."""
    fast_path()
    algebra()
    memory()


if __name__ == "__main__":
    main()
