"""How much CPU a C++ candidate under GoogleTest costs, beside g++ and gtest from scratch for each.

PYTHONPATH=. python tests/bench/cpp_reward.py

From scratch: one g++ call on tests that include the solution, and one run of all tests, without isolation. Ours: the
tests are compiled once per batch, again in every repeat; each test has a process behind the sandbox's walls. Our
whole CPU time is that of this process and of everything below it, the sandbox's own included, from /proc; compile
and run are what the sandbox reports for its compilers and leaves.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rewards.code import cpp
from rewards.code.cpp.interface import interface
from rewards.sandbox import Sandbox
from tests.bench.tables import show
from tests.rewards.test_skill_mix_questions import OURS, stub

REPEATS = 3
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """CPU seconds: of compilers and linker, of the tests, of everything. passed: tests, to see that both agree."""

    compile: float
    run: float
    whole: float
    passed: int


def below(pid: int) -> float:
    """CPU seconds of all living descendants, and of their ended children."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
            used[int(entry.name)] = sum(map(int, fields[11:15])) / TICKS
    todo, total = [*parents.get(pid, [])], 0.0
    while todo:
        child = todo.pop()
        total += used[child]
        todo += parents.get(child, [])
    return total


def waited_for() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def whole() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime + waited_for() + below(os.getpid())


def candidates(name: str, count: int) -> list[str]:
    """Right and wrong solutions in turn, no two the same."""
    right, wrong = OURS[name]["gold_solution"], stub(OURS[name])
    # A stub includes all of libstdc++; as a candidate it includes what the right solution does.
    wrong = wrong.replace("#include <bits/stdc++.h>", includes(right))
    return [f"{wrong if i % 2 else right}\n// {i}\n" for i in range(count)]


def includes(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if line.startswith("#include"))


def ours(batch: int, names: list[str], turn: int, box: Sandbox) -> Cost:
    before, graded = whole(), []
    for name in names:
        tests = f"{OURS[name]['unit_tests']}\n// turn {turn} of {batch}\n"  # else they would be compiled already
        declarations = interface(OURS[name]["gold_solution"], tests)
        for code in candidates(name, batch):
            graded.append(cpp.grade(code, tests, "gtest", declarations=declarations, sandbox=box))
    assert all(not one.failure and one.compile_error is None for one in graded)
    passed = sum(test.status == "passed" for one in graded for test in one.tests)
    return Cost(
        sum(one.compile_cpu_s for one in graded), sum(one.run_cpu_s for one in graded), whole() - before, passed
    )


def from_scratch(batch: int, names: list[str], folder: Path) -> Cost:
    """g++ and gtest_main, once per candidate."""
    began, compiled, passed = waited_for(), 0.0, 0
    (folder / "solution").mkdir(exist_ok=True)
    (folder / "tests").mkdir(exist_ok=True)
    for name in names:
        (folder / "tests" / "test.cpp").write_text(OURS[name]["unit_tests"])
        for code in candidates(name, batch):
            (folder / "solution" / "solution.cpp").write_text(code)
            before = waited_for()
            command = ["g++", "-std=c++17", "tests/test.cpp", "-lgtest", "-lgtest_main", "-o", "run"]
            subprocess.run(command, cwd=folder, check=True)
            compiled += waited_for() - before
            done = subprocess.run(["./run"], cwd=folder, capture_output=True, text=True)
            passed += done.stdout.count("[       OK ]")
    used = waited_for() - began
    return Cost(compiled, used - compiled, used, passed)


def rows(batch: int, mine: list[Cost], theirs: list[Cost], count: int) -> list[dict[str, object]]:
    found = []
    parts: dict[str, Callable[[Cost], float]] = {
        "compile and link": lambda cost: cost.compile,
        "run": lambda cost: cost.run,
        "everything": lambda cost: cost.whole,
    }
    for part, of in parts.items():
        a, b = (1000 * statistics.median(map(of, costs)) / count for costs in (mine, theirs))
        found.append({"what": f"{part}, batches of {batch}", "ours": f"{a:.1f} ms", "from scratch": f"{b:.1f} ms",
                      "ratio": f"{b / a:.2f}"})  # fmt: skip
    return found


def main() -> None:
    """Print the table: CPU milliseconds per candidate."""
    table: list[dict[str, object]] = []
    with Sandbox() as box, tempfile.TemporaryDirectory() as folder:
        ours(1, ["box"], -1, box)  # the precompiled headers are made once per machine
        for batch, names in ((8, ["runs", "median"]), (1, list(OURS))):
            mine, theirs = [], []
            for turn in range(REPEATS):
                mine.append(ours(batch, names, turn, box))
                theirs.append(from_scratch(batch, names, Path(folder)))
            assert {cost.passed for cost in mine} == {cost.passed for cost in theirs}
            table += rows(batch, mine, theirs, batch * len(names))
    show("C++ under GoogleTest, CPU per candidate", table)


if __name__ == "__main__":
    main()
