"""Grades a Python program by test code (MBPP, HumanEval, any asserts); tests and program run in separate processes.

    grade("def add(a, b): return a + b", "assert add(1, 2) == 3", Limits(), shared())

In a shared process, a program could exit before the asserts run, return an object that equals everything, or patch the
code that judges it. Here the tests run in one sandboxed process (rewards/sandbox/inside/judge.py) and the program in
another (candidate.py); the two exchange requests and replies as data (channel.py, values.py). This module runs in the
caller's process and reads the verdicts that the tests' process wrote. Tests are trusted to judge, programs are not.

What counts as a test: each assert statement that runs is one test, which passes if it holds every time it runs. A
failed assert does not end the tests. If a top-level statement raises, the asserts that never ran fail as it did; if
there are none, the statement is a failed test by itself. A top-level statement with `raise`, `pytest.raises` or an
assert inside `try` is a test if no assert in it runs. So is each method of a `unittest.TestCase`. Functions `test…` and
classes `Test…` that the source does not call are run as pytest would run them, with `parametrize`, skips and the
source's own fixtures; any other fixture is an error, except capsys, capfd and monkeypatch.

Names that the tests use but do not define are looked up in `declarations`; then among the modules of the standard
library and numpy, if the name is used only before a dot; then in the program. If `function` is given, it is the only
name of the program that the tests may use.

Objects of the program's own classes stay in its process; the tests get proxies. Through a proxy they reach attributes,
methods and items. Two proxies are compared by the program's `__eq__`; a proxy never equals plain data. Arithmetic
between a proxy and a number (`Clock(8) + 5`) yields a proxy that cannot be used as a number. The program's classes
cannot be subclassed. An instance of the program's subclass of a plain type (`class LRUCache(OrderedDict)`,
`class Color(str, Enum)`) is compared, iterated and used in arithmetic as plain data; its other attributes and methods
are those of the program's object. Exceptions are exceptions in both processes. Instances of classes in `declarations`
are copied in both directions. A list, dict or set read from an attribute of an object is a copy; what the tests change
in it (`cart.items.append(1)`) is changed in the object before the next request to the program. `type(x)` is the
program's class, `vars(x)` a copy. Coroutines of the program run in its process, one after another.

When the tests see what a call changed in its arguments: at once if the call returns None; in the next statement if it
returns a number or a string, or if its result is discarded; otherwise when a changed argument is passed to the program
again, at the next assert that mentions no result of the program, or after any assert. So a program cannot pass
`r = f(data); assert r == sorted(data)` by emptying its argument.

If the program's process ends during a request, that request and all later ones fail; if the tests catch the exception,
every later test fails as well. `sys.exit` in a call only raises SystemExit.

What the tests replace is also replaced in the program's process: `sys.stdout`, `sys.stdin`, `sys.argv`, the
environment, and attributes of modules or of the program that are replaced by assignment, `mock.patch`, or pytest's
`monkeypatch` and `capsys`. Seeds and the recursion limit are set in both processes. Mocks and streams stay in the
tests' process, where the program calls them.

Not supported, reported as an error: files and log messages shared by tests and program; signatures of the program's
functions. Not supported, and correct programs fail (`selfcheck --input` finds such rows): changes of the program's
global lists, read by name; missing keys of a `defaultdict`, which the tests receive as a dict; operators that the
program's subclasses of number types define; changes of a list that was passed to an earlier call
(`Logger(log).write(1)`); tests that an object is not callable or not iterable.

Not prevented: a test that checks only a boolean, or whether two of the program's own objects are equal, is passed by a
program whose functions, or whose `__eq__`, always return True. A test that is true of an empty result, such as
`all(… for a, b in zip(f(x), y))`, is passed by an empty result (`allclose` and numpy's assertions are not). An object
of the program can return a different value each time a test reads an attribute.
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

    function: the name passed to `check`, if the source defines `check` and does not call it. declarations: source that
    is executed before the tests, and before the program. stop_early: end at the first failure. Raises RewardError for
    tests that cannot be run.
    """
    tests = prepare(source, function, declarations)
    settings = asdict(tests) | {"function": function, "stop_early": stop_early, "modules": dict(tests.modules)}
    outcome = sandbox.run_tests(code, tests.source, settings, limits)
    if outcome.compile_error is not None:
        return Graded(compile_error=outcome.compile_error)
    return Graded(_verdicts(tests, outcome), run_cpu_s=sum(ran.cpu_s for ran in outcome.runs))


def _verdicts(tests: Prepared, outcome: Program) -> list[Tested]:
    """One verdict per test, from the lines that the tests' process wrote (see judge.py): asserts in order of their
    numbers, then statements. Raises RewardError if the tests cannot be run or ended before they used the program.
    """
    judge, program = outcome.judge, outcome.runs[0] if outcome.runs else Ran("exit")
    lines = [json.loads(line) for line in judge.result.splitlines() if line.endswith(b"]")]
    end = lines[-1] if lines and lines[-1][0] in ("end", "stopped", "unfit") else [""]
    if end[0] == "unfit":
        raise RewardError(f"the row's tests: {end[1]}")
    if not end[0] and ["requested"] not in lines:
        raise RewardError(f"the row's tests: they end without a verdict, before they use the program: {judge.message}")

    def tested(problem: Sequence[str] | None) -> Tested:
        status, message = problem or ("passed", "")
        if status:
            return Tested(status, message=message)  # type: ignore[arg-type]  # written by judge.py
        return Tested(ENDINGS.get(program.status, "runtime_error"), message=program.message or "ended during the tests")

    asserts = {line[1]: tested(line[2]) for line in lines if line[0] == "assert"}
    statements = [tested(line[1]) for line in lines if line[0] == "statement"]
    failure = next((test for test in statements if test.status != "passed"), None)
    unreached = [number for number in range(tests.asserts) if number not in asserts]
    default = failure  # the verdict of asserts that were not reached
    if end[0] == "stopped":
        default = Tested("not_run")
    elif not end[0]:
        status = ENDINGS.get(judge.status, "runtime_error")
        default = Tested(status, message=f"the tests' process, on results of the program: {judge.message}")
        statements += [default] if not unreached else []
    elif not asserts and not statements and not tests.raises:
        default = Tested("failed", message="no assert ran")
    elif failure is not None and unreached:  # the unreached asserts get its verdict, so it is not counted again
        statements = [test for test in statements if test.status == "passed"]
    numbered = [asserts.get(number, default) for number in range(tests.asserts)]
    return [test for test in (*numbered, *statements) if test is not None] or [Tested("passed")]
