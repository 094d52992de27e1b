"""Grades a Python program by test code (MBPP, HumanEval, asserts of any kind) without letting the two meet.

    grade("def add(a, b): return a + b", "assert add(1, 2) == 3", Limits(), shared())

Run in one process, a program can leave before the asserts, return an object that equals everything, or patch what
judges it. Here the tests run in one sandboxed process (rewards/sandbox/inside/judge.py), the program in another
(candidate.py), and questions and answers go between them as data (values.py).

Each assert statement that runs is a test, which passes if it holds every time. A failing one does not end the tests. A
statement of the top level that raises fails: so do the asserts that never ran, or the statement is a failed test of its
own. One with `raise`, `pytest.raises` or an assert inside `try` is a test where no assert in it runs. So is each
method of a `unittest.TestCase`. Functions `test…` and classes `Test…` that nothing calls are run as pytest would, with
its `parametrize`, its skips and the source's own fixtures; any other fixture is an error. Coroutines of the program
run in its process, one after another.

Names that the tests use and do not define: those of `declarations`; modules of the standard library and numpy, where
a name only stands before a dot; else the program's, of which there is only `function` if that is given.

Objects of the program's own classes stay with it: the tests reach their attributes, methods and items through
stand-ins, compare two of them by the program's `__eq__`, but never one with plain data, and cannot subclass its
classes. What arithmetic with a number makes of one (`Clock(8) + 5`) is no number to them. Instances of classes in
`declarations` are copied either way. What a call changes in its arguments is seen at once if it returns None, in the
next statement if it returns a number or a text or its result is not kept, else when it is given to the program again,
at the next assert that mentions no result of the program, or after any: `r = f(data); assert r == sorted(data)` must
not be passed by a program that empties its argument. If the program's process ends, every later question to it fails
as that one did, and so does every later test where the tests catch that; `sys.exit` in a call only raises SystemExit.

What tests replace for the program is replaced in its process, too: `sys.stdout`, `sys.stdin`, `sys.argv`, the
environment, attributes of modules and of the program by assignment, `mock.patch` or pytest's `monkeypatch` and
`capsys`; seeds and the recursion limit are set in both. Mocks and streams stay with the tests, and the program calls
them there.

A list, dict or set read from an attribute of an object is a copy; what the tests change in it (`cart.items.append(1)`)
changes in the object before the program is asked again. `type(x)` is the program's class, `vars(x)` a copy.

Not supported, and an error: files and log messages that the two would share, signatures. Not supported, and fails right
programs (`selfcheck --input` finds such rows): changes of the program's global lists, read by name; missing keys of a
`defaultdict`, which is a dict to the tests.

What is not stopped: a test that asks for a boolean, or that two of the program's own objects be equal, can be
guessed right by a program that always says yes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rewards.code.asserts.prepare import Prepared, prepare
from rewards.code.results import ENDINGS, Graded, Tested
from rewards.errors import RewardError
from rewards.sandbox import Limits, Program, Ran, Sandbox


def grade(
    code: str, source: str, limits: Limits, sandbox: Sandbox, function: str = "", declarations: str = "",
    stop_early: bool = False,
) -> Graded:  # fmt: skip
    """Grade `code` by the tests in `source`; one verdict per test.

    function: what to call `check` with, where the source defines it and does not call it. stop_early: end at the
    first failure. Raises RewardError for tests that cannot be run.
    """
    tests = prepare(source, function, declarations)
    settings = asdict(tests) | {"function": function, "stop_early": stop_early, "modules": dict(tests.modules)}
    ended = sandbox.run_tests(code, tests.source, settings, limits)
    if ended.compile_error is not None:
        return Graded(compile_error=ended.compile_error)
    return Graded(_verdicts(tests, ended), run_cpu_s=sum(ran.cpu_s for ran in ended.runs))


def _verdicts(tests: Prepared, ended: Program) -> list[Tested]:
    """One per test, from the lines that the tests' process wrote: the asserts in their order, then statements."""
    judge, program = ended.judge, ended.runs[0] if ended.runs else Ran("exit")
    lines = [json.loads(line) for line in judge.result.splitlines() if line.endswith(b"]")]
    end = lines[-1] if lines and lines[-1][0] in ("end", "stopped", "unfit") else [""]
    if end[0] == "unfit":
        raise RewardError(f"the row's tests: {end[1]}")
    if not end[0] and ["requested"] not in lines:
        raise RewardError(f"the row's tests: they end without a verdict, before any program: {judge.message}")

    def tested(problem: Sequence[str] | None) -> Tested:
        status, message = problem or ("passed", "")
        if status:
            return Tested(status, message=message)  # type: ignore[arg-type]  # the judge's own words
        return Tested(ENDINGS.get(program.status, "runtime_error"), message=program.message or "ended during the tests")

    asserts = {line[1]: tested(line[2]) for line in lines if line[0] == "assert"}
    statements = [tested(line[1]) for line in lines if line[0] == "statement"]
    broken = next((test for test in statements if test.status != "passed"), None)
    unseen = [number for number in range(tests.asserts) if number not in asserts]
    missing = broken
    if end[0] == "stopped":
        missing = Tested("not_run")
    elif not end[0]:
        status = ENDINGS.get(judge.status, "runtime_error")
        missing = Tested(status, message=f"the tests, on what the program gave: {judge.message}")
        statements += [missing] if not unseen else []
    elif not asserts and not statements and not tests.raises:
        missing = Tested("failed", message="no assert ran")
    elif broken is not None and unseen:  # its verdict is that of the asserts which it left
        statements = [test for test in statements if test.status == "passed"]
    kept = [asserts.get(number, missing) for number in range(tests.asserts)]
    return [test for test in (*kept, *statements) if test is not None] or [Tested("passed")]
