"""Grades a Python program by test code (MBPP, HumanEval, asserts of any kind) without letting the two meet.

    grade("def add(a, b): return a + b", "assert add(1, 2) == 3", Limits(), shared())

Run in one process, a program can leave before the asserts, return an object that equals everything, or patch what
judges it. Here the tests run in one sandboxed process (rewards/sandbox/inside/judge.py), the program in another
(candidate.py), and questions and answers go between them as data (values.py).

Each assert statement that runs is a test, which passes if it holds every time. A failing one does not end the tests. A
statement of the top level that raises fails: so do the asserts that never ran, or the statement is a failed test of its
own. One with `raise`, `pytest.raises` or an assert inside `try` is a test where no assert in it runs.

Names that the tests use and do not define: those of `declarations`; modules of the standard library and numpy, where
a name only stands before a dot; else the program's, of which there is only `function` if that is given.

Objects of the program's own classes stay with it: the tests reach their attributes, methods and items through
stand-ins, compare two of them by the program's `__eq__`, but never one with plain data, and cannot subclass its
classes. Instances of classes in `declarations` are copied either way. What a call changes in its arguments is seen at
once if it returns None, in the next statement if it returns a number or a text or its result is not kept, else after
the next assert: `r = f(data); assert r == sorted(data)` must not be passed by a program that empties its argument. If
the program's process ends, the next call starts a new one, which has forgotten everything.

What is not stopped: a test that asks for a boolean, or that two of the program's own objects be equal, can be
guessed right by a program that always says yes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rewards.code.asserts.prepare import Prepared, prepare
from rewards.code.results import Graded, Tested, Verdict
from rewards.errors import RewardError
from rewards.sandbox import Limits, Ran, Sandbox

MOST_PROCESSES = 8  # of the program, one after another

ENDINGS: dict[str, Verdict] = {
    "exit": "runtime_error", "signal": "runtime_error", "timeout": "timeout", "memory": "memory",
    "output_limit": "output_limit",
}  # fmt: skip


def grade(
    code: str, source: str, limits: Limits, sandbox: Sandbox, function: str = "", declarations: str = "",
    stop_early: bool = False, most_timeouts: int = 0,
) -> Graded:  # fmt: skip
    """Grade `code` by the tests in `source`; one verdict per test.

    function: what to call `check` with, where the source defines it and does not call it. stop_early: end at the
    first failure. most_timeouts: start no process of the program after so many that hung, 0 for no such limit.
    Raises RewardError for tests that cannot be run.
    """
    tests = prepare(source, function, declarations)
    settings = asdict(tests) | {"function": function, "stop_early": stop_early, "modules": dict(tests.modules)}

    def again(runs: Sequence[Ran]) -> bool:
        hung = sum(ran.status == "timeout" for ran in runs)
        return len(runs) < MOST_PROCESSES and not (most_timeouts and hung >= most_timeouts)

    test_run = sandbox.run_tests(code, tests.source, settings, limits, MOST_PROCESSES, again)
    cpu_s = sum(ran.cpu_s for ran in test_run.runs)
    if test_run.compile_error is not None:
        return Graded(compile_error=test_run.compile_error)
    if errors := [ran.message for ran in (test_run.judge, *test_run.runs) if ran.status == "error"]:
        return Graded(failure=f"the sandbox could not run the tests: {errors[0]}")
    return Graded(_Read(tests, test_run.judge, test_run.runs).tested(), run_cpu_s=cpu_s)


class _Read:
    """Verdicts, from the lines that the tests' process wrote and from how the processes ended."""

    def __init__(self, tests: Prepared, judge: Ran, runs: Sequence[Ran]) -> None:
        self._tests, self._judge, self._runs = tests, judge, runs
        lines = [json.loads(line) for line in judge.result.splitlines() if line.endswith(b"]")]
        for line in lines:
            if line[0] == "unfit":
                raise RewardError(f"the row's tests: {line[1]}")
        self._asserts: Mapping[int, Any] = {line[1]: line[2] for line in lines if line[0] == "assert"}
        self._statements = [line[1] for line in lines if line[0] == "statement"]
        self._end = lines[-1][0] if lines else ""
        if self._end not in ("end", "stopped") and ["requested"] not in lines:
            raise RewardError(f"the row's tests: they end without a verdict, before any program: {judge.message}")

    def tested(self) -> list[Tested]:
        """One verdict per test: the asserts in their order, then statements."""
        broken = next((problem for problem in self._statements if problem is not None), None)
        numbers = range(self._tests.asserts)
        missing: Tested | None = None
        if self._end == "stopped":
            missing = Tested("not_run")
        elif self._end != "end":
            status = ENDINGS.get(self._judge.status, "runtime_error")
            missing = Tested(status, message=f"the tests, on what the program gave: {self._judge.message}")
        elif broken is not None:
            missing = self._one(broken)
        elif not self._asserts and not self._statements and not self._tests.raises:
            missing = Tested("failed", message="no assert ran")
        tested = [self._one(self._asserts[n]) if n in self._asserts else missing for n in numbers]
        kept = [test for test in tested if test is not None]
        lost = broken is not None and missing is not None and missing in kept and self._end == "end"
        others = [self._one(problem) for problem in self._statements if problem is None or not lost]
        if self._end not in ("end", "stopped") and missing is not None and missing not in kept:
            others.append(missing)
        return kept + others or [Tested("passed")]

    def _one(self, problem: Sequence[Any] | None) -> Tested:
        if problem is None:
            return Tested("passed")
        status, message, process = problem
        if status:
            return Tested(status, message=message)
        if not self._runs:
            return Tested("runtime_error", message=message)
        ran = self._runs[min(process, len(self._runs) - 1)]
        return Tested(ENDINGS.get(ran.status, "runtime_error"), message=ran.message or "ended during the tests")
