"""Builds C++ programs with this machine's g++, linker and GoogleTest, and caches what is compiled only once.

Runs in the caller's process; candidates' sources are compiled in the sandbox. Precompiled headers, the driver and the
harness are compiled from trusted sources (ours and the system's), so this happens outside of the sandbox, when each is
first needed on a machine (2 to 6 s of CPU). Their cache folder is readable by builds in the sandbox; the names contain
a hash of their inputs.
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
# Renames a main function in the candidate's source: the program's main is that of the driver or the harness.
OWN_MAIN = b'#define main graded_own_main\n#line 1 "solution.cpp"\n'
# As contest judges compile: GNU extensions, and ONLINE_JUDGE, without which some programs read input.txt.
_STANDARD, _NEWER_STANDARD = "-std=gnu++17", "-std=gnu++20"
COMMON = [
    _STANDARD, "-DONLINE_JUDGE", "-w", "-fPIE", "-fno-gnu-unique", "-fdiagnostics-color=never", "-fmax-errors=5",
    "-pipe",
]  # fmt: skip
# Headers and names of C++20. A program without any of them that fails in C++17 fails in C++20, too.
_NEWER = re.compile(
    rb"<=>|<(?:bit|compare|concepts|coroutine|format|numbers|ranges|span|semaphore|latch|barrier|source_location|version)>"
    rb"|\b(?:ranges|views|concept|requires|consteval|constinit|co_(?:await|return|yield)|using\s+enum|char8_t|jthread|ssize"
    rb"|span|midpoint|lerp|numbers|erase_if|starts_with|ends_with|contains|has_single_bit|popcount|rot[lr]|bit_\w+"
    rb"|count[lr]_(?:zero|one)|(?:strong|weak|partial)_ordering|to_array|bind_front|make_shared|remove_cvref_t|source_location)\b"
)
_INCLUDED_FROM = re.compile(r"^(?:In file included from| +from) .*\n", re.MULTILINE)
_TOO_LARGE = re.compile(r"^\S+: .*File size limit exceeded signal", re.MULTILINE)  # g++'s message for SIGXFSZ

_USUAL = (HERE / "usual.h").read_text()
# Precompiled headers: name -> optimisation flag (must be the same where they are used), source.
HEADERS: Mapping[str, tuple[str, str]] = {
    "usual": ("-O0", f'{_USUAL}#include "call.h"\n'),
    "everything": ("-O0", '#include <bits/stdc++.h>\n#include "call.h"\n'),
    "fast": ("-O2", "#include <bits/stdc++.h>\n"),
    "tests": ("-O0", f"#include <gtest/gtest.h>\n{_USUAL}"),
}


# Comments and literals. These patterns run on untrusted text in this process: each must take linear time.
_NO_CODE = re.compile(r"""//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])'""", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_SOLUTION = re.compile(r"\b(?:class|struct)\s+Solution\b[^;{]{0,200}\{")


@dataclass(frozen=True)
class Toolchain:
    """A machine's tools. gxx, objcopy: paths. linker: command that links. version: a hash of tools and libraries."""

    gxx: str
    objcopy: str
    linker: tuple[str, ...]
    version: str

    def compile(self, header: str) -> list[str]:
        """The command that compiles to an object file, with the precompiled header of this name."""
        flag, text = HEADERS[header]
        folder = _cached(self, header, "all.h", text, (flag, "-x", "c++-header"), "all.h.gch")
        return [self.gxx, *COMMON, flag, "-include", str(folder / "all.h"), "-c"]

    def object(self, name: str) -> str:
        """Path of the object file of the driver or the harness."""
        text = (HERE / f"{name}.cpp").read_text()
        return str(_cached(self, name, f"{name}.cpp", text, ("-O1", "-c"), f"{name}.o") / f"{name}.o")

    def link(self, *objects: str) -> list[str]:
        """The command that links these objects into the file `program`."""
        return [*self.linker, *objects, "-o", "program"]


def build_program(
    files: Mapping[str, bytes], steps: Sequence[Sequence[str]], limits: Limits, sandbox: Sandbox
) -> tuple[bytes, Graded]:
    """Run these commands in the sandbox on these files until one fails: in C++17, and again in C++20 if that fails and
    a source uses C++20.

    Returns the file `program`, empty if it was not built, and the compiler's error, if any, with the CPU time.
    """
    program, built = _built(files, steps, limits, sandbox)
    if program or not any(_NEWER.search(text) for name, text in files.items() if name.endswith(".cpp")):
        return program, built
    newer = [[_NEWER_STANDARD if arg == _STANDARD else arg for arg in step] for step in steps]
    program, rebuilt = _built(files, newer, limits, sandbox)  # g++ skips the precompiled headers, which are C++17
    return program, replace(rebuilt if program else built, compile_cpu_s=built.compile_cpu_s + rebuilt.compile_cpu_s)


def _built(
    files: Mapping[str, bytes], steps: Sequence[Sequence[str]], limits: Limits, sandbox: Sandbox
) -> tuple[bytes, Graded]:
    """As `build_program`, with the commands unchanged."""
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
    """The source in UTF-8; lone surrogates, which cannot be encoded, become `?`."""
    return source.encode("utf-8", "replace")


def compile_program(source: str, *, build: Limits, sandbox: Sandbox) -> tuple[bytes, Graded]:
    """Build a program with its own main function, optimised (-O2), for Sandbox.execute. Raises RewardError."""
    tools = toolchain()
    steps = [[*tools.compile("fast"), "solution.cpp", "-o", "solution.o"], tools.link("solution.o")]
    return build_program({"solution.cpp": encoded(source)}, steps, build, sandbox)


