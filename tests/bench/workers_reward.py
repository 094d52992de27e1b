"""Wall time of `score_many` with one worker and with two, which says something on two idle cores only.

PYTHONPATH=. python tests/bench/workers_reward.py
"""

from __future__ import annotations

import os
import statistics
import time

import rewards
from rewards.processes.pool import shared
from tests.bench import code_reward, math_reward
from tests.bench.tables import show
from tests.bench.texts import groups

REPEATS = 5
Batch = tuple[str, list[dict[str, object]], list[str]]  # reward, rows, completions


def math_mixed() -> Batch:
    pairs = math_reward.mixed()
    return "math", [{"answer": gold} for gold, _ in pairs], [completion for _, completion in pairs]


def bleu() -> Batch:
    made = groups(300, references=5)
    rows: list[dict[str, object]] = [{"references": one.references} for one in made for _ in one.completions]
    return "bleu", rows, [text for one in made for text in one.completions]


def code() -> Batch:
    tests = {"kind": "stdio", "cases": code_reward.cases()}
    texts = [f"```python\n{program}\n```" for program in code_reward.solutions(60)]
    return "code", [{"tests": tests} for _ in texts], texts


def seconds(name: str, rows: list[dict[str, object]], texts: list[str], workers: int) -> float:
    """Of one batch, workers started, all caches empty: those of sympy, too, which live in the workers."""
    shared("rewards.math.worker", workers).close(wait=True)
    reward = rewards.load(name)
    warm = [({"answer": "x+1"}, r"\boxed{1-x}")] * 64 if name == "math" else list(zip(rows, texts, strict=True))[:64]
    reward.score_many([row for row, _ in warm], [f"{text} " for _, text in warm], workers=workers)
    fresh = rewards.load(name)
    began = time.perf_counter()
    fresh.score_many(rows, texts, workers=workers)
    return time.perf_counter() - began


def main() -> None:
    table = []
    for make in (math_mixed, bleu, code):
        name, rows, texts = make()
        taken: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(REPEATS):
            for workers, walls in taken.items():
                walls.append(seconds(name, rows, texts, workers))
        one, two = (statistics.median(walls) for walls in taken.values())
        table.append({"what": f"{name}, {len(rows)} rows", "1 worker, s": f"{one:.2f}", "2 workers, s": f"{two:.2f}",
                      "×": f"{one / two:.2f}"})  # fmt: skip
    show(f"score_many on {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f})", table)


if __name__ == "__main__":
    main()
