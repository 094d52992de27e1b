"""How much CPU a C++ candidate costs: tests as calls, the same tests as GoogleTest source, and g++ from scratch.

PYTHONPATH=. python tests/bench/cpp_reward.py

From scratch: one g++ call on tests that include the solution, and one run of all tests, without isolation. The others
run in the sandbox, each test in a process of its own; their CPU time is that of this process and of everything below
it, the sandbox's own included, from /proc. The three take turns.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewards.code.grade import Terms, grade_program
from rewards.code.suites import read
from rewards.sandbox import shared
from tests.bench.tables import show
from tests.rewards.test_skill_mix_questions import OURS, as_question, programs

REPEATS = 5
TICKS = os.sysconf("SC_CLK_TCK")
CONVERTED = [name for name, record in OURS.items() if as_question(name, record).tests["kind"] == "call"]


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


def candidates() -> list[tuple[str, str]]:
    """(name of a question, code): its gold and its stub."""
    return [(name, code) for name in CONVERTED for code in programs(name, as_question(name, OURS[name]), 0)[:2]]


def sandboxed(tests_of: Callable[[str], dict[str, Any]]) -> tuple[float, int]:
    """CPU seconds per candidate, and how many pass all tests."""
    before, right = whole(), 0
    made = candidates()
    for name, code in made:
        graded = grade_program(code, read(tests_of(name)), Terms(), shared())
        right += bool(graded.tests) and all(test.status == "passed" for test in graded.tests)
    return (whole() - before) / len(made), right


def from_scratch(folder: Path) -> tuple[float, int]:
    """g++ and gtest_main, once per candidate."""
    before, right = waited_for(), 0
    for part in ("solution", "tests"):
        (folder / part).mkdir(exist_ok=True)
    made = candidates()
    for name, code in made:
        (folder / "tests" / "test.cpp").write_text(OURS[name]["unit_tests"])
        (folder / "solution" / "solution.cpp").write_text(code)
        command = ["g++", "-std=c++17", "tests/test.cpp", "-lgtest", "-lgtest_main", "-o", "run"]
        subprocess.run(command, cwd=folder, check=True)
        right += subprocess.run(["./run"], cwd=folder, capture_output=True).returncode == 0
    return (waited_for() - before) / len(made), right


def main() -> None:
    """Print the table: CPU milliseconds per candidate."""
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], tuple[float, int]]] = {
            "calls": lambda: sandboxed(lambda name: as_question(name, OURS[name]).tests),
            "source": lambda: sandboxed(lambda name: {"kind": "gtest", "source": OURS[name]["unit_tests"]}),
            "from scratch": lambda: from_scratch(Path(folder)),
        }
        ways["calls"]()  # the precompiled headers are made once per machine
        runs = [{way: measure() for way, measure in ways.items()} for _ in range(REPEATS)]
    assert len({right for run in runs for _, right in run.values()}) == 1
    table = [
        {"tests as": way, "CPU per candidate": f"{1000 * statistics.median(run[way][0] for run in runs):.0f} ms"}
        for way in ways
    ]
    show("C++, CPU per candidate", table)


if __name__ == "__main__":
    main()
