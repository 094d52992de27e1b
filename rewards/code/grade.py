"""Runs a program against a suite of tests and compares; the expected outputs stay in this process.

grade_program("print(int(input()) + 1)", read({"kind": "stdio", "cases": […]}), Terms(), shared())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rewards.code import asserts
from rewards.code.compare import Spacing, same_output, same_result
from rewards.code.results import Engine, Graded, Tested, Verdict
from rewards.code.suites import Item, Suite
from rewards.errors import RewardError
from rewards.sandbox import BUILD_LIMITS, Case, Limits, Program, Ran, Sandbox
from rewards.sandbox.remote import RemoteSandbox


@dataclass(frozen=True)
class Terms:
    """limits: of each run. spacing, tolerance: see compare.py. stop_early: leave at the first test that fails.

    most_timeouts: leave after so many tests that hang, 0 for never: a program that always hangs costs the CPU limit
    times the number of tests otherwise.
    """

    limits: Limits = field(default_factory=Limits)
    spacing: Spacing = "lines"
    tolerance: float = 0.0
    stop_early: bool = False
    most_timeouts: int = 0

    def compiling(self) -> Limits:
        """Of a C++ compiler's processes: memory and output are not the program's."""
        return replace(BUILD_LIMITS, cpu_s=float(self.limits.compile_cpu_s))

    def go_on(self, tested: Sequence[Tested]) -> bool:
        """Whether there is anything left to learn after these verdicts, of which the last is new."""
        if tested[-1].status == "passed":
            return True
        hung = sum(one.status == "timeout" for one in tested)
        return not self.stop_early and not (self.most_timeouts and hung >= self.most_timeouts)

    def same(self, item: Item, kind: str, ran: Ran) -> bool:
        if kind == "call":
            return same_result(ran.result, item.expected, self.tolerance)
        return same_output(ran.stdout, item.output, self.spacing, self.tolerance)


GoOn = Callable[[int, Ran], bool]
STATUS: Mapping[str, Verdict] = asserts.ENDINGS


def grade_program(code: str, suite: Suite, terms: Terms, engine: Engine) -> Graded:
    """One program under all of a suite. Raises RewardError for tests that cannot be run."""
    if suite.language == "cpp" and suite.kind != "stdio":
        return _cpp_suite(code, suite, terms, engine)
    if suite.kind == "asserts":
        if not isinstance(engine, Sandbox):
            raise RewardError("tests of kind 'asserts' need the local engine; set engine to 'local'")
        return asserts.grade(
            code,
            suite.source,
            terms.limits,
            engine,
            suite.function,
            suite.declarations,
            stop_early=terms.stop_early,
            most_timeouts=terms.most_timeouts,
        )
    cases = [case_of(item, suite) for item in suite.items]
    tested: list[Tested] = []

    def compare(number: int, ran: Ran) -> bool:
        # Each output is compared, and let go, before the next test runs.
        tested.append(verdict(ran, suite.items[number], suite.kind, terms))
        return terms.go_on(tested)

    if suite.language == "cpp":
        return _cpp_program(code, cases, terms, engine, compare, tested)
    return graded(engine.python(code, cases, terms.limits, compare), tested, len(cases))


def _cpp_suite(code: str, suite: Suite, terms: Terms, engine: Engine) -> Graded:
    if not isinstance(engine, Sandbox):
        raise RewardError(f"tests of kind {suite.kind!r} in C++ need the local engine; set engine to 'local'")
    from rewards.code import cpp

    kind: Literal["gtest", "asserts"] = "gtest" if suite.kind == "gtest" else "asserts"
    return cpp.grade(
        code,
        suite.source,
        kind,
        declarations=suite.declarations,
        run=terms.limits,
        build=terms.compiling(),
        sandbox=engine,
    )


def _cpp_program(
    code: str, cases: Sequence[Case], terms: Terms, engine: Engine, compare: GoOn, tested: list[Tested]
) -> Graded:
    """Compiled once, run per case."""
    if isinstance(engine, RemoteSandbox):
        return graded(engine.cpp(code, cases, terms.limits, compare), tested, len(cases))
    assert isinstance(engine, Sandbox)
    from rewards.code import cpp

    built = cpp.compile_program(code, build=terms.compiling(), sandbox=engine)
    if built.failure or built.compile_error is not None:
        return Graded([], built.compile_error, built.compile_status, built.cpu_s, 0.0, built.failure)
    runs = engine.execute(built.binary, ["solution"], cases, terms.limits, keep_going=compare)
    return replace(graded(Program(None, runs), tested, len(cases)), compile_cpu_s=built.cpu_s)


def case_of(item: Item, suite: Suite) -> Case:
    if suite.kind == "call":
        return Case(call=(suite.function, list(item.args)))
    return Case(stdin=item.input.encode("utf-8", "surrogatepass"))


def verdict(ran: Ran, item: Item, kind: str, terms: Terms) -> Tested:
    """What one run is worth. An "error" is for `graded` to find."""
    if ran.status != "ok":
        status = STATUS.get(ran.status, "not_run")
    else:
        status = "passed" if terms.same(item, kind, ran) else "failed"
    return Tested(status, ran.cpu_s, ran.peak_mb, ran.message)


def graded(program: Program, tested: list[Tested], count: int) -> Graded:
    """All verdicts of a program whose cases were compared one by one; `count`: how many tests there are."""
    if program.compile_error is not None:
        return Graded(compile_error=program.compile_error)
    broken = next((ran for ran in program.runs if ran.status == "error"), None)
    if broken is not None:
        return Graded(failure=f"the sandbox could not run a test: {broken.message}")
    cpu_s = sum(one.cpu_s for one in tested)
    return Graded(tested + [Tested("not_run")] * (count - len(tested)), run_cpu_s=cpu_s)
