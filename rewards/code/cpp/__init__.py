"""Grades C++17 solutions: GoogleTest suites, programs with a main of asserts, and programs for stdio tests.

    grade(code, 'TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }', "gtest", sandbox=shared())

Everything compiles and runs in the sandbox. Tests are compiled once per interface (rewards/code/cpp/interface.py) into
one object with GoogleTest and our harness; a candidate is compiled alone, sees no test, and is linked to that object
with all its symbols hidden but the functions that the tests want. Each TEST runs in a process of its own.

A test is passed if the harness says so: after the test's body returned, on a pipe of its own, preceded by a secret
that it took before any of the candidate's code ran. What the program prints, writes, or exits with says nothing.

What is not stopped: candidate and tests share one address space. Machine code that searches memory for the tests'
constants, or for the harness's own functions and jumps into them, can find them; the secret is in a page without
access at a random address, which such code could open. Compiler and linker are trusted not to have exploitable bugs.
Results of another type than the tests' declarations say are read as the declared type, as in any ABI mismatch.
Without `declarations` from the row, types of the candidate's own reach the tests, but none with an operator.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from rewards.code.cpp import elf
from rewards.code.cpp.interface import interface, macros, reaching
from rewards.code.cpp.suite import (
    CHANNELS,
    ENTRY,
    VERDICT_FD,
    BrokenSandbox,
    BuildFailed,
    Order,
    Suite,
    SuiteError,
    compile_suite,
    output,
    script,
)
from rewards.code.cpp.toolchain import SONAMES, Toolchain, toolchain
from rewards.code.results import Graded, Tested, Verdict
from rewards.sandbox import Limits, Ran, Sandbox

Kind = Literal["gtest", "asserts"]
BUILD = Limits(cpu_s=20.0, wall_s=300.0, memory_mb=2048, output_kb=64 * 1024, open_files=256)
_LOG_CHARS = 2000
_MESSAGE_CHARS = 500
_LONGEST = 1 << 18
_KEPT = 256  # suites in memory, about 1 MB each


@dataclass(frozen=True)
class Program:
    """A compiled program, or why there is none: the compiler's words, or why the grader could not decide."""

    binary: bytes = b""
    compile_error: str | None = None
    compile_status: str = ""
    failure: str = ""
    cpu_s: float = 0.0


def grade(
    source: str,
    tests: str,
    kind: Kind,
    *,
    declarations: str = "",
    run: Limits = Limits(),  # noqa: B008 - frozen
    build: Limits = BUILD,
    sandbox: Sandbox,
) -> Graded:
    """Every test of `tests` on the solution `source`, in the order in which they register.

    declarations: prototypes and types that the tests need, from a source that is trusted as the tests are; without
    it the solution's own interface is read. run: of one test. build: of one compiler run. The CPU seconds of the
    tests' compilation are counted for the solution that came first. Raises RewardError if this machine has no g++.
    """
    return _Grading(tests, kind, run, build, sandbox, toolchain()).grade(source, declarations)


def compile_program(source: str, *, build: Limits = BUILD, sandbox: Sandbox) -> Program:
    """A program with a main of its own, optimised (-O2), to be run by Sandbox.execute. Raises RewardError."""
    tools = toolchain()
    steps = [
        [*tools.compile("fast"), "solution.cpp", "-o", "solution.o"],
        [*tools.link("_start", "solution.o"), "-o", "program"],
    ]
    files = {"solution.cpp": encoded(source), "steps.sh": script(steps)}
    built = sandbox.build(files, ["/bin/sh", "-e", "steps.sh"], build, ["program"])
    try:
        return Program(output(built, "program"), cpu_s=built.cpu_s)
    except BuildFailed as problem:
        return Program(b"", str(problem)[:_LOG_CHARS], problem.status, cpu_s=built.cpu_s)
    except BrokenSandbox as problem:
        return Program(failure=f"the sandbox: {problem}"[:_LOG_CHARS], cpu_s=built.cpu_s)


