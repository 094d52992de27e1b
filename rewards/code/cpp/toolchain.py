"""g++, the linker and GoogleTest of this machine, what is compiled from them once, and programs built with them.

Precompiled headers, the driver and the harness come from our own sources and the system's, so they are made outside of
the sandbox, each when it is first needed on a machine (2 to 6 s of CPU), in a cache folder that builds in the sandbox
may read. Their names hold a hash of all that went into them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rewards.code.cpp.declaration import NUMBER_WORDS, Declaration
from rewards.code.results import Graded
from rewards.errors import RewardError
from rewards.sandbox import Limits, Sandbox
from rewards.sandbox.levels import toolchain_folder

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).resolve().parent
LOG_CHARS = 2000
# A main function of the candidate's gets another name: the driver or the harness has the program's.
OWN_MAIN = b'#define main graded_own_main\n#line 1 "solution.cpp"\n'
# As judges of contests compile: with GNU extensions, and with ONLINE_JUDGE, without which programs read an input.txt.
_STANDARD, _NEWER_STANDARD = "-std=gnu++17", "-std=gnu++20"
COMMON = [
    _STANDARD, "-DONLINE_JUDGE", "-w", "-fPIE", "-fno-gnu-unique", "-fdiagnostics-color=never", "-fmax-errors=5",
    "-pipe",
]  # fmt: skip
# What C++17 has not. A program that has none of it is an error in C++20, too.
_NEWER = re.compile(
    rb"<=>|<(?:bit|compare|concepts|coroutine|format|numbers|ranges|span|semaphore|latch|barrier|source_location|version)>"
    rb"|\b(?:ranges|views|concept|requires|consteval|constinit|co_(?:await|return|yield)|using\s+enum|char8_t|jthread|ssize"
    rb"|span|midpoint|lerp|numbers|erase_if|starts_with|ends_with|contains|has_single_bit|popcount|rot[lr]|bit_\w+"
    rb"|count[lr]_(?:zero|one)|(?:strong|weak|partial)_ordering|to_array|bind_front|make_shared|remove_cvref_t|source_location)\b"
)
_INCLUDED_FROM = re.compile(r"^(?:In file included from| +from) .*\n", re.MULTILINE)
_TOO_LARGE = re.compile(r"^\S+: .*File size limit exceeded signal", re.MULTILINE)  # the driver's words for SIGXFSZ

_USUAL = (HERE / "usual.h").read_text()
# Precompiled headers by name, with the flag that decides whether g++ accepts them.
HEADERS: Mapping[str, tuple[str, str]] = {
    "usual": ("-O0", f'{_USUAL}#include "call.h"\n'),
    "everything": ("-O0", '#include <bits/stdc++.h>\n#include "call.h"\n'),
    "fast": ("-O2", "#include <bits/stdc++.h>\n"),
    "tests": ("-O0", f"#include <gtest/gtest.h>\n{_USUAL}"),
}


# Comments and literals. These patterns run on hostile text in our process: none may take more than linear time.
_NO_CODE = re.compile(r"""//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])'""", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_SOLUTION = re.compile(r"\b(?:class|struct)\s+Solution\b[^;{]{0,200}\{")


@dataclass(frozen=True)
class Toolchain:
    """gxx, objcopy: paths. linker: g++ and its flags. version: a hash of these tools and their libraries."""

    gxx: str
    objcopy: str
    linker: tuple[str, ...]
    version: str

    def compile(self, header: str) -> list[str]:
        """g++ up to the object file, with the precompiled header of this name."""
        flag, text = HEADERS[header]
        made = _made(self, header, "all.h", text, (flag, "-x", "c++-header"), "all.h.gch")
        return [self.gxx, *COMMON, flag, "-include", str(made / "all.h"), "-c"]

    def object(self, name: str) -> str:
        """The object file of the driver or the harness."""
        text = (HERE / f"{name}.cpp").read_text()
        return str(_made(self, name, f"{name}.cpp", text, ("-O1", "-c"), f"{name}.o") / f"{name}.o")

    def link(self, *objects: str) -> list[str]:
        """All of these into a file `program`."""
        return [*self.linker, *objects, "-o", "program"]


def build_program(
    files: Mapping[str, bytes], steps: Sequence[Sequence[str]], limits: Limits, sandbox: Sandbox
) -> tuple[bytes, Graded]:
    """The file `program` that these commands make of these files, each after the one before has succeeded: in C++17, or
    in C++20 where that fails and a file has something of C++20.

    Where there is none its bytes are empty, and the second says why; it holds the CPU time in either case.
    """
    program, built = _built(files, steps, limits, sandbox)
    if program or not any(_NEWER.search(text) for name, text in files.items() if name.endswith(".cpp")):
        return program, built
    newer = [[_NEWER_STANDARD if arg == _STANDARD else arg for arg in step] for step in steps]
    program, again = _built(files, newer, limits, sandbox)  # without precompiled headers, which are C++17
    return program, replace(again if program else built, compile_cpu_s=built.compile_cpu_s + again.compile_cpu_s)


def _built(
    files: Mapping[str, bytes], steps: Sequence[Sequence[str]], limits: Limits, sandbox: Sandbox
) -> tuple[bytes, Graded]:
    script = "".join(shlex.join(step) + "\n" for step in steps).encode()
    built = sandbox.build({**files, "steps.sh": script}, ["/bin/sh", "-e", "steps.sh"], limits, ["program"])
    if built.status == "ok" and built.outputs.get("program"):
        return built.outputs["program"], Graded(compile_cpu_s=built.cpu_s)
    log, status = _INCLUDED_FROM.sub("", built.log).strip(), built.status
    if _TOO_LARGE.search(log):
        log, status = "the compiler's output is too large", "output_limit"
    elif status != "exit" or not log:
        log = f"{built.message or status} {log}".strip()
    return b"", Graded(compile_error=log[:LOG_CHARS], compile_status=status, compile_cpu_s=built.cpu_s)


