"""C++ tests that are source code: GoogleTest suites, and asserts with or without a main function.

    grade_source(code, 'TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }', "gtest", sandbox=shared())

With `declarations` (prototypes and types, trusted as the tests are) the tests are compiled against those alone, once
for all solutions, and linked to each: a solution that does not define what they need is a compile error. Without, the
tests are compiled together with the solution, whose macros are expanded before.

Solution and tests share one process. A test is passed if the harness (harness.cpp) reports it on a pipe of its own, so
that neither output nor exit code count, but a solution made for it can forge that: its types and overloads take part
in the tests' comparisons where there are no declarations, and its machine code can always reach the harness. Tests of
kind "call" (call.py) have no such gap.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rewards.code.cpp.toolchain import (
    LOG_CHARS,
    BrokenSandbox,
    BuildFailed,
    Toolchain,
    encoded,
    output,
    run_steps,
    toolchain,
)
from rewards.code.results import Graded, Tested, Verdict
from rewards.sandbox import BUILD_LIMITS, Case, Limits, Ran, Sandbox

Kind = Literal["gtest", "asserts"]
_MESSAGE_CHARS = 500
_NONCE_BYTES = 32
_VERDICT_FD = 3  # as in harness.cpp
_SUITES = 256  # kept in memory, about 1 MB each
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_SYSTEM_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<[^>\n]*>[^\n]*", re.MULTILINE)
_ASSERT_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?:cassert|assert\.h)>", re.MULTILINE)
_PRELUDE = (Path(__file__).resolve().parent / "prelude.h").read_text()
_ASSERTS = """
#undef assert
#define assert(...) ((__VA_ARGS__) ? void() : graded_assert_failed(#__VA_ARGS__, __LINE__))
static void graded_assert_failed(const char* what, int line) {
  ADD_FAILURE_AT("test.cpp", line) << what;
  throw std::runtime_error("an assertion failed");
}
"""
_CALL_MAIN = """
int graded_main(int, char**);
TEST(Asserts, main) {
  char name[] = "tests";
  char* argv[] = {name, nullptr};
  EXPECT_EQ(graded_main(1, argv), 0);
}
"""


class _TestsFailed(Exception):
    """The tests cannot be compiled or listed; the message is the compiler's."""


@dataclass(frozen=True)
class _Suite:
    """Compiled tests with harness and GoogleTest. symbols: what they need of a solution. names: "Suite.Test"."""

    code: bytes
    symbols: frozenset[str]
    names: tuple[str, ...]


def grade_source(
    source: str,
    tests: str,
    kind: Kind,
    *,
    declarations: str = "",
    run: Limits = Limits(),  # noqa: B008 - frozen
    build: Limits = BUILD_LIMITS,
    sandbox: Sandbox,
) -> Graded:
    """Every test of `tests` on the solution `source`, in the order in which they register.

    run: limits of one test; build: of one compiler process. The CPU seconds of compiling the tests by themselves are
    counted for the first solution. Raises RewardError if this machine has no g++.
    """
    return _Grading(tests, kind, declarations, run, build, sandbox, toolchain()).grade(source)


