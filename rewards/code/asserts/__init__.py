"""Grades a Python program by assert statements (MBPP, HumanEval) without letting the two meet.

    grade("def add(a, b): return a + b", "assert add(1, 2) == 3", "", Limits(), shared())

Run in one process, a program can leave before the asserts, return an object that equals everything, or patch what
judges it. Here the tests run in one process, where the program's names are stand-ins (judge.py), and the program in
another, which is told what to call and hands back plain values (candidate.py). This process carries the messages.

What an honest program notices: objects of its own classes stay with it; the tests reach their attributes, methods,
items and str() through stand-ins, compare two of them by the program's `__eq__`, but never one with plain data, and
a class of the program cannot be subclassed. A call changes the lists, dictionaries and sets that it is given only if
it returns None. A named tuple arrives as a tuple; dates and other objects of the library stay with the program as its
own do. Calls with plain arguments may run in processes of their own, so what one leaves in the program's globals the
next may not see. What the program prints is not there for the tests. Functions made by the tests cannot be handed
over: outcome "error".
What is not stopped: a test that asks for a boolean, or that two of the program's own objects be equal, can be
guessed right by a program that always says yes.
Calls whose arguments are plain run in 16 processes to a suite at most; calls behind one that dies in the same
process die with it.
"""

from __future__ import annotations

import json
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from rewards.code.asserts.transform import Prepared, prepare
from rewards.code.results import Graded, Tested, Verdict
from rewards.errors import RewardError
from rewards.sandbox import Case, Limits, Program, Ran, Sandbox

MOST_ROUNDS = 64  # each one gets past at least one thing that the tests could not do without the program's answer
MOST_PROCESSES = 16
MOST_KEPT = 128  # suites whose first questions are remembered

Op = dict[str, Any]
Held = list[tuple[Op, dict[str, Any]]]  # what was asked, and what the program gave

ENDINGS: dict[str, Verdict] = {
    "exit": "runtime_error", "signal": "runtime_error", "timeout": "timeout", "memory": "memory",
    "output_limit": "output_limit",
}  # fmt: skip


_ANSWER_KEYS = ("value", "handle", "raised", "args")


class _SandboxError(Exception):
    """The sandbox could not run something."""


def grade(code: str, source: str, function: str, limits: Limits, sandbox: Sandbox) -> Graded:
    """Grade `code` by the asserts in `source`; one verdict per assert statement, all of whose runs must hold.

    function: what to call `check` with, where the source defines it and does not call it. Asserts that never ran
    count only when a statement of the tests broke off. Raises RewardError for tests that cannot be run.
    """
    tests = prepare(source, function)
    run = _Run(code, tests, limits, sandbox)
    try:
        return run.finish()
    except _SandboxError as problem:
        return Graded(failure=str(problem))


class _Run:
    """One program under one suite."""

    def __init__(self, code: str, tests: Prepared, limits: Limits, sandbox: Sandbox) -> None:
        self._program = code + "\n\n" + _candidate_harness()
        self._tests, self._limits, self._sandbox = tests, limits, sandbox
        self._held: Held = []
        self._cpu_s = 0.0

    def finish(self) -> Graded:
        asked = _first_questions(self._tests, self._limits, self._sandbox)
        for _ in range(MOST_ROUNDS):
            compile_error = self._ask(asked)
            if compile_error is not None:
                return Graded(compile_error=compile_error)
            told = _judged(self._tests, self._held, self._limits, self._sandbox)
            if isinstance(told, Ran):
                return self._all(ENDINGS[told.status], f"the tests, on what the program gave: {told.message}")
            if told["unfit"]:
                return self._all("failed", told["unfit"][0])
            if not told["off"]:
                return Graded(_verdicts(told, self._tests), run_cpu_s=self._cpu_s)
            del self._held[told["matched"] :]
            asked = told["asked"]
        return self._all("failed", f"the tests were not done after {MOST_ROUNDS} rounds of questions")

    def _all(self, status: Verdict, message: str) -> Graded:
        return Graded([Tested(status, message=message)] * self._tests.asserts, run_cpu_s=self._cpu_s)

    def _ask(self, ops: Sequence[Op]) -> str | None:
        """Add what the program gives for `ops` to what is held. Returns its compile error, if it has one."""
        groups: list[list[Op]] = [[]]  # tests that call nothing: the program must compile all the same
        if self._is_story(ops):
            groups = [[op for op, _ in self._held] + list(ops)]
        elif ops:
            size = -(-len(ops) // MOST_PROCESSES)
            groups = [list(ops[start : start + size]) for start in range(0, len(ops), size)]
        cases = [Case(call=("_posttrain_run", [group])) for group in groups]
        program = self._sandbox.python(self._program, cases, self._limits)
        if program.compile_error is not None:
            return program.compile_error
        told = list(self._told(groups, program))
        self._held += zip(ops, told[len(told) - len(ops) :], strict=True)
        return None

    def _is_story(self, ops: Sequence[Op]) -> bool:
        """Whether objects of the program are asked about: then all happens again, in one process."""
        return any(op["of"] is not None or '["handle", ' in json.dumps([op["args"], op["kwargs"]]) for op in ops)

    def _told(self, groups: Sequence[Sequence[Op]], program: Program) -> Iterator[dict[str, Any]]:
        for group, ran in zip(groups, program.runs, strict=True):
            self._cpu_s += ran.cpu_s
            if ran.status == "error":
                raise _SandboxError(ran.message)
            told = _read(ran, len(group))
            yield from told or [{"died": ENDINGS.get(ran.status, "runtime_error")}] * len(group)


def _read(ran: Ran, count: int) -> list[dict[str, Any]] | None:
    """What the program's process told, None if it is not `count` answers: it may have written anything."""
    try:
        told = json.loads(ran.result) if ran.status == "ok" else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, list) or len(told) != count or not all(isinstance(answer, dict) for answer in told):
        return None
    # How a process ended is for us to say: a program that could answer "died" would name its own verdict.
    return [{key: answer[key] for key in _ANSWER_KEYS if key in answer} for answer in told]


