"""Programs with Python test code and their expected values, from honest idioms to forged channels.

They stand in asserts_programs.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

import rewards


@dataclass(frozen=True)
class Program:
    """value: None where the tests cannot be run. tests: the row's."""

    value: float | None
    code: str
    tests: dict[str, str]


def read_programs(path: Path) -> dict[str, Program]:
    text = path.read_text()
    _, *pieces = re.split(r"^#### (.*?): (.*)\n", text, flags=re.MULTILINE)
    programs = {}
    for value, name, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        code, *parts = re.split(r"^---- (\w+)\n", body, flags=re.MULTILINE)
        texts = {key: part.strip() for key, part in zip(parts[::2], parts[1::2], strict=True)}
        tests = {"kind": "asserts", "source": texts.pop("tests"), **texts} if texts else {}
        assert name not in programs, name
        programs[name] = Program(None if value == "error" else float(Fraction(value)), code, tests)
    return programs


PROGRAMS = read_programs(Path(__file__).with_name("asserts_programs.txt"))


def score(program: Program) -> rewards.Score:
    reward = rewards.load("code", cpu_s=1.5, wall_s=4.0)
    return reward.score({"tests": program.tests}, f"`````python\n{program.code}\n`````")


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    program = PROGRAMS[name]
    result = score(program)
    if program.value is None:
        assert result.outcome == "error", result
    else:
        assert result.outcome == "scored", result
        assert result.value == pytest.approx(program.value), result


def test_value_all_stops_at_the_first_failure() -> None:
    code = "import time\ndef f(x):\n    while x > 1: pass\n    return x"
    tests = {"kind": "asserts", "source": "".join(f"assert f({x}) == {min(x, 0)}\n" for x in range(9))}
    result = rewards.load("code", cpu_s=1.0, value="all").score({"tests": tests}, f"```python\n{code}\n```")
    assert result.value == 0.0
    assert [test["status"] for test in result.details["tests"]] == ["passed", "failed", *["not_run"] * 7]
