"""Verdicts with the parameters of benchmark tasks, compared with verl's copy of the harness (prime_code)."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import rewards
from data_prep.sources import tasks
from launchers import envs
from tests.rewards.harness_programs import Program, programs

PROGRAMS = list(programs())
# variant: (prime_code's verdict, why ours is the other one)
DISAGREEMENTS: dict[str, tuple[bool, str]] = {
    "open(0)": (False, "the harness replaces `open` by a mock, on which `read` returns nothing of descriptor 0"),
    "/dev/stdin": (False, "as for open(0)"),
    "os.read": (False, "the harness feeds sys.stdin and captures sys.stdout, not descriptors 0 and 1"),
    "stdin.buffer": (False, "the harness's sys.stdin is a StringIO, which has no buffer"),
    "exit()": (False, "the harness sets builtins.exit to None"),
    "nonzero exit": (True, "the harness ignores the exit code, which contest judges do not"),
    "blank lines between": (True, "the harness drops blank lines; LiveCodeBench's own does not"),
    "decimal point": (False, "the harness compares one number a line; LiveCodeBench's own compares all as decimals"),
    "inner tuples": (False, "the harness makes a list of the outer tuple only; results are JSON here"),
}  # fmt: skip


def _passed(programs: list[Program], task: str) -> list[bool]:
    reward = rewards.load("code", **tasks.read(task).reward.params)
    fenced = [f"```python\n{program.code}\n```" for program in programs]
    scores = reward.score_many([{"tests": program.tests} for program in programs], fenced)
    assert all(score.outcome == "scored" for score in scores)
    return [score.value == 1.0 for score in scores]


def _wrongly_judged(programs: list[Program], task: str) -> list[str]:
    verdicts = zip(programs, _passed(programs, task), strict=True)
    return [p.name for p, passed in verdicts if (p.truth == "right" and not passed) or (p.truth == "wrong" and passed)]


@pytest.mark.parametrize("task", ["livecodebench", "apps"])
def test_right_programs_pass_and_wrong_ones_fail(task: str) -> None:
    assert _wrongly_judged(PROGRAMS[::7], task) == []  # 7 and the number of variants have no common divisor


@pytest.mark.full
@pytest.mark.parametrize("task", ["livecodebench", "apps"])
def test_all_programs(task: str) -> None:
    assert _wrongly_judged(PROGRAMS, task) == []


@pytest.mark.full
def test_every_disagreement_with_prime_code_is_explained() -> None:
    script = Path(__file__).with_name("prime_code_verdicts.py")
    rows = json.dumps([{"in_outs": program.in_outs, "code": program.code} for program in PROGRAMS])
    done = subprocess.run([envs.ensure("verl", "cpu"), script], input=rows, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    ours = _passed(PROGRAMS, "livecodebench")
    different = [(p, theirs[i]) for i, p in enumerate(PROGRAMS) if theirs[i] != ours[i]]
    print(Counter(program.name.split(": ")[1] for program, _ in different))
    unexplained = [
        p.name for p, verdict in different if DISAGREEMENTS.get(p.name.split(": ")[1], (None,))[0] != verdict
    ]
    assert unexplained == []