@dataclass
class _Grading:
    """One solution; adds up the CPU seconds of the compilers."""

    tests: str
    kind: Kind
    declarations: str
    run: Limits
    build: Limits
    box: Sandbox
    tools: Toolchain
    cpu_s: float = field(default=0.0, init=False)

    def grade(self, source: str) -> Graded:
        try:
            program, names = self._apart(source) if self.declarations else self._together(source)
            tests = self._run_tests(program, names)
            return Graded(tests, compile_cpu_s=self.cpu_s, run_cpu_s=sum(test.cpu_s for test in tests))
        except BuildFailed as problem:
            return Graded(compile_error=str(problem)[:LOG_CHARS], compile_status=problem.status, compile_cpu_s=self.cpu_s)
        except _TestsFailed as problem:
            return Graded(failure=f"the tests: {problem}"[:LOG_CHARS], compile_cpu_s=self.cpu_s)
        except BrokenSandbox as problem:
            return Graded(failure=f"the sandbox: {problem}"[:LOG_CHARS], compile_cpu_s=self.cpu_s)

    def _made(self, files: Mapping[str, bytes], steps: Sequence[Sequence[str]], *names: str) -> list[bytes]:
        built = run_steps(files, steps, self.build, self.box, names)
        self.cpu_s += built.cpu_s
        return [output(built, name) for name in names]

    def _apart(self, source: str) -> tuple[bytes, tuple[str, ...]]:
        """The solution linked to tests that know their declarations alone; only what these need of it is visible."""
        suite = _suites.get(self)
        header = "everything" if "bits/stdc++.h" in source else "usual"
        symbols = "".join(f"{name}\n" for name in sorted(suite.symbols)) or "none\n"
        files = {"solution.cpp": encoded(source), "suite.o": suite.code, "symbols": symbols.encode()}
        steps = [
            [*self.tools.compile(header), "solution.cpp", "-o", "solution.o"],
            [self.tools.objcopy, "--remove-section=.group", "--keep-global-symbols=symbols", "solution.o"],
            [*self.tools.link("suite.o", "solution.o"), "-o", "program"],
        ]
        return self._made(files, steps, "program")[0], suite.names

    def _together(self, source: str) -> tuple[bytes, tuple[str, ...]]:
        """Solution and tests in one translation unit. The solution's macros are expanded before, so that none of
        them can change a test.
        """
        includes = "\n".join(_SYSTEM_INCLUDE.findall(source))
        text, paths = self._unit('#include "solution.cpp"\n')
        expand = [self.tools.gxx, "-std=c++17", "-w", "-Dmain=graded_own_main", "-E", "-P", "given.cpp", "-o", "expanded.cpp"]
        whole = f'#pragma once\n{includes}\n#include "{{}}expanded.cpp"\n'
        files = {path: whole.format("../" * path.count("/")).encode() for path in paths}
        files |= {"tests/test.cpp": text, "given.cpp": encoded(_SYSTEM_INCLUDE.sub("", source))}
        runtime = str(self.tools.folder / "runtime.o")
        compile_tests = [*self.tools.compile("tests"), "tests/test.cpp", "-o", "tests.o"]
        steps = [expand, compile_tests, [*self.tools.link(runtime, "tests.o"), "-o", "program"]]
        (program,) = self._made(files, steps, "program")
        words = set(re.findall(r"\w+", self.tests)) | {"Asserts", "main"}
        names = [name for name in self._listed(program) if set(re.findall(r"[A-Za-z_]\w*", name)) <= words]
        if not names:
            raise BuildFailed("with this solution the tests register no test")
        return program, tuple(names)

    def _unit(self, include: str) -> tuple[bytes, list[str]]:
        """The tests as a file tests/test.cpp, and the paths of files that they include. Raises _TestsFailed."""
        text, source = _PRELUDE, self.tests
        if self.kind == "asserts":
            source = _ASSERT_INCLUDE.sub("", source)
            if not re.search(r"\bmain\b", source):
                source = f"int main() {{\n#line 1\n{source}\n return 0; }}"
            text, source = text + _ASSERTS, source + _CALL_MAIN
        paths = []
        for name in _INCLUDE.findall(source):
            path = posixpath.normpath(posixpath.join("tests", name))
            if path.startswith(("..", "/")) or "\0" in path:
                raise _TestsFailed(f"the tests include {name!r}, which lies outside of their folder")
            if not name.startswith("gtest/"):
                paths.append(path)
        if not paths:
            text, paths = text + include, ["tests/solution.cpp"]
        return f'{text}#define main graded_main\n#line 1 "test.cpp"\n{source}\n'.encode(), paths

    def compile_suite(self) -> _Suite:
        """The tests compiled against the declarations. Raises _TestsFailed, BrokenSandbox."""
        text, paths = self._unit('#include "solution.cpp"\n')
        files = dict.fromkeys(paths, f"#pragma once\n{self.declarations}\n".encode()) | {"tests/test.cpp": text}
        tools, runtime = self.tools, str(self.tools.folder / "runtime.o")
        link = [tools.relocatable_linker, "-r", "--force-group-allocation"]
        steps = [
            [*tools.compile("tests"), "tests/test.cpp", "-o", "tests.o"],
            [*link, "tests.o", runtime, "-o", "all.o"],
            [tools.objcopy, "--keep-global-symbol=main", "all.o", "suite.o"],
            ["/bin/sh", "-c", f"{tools.nm} --undefined-only --format=just-symbols suite.o > symbols"],
        ]
        try:
            code, listed = self._made(files, steps, "suite.o", "symbols")
            reserved = (tools.folder / "reserved.txt").read_text().split()
            symbols = frozenset(listed.decode().split()).difference(reserved)
            absent = [f"--defsym={name}=0" for name in sorted(symbols) if not name.startswith("_G")]
            link_alone = [[*tools.link("suite.o"), *absent, "-o", "list"]]
            return _Suite(code, symbols, self._listed(*self._made({"suite.o": code}, link_alone, "list")))
        except BuildFailed as problem:
            raise _TestsFailed(str(problem)) from None

    def _listed(self, program: bytes) -> tuple[str, ...]:
        """The names of the tests that register themselves. Raises _TestsFailed."""
        report, ran = self._report(program, "")
        if ran.status == "error":
            raise BrokenSandbox(ran.message)
        if not report.startswith(b"L"):
            failure = f"cannot be listed: {ran.status} {ran.message}"
            raise _TestsFailed(f"{failure} without a solution") if self.declarations else BuildFailed(failure)
        names = [name for name in report[1:].decode("utf-8", "replace").splitlines() if "DISABLED_" not in name]
        if not names and self.declarations:
            raise _TestsFailed("there is no test in the tests")
        return tuple(names)

    def _run_tests(self, program: bytes, names: Sequence[str]) -> list[Tested]:
        return [self._tested(program, name) for name in names]

    def _tested(self, program: bytes, name: str) -> Tested:
        report, ran = self._report(program, name)
        if ran.status == "error":
            raise BrokenSandbox(ran.message)
        if report == b"P":
            return Tested("passed", ran.cpu_s, ran.peak_mb, name=name)
        status: Verdict = "runtime_error"
        message = f"ended before the test did: {ran.message or 'exit code 0'}"
        if report.startswith(b"F"):
            message = report[1:].decode("utf-8", "replace")
            status = "memory" if "std::bad_alloc" in message else "failed"
        elif ran.status in ("timeout", "memory", "output_limit"):
            status, message = ran.status, ran.message
        return Tested(status, ran.cpu_s, ran.peak_mb, message[:_MESSAGE_CHARS], name)

    def _report(self, program: bytes, test: str) -> tuple[bytes, Ran]:
        """What the harness wrote after the nonce, nothing if it did not."""
        nonce = os.urandom(_NONCE_BYTES)
        (ran,) = self.box.execute(program, ["tests"], [Case(nonce + test.encode())], self.run, {_VERDICT_FD: None})
        written = ran.channels.get(_VERDICT_FD, b"")
        return (written[_NONCE_BYTES:] if ran.status == "ok" and written.startswith(nonce) else b""), ran


class _Suites:
    """The suites compiled last. A thread that asks for one that another thread is compiling waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Future[_Suite]] = OrderedDict()

    def get(self, grading: _Grading) -> _Suite:
        """Raises what compiling raises, the same _TestsFailed to all who ask."""
        parts = (str(grading.tools.folder), grading.kind, grading.tests, grading.declarations)
        key = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            future = self._known.get(key)
            if mine := future is None:
                future = self._known[key] = Future()
                while len(self._known) > _SUITES:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
        assert future is not None
        if mine:
            try:
                future.set_result(grading.compile_suite())
            except _TestsFailed as problem:
                future.set_exception(problem)
            finally:
                if not future.done():  # interrupted: the next to ask tries again
                    with self._lock:
                        self._known.pop(key, None)
                    future.set_exception(BrokenSandbox("the tests' compilation was interrupted"))
        return future.result()

    def after_fork(self) -> None:
        """What another thread was compiling will not be finished in this process."""
        self._lock = threading.Lock()
        self._known = OrderedDict((key, future) for key, future in self._known.items() if future.done())


_suites = _Suites()
os.register_at_fork(after_in_child=_suites.after_fork)