def compile_call(source: str, declaration: Declaration, *, build: Limits, sandbox: Sandbox) -> tuple[bytes, Graded]:
    """Build the program that calls the declared function of `source`, for tests of kind "call". Raises RewardError.

    The driver (driver.cpp) reads the arguments from standard input, calls the shim (shim.j2) at the end of `source` and
    writes the result as JSON. No test and no expected value is compiled into the program or read by it, so it cannot
    forge a verdict: a program that takes over its process still has to write the right result. The shim comes after all
    of the candidate's code, so the compiler resolves overloads and conversions there: `long long` for `int`, `const&`,
    templates, lambdas and macros work; what does not convert to the declared type is a compile error.
    """
    if not re.search(rf"\b{declaration.function}\b", source):  # otherwise `using namespace std` would find std::gcd
        return b"", Graded(compile_error=f"the program defines no function {declaration.function!r}")
    tools = toolchain()
    header = "everything" if "bits/stdc++.h" in source else "usual"
    compile_it = [*tools.compile(header), "solution.cpp", "-o", "solution.o"]
    steps = [compile_it, tools.link("solution.o", tools.object("driver"))]
    plain = _NO_CODE.sub(" ", source)
    types = "".join(f"{text}\n" for name, text in declaration.texts.items() if not _defines(plain, name))
    shim = _shim().render(vars(declaration), method=_has_method(plain, declaration.function))
    declared = {
        declaration.function,
        *declaration.texts,
        *(name for struct in declaration.structs for name in struct.fields),
    }
    names = sorted(set(_WORD.findall(shim)) - declared - NUMBER_WORDS)  # the candidate may have macros of these names
    undefined = "".join(f"#undef {name}\n" for name in names)
    unit = types.encode() + OWN_MAIN + encoded(f"{source}\n\n{undefined}{shim}")
    return build_program({"solution.cpp": unit}, steps, build, sandbox)


@cache
def _shim() -> jinja2.Template:
    import jinja2  # here, so that only builds of calls pay for the import

    text = (HERE / "shim.j2").read_text("utf-8")
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(text)  # noqa: S701  # C++, not HTML


def _defines(source: str, name: str) -> bool:
    """Whether the source defines a struct or alias of that name."""
    pattern = (
        rf"\b(?:struct|class|union)\s+{name}\b[^;{{()]{{0,200}}\{{|\busing\s+{name}\s*="
        rf"|\btypedef\b[^;{{}}]{{0,200}}\b{name}\s*;|\}}\s*{name}\s*[;,]"
    )
    return re.search(pattern, source) is not None


def _has_method(source: str, function: str) -> bool:
    """Whether the source has a class Solution with a member of that name."""
    opening = _SOLUTION.search(source)
    depth = 1
    for mark in re.finditer(rf"[{{}}]|\b{function}\b", source[opening.end() :] if opening else ""):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if depth == 0 or (depth == 1 and mark.group() == function):
            return depth == 1
    return False


@cache
def toolchain() -> Toolchain:
    """This machine's toolchain. Raises RewardError if a tool or library is missing."""
    gxx = _tool("g++")
    gold = ["-fuse-ld=gold"] if shutil.which("ld.gold") else []  # links these programs three times as fast
    stamps = [os.stat(path) for path in (os.path.realpath(gxx), _file(gxx, "libgtest.a"), _file(gxx, "libc.so.6"))]
    parts = [_run(gxx, "-v", "--version"), *(f"{stamp.st_size} {stamp.st_mtime_ns}" for stamp in stamps)]
    return Toolchain(gxx, _tool("objcopy"), (gxx, "-pie", "-s", *gold), _hash(parts))


def _tool(name: str) -> str:
    """Path of an executable."""
    path = shutil.which(name)
    if path is None:
        raise RewardError(f"C++ rewards need {name}: apt-get install g++ libgtest-dev")
    return path


def _run(*argv: str) -> str:
    """Output of a trusted command, run outside of the sandbox."""
    result = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    if result.returncode:
        raise RewardError(f"{' '.join(argv)[:200]}: {result.stderr.strip()[-500:]}")
    return result.stdout + result.stderr


def _file(gxx: str, name: str) -> str:
    """Path of a library file that g++ links."""
    path = _run(gxx, f"-print-file-name={name}").strip()
    if not os.path.isabs(path):
        raise RewardError(f"g++ finds no {name}: apt-get install g++ libgtest-dev")
    return os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _cached(tools: Toolchain, name: str, source: str, text: str, flags: tuple[str, ...], target: str) -> Path:
    """The cache folder with the file `source`, which has this text, and the `target` that g++ compiles from it."""
    codec = (HERE / "call.h").read_text() if '"call.h"' in text else ""
    root = toolchain_folder() / "cpp"
    root.mkdir(parents=True, exist_ok=True, mode=0o755)
    folder = root / f"{name}-{_hash([tools.version, repr((COMMON, flags)), text, codec])}"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in root.glob(f"new-{name}-*"):  # left by a killed process
            shutil.rmtree(stale, ignore_errors=True)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=root, prefix=f"new-{name}-") as scratch:
                new = Path(scratch) / "made"
                new.mkdir()
                (new / "call.h").write_text(codec)
                (new / source).write_text(text)
                _run(tools.gxx, *COMMON, *flags, str(new / source), "-o", str(new / target))
                new.rename(folder)
    return folder
