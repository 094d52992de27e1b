"""C++ tests that are source code: GoogleTest suites, and asserts with or without a main function.

    read({"kind": "gtest", "source": "TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }"})

With `declarations` (prototypes and types, trusted as the tests are) the tests are compiled against those alone and
linked to the solution: one that does not define what they need is a compile error. Without, the tests are compiled
together with the solution, whose macros are expanded before.

Solution and tests share one process. A test is passed if the harness (harness.cpp) reports it on a descriptor, so that
neither output nor exit code count. A solution made for it can forge that: its types and overloads take part in the
tests' comparisons where there are no declarations, and its machine code can always reach the harness. Tests of kind
"call" have no such gap.
"""

import os
import posixpath
import re
from dataclasses import replace

from rewards.code.cpp.toolchain import COMMON, HERE, OWN_MAIN, build_program, encoded, toolchain
from rewards.code.results import Graded, Tested, Verdict
from rewards.code.suites import Suite
from rewards.errors import NotGraded
from rewards.sandbox import Case, Limits, Ran, Sandbox

_MESSAGE_CHARS = 500
_NONCE_BYTES = 32
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TEST = re.compile(r"\bTEST(?:_F)?\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_SYSTEM_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<[^>\n]*>[^\n]*", re.MULTILINE)
_ASSERT_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?:cassert|assert\.h)>", re.MULTILINE)
_PRELUDE, _ASSERTS, _CALL_MAIN = ((HERE / f"{name}.h").read_text() for name in ("prelude", "asserts", "asserts_main"))


def grade_source(source: str, suite: Suite, *, run: Limits, build: Limits, sandbox: Sandbox) -> Graded:
    """Every test of `suite.source` on the solution `source`, in the order in which they register.

    run: limits of one test; build: of one compiler process. Raises NotGraded for tests that do not compile or lack a
    test, RewardError if this machine has no g++.
    """
    tests, kind, declarations = suite.source, suite.kind, suite.declarations
    text, paths = _unit(tests, kind)
    outside = next((path for path in paths if path.startswith(("..", "/")) or "\0" in path), None)
    if outside:
        raise NotGraded(f"the tests include {outside!r}, which lies outside of their folder")
    tools = toolchain()
    test = [
        [*tools.compile("tests"), "tests/test.cpp", "-o", "tests.o"],
        [tools.objcopy, "--redefine-sym", "main=graded_main", "tests.o"],  # the harness has the program's
    ]
    objects = [tools.object("harness"), "tests.o"]
    files = {"tests/test.cpp": text}
    if declarations:
        header = "everything" if "bits/stdc++.h" in source else "usual"
        files |= dict.fromkeys(paths, f"#pragma once\n{declarations}\n".encode())
        files["given.cpp"] = OWN_MAIN + encoded(source)
        files["tests.o"], alone = build_program(files, [*test, ["/bin/cp", "tests.o", "program"]], build, sandbox)
        if alone.compile_error is not None:
            raise NotGraded(f"the tests: {alone.compile_error}")
        spent = alone.compile_cpu_s
        steps = [[*tools.compile(header), "given.cpp", "-o", "given.o"], tools.link(*objects, "given.o", "-lgtest")]
    else:
        spent = 0.0
        includes = "\n".join(_SYSTEM_INCLUDE.findall(source))
        # None of the solution's macros can change a test, and a main function of its own has another name.
        expand = [tools.gxx, COMMON[0], "-w", "-E", "-P", "given.cpp", "-o", "expanded.cpp"]
        for path in paths:
            files[path] = f'#pragma once\n{includes}\n#include "{"../" * path.count("/")}expanded.cpp"\n'.encode()
        files["given.cpp"] = OWN_MAIN + encoded(_SYSTEM_INCLUDE.sub("", source))
        steps = [expand, *test, tools.link(*objects, "-lgtest")]
    binary, built = build_program(files, steps, build, sandbox)
    spent += built.compile_cpu_s
    if not binary:
        return replace(built, compile_cpu_s=spent)
    tested = [_tested(binary, name, run, sandbox) for name in _names(binary, tests, kind, run, sandbox)]
    return Graded(tested, compile_cpu_s=spent, run_cpu_s=sum(test.cpu_s for test in tested))


def _unit(tests: str, kind: str) -> tuple[bytes, list[str]]:
    """The tests as a file tests/test.cpp, and the paths of files that they include."""
    text, source = _PRELUDE, tests
    if kind == "asserts":
        source = _ASSERT_INCLUDE.sub("", source)
        if not re.search(r"\bmain\b", source):
            source = f"int main() {{\n#line 1\n{source}\n return 0; }}"
        text, source = text + _ASSERTS, source + _CALL_MAIN
    included = [name for name in _INCLUDE.findall(source) if not name.startswith("gtest/")]
    if not included:
        text, included = f'{text}#include "solution.cpp"\n', ["solution.cpp"]
    paths = [posixpath.normpath(posixpath.join("tests", name)) for name in included]
    return f'{text}#line 1 "test.cpp"\n{source}\n'.encode(), paths


def _names(program: bytes, tests: str, kind: str, run: Limits, sandbox: Sandbox) -> list[str]:
    """The tests that register themselves, without those that are not in the source of the tests, and with those that
    have to be there. Raises NotGraded where there are none.
    """
    if kind == "asserts":
        return ["Asserts.main"]
    report, ran = _report(program, "", run, sandbox)
    plain = _COMMENT.sub(" ", tests)
    words = set(re.findall(r"\w+", plain))
    listed = report[1:].decode("utf-8", "replace").splitlines() if report.startswith(b"L") else []
    expected = [f"{suite}.{name}" for suite, name in _TEST.findall(plain)]
    names = [name for name in listed if set(re.findall(r"[A-Za-z_]\w*", name)) <= words]
    names += [name for name in expected if name not in names]
    names = [name for name in names if "DISABLED_" not in name]
    if not names:
        raise NotGraded(f"the tests cannot be listed: {ran.message or 'there is no test in them'}")
    return names


def _tested(program: bytes, name: str, run: Limits, sandbox: Sandbox) -> Tested:
    report, ran = _report(program, name, run, sandbox)
    if report == b"P":
        return Tested("passed", ran.cpu_s, name=name)
    status: Verdict = "runtime_error"
    message = f"ended before the test did: {ran.message or 'exit code 0'}"
    if report.startswith(b"F"):
        message = report[1:].decode("utf-8", "replace")
        status = "memory" if "std::bad_alloc" in message else "failed"
    elif ran.status in ("timeout", "memory", "output_limit"):
        status, message = ran.status, ran.message
    return Tested(status, ran.cpu_s, message[:_MESSAGE_CHARS], name)


def _report(program: bytes, test: str, run: Limits, sandbox: Sandbox) -> tuple[bytes, Ran]:
    """What the harness wrote: a failure, or what follows the nonce."""
    nonce = os.urandom(_NONCE_BYTES)
    (ran,) = sandbox.execute(program, ["tests"], [Case(nonce + test.encode(), result=True)], run)
    if ran.result.startswith(nonce):
        return ran.result.removeprefix(nonce), ran
    return (ran.result if ran.result.startswith(b"F") else b""), ran