def _judged(tests: Prepared, held: Held, limits: Limits, sandbox: Sandbox) -> dict[str, Any] | Ran:
    """What the tests say to `held`; how their process ended, where it gave no verdict. Raises RewardError."""
    call = ("judge", [tests.source, list(tests.lazy), list(tests.eager), [list(pair) for pair in held]])
    program = sandbox.python(_judge_program(), [Case(call=call)], _judging(limits))
    assert program.compile_error is None, program.compile_error
    ran = program.runs[0]
    if ran.status == "error":
        raise _SandboxError(ran.message)
    if ran.status != "ok":
        return ran
    told = json.loads(ran.result)
    assert isinstance(told, dict)
    if told["unfit"] and (told["unfit"][1] != "many" or not held):  # else what the program gave made them many
        raise RewardError(f"the row's tests: {told['unfit'][0]}")
    return told


def _verdicts(told: dict[str, Any], tests: Prepared) -> list[Tested]:
    seen = {number: problem for number, _, problem in told["checks"]}
    broken = told["broken"]
    if broken is None and not seen:
        broken = ["failed", "no assert ran"]
    missing = [] if broken is None else [n for n in range(tests.asserts) if n not in seen]
    tested = {n: Tested("passed") if problem is None else _tested(problem) for n, problem in seen.items()}
    return [tested[n] if n in tested else _tested(broken) for n in sorted([*seen, *missing])] or [_tested(broken)]


def _tested(problem: Sequence[str]) -> Tested:
    status: Any = problem[0] if problem[0] in _NOT_PASSED else "failed"
    return Tested(status, message=problem[1])


_NOT_PASSED = {"failed", *ENDINGS.values()}
_first: OrderedDict[Prepared, list[Op]] = OrderedDict()
_first_lock = threading.Lock()


def _judging(limits: Limits) -> Limits:
    """The tests hold what they expect beside what the program gave, and may compute it: twice as much of each."""
    return replace(limits, cpu_s=2 * limits.cpu_s, memory_mb=2 * limits.memory_mb, output_kb=4 * limits.output_kb)


def _first_questions(tests: Prepared, limits: Limits, sandbox: Sandbox) -> list[Op]:
    """What the tests ask before they know anything: the same for every program. Raises RewardError."""
    with _first_lock:
        known = _first.get(tests)
    if known is None:
        told = _judged(tests, [], limits, sandbox)
        if isinstance(told, Ran):
            raise RewardError(f"the row's tests end without a verdict, before any program: {told.message}")
        known = told["asked"]
        with _first_lock:
            _first[tests] = known
            while len(_first) > MOST_KEPT:
                _first.popitem(last=False)
    return known


def _text(name: str) -> str:
    """A module's text without its imports of ours: inside the sandbox they stand in one file."""
    lines = files(__package__).joinpath(name).read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("from rewards.")) + "\n"


@lru_cache(maxsize=1)
def _candidate_harness() -> str:
    body = textwrap.indent(_text("plain.py") + _text("candidate.py"), "    ")
    return f"def _posttrain_make():\n{body}\n    return run\n\n\n_posttrain_run = _posttrain_make()\n"


@lru_cache(maxsize=1)
def _judge_program() -> str:
    return _text("plain.py") + _text("judge.py")
