"""How fast the sandbox runs Python solutions of ten tests, beside a `python` process per test without isolation.

PYTHONPATH=. python tests/bench/sandbox_reward.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from rewards import RewardError
from rewards.sandbox import Case, Limits, Sandbox

SOLUTION = """
import sys
from collections import defaultdict
def main():
    data = sys.stdin.read().split()
    n, values = int(data[0]), list(map(int, data[1:]))
    seen = defaultdict(int)
    for value in values[:n]: seen[value] += 1
    print(sum(values[:n]), max(seen.values()))
main()
"""
TESTS = [f"{n}\n{' '.join(str(i * n % 97) for i in range(n))}\n" for n in range(10, 110, 10)]
ROUNDS, SOLUTIONS = 5, 8


def by_subprocess() -> list[bytes]:
    """A `python` per test, as most harnesses do."""
    command = [sys.executable, "-c", SOLUTION]
    return [subprocess.run(command, input=test.encode(), capture_output=True, timeout=60).stdout for test in TESTS]


def by_sandbox(box: Sandbox) -> Callable[[], list[bytes]]:
    cases = [Case(test.encode()) for test in TESTS]
    return lambda: [ran.stdout for ran in box.python(SOLUTION, cases, Limits()).runs]


def cpu_of(processes: Sequence[Callable[[], float]]) -> float:
    """CPU seconds of this process, its ended children, and living processes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(read() for read in processes)


def living(pid: int) -> Callable[[], float]:
    """CPU seconds of a process, with those of the children it has waited for."""

    def read() -> float:
        with open(f"/proc/{pid}/stat") as file:
            ticks = file.read().rpartition(")")[2].split()[11:15]
        return sum(map(int, ticks)) / 100

    return read


def below(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [found for child in file.read().split() for found in (int(child), *below(int(child)))]


def main() -> None:
    """Print the table."""
    ways: dict[str, tuple[Callable[[], list[bytes]], list[Callable[[], float]]]] = {}
    boxes = []
    for level in ("namespaces", "landlock"):
        try:
            box = Sandbox(level)  # type: ignore[arg-type]
        except RewardError as problem:
            print(problem)
            continue
        boxes.append(box)
        assert box._programs._zygote is not None
        assert box._programs._zygote._process is not None
        time.sleep(0.2)  # for the probe's job to end
        outer = box._programs._zygote._process.pid
        ways[f"sandbox, level {level}"] = by_sandbox(box), [living(pid) for pid in (outer, *below(outer))]
    ways["python per test"] = by_subprocess, []
    wanted = by_subprocess()
    spent: dict[str, list[float]] = {name: [] for name in ways}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (run, processes) in ways.items():
            time.sleep(0.05)  # for the last job to be waited for
            before, began = cpu_of(processes), time.perf_counter()
            for _ in range(SOLUTIONS):
                assert run() == wanted, name
            walls[name].append((time.perf_counter() - began) / SOLUTIONS)
            time.sleep(0.05)
            spent[name].append((cpu_of(processes) - before) / SOLUTIONS)
    plain = statistics.median(spent["python per test"])
    print(f"{'10 tests by':<24} {'CPU ms':>7} {'wall ms':>8} {'solutions/s/core':>17} {'× python per test':>18}")
    for name, seconds in spent.items():
        cpu = statistics.median(seconds)
        wall = statistics.median(walls[name])
        print(f"{name:<24} {1000 * cpu:>7.1f} {1000 * wall:>8.1f} {1 / cpu:>17.1f} {plain / cpu:>18.1f}")
    for box in boxes:
        box.close()


if __name__ == "__main__":
    main()