def encoded(source: str) -> bytes:
    """As a compiler reads it; halves of surrogate pairs are not text."""
    return source.encode("utf-8", "replace")


def compile_program(source: str, *, build: Limits, sandbox: Sandbox) -> tuple[bytes, Graded]:
    """A program with a main of its own, optimised (-O2), to be run by Sandbox.execute. Raises RewardError."""
    tools = toolchain()
    steps = [[*tools.compile("fast"), "solution.cpp", "-o", "solution.o"], tools.link("solution.o")]
    return build_program({"solution.cpp": encoded(source)}, steps, build, sandbox)


def compile_call(source: str, declaration: Declaration, *, build: Limits, sandbox: Sandbox) -> tuple[bytes, Graded]:
    """The program that calls the declared function of `source`, for tests of kind "call". Raises RewardError.

    The driver (driver.cpp) reads the arguments from standard input, calls the shim of the declared types at the end of
    `source` and writes the result as JSON. Neither a test nor an expected value is ever compiled or read there, so a
    program has nothing to forge: one that takes over its whole process still has to write the right result. Overloads
    and conversions are settled in the shim, after all of the candidate's code: `long long` for `int`, `const&`,
    templates, lambdas and macros work, whatever does not convert to the declared type is a compile error.
    """
    if not re.search(rf"\b{declaration.function}\b", source):  # or `using namespace std` would find std::gcd
        return b"", Graded(compile_error=f"the program defines no function {declaration.function!r}")
    tools = toolchain()
    header = "everything" if "bits/stdc++.h" in source else "usual"
    compile_it = [*tools.compile(header), "solution.cpp", "-o", "solution.o"]
    steps = [compile_it, tools.link("solution.o", tools.object("driver"))]
    plain = _NO_CODE.sub(" ", source)
    given = "".join(f"{text}\n" for name, text in declaration.texts.items() if not _defines(plain, name))
    shim = _shim().render(vars(declaration), method=_has_method(plain, declaration.function))
    own = {
        declaration.function,
        *declaration.texts,
        *(name for struct in declaration.structs for name in struct.fields),
    }
    names = sorted(set(_WORD.findall(shim)) - own - NUMBER_WORDS)  # which macros of the candidate may have
    undefined = "".join(f"#undef {name}\n" for name in names)
    unit = given.encode() + OWN_MAIN + encoded(f"{source}\n\n{undefined}{shim}")
    return build_program({"solution.cpp": unit}, steps, build, sandbox)


@cache
def _shim() -> jinja2.Template:
    import jinja2  # only what compiles calls pays for it

    text = (HERE / "shim.j2").read_text("utf-8")
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(text)  # noqa: S701  # C++, not HTML


def _defines(source: str, name: str) -> bool:
    """Whether the source brings its own struct or alias of that name."""
    named = (
        rf"\b(?:struct|class|union)\s+{name}\b[^;{{()]{{0,200}}\{{|\busing\s+{name}\s*="
        rf"|\btypedef\b[^;{{}}]{{0,200}}\b{name}\s*;|\}}\s*{name}\s*[;,]"
    )
    return re.search(named, source) is not None


def _has_method(source: str, function: str) -> bool:
    """Whether a class Solution has a member of that name."""
    opening = _SOLUTION.search(source)
    depth = 1
    for mark in re.finditer(rf"[{{}}]|\b{function}\b", source[opening.end() :] if opening else ""):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if depth == 0 or (depth == 1 and mark.group() == function):
            return depth == 1
    return False


@cache
def toolchain() -> Toolchain:
    """This machine's. Raises RewardError."""
    gxx = _tool("g++")
    gold = ["-fuse-ld=gold"] if shutil.which("ld.gold") else []  # links these three times as fast
    stamps = [os.stat(path) for path in (os.path.realpath(gxx), _file(gxx, "libgtest.a"), _file(gxx, "libc.so.6"))]
    parts = [_run(gxx, "-v", "--version"), *(f"{stamp.st_size} {stamp.st_mtime_ns}" for stamp in stamps)]
    return Toolchain(gxx, _tool("objcopy"), (gxx, "-pie", "-s", *gold), _hash(parts))


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RewardError(f"C++ rewards need {name}: apt-get install g++ libgtest-dev")
    return path


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    if done.returncode:
        raise RewardError(f"{' '.join(argv)[:200]}: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr


def _file(gxx: str, name: str) -> str:
    path = _run(gxx, f"-print-file-name={name}").strip()
    if not os.path.isabs(path):
        raise RewardError(f"g++ finds no {name}: apt-get install g++ libgtest-dev")
    return os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _made(tools: Toolchain, name: str, source: str, text: str, flags: tuple[str, ...], target: str) -> Path:
    """The folder that holds `source` with this text, and what g++ makes of it."""
    codec = (HERE / "call.h").read_text() if '"call.h"' in text else ""
    root = toolchain_folder() / "cpp"
    root.mkdir(parents=True, exist_ok=True, mode=0o755)
    folder = root / f"{name}-{_hash([tools.version, repr((COMMON, flags)), text, codec])}"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in root.glob(f"new-{name}-*"):  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=root, prefix=f"new-{name}-") as making:
                made = Path(making) / "made"
                made.mkdir()
                (made / "call.h").write_text(codec)
                (made / source).write_text(text)
                _run(tools.gxx, *COMMON, *flags, str(made / source), "-o", str(made / target))
                made.rename(folder)
    return folder
