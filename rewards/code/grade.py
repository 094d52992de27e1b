"""Runs a program against a suite of tests in the sandbox, and compares outputs with the expected ones in this process.

    grade_program("print(int(input()) + 1)", read({"kind": "stdio", "cases": […]}), Terms(), shared())

Programs and all that they write are untrusted; suites are trusted.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from rewards.code import asserts
from rewards.code.compare import Numbers, Spacing, Types, same_output, same_result
from rewards.code.cpp.declaration import Declaration
from rewards.code.cpp.source import grade_source
from rewards.code.cpp.toolchain import compile_call, compile_program
from rewards.code.cpp.values import ValueProblem, read_outcome
from rewards.code.results import ENDINGS, Graded, Tested, Verdict
from rewards.code.suites import Item, Suite
from rewards.params import RewardParams
from rewards.sandbox import BUILD_LIMITS, Case, Limits, Program, Ran, Sandbox

Preamble = Literal["none", "livecodebench", "apps"]

# Source that the benchmarks' own harnesses execute before a Python program: imports, and a higher recursion limit.
_MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json",
)  # fmt: skip
# lcb_runner/evaluation/testing_util.py of LiveCodeBench
_STARRED = "\n".join(
    [f"from {name} import *" for name in (*_MODULES, "builtins", "typing")] + [f"import {name}" for name in _MODULES]
)
# eval/testing_util.py of hendrycks/apps; TACO's harness has the same
_APPS = "import time, fractions\nstdin, stdout = sys.stdin, sys.stdout\n"
_NUMPY = "import numpy as np\n"  # takes 50 ms, so only for programs that may use it


class Terms(RewardParams):
    """How a program is run and compared.

    cpu_s, wall_s, memory_mb, output_kb: limits of each test's process; compile_cpu_s: of the compiler.
    preamble: the source executed before a Python program: "none", "livecodebench" or "apps" (text_before).
    compare, numbers, types, tolerance: how outputs and results are compared (compare.py: spacing, numbers, …).
    stop_early: stop at the first failed test. most_timeouts: stop after this number of tests that used up their CPU
    time, or after the first that reached its wall limit mostly idle; 0: never. Without it, a program that always hangs
    costs the limit times the number of tests.
    """

    cpu_s: Annotated[float, Field(ge=0.05, le=3600.0)] = 4.0
    wall_s: Annotated[float, Field(ge=0.1, le=36000.0)] = 20.0
    memory_mb: Annotated[int, Field(ge=16, le=1 << 20)] = 512
    output_kb: Annotated[int, Field(ge=1, le=1 << 20)] = 8192
    compile_cpu_s: Annotated[int, Field(ge=1, le=3600)] = 20
    preamble: Preamble = "none"
    compare: Spacing = "lines"
    numbers: Numbers = "text"
    types: Types = "exact"
    tolerance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    stop_early: bool = False
    most_timeouts: Annotated[int, Field(ge=0, le=1 << 20)] = 0

    @property
    def limits(self) -> Limits:
        """Limits of each test's process."""
        of_run = self.cpu_s, self.wall_s, self.memory_mb, self.output_kb
        return Limits(*of_run, compile_cpu_s=self.compile_cpu_s)

    @property
    def stops_early(self) -> bool:
        """Whether the first failed test ends the run."""
        return self.stop_early

    def go_on(self, tested: Sequence[Tested]) -> bool:
        """Whether to run the next test after these verdicts, the last of which is new."""
        if tested[-1].status == "passed":
            return True
        timeouts = sum(test.status == "timeout" for test in tested)
        idle = tested[-1].status == "timeout" and tested[-1].cpu_s < self.cpu_s / 2
        return not self.stops_early and not (self.most_timeouts and (idle or timeouts >= self.most_timeouts))


_LONGEST_CPP = 1 << 18
_LARGE = 1 << 16  # bytes; a longer result is parsed only if its length is plausible for the expected value