class _Grading:
    """One solution's way through compiler, linker and tests; adds up the CPU seconds of the compilers."""

    def __init__(self, tests: str, kind: Kind, run: Limits, build: Limits, box: Sandbox, tools: Toolchain) -> None:
        self._tests, self._kind, self._run, self._build, self._box, self._tools = tests, kind, run, build, box, tools
        self._cpu_s = 0.0

    def grade(self, source: str, declarations: str) -> Graded:
        try:
            code = self._compile(source)
            suite = self._suite(source, declarations, elf.symbols(code).defined)
            tests = self._tested(suite, self._link(code, suite))
            return Graded(tests, compile_cpu_s=self._cpu_s, run_cpu_s=sum(test.cpu_s for test in tests))
        except BuildFailed as problem:
            log, status = str(problem)[:_LOG_CHARS], problem.status
            return Graded(compile_error=log, compile_status=status, compile_cpu_s=self._cpu_s)
        except elf.ElfError as problem:
            return Graded(compile_error=str(problem), compile_status="exit", compile_cpu_s=self._cpu_s)
        except SuiteError as problem:
            return Graded(failure=f"the tests: {problem}"[:_LOG_CHARS], compile_cpu_s=self._cpu_s)
        except BrokenSandbox as problem:
            return Graded(failure=f"the sandbox: {problem}"[:_LOG_CHARS], compile_cpu_s=self._cpu_s)

    def _compile(self, source: str) -> bytes:
        if len(source) > _LONGEST:
            raise BuildFailed(f"the solution is longer than {_LONGEST} characters")
        # All of libstdc++ takes 2.5 times as long to load; who names it in the source wants it.
        header = "everything" if "bits/stdc++.h" in source else "usual"
        command = [*self._tools.compile(header), "solution.cpp", "-o", "solution.o"]
        return self._built({"solution.cpp": encoded(source)}, command, "solution.o")

    def _built(self, files: dict[str, bytes], command: list[str], name: str) -> bytes:
        built = self._box.build(files, command, self._build, [name])
        self._cpu_s += built.cpu_s
        return output(built, name)

    def _suite(self, source: str, declarations: str, defined: frozenset[str]) -> Suite:
        """The tests compiled against trusted declarations, or where the solution does not meet these, its own."""
        if declarations:
            suite = self._compiled_tests(declarations)
            if suite.wanted <= defined:
                return suite
        own = self._interface(source)
        word = reaching(own)
        if word:
            raise BuildFailed(f"{word!r} in what the tests use of the solution: the row would have to declare it")
        try:
            suite = self._compiled_tests(own)
        except SuiteError as problem:
            raise BuildFailed(f"the tests do not compile against this solution: {problem}") from None
        missing = suite.wanted - defined
        if missing:
            raise BuildFailed(f"the solution does not define {', '.join(sorted(missing)[:5])}")
        return suite

    def _interface(self, source: str) -> str:
        found = interface(source, self._tests)
        if macros(source) & set(re.findall(r"\w+", found)):
            plain = re.sub(r"^[ \t]*#[ \t]*include\b.*", "", source, flags=re.MULTILINE)
            command = [self._tools.gxx, "-std=c++17", "-E", "-P", "solution.cpp", "-o", "plain.cpp"]
            expanded = self._built({"solution.cpp": encoded(plain)}, command, "plain.cpp")
            found = interface(expanded.decode("utf-8", "replace"), self._tests)
        return found

    def _compiled_tests(self, declarations: str) -> Suite:
        def compile_it() -> Suite:
            suite, cpu_s = compile_suite(self._tests, self._kind, declarations, self._tools, self._build, self._box)
            self._cpu_s += cpu_s
            return suite

        parts = (str(self._tools.folder), self._kind, self._tests, declarations)
        return _suites.get(hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest(), compile_it)

    def _link(self, code: bytes, suite: Suite) -> bytes:
        """The program. Raises BuildFailed if anything in it could run before the harness's entry point."""
        kept = "".join(f"{name}\n" for name in sorted(suite.wanted)) or "nothing\n"
        steps = [
            [self._tools.objcopy, "--remove-section=.group", "--keep-global-symbols=kept", "solution.o"],
            [*self._tools.link(ENTRY, "solution.o", "suite.o"), "-o", "program"],
        ]
        files = {"solution.o": code, "suite.o": suite.code, "kept": kept.encode(), "steps.sh": script(steps)}
        program = self._built(files, ["/bin/sh", "-e", "steps.sh"], "program")
        early = elf.runs_early(program, self._tools.loader, SONAMES)
        if early:
            raise BuildFailed(f"the program would run code before the harness does: {early}")
        return program

    def _tested(self, suite: Suite, program: bytes) -> list[Tested]:
        orders = [Order.new(name) for name in suite.names]
        runs = self._box.execute(program, ["tests"], [order.case() for order in orders], self._run, CHANNELS)
        return [_verdict(order, ran) for order, ran in zip(orders, runs, strict=True)]


def _verdict(order: Order, ran: Ran) -> Tested:
    """Raises BrokenSandbox where the sandbox could not run the test."""
    if ran.status == "error":
        raise BrokenSandbox(ran.message)
    said = order.verdict(ran)
    if said == b"P":
        return Tested("passed", ran.cpu_s, ran.peak_mb, name=order.test)
    status: Verdict = "runtime_error"
    message = ran.message
    if said is not None:
        message = said[1:].decode("utf-8", "replace")
        status = "memory" if "std::bad_alloc" in message else "failed"
    elif ran.status in ("timeout", "memory", "output_limit"):
        status = ran.status
    elif ran.channels.get(VERDICT_FD):
        message = "wrote to the harness's pipe"
    else:
        message = f"ended before the test did: {message or 'exit code 0'}"
    return Tested(status, ran.cpu_s, ran.peak_mb, message[:_MESSAGE_CHARS], order.test)


def encoded(source: str) -> bytes:
    """As a compiler reads it; halves of surrogate pairs are not text."""
    return source.encode("utf-8", "replace")


class _Suites:
    """The suites compiled last. Who asks for one that another thread is compiling waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Future[Suite]] = OrderedDict()

    def get(self, key: bytes, compile_it: Callable[[], Suite]) -> Suite:
        """Raises what `compile_it` raises, the same SuiteError to all who ask."""
        with self._lock:
            future = self._known.get(key)
            if mine := future is None:
                future = self._known[key] = Future()
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
        assert future is not None
        if mine:
            self._fill(key, future, compile_it)
        return future.result()

    def _fill(self, key: bytes, future: Future[Suite], compile_it: Callable[[], Suite]) -> None:
        try:
            future.set_result(compile_it())
        except SuiteError as problem:
            future.set_exception(problem)
        finally:
            if not future.done():  # nobody may wait for ever; who comes later tries again
                with self._lock:
                    self._known.pop(key, None)
                future.set_exception(BrokenSandbox("the tests' compilation was interrupted"))

    def after_fork(self) -> None:
        """What another thread was compiling will not be finished in this process."""
        self._lock = threading.Lock()
        self._known = OrderedDict((key, future) for key, future in self._known.items() if future.done())


_suites = _Suites()
os.register_at_fork(after_in_child=_suites.after_fork)
