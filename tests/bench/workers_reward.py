"""`score_many` on 10,000 rows with one worker and with two.

    PYTHONPATH=. python tests/bench/workers_reward.py [math] [bleu] [bleu_short] [code]

Wall time says something on two idle cores only. CPU time does on a busy machine, too: with two workers, a batch cannot
take less than half of all CPU seconds, nor less than those of the scoring process; `× by CPU` compares with that bound.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import rewards
from rewards.processes.pool import cpu_clock, shared
from tests.bench import code_reward, math_reward
from tests.bench.tables import cpu_now, show
from tests.bench.texts import groups

REPEATS = 3
Batch = tuple[str, list[dict[str, object]], list[str]]  # reward, rows, completions


def math() -> Batch:
    """Groups of 8 as in a rollout: a half integers, a quarter fractions, a quarter that needs algebra."""
    integers, fractions = (make(1250, math_reward.REASONING) for make in (math_reward.integers, math_reward.rationals))
    kinds = (integers, integers, fractions, math_reward.expressions(1250))
    pairs = [pair for at in range(0, 10_000, 8) for pair in kinds[at // 8 % 4][at : at + 8]]
    return "math", [{"answer": gold} for gold, _ in pairs], [completion for _, completion in pairs]


def bleu(references: int = 5, tokens: int = 300) -> Batch:
    made = groups(1250, references, tokens=tokens)
    rows: list[dict[str, object]] = [{"references": group.references} for group in made for _ in group.completions]
    return "bleu", rows, [text for group in made for text in group.completions]


def bleu_short() -> Batch:
    return bleu(references=1, tokens=20)


def code() -> Batch:
    tests = {"kind": "stdio", "cases": code_reward.cases()}
    texts = [f"```python\n{program}\n```" for program in code_reward.solutions(60)]
    return "code", [{"tests": tests} for _ in texts], texts


CASES: dict[str, Callable[[], Batch]] = {"math": math, "bleu": bleu, "bleu_short": bleu_short, "code": code}
MODULES = ("rewards.math.worker", "rewards.processes.fanout")


def _spent(workers: int) -> float:
    """CPU time that the idle workers have used."""
    return sum(cpu_clock(worker.pid) for module in MODULES for worker in shared(module, workers)._idle)


def seconds(name: str, rows: list[dict[str, object]], texts: list[str], workers: int) -> tuple[float, float, float]:
    """Wall time, CPU time of this process and of the workers for a batch; workers started, all caches empty."""
    for module in MODULES:
        shared(module, workers).close(wait=True)
    warm = [({"answer": "x+1"}, r"\boxed{1-x}")] * 64 if name == "math" else list(zip(rows, texts, strict=True))[:64]
    rewards.load(name).score_many([row for row, _ in warm], [f"{text} " for _, text in warm], workers=workers)
    reward = rewards.load(name)
    idle = _spent(workers)
    wall, cpu = time.perf_counter(), cpu_now()
    reward.score_many(rows, texts, workers=workers)
    wall, cpu = time.perf_counter() - wall, cpu_now() - cpu
    return wall, cpu, _spent(workers) - idle


def main(cases: list[str]) -> None:
    table = []
    for case in cases:
        name, rows, texts = CASES[case]()
        taken: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
        for _ in range(REPEATS):
            for workers, measured in taken.items():
                measured.append(seconds(name, rows, texts, workers))
        medians = [[statistics.median(part) for part in zip(*measured, strict=True)] for measured in taken.values()]
        (wall, host, own), (wall_2, host_2, own_2) = medians
        bound = max(host_2, (host_2 + own_2) / 2)
        table.append({"what": f"{case}, {len(rows)} rows", "1: wall s": f"{wall:.2f}", "CPU s": f"{host + own:.2f}",
                      "2: wall s": f"{wall_2:.2f}", "CPU s here": f"{host_2:.2f}", "in workers": f"{own_2:.2f}",
                      "× by wall": f"{wall / wall_2:.2f}",
                      "× by CPU": "" if case == "code" else f"{(host + own) / bound:.2f}"})  # fmt: skip
    show(f"score_many on {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f})", table)


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
