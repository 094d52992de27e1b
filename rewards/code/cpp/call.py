"""C++ tests of kind "call": a program from a candidate's source and a shim of the declared types at its end.

    built = compile_call(code, read_declaration("int add(int a, int b);"), build=BUILD_LIMITS, sandbox=shared())

The driver (driver.cpp) reads the arguments from standard input, calls the shim and writes the result as JSON. Neither
a test nor an expected value is ever compiled or read there, so a program has nothing to forge: one that takes over its
whole process still has to write the right result. Overloads and conversions are settled in the shim, after all of the
candidate's code: `long long` for `int`, `const&`, templates, lambdas and macros work, whatever does not convert to the
declared type is a compile error.
"""

from __future__ import annotations

import re

import jinja2

from rewards.code.cpp.declaration import Declaration
from rewards.code.cpp.toolchain import HERE, OWN_MAIN, build_program, encoded, toolchain
from rewards.code.results import Graded
from rewards.sandbox import Limits, Sandbox

_SHIM = jinja2.Template((HERE / "shim.j2").read_text("utf-8"), trim_blocks=True, lstrip_blocks=True)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_SOLUTION = re.compile(r"\b(?:class|struct)\s+Solution\b[^;{]*\{")


def compile_call(source: str, declaration: Declaration, *, build: Limits, sandbox: Sandbox) -> tuple[bytes, Graded]:
    """The program that calls the declared function of `source`. Raises RewardError if this machine has no g++."""
    if not re.search(rf"\b{declaration.function}\b", source):  # or `using namespace std` would find std::gcd
        return b"", Graded(compile_error=f"the program defines no function {declaration.function!r}")
    tools = toolchain()
    # All of libstdc++ takes 2.5 times as long to load.
    header = "everything" if "bits/stdc++.h" in source else "usual"
    compile_it = [*tools.compile(header), "solution.cpp", "-o", "solution.o"]
    steps = [compile_it, tools.link("solution.o", tools.object("driver"))]
    plain = _COMMENT.sub(" ", source)
    given = "".join(f"{text}\n" for name, text in declaration.texts.items() if not _defines(plain, name))
    shim = _SHIM.render(vars(declaration), method=_SOLUTION.search(plain))
    unit = given.encode() + OWN_MAIN + encoded(f"{source}\n\n{shim}")
    return build_program({"solution.cpp": unit}, steps, build, sandbox)


def _defines(source: str, name: str) -> bool:
    """Whether the source brings its own struct or alias of that name."""
    named = rf"\b(?:(?:struct|class|union)\s+{name}\b[^;{{()]*\{{|using\s+{name}\s*=|typedef\b[^;]*\b{name}\s*;)"
    return re.search(named, source) is not None
