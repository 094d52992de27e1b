"""C++ solutions that try to pass without answering: none gets a verdict, and each test fails alone.

The programs stand in cpp_programs.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rewards.code import cpp
from rewards.code.results import Graded
from rewards.sandbox import Limits, Rung, Sandbox

TESTS = """
#include <gtest/gtest.h>
#include <string>
#include "../solution/solution.cpp"
TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }
TEST(Add, Negative) { auto sum = add(-1, -2); EXPECT_EQ(sum, -3); }
TEST(Add, Large) { ASSERT_TRUE(add(1000, 1) == 1001) << std::string("large"); }
"""
DECLARATIONS = "int add(int a, int b);"
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


def passed(graded: Graded) -> list[str]:
    assert not graded.failure, graded.failure
    return [test.name for test in graded.tests if test.status == "passed"]


def gets_nothing(attack: Attack, declarations: str, box: Sandbox) -> None:
    limits = Limits(cpu_s=0.2, output_kb=64)
    graded = cpp.grade(attack.code, TESTS, "gtest", declarations=declarations, sandbox=box, run=limits)
    assert passed(graded) == []
    assert graded.compile_error or len(graded.tests) == 3


@pytest.mark.parametrize("declarations", ["", DECLARATIONS])
def test_the_attacked_tests_pass_an_honest_solution(box: Sandbox, declarations: str) -> None:
    graded = cpp.grade(HONEST, TESTS, "gtest", declarations=declarations, sandbox=box)
    assert passed(graded) == ["Add.Small", "Add.Negative", "Add.Large"]


@pytest.mark.parametrize("attack", of("cheat", "leak"))
def test_no_test_passes(box: Sandbox, attack: Attack) -> None:
    gets_nothing(attack, DECLARATIONS, box)


@pytest.mark.parametrize("attack", of("cheat"))
def test_no_test_passes_where_the_solution_declares_itself(box: Sandbox, attack: Attack) -> None:
    gets_nothing(attack, "", box)


def test_the_second_rung_holds_too() -> None:
    rung: Rung = "landlock"
    with Sandbox(rung) as box:
        assert len(passed(cpp.grade(HONEST, TESTS, "gtest", sandbox=box))) == 3
        for attack in attacks():
            # Landlock does not cover memory files: a program may read its own code, which it has in memory anyway.
            if (attack.kind == "leak" and attack.name != "own executable") or attack.name.startswith("forged"):
                gets_nothing(attack, DECLARATIONS, box)


@pytest.mark.parametrize("attack", of("bomb"))
def test_a_bomb_goes_off_alone(box: Sandbox, attack: Attack) -> None:
    # To touch 256 MB costs a busy machine more CPU time than an idle one.
    limits = Limits(cpu_s=5.0 if "memory" in attack.statuses else 0.5, memory_mb=256, output_kb=1024)
    graded = cpp.grade(attack.code, TESTS, "gtest", declarations=DECLARATIONS, sandbox=box, run=limits)
    assert {test.status for test in graded.tests} <= attack.statuses
    assert len(graded.tests) == 3


@pytest.mark.parametrize("attack", of("compiler"))
def test_the_compiler_is_bounded(box: Sandbox, attack: Attack) -> None:
    limits = Limits(cpu_s=1.0, wall_s=60.0, memory_mb=1024, output_kb=16 * 1024, open_files=256)
    graded = cpp.grade(attack.code, TESTS, "gtest", declarations=DECLARATIONS, sandbox=box, build=limits)
    assert not graded.failure
    assert graded.compile_error is not None
    assert len(graded.compile_error) < 5000
    assert graded.compile_status in attack.statuses
