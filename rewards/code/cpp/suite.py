"""The tests of a question, compiled once: one relocatable object that holds tests, GoogleTest and the harness.

Only the entry point can be named from outside of it: a candidate cannot call into gtest or the harness, nor
override what they call. What it leaves open are the functions that the candidate has to bring.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rewards.code.cpp import elf
from rewards.code.cpp.toolchain import Toolchain
from rewards.sandbox import Built, Case, Limits, Ran, Sandbox

_HERE = Path(__file__).resolve().parent
_SECRET_BYTES = 32
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_ASSERT_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?:cassert|assert\.h)>", re.MULTILINE)
_INCLUDED_FROM = re.compile(r"^(?:In file included from| +from) .*\n", re.MULTILINE)
_TOO_LARGE = re.compile(r"^\S+: .*File size limit exceeded signal", re.MULTILINE)  # the driver's words for SIGXFSZ
_PRELUDE = (_HERE / "prelude.h").read_text()
_ASSERTS = """
#undef assert
#define assert(...) ((__VA_ARGS__) ? void() : graded_assert_failed(#__VA_ARGS__, __LINE__))
static void graded_assert_failed(const char* what, int line) {
  ADD_FAILURE_AT("test.cpp", line) << what;
  throw std::runtime_error("an assertion failed");
}
"""
_CALL_MAIN = """
extern "C" int graded_main(int, char**);
TEST(Asserts, main) {
  char name[] = "tests";
  char* argv[] = {name, nullptr};
  EXPECT_EQ(graded_main(1, argv), 0);
}
"""
_GUARDED = "#ifndef GRADED_DECLARATIONS\n#define GRADED_DECLARATIONS\n{}\n#endif\n"
_LISTING = Limits(cpu_s=10.0)
VERDICT_FD = 3  # as in harness.cpp
CHANNELS: Mapping[int, bytes | None] = {VERDICT_FD: None}
ENTRY = "graded_entry"


class SuiteError(Exception):
    """The tests cannot be compiled or listed; the message is what the compiler said."""


class BuildFailed(Exception):
    """A compiler or linker did not finish its work. status: exit, signal, timeout, memory or output_limit."""

    def __init__(self, log: str, status: str = "exit") -> None:
        super().__init__(log)
        self.status = status


class BrokenSandbox(Exception):
    """The sandbox could not do its part."""


@dataclass(frozen=True)
class Suite:
    """code: the object file. wanted: the symbols that it needs from the candidate. names: "Suite.Test", in order."""

    code: bytes
    wanted: frozenset[str]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """What one run of a graded program is told on its standard input, and how its verdict is recognised."""

    secret: bytes
    test: str

    @classmethod
    def new(cls, test: str) -> Order:
        return cls(os.urandom(_SECRET_BYTES), test)

    def case(self) -> Case:
        return Case(self.secret + self.test.encode())

    def verdict(self, ran: Ran) -> bytes | None:
        """What the harness said, None if these are not its words alone."""
        said = ran.channels.get(VERDICT_FD, b"")
        return said[_SECRET_BYTES:] if ran.status == "ok" and said.startswith(self.secret) else None


def compile_suite(
    source: str, kind: str, declarations: str, tools: Toolchain, limits: Limits, box: Sandbox
) -> tuple[Suite, float]:
    """The suite and the CPU seconds it took. kind: "gtest" or "asserts". Raises SuiteError, BrokenSandbox."""
    files = _files(source, kind, declarations) | {"steps.sh": _steps(tools)}
    try:
        built = box.build(files, ["/bin/sh", "-e", "steps.sh"], limits, ["suite.o"])
        code = output(built, "suite.o")
        wanted = frozenset(elf.symbols(code).undefined - tools.reserved)
        names, cpu_s = _list(code, wanted, tools, limits, box)
    except (BuildFailed, elf.ElfError) as problem:
        raise SuiteError(str(problem)) from None
    return Suite(code, wanted, names), built.cpu_s + cpu_s


def _files(source: str, kind: str, declarations: str) -> dict[str, bytes]:
    """The tests between our lines; every file of their own that they include holds the declarations."""
    text = _PRELUDE
    if kind == "asserts":
        source = _ASSERT_INCLUDE.sub("", source)
        if not re.search(r"\bmain\b", source):
            source = f"int main() {{\n#line 1\n{source}\n}}"
        text, source = text + _ASSERTS, source + _CALL_MAIN
    files = {path: _GUARDED.format(declarations).encode() for path in _included(source)}
    if not files:
        files["declarations.h"] = _GUARDED.format(declarations).encode()
        text += '#include "../declarations.h"\n'
    return files | {"tests/test.cpp": f'{text}#line 1 "test.cpp"\n{source}\n'.encode()}


def _included(source: str) -> list[str]:
    """Paths of what the tests include by a quoted name, e.g. "../solution/solution.cpp". Raises SuiteError."""
    paths = []
    for name in _INCLUDE.findall(source):
        path = posixpath.normpath(posixpath.join("tests", name))
        if path.startswith(("..", "/")) or "\0" in path:
            raise SuiteError(f"the tests include {name!r}, which lies outside of their folder")
        if not name.startswith("gtest/"):
            paths.append(path)
    return paths


def _steps(tools: Toolchain) -> bytes:
    runtime = str(tools.folder / "runtime.o")
    steps = [
        [*tools.compile("tests"), "tests/test.cpp", "-o", "tests.o"],
        [tools.objcopy, "--redefine-sym", "main=graded_main", "tests.o"],  # many bring a main that nobody needs
        [tools.relocatable_linker, "-r", "--force-group-allocation", "tests.o", runtime, "-o", "all.o"],
        [tools.objcopy, f"--keep-global-symbol={ENTRY}", "--keep-global-symbol=main", "all.o", "suite.o"],
    ]
    return script(steps)


def script(steps: list[list[str]]) -> bytes:
    """A shell script of these commands."""
    return "".join(shlex.join(step) + "\n" for step in steps).encode()


def _list(
    code: bytes, wanted: frozenset[str], tools: Toolchain, limits: Limits, box: Sandbox
) -> tuple[tuple[str, ...], float]:
    """The tests that register themselves, asked of a program without a candidate."""
    absent = [f"--defsym={name}=0" for name in sorted(wanted)]
    built = box.build({"suite.o": code}, [*tools.link(ENTRY, "suite.o"), *absent, "-o", "list"], limits, ["list"])
    order = Order.new("")
    binary = output(built, "list")
    ran = box.execute(binary, ["list"], [order.case()], _LISTING, CHANNELS)[0]
    if ran.status == "error":
        raise BrokenSandbox(ran.message)
    said = order.verdict(ran)
    if said is None or not said.startswith(b"L"):
        raise SuiteError(f"the tests cannot be listed without a solution: {ran.status} {ran.message}")
    names = [name for name in said[1:].decode("utf-8", "replace").splitlines() if "DISABLED_" not in name]
    if not names:
        raise SuiteError("there is no test in the tests")
    return tuple(names), built.cpu_s + ran.cpu_s


def output(built: Built, name: str) -> bytes:
    """That output of a build. Raises BuildFailed with the compiler's words, or BrokenSandbox."""
    if built.status == "error":
        raise BrokenSandbox(built.message or built.log)
    if built.status != "ok" or name not in built.outputs:
        said = _INCLUDED_FROM.sub("", built.log).strip()
        if _TOO_LARGE.search(said):
            raise BuildFailed("what the compiler writes is too large", "output_limit")
        if built.status == "exit" and said:
            raise BuildFailed(said)
        raise BuildFailed(f"{built.message or built.status} {said}".strip(), built.status)
    return built.outputs[name]
