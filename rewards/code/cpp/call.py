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

from rewards.code.cpp.declaration import Declaration, Type
from rewards.code.cpp.toolchain import OWN_MAIN, Program, build_program, encoded, toolchain
from rewards.sandbox import Limits, Sandbox

_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_SOLUTION = re.compile(r"\b(?:class|struct)\s+Solution\b[^;{]*\{")


def compile_call(source: str, declaration: Declaration, *, build: Limits, sandbox: Sandbox) -> Program:
    """The program that calls the declared function of `source`. Raises RewardError if this machine has no g++."""
    if not re.search(rf"\b{declaration.function}\b", source):  # or `using namespace std` would find std::gcd
        return Program(compile_error=f"the program defines no function {declaration.function!r}", status="exit")
    tools = toolchain()
    # All of libstdc++ takes 2.5 times as long to load.
    header = "everything" if "bits/stdc++.h" in source else "usual"
    compile_it = [*tools.compile(header), "solution.cpp", "-o", "solution.o"]
    steps = [compile_it, tools.link("solution.o", tools.object("driver"))]
    plain = _COMMENT.sub(" ", source)
    given = "".join(f"{text}\n" for name, text in declaration.texts.items() if not _defines(plain, name))
    shim = _shim(declaration, method=_SOLUTION.search(plain) is not None)
    unit = given.encode() + OWN_MAIN + encoded(f"{source}\n\n{shim}")
    return build_program({"solution.cpp": unit}, steps, build, sandbox)


def _defines(source: str, name: str) -> bool:
    """Whether the source brings its own struct or alias of that name."""
    named = rf"\b(?:(?:struct|class|union)\s+{name}\b[^;{{()]*\{{|using\s+{name}\s*=|typedef\b[^;]*\b{name}\s*;)"
    return re.search(named, source) is not None


def _shim(declaration: Declaration, method: bool) -> str:
    """The code after the candidate's. A name is qualified: `::gcd` is the candidate's gcd, never std::gcd."""
    codecs = "".join(map(_codec, declaration.structs))
    arguments = "".join(
        f"  auto graded_{number} = graded::item<{param.type.cpp}>(graded_in);\n"
        for number, param in enumerate(declaration.params)
    )
    callee = f"Solution().{declaration.function}" if method else f"::{declaration.function}"
    call = f"{callee}({', '.join(f'graded_{number}' for number in range(len(declaration.params)))})"
    changed = "".join(
        f"  graded::put_item<{param.type.cpp}>(graded_out, graded_{number});\n"
        for number, param in enumerate(declaration.params)
        if param.mutable
    )
    result = declaration.result.cpp
    if declaration.result.kind != "void":
        call = f"graded::put_result<{result}>(graded_out, {call})"
    return (
        f"{codecs}void graded_call(graded::In& graded_in, graded::Out& graded_out) {{\n{arguments}  {call};\n"
        f"{changed}}}\n"
    )


def _codec(kind: Type) -> str:
    """How a struct is read and written field by field, the declared one or the candidate's own of that name."""
    fields = list(zip(kind.fields, kind.args, strict=True))
    reads = [f"graded::item<{arg.cpp}>(graded_in)" for _, arg in fields]
    assigned = "".join(f" v.{name} = {read};" for (name, _), read in zip(fields, reads, strict=True))
    written = "".join(f" graded::put_item<{arg.cpp}>(graded_out, v.{name});" for name, arg in fields)
    return (
        f"template <> struct graded::Codec<{kind.cpp}> {{\n"
        f"  template <class T = {kind.cpp}> static T read(graded::In& graded_in) {{\n"
        f"    if constexpr (std::is_default_constructible_v<T>) {{ T v{{}};{assigned} return v; }}\n"
        f"    else return T{{{', '.join(reads)}}};\n  }}\n"
        f"  static {kind.cpp} get(graded::In& in) {{ auto v = read(in); in.skip(']'); return v; }}\n"
        f"  static void put(graded::Out& graded_out, const {kind.cpp}& v) {{\n"
        f"    graded_out.text += '[';{written} graded_out.text += ']';\n  }}\n}};\n"
    )
