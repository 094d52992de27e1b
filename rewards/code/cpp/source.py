"""C++ tests that are source code: GoogleTest suites, and asserts with or without a main function.

    read({"kind": "gtest", "source": "TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }"})

With `declarations` (trusted prototypes and types) the tests are compiled against those alone and linked with the
solution; a solution that does not define what they need is a compile error. Without `declarations` the tests are
compiled together with the solution, whose macros are expanded first.

This module runs in the caller's process; solution and tests share one process in the sandbox. A test passes if the
harness (harness.cpp) reports it on a descriptor; output and exit code do not count. A malicious solution can forge
that: without declarations its types and overloads take part in the tests' comparisons, and its machine code can always
reach the harness. Verdicts of kind "call" cannot be forged.
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
    """Run every test of `suite.source` on the solution `source`, in the order of their registration.

    run: limits of one test; build: of one compiler process. Raises NotGraded if the tests do not compile or contain no
    test, RewardError if this machine has no g++.
    """
    tests, kind, declarations = suite.source, suite.kind, suite.declarations
    text, paths = _unit(tests, kind)
    outside = next((path for path in paths if path.startswith(("..", "/")) or "\0" in path), None)
    if outside:
        raise NotGraded(f"the tests include {outside!r}, which is outside of their folder")
    tools = toolchain()
    test = [
        [*tools.compile("tests"), "tests/test.cpp", "-o", "tests.o"],
        [tools.objcopy, "--redefine-sym", "main=graded_main", "tests.o"],  # the program's main is the harness's
    ]
    objects = [tools.object("harness"), "tests.o"]
    files = {"tests/test.cpp": text}
    if declarations:
        header = "everything" if "bits/stdc++.h" in source else "usual"
        files |= dict.fromkeys(paths, f"#pragma once\n{declarations}\n".encode())
        files["given.cpp"] = OWN_MAIN + encoded(source)
        files["tests.o"], built = build_program(files, [*test, ["/bin/cp", "tests.o", "program"]], build, sandbox)
        if built.compile_error is not None:
            raise NotGraded(f"the tests: {built.compile_error}")
        compile_cpu_s = built.compile_cpu_s
        steps = [[*tools.compile(header), "given.cpp", "-o", "given.o"], tools.link(*objects, "given.o", "-lgtest")]
    else:
        compile_cpu_s = 0.0
        includes = "\n".join(_SYSTEM_INCLUDE.findall(source))
        # The solution is preprocessed first, so that its macros cannot change a test; its main function is renamed.
        expand = [tools.gxx, COMMON[0], "-w", "-E", "-P", "given.cpp", "-o", "expanded.cpp"]
        for path in paths:
            files[path] = f'#pragma once\n{includes}\n#include "{"../" * path.count("/")}expanded.cpp"\n'.encode()
        files["given.cpp"] = OWN_MAIN + encoded(_SYSTEM_INCLUDE.sub("", source))
        steps = [expand, *test, tools.link(*objects, "-lgtest")]
    binary, built = build_program(files, steps, build, sandbox)
    compile_cpu_s += built.compile_cpu_s
    if not binary:
        return replace(built, compile_cpu_s=compile_cpu_s)
    tested = [_tested(binary, name, run, sandbox) for name in _names(binary, tests, kind, run, sandbox)]
    return Graded(tested, compile_cpu_s=compile_cpu_s, run_cpu_s=sum(test.cpu_s for test in tested))


def _unit(tests: str, kind: str) -> tuple[bytes, list[str]]:
    """The content of tests/test.cpp, and the paths of the files that it includes."""
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
    """Names of the tests to run: those that the program lists if all their words occur in the tests' source, since a
    solution could register its own, and those that the source defines. Raises NotGraded if there are none.
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
    """The result of one test, run in its own process."""
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
    """The harness's report on one test, or its listing if `test` is empty; b"" without the nonce, unless a failure."""
    nonce = os.urandom(_NONCE_BYTES)
    (ran,) = sandbox.execute(program, ["tests"], [Case(nonce + test.encode(), result=True)], run)
    if ran.result.startswith(nonce):
        return ran.result.removeprefix(nonce), ran
    return (ran.result if ran.result.startswith(b"F") else b""), ran
