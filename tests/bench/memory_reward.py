"""Memory and descriptors of the scoring process over 100,000 rows, all different.

    PYTHONPATH=. python tests/bench/memory_reward.py [rows] [reward…]

`code` runs a program of one test per row: about ten minutes on a core.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import rewards
from tests.bench.tables import show

BATCH = 500
Pair = tuple[dict[str, object], str]


def math_rows() -> Iterator[Pair]:
    for n in range(1 << 30):
        yield {"answer": str(n)}, rf"so it is \boxed{{{n if n % 3 else n + 1}}}"


def bleu_rows() -> Iterator[Pair]:
    for n in range(1 << 30):
        yield {"references": [f"row {n} says that {n * n} is its square"]}, f"row {n} says: {n * n}"


def code_rows() -> Iterator[Pair]:
    tests = {"kind": "stdio", "cases": [{"input": "1\n", "output": "2\n"}]}
    for n in range(1 << 30):
        yield {"tests": tests}, f"```python\nprint(int(input()) + {n % 2})  # {n}\n```"


SOURCES: dict[str, Callable[[], Iterator[Pair]]] = {"math": math_rows, "bleu": bleu_rows, "code": code_rows}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(name: str, rows: int) -> Iterator[dict[str, object]]:
    reward, source = rewards.load(name), SOURCES[name]()
    marks = {rows // 10, rows // 2, rows}
    for done in range(BATCH, rows + 1, BATCH):
        pairs = list(islice(source, BATCH))
        reward.score_many([row for row, _ in pairs], [text for _, text in pairs], workers=2 if name == "code" else 1)
        if done in marks:
            fds = len(os.listdir("/proc/self/fd"))
            yield {"reward": name, "rows": f"{done:,}", "RSS MB": f"{resident_mb():.1f}", "descriptors": fds,
                   "outcomes": dict(reward.counts)}  # fmt: skip


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for chosen in sys.argv[2:] or SOURCES:
        show(f"Memory: {chosen}", list(measure(chosen, total)))
