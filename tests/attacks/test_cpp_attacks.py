"""C++ solutions that try to pass without answering: none passes a test, and each test fails alone.

The programs stand in cpp_programs.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rewards.code.cpp.declaration import read_declaration
from rewards.code.cpp.toolchain import compile_call
from rewards.code.grade import Terms, grade_program
from rewards.code.results import Graded
from rewards.code.suites import read
from rewards.sandbox import Level, Limits, Sandbox

CALLS: dict[str, Any] = {
    "kind": "call", "language": "cpp", "declaration": "int add(int a, int b);", "function": "add",
    "cases": [{"args": list(args), "expected": sum(args)} for args in ((1, 2), (-1, -2), (1000, 1))],
}  # fmt: skip
GTEST = """
#include <gtest/gtest.h>
#include <string>
#include "../solution/solution.cpp"
TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }
TEST(Add, Negative) { auto sum = add(-1, -2); EXPECT_EQ(sum, -3); }
TEST(Add, Large) { ASSERT_TRUE(add(1000, 1) == 1001) << std::string("large"); }
"""
# With declarations, tests as source stop what needs no knowledge of the harness; the others may pass them.
SOURCE = {"kind": "gtest", "source": GTEST, "declarations": "int add(int a, int b);"}
PLAIN_CHEATS = ["_exit", "exit", "exit in a constructor", "exit in atexit", "throw", "prints success",
                "writes a report",
                "filters by environment", "EXPECT_EQ", "TEST", "own main", "equal to all", "tests added",
                "bitset of nothing", "forged in the function"]  # fmt: skip
HONEST = "int add(int a, int b) { return a + b; }"
_OPENING = re.compile(r"^//// (\w+)([\w ]*): (.+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Attack:
    """kind: see the head of cpp_programs.txt. statuses: how the tests, or the compiler, may end."""

    kind: str
    name: str
    statuses: frozenset[str]
    code: str


def attacks() -> list[Attack]:
    _, *pieces = _OPENING.split((Path(__file__).parent / "cpp_programs.txt").read_text())
    parts: dict[str, str] = {"NEST(": "(" * 100_000, ")TSEN": ")" * 100_000}
    found = []
    for kind, statuses, name, code in zip(*(pieces[i::4] for i in range(4)), strict=True):
        if kind == "part":
            parts[name] = code
        for short, whole in parts.items():
            code = code.replace(short, whole)
        found.append(Attack(kind, name, frozenset(statuses.split()), code))
    return found


def of(*kinds: str, named: str = "") -> list[object]:
    return [pytest.param(a, id=a.name) for a in attacks() if a.kind in kinds and a.name.startswith(named)]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def grade(box: Sandbox, code: str, tests: dict[str, Any], **limits: Any) -> Graded:
    return grade_program(code, read(tests), Terms(**limits), box)


def passed(graded: Graded) -> int:
    return sum(test.status == "passed" for test in graded.tests)


def gets_nothing(box: Sandbox, attack: Attack, tests: dict[str, Any]) -> None:
    graded = grade(box, attack.code, tests, cpu_s=0.2, output_kb=64)
    assert passed(graded) == 0
    assert graded.compile_error or len(graded.tests) == 3


@pytest.mark.parametrize("tests", [CALLS, SOURCE])
def test_the_attacked_tests_pass_an_honest_solution(box: Sandbox, tests: dict[str, Any]) -> None:
    assert passed(grade(box, HONEST, tests)) == 3


@pytest.mark.parametrize("attack", of("cheat", "leak"))
def test_no_test_passes(box: Sandbox, attack: Attack) -> None:
    gets_nothing(box, attack, CALLS)


@pytest.mark.parametrize("name", PLAIN_CHEATS)
def test_no_test_as_source_passes(box: Sandbox, name: str) -> None:
    (attack,) = (attack for attack in attacks() if attack.name == name)
    gets_nothing(box, attack, SOURCE)


def test_landlock_holds_too() -> None:
    level: Level = "landlock"
    with Sandbox(level) as box:
        assert passed(grade(box, HONEST, CALLS)) == 3
        for attack in attacks():
            # Landlock does not cover memory files: a program may read its own code, which it has in memory anyway.
            if (attack.kind == "leak" and attack.name != "own executable") or attack.name.startswith("forged"):
                gets_nothing(box, attack, CALLS)


@pytest.mark.parametrize("attack", of("bomb"))
def test_a_bomb_goes_off_alone(box: Sandbox, attack: Attack) -> None:
    # To touch 256 MB costs a busy machine more CPU time than an idle one.
    cpu_s = 5.0 if "memory" in attack.statuses else 0.5
    graded = grade(box, attack.code, CALLS, cpu_s=cpu_s, memory_mb=256, output_kb=1024)
    assert {test.status for test in graded.tests} <= attack.statuses
    assert len(graded.tests) == 3


@pytest.mark.parametrize("attack", of("compiler"))
def test_the_compiler_is_bounded(box: Sandbox, attack: Attack) -> None:
    limits = Limits(cpu_s=1.0, wall_s=60.0, memory_mb=1024, output_kb=16 * 1024, open_files=256)
    declaration = read_declaration(CALLS["declaration"])
    _, built = compile_call(attack.code, declaration, build=limits, sandbox=box)
    assert built.compile_error is not None
    assert len(built.compile_error) < 5000
    assert built.compile_status in attack.statuses