def grade_program(code: str, suite: Suite, terms: Terms, engine: Sandbox) -> Graded:
    """Run one program against all tests of a suite. Raises RewardError if the tests cannot be run or compiled."""
    limits, building = terms.limits, replace(BUILD_LIMITS, cpu_s=float(terms.compile_cpu_s))
    if suite.language == "cpp" and len(code) > _LONGEST_CPP:
        return Graded(compile_error=f"the program is longer than {_LONGEST_CPP} characters", compile_status="exit")
    if suite.isolation == "shared":
        return grade_source(code, suite, run=limits, build=building, sandbox=engine)
    if suite.kind == "asserts":
        options = suite.function, suite.declarations, terms.stops_early
        return asserts.grade(code, suite.source, limits, engine, *options)
    cases = [case_of(item, suite) for item in suite.items]
    tested: list[Tested] = []

    def compare(number: int, ran: Ran) -> bool:
        # Each output is compared, and its memory freed, before the next test runs.
        tested.append(verdict(ran, suite.items[number], suite, terms))
        return terms.go_on(tested)

    compile_cpu_s = 0.0
    if suite.language == "python":
        program = engine.python(code, cases, limits, compare, text_before(terms.preamble, code))
    else:  # compiled once, run per case
        for_call = suite.declaration and partial(compile_call, declaration=suite.declaration)
        binary, built = (for_call or compile_program)(code, build=building, sandbox=engine)
        if not binary:
            return built
        compile_cpu_s = built.compile_cpu_s
        program = Program(None, engine.execute(binary, ["solution"], cases, limits, compare))
    if program.compile_error is not None:
        return Graded(compile_error=program.compile_error)
    cpu_s = sum(test.cpu_s for test in tested)
    tested += [Tested("not_run")] * (len(cases) - len(tested))
    return Graded(tested, compile_cpu_s=compile_cpu_s, run_cpu_s=cpu_s)


def text_before(preamble: Preamble, code: str) -> str:
    """The source to execute before the program `code`, in its namespace.

    "apps" imports the names that the harnesses of APPS and TACO and verl's prime_code import, with prime_code's
    recursion limit.
    """
    if preamble == "livecodebench":
        return f"{_STARRED}\nsys.setrecursionlimit(50000)\n"
    if preamble == "apps":
        return f"{_STARRED}\nsys.setrecursionlimit(600000)\n{_APPS}{_NUMPY if 'np' in code else ''}"
    return ""


def case_of(item: Item, suite: Suite) -> Case:
    """The input of one test for the sandbox, without the expected output."""
    if suite.declaration is not None:
        return Case(item.packed, result=True)
    if suite.kind == "call":
        return Case(call=(suite.function, list(item.args)))
    return Case(stdin=item.input.encode("utf-8", "surrogatepass"))


def verdict(ran: Ran, item: Item, suite: Suite, terms: Terms) -> Tested:
    """The verdict on one run, compared with the test's expected output or result."""
    status, message = ENDINGS.get(ran.status, "failed"), ran.message
    tolerance = terms.tolerance if item.tolerance is None else item.tolerance
    if ran.status == "ok" and suite.declaration is not None:
        status, message = _cpp_verdict(ran.result, item, suite.declaration, tolerance)
    elif ran.status == "ok":
        if suite.kind == "call":
            same = any(same_result(ran.result, value, tolerance, terms.types) for value in suite.accepted(item))
        else:
            same = same_output(ran.stdout, item.output, terms.compare, terms.tolerance, terms.numbers)
        status = "passed" if same else "failed"
    return Tested(status, ran.cpu_s, message)


def _cpp_verdict(result: bytes, item: Item, declaration: Declaration, tolerance: float) -> tuple[Verdict, str]:
    """Verdict and message for a C++ call that returned or threw. result: what the program wrote, untrusted."""
    # A correct result's JSON text has up to 25 times the characters of the expected value's.
    if len(result) > _LARGE and len(result) > 25 * len(json.dumps([item.expected, item.changed])):
        return "failed", "a result much larger than the expected one"
    try:
        outcome = read_outcome(result, declaration)
    except ValueProblem as problem:
        return "failed", str(problem)
    if outcome.raised is not None:
        message = f"threw {next(iter(outcome.raised), '')}: {outcome.message}"
        if not item.raises:
            return "memory" if "std::bad_alloc" in outcome.raised else "runtime_error", message
        return ("passed", "") if item.raises in (*outcome.raised, "any") else ("failed", message)
    pairs = list(zip(outcome.changed, item.changed, strict=True)) if item.changed is not None else []
    if declaration.result.kind != "void":
        pairs.append((outcome.value, item.expected))
    elif not pairs or item.expected is not None:
        pairs.append((outcome.changed[0], item.expected))
    same = not item.raises and all(same_result(json.dumps(a).encode(), b, tolerance) for a, b in pairs)
    return "passed" if same else "failed", ""
