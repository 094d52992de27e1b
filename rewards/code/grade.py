"""Runs a program against a suite of tests and compares; the expected outputs stay in this process.

grade_program("print(int(input()) + 1)", read({"kind": "stdio", "cases": […]}), Terms(), shared())
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rewards.code import asserts
from rewards.code.compare import Numbers, Spacing, Types, same_output, same_result
from rewards.code.cpp.declaration import Declaration
from rewards.code.cpp.values import Outcome, ValueProblem, read_outcome
from rewards.code.preambles import Preamble, text_before
from rewards.code.results import ENDINGS, Graded, Tested, Verdict
from rewards.code.suites import Item, Suite
from rewards.sandbox import BUILD_LIMITS, Case, Limits, Program, Ran, Sandbox


@dataclass(frozen=True)
class Terms:
    """limits: of each run. preamble: Python executed before the program (preambles.py). spacing, tolerance, numbers,
    types: see compare.py. stop_early: leave at the first test that fails.

    most_timeouts: leave after so many tests that use up their CPU time, or the first that waits until its wall limit; 0
    for never. A program that always hangs costs the limit times the number of tests otherwise.
    """

    limits: Limits = field(default_factory=Limits)
    preamble: Preamble = "none"
    spacing: Spacing = "lines"
    tolerance: float = 0.0
    numbers: Numbers = "text"
    types: Types = "exact"
    stop_early: bool = False
    most_timeouts: int = 0

    def compiling(self) -> Limits:
        """Of a C++ compiler's processes: memory and output are not the program's."""
        return replace(BUILD_LIMITS, cpu_s=float(self.limits.compile_cpu_s))

    def go_on(self, tested: Sequence[Tested]) -> bool:
        """Whether there is anything left to learn after these verdicts, of which the last is new."""
        if tested[-1].status == "passed":
            return True
        timeouts = sum(test.status == "timeout" for test in tested)
        waited = tested[-1].status == "timeout" and tested[-1].cpu_s < self.limits.cpu_s / 2
        return not self.stop_early and not (self.most_timeouts and (waited or timeouts >= self.most_timeouts))

    def same(self, item: Item, suite: Suite, ran: Ran) -> bool:
        if suite.kind == "call":
            tolerance = self.tolerance_of(item)
            return any(same_result(ran.result, value, tolerance, self.types) for value in suite.accepted(item))
        return same_output(ran.stdout, item.output, self.spacing, self.tolerance, self.numbers)

    def tolerance_of(self, item: Item) -> float:
        return self.tolerance if item.tolerance is None else item.tolerance


_LONGEST_CPP = 1 << 18
_LARGE = 1 << 16  # bytes of a result that are not read before its length has been compared
GoOn = Callable[[int, Ran], bool]


def grade_program(code: str, suite: Suite, terms: Terms, engine: Sandbox) -> Graded:
    """One program under all of a suite. Raises RewardError for tests that cannot be run."""
    if suite.language == "cpp" and len(code) > _LONGEST_CPP:
        return Graded(compile_error=f"the program is longer than {_LONGEST_CPP} characters", compile_status="exit")
    if suite.isolation == "shared":
        return _cpp_source(code, suite, terms, engine)
    if suite.kind == "asserts":
        given = suite.function, suite.declarations, terms.stop_early
        return asserts.grade(code, suite.source, terms.limits, engine, *given)
    cases = [case_of(item, suite) for item in suite.items]
    tested: list[Tested] = []

    def compare(number: int, ran: Ran) -> bool:
        # Each output is compared, and let go, before the next test runs.
        tested.append(verdict(ran, suite.items[number], suite, terms))
        return terms.go_on(tested)

    if suite.language == "cpp":
        return _cpp_program(code, suite, cases, terms, engine, compare, tested)
    preamble = text_before(terms.preamble, code)
    return graded(engine.python(code, cases, terms.limits, compare, preamble), tested, len(cases))


def _cpp_source(code: str, suite: Suite, terms: Terms, engine: Sandbox) -> Graded:
    from rewards.code.cpp.source import grade_source

    kind: Literal["gtest", "asserts"] = "gtest" if suite.kind == "gtest" else "asserts"
    return grade_source(
        code,
        suite.source,
        kind,
        declarations=suite.declarations,
        run=terms.limits,
        build=terms.compiling(),
        sandbox=engine,
    )


def _cpp_program(
    code: str,
    suite: Suite,
    cases: Sequence[Case],
    terms: Terms,
    engine: Sandbox,
    compare: GoOn,
    tested: list[Tested],
) -> Graded:
    """Compiled once, run per case."""
    build = terms.compiling()
    from rewards.code.cpp.call import compile_call
    from rewards.code.cpp.toolchain import compile_program

    if suite.declaration is not None:
        built = compile_call(code, suite.declaration, build=build, sandbox=engine)
    else:
        built = compile_program(code, build=build, sandbox=engine)
    if built.failure or built.compile_error is not None:
        return Graded([], built.compile_error, built.status, built.cpu_s, 0.0, built.failure)
    runs = engine.execute(built.binary, ["solution"], cases, terms.limits, keep_going=compare)
    return replace(graded(Program(None, runs), tested, len(cases)), compile_cpu_s=built.cpu_s)


def case_of(item: Item, suite: Suite) -> Case:
    if suite.declaration is not None:
        return Case(item.packed, result=True)
    if suite.kind == "call":
        return Case(call=(suite.function, list(item.args)))
    return Case(stdin=item.input.encode("utf-8", "surrogatepass"))


def verdict(ran: Ran, item: Item, suite: Suite, terms: Terms) -> Tested:
    """What one run is worth. An "error" is for `graded` to find."""
    if ran.status != "ok":
        status = ENDINGS.get(ran.status, "not_run")
    elif suite.declaration is not None:
        return _cpp_verdict(ran, item, suite.declaration, terms)
    else:
        status = "passed" if terms.same(item, suite, ran) else "failed"
    return Tested(status, ran.cpu_s, ran.peak_mb, ran.message)


def _cpp_verdict(ran: Ran, item: Item, declaration: Declaration, terms: Terms) -> Tested:
    """Of a call in C++ that ended by itself: what it returned, or what it threw."""
    status: Verdict = "failed"
    message = ""
    # A number or character of the expected value takes up to 25 times its place in JSON.
    size = len(ran.result)
    if size > _LARGE and size > 25 * len(json.dumps([item.expected, item.changed])):
        return Tested("failed", ran.cpu_s, ran.peak_mb, "a result much larger than the expected one")
    try:
        outcome = read_outcome(ran.result, declaration)
    except ValueProblem as problem:
        return Tested("failed", ran.cpu_s, ran.peak_mb, str(problem))
    if outcome.raised is not None:
        message = f"threw {next(iter(outcome.raised), '')}: {outcome.message}"
        if item.raises:
            status = "passed" if item.raises in (*outcome.raised, "any") else "failed"
        else:
            status = "memory" if "std::bad_alloc" in outcome.raised else "runtime_error"
    elif not item.raises and _same_values(outcome, item, declaration, terms):
        status = "passed"
    return Tested(status, ran.cpu_s, ran.peak_mb, "" if status == "passed" else message)


def _same_values(outcome: Outcome, item: Item, declaration: Declaration, terms: Terms) -> bool:
    pairs = list(zip(outcome.changed, item.changed, strict=True)) if item.changed is not None else []
    if declaration.result.kind != "void":
        pairs.append((outcome.value, item.expected))
    elif not pairs or item.expected is not None:
        pairs.append((outcome.changed[0], item.expected))
    return all(same_result(json.dumps(a).encode(), b, terms.tolerance_of(item)) for a, b in pairs)


def graded(program: Program, tested: list[Tested], count: int) -> Graded:
    """All verdicts of a program whose cases were compared one by one; `count`: how many tests there are."""
    if program.compile_error is not None:
        return Graded(compile_error=program.compile_error)
    broken = next((ran for ran in program.runs if ran.status == "error"), None)
    if broken is not None:
        return Graded(failure=f"the sandbox could not run a test: {broken.message}")
    cpu_s = sum(one.cpu_s for one in tested)
    return Graded(tested + [Tested("not_run")] * (count - len(tested)), run_cpu_s=cpu_s)
