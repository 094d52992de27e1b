"""g++, the linker and GoogleTest of this machine, what is compiled from them once, and programs built with them.

Precompiled headers, the driver and the harness come from our own sources and the system's, so they are made outside of
the sandbox, in a cache folder that builds in the sandbox may read. Its name is a hash of all that went into it.
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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rewards.errors import RewardError
from rewards.sandbox import Built, Limits, Sandbox
from rewards.sandbox.rungs import toolchain_folder

HERE = Path(__file__).resolve().parent
LOG_CHARS = 2000
LONGEST = 1 << 18
COMMON = ["-std=c++17", "-w", "-fPIE", "-fno-gnu-unique", "-fdiagnostics-color=never", "-fmax-errors=5", "-pipe"]
_SOURCES = ("call.h", "driver.cpp", "harness.cpp")
_LIBRARIES = ("-lstdc++", "-lm", "-lgcc_s", "-lgcc", "-lc")
_SHARED = ("libstdc++.so", "libm.so.6", "libgcc_s.so.1", "libc.so.6")
_INCLUDED_FROM = re.compile(r"^(?:In file included from| +from) .*\n", re.MULTILINE)
_TOO_LARGE = re.compile(r"^\S+: .*File size limit exceeded signal", re.MULTILINE)  # the driver's words for SIGXFSZ

# What solutions include most: loaded faster than <vector> is parsed. All of libstdc++ is 2.5 times as slow.
USUAL = (
    "vector string algorithm cmath limits queue map unordered_map set unordered_set utility numeric climits iostream "
    "sstream stdexcept functional tuple array list cstdint cstdlib cstring cctype iomanip stack deque memory optional "
    "bitset"
).split()
_USUAL = "".join(f"#include <{name}>\n" for name in USUAL)
# Precompiled headers by name, with the flag that decides whether g++ accepts them.
HEADERS: Mapping[str, tuple[str, str]] = {
    "usual": ("-O0", f'{_USUAL}#include "../call.h"\n'),
    "everything": ("-O0", '#include <bits/stdc++.h>\n#include "../call.h"\n'),
    "fast": ("-O2", "#include <bits/stdc++.h>\n"),
    "tests": ("-O0", f"#include <gtest/gtest.h>\n{_USUAL}"),
}


class BuildFailed(Exception):
    """A compiler or linker did not finish its work. status: exit, signal, timeout, memory or output_limit."""

    def __init__(self, log: str, status: str = "exit", cpu_s: float = 0.0) -> None:
        super().__init__(log)
        self.status, self.cpu_s = status, cpu_s


class BrokenSandbox(Exception):
    """The sandbox could not do its part."""


@dataclass(frozen=True)
class Program:
    """A compiled program, or why there is none: the compiler's words and how it ended, or why the grader failed."""

    binary: bytes = b""
    compile_error: str | None = None
    status: str = ""
    failure: str = ""
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Toolchain:
    """folder: holds precompiled headers, driver.o, runtime.o (harness and GoogleTest) and reserved.txt (symbols that
    system libraries define). loader: the dynamic loader of programs. before, after: what the linker needs around them.
    """

    gxx: str
    linker: str
    relocatable_linker: str
    objcopy: str
    nm: str
    folder: Path
    loader: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def compile(self, header: str, *extra: str) -> list[str]:
        """g++ up to the object file, with the precompiled header of this name."""
        return [self.gxx, *COMMON, HEADERS[header][0], *extra, "-include", str(self.folder / header / "all.h"), "-c"]

    def link(self, *objects: str) -> list[str]:
        """The linker itself: g++ would start it through two more processes."""
        return [self.linker, "-pie", "--eh-frame-hdr", "-s", "-dynamic-linker", self.loader, *self.before,
                *objects, *self.after]  # fmt: skip


def build_program(
    files: Mapping[str, bytes], steps: Sequence[Sequence[str]], limits: Limits, sandbox: Sandbox
) -> Program:
    """The file `program` that these commands make of these files. Raises BuildFailed."""
    built = run_steps(files, steps, limits, sandbox, ["program"])
    try:
        return Program(output(built, "program"), cpu_s=built.cpu_s)
    except BrokenSandbox as problem:
        return Program(failure=f"the sandbox: {problem}"[:LOG_CHARS], cpu_s=built.cpu_s)


def run_steps(
    files: Mapping[str, bytes], steps: Sequence[Sequence[str]], limits: Limits, sandbox: Sandbox, outputs: Sequence[str]
) -> Built:
    """Run commands in a new directory of the sandbox, each after the one before has succeeded."""
    script = "".join(shlex.join(step) + "\n" for step in steps).encode()
    return sandbox.build({**files, "steps.sh": script}, ["/bin/sh", "-e", "steps.sh"], limits, outputs)


def output(built: Built, name: str) -> bytes:
    """That output of a build. Raises BuildFailed with the compiler's words, or BrokenSandbox."""
    if built.status == "error":
        raise BrokenSandbox(built.message or built.log)
    if built.status != "ok" or name not in built.outputs:
        log = _INCLUDED_FROM.sub("", built.log).strip()
        if _TOO_LARGE.search(log):
            raise BuildFailed("the compiler's output is too large", "output_limit", built.cpu_s)
        if built.status != "exit" or not log:
            log = f"{built.message or built.status} {log}".strip()
        raise BuildFailed(log, built.status, built.cpu_s)
    return built.outputs[name]


def encoded(source: str) -> bytes:
    """As a compiler reads it; halves of surrogate pairs are not text. Raises BuildFailed if it is too long."""
    if len(source) > LONGEST:
        raise BuildFailed(f"the program is longer than {LONGEST} characters")
    return source.encode("utf-8", "replace")


def compile_program(source: str, *, build: Limits, sandbox: Sandbox) -> Program:
    """A program with a main of its own, optimised (-O2), to be run by Sandbox.execute. Raises RewardError."""
    tools = toolchain()
    steps = [
        [*tools.compile("fast"), "solution.cpp", "-o", "solution.o"],
        [*tools.link("solution.o"), "-o", "program"],
    ]
    try:
        return build_program({"solution.cpp": encoded(source)}, steps, build, sandbox)
    except BuildFailed as problem:
        return Program(compile_error=str(problem)[:LOG_CHARS], status=problem.status, cpu_s=problem.cpu_s)


@cache
def toolchain() -> Toolchain:
    """This machine's; compiles what is missing (about 15 s of CPU once). Raises RewardError."""
    gxx, objcopy, nm, relocatable = (_tool(name) for name in ("g++", "objcopy", "nm", "ld.bfd"))
    linker = shutil.which("ld.gold") or relocatable  # gold links these three times as fast
    folder = _made(gxx, relocatable, nm)
    before = [_file(gxx, name) for name in ("Scrt1.o", "crti.o", "crtbeginS.o")]
    after = [f"-L{Path(_file(gxx, name)).parent}" for name in ("libstdc++.so", "libc.so.6")]
    after += [*_LIBRARIES, *(_file(gxx, name) for name in ("crtendS.o", "crtn.o"))]
    loader = re.search(r"-dynamic-linker (\S+)", _run(gxx, "-###", "-pie", "any.o"))
    if loader is None:
        raise RewardError("C++ rewards: g++ names no dynamic loader (-### shows no -dynamic-linker)")
    return Toolchain(
        gxx, linker, relocatable, objcopy, nm, folder, loader[1].strip('"'), tuple(before), tuple(after)
    )


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


def _made(gxx: str, linker: str, nm: str) -> Path:
    """The folder for exactly these tools and sources."""
    gtest = Path(_file(gxx, "libgtest.a"))
    parts = [_run(gxx, "-v", "--version"), repr((COMMON, HEADERS)), *((HERE / name).read_text() for name in _SOURCES)]
    stamps = [os.stat(path) for path in (os.path.realpath(gxx), gtest, _file(gxx, "libc.so.6"))]
    parts += [f"{stamp.st_size} {stamp.st_mtime_ns}" for stamp in stamps]
    root = toolchain_folder() / "cpp"
    root.mkdir(parents=True, exist_ok=True, mode=0o755)
    folder = root / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in root.glob("making-*"):  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=root, prefix="making-") as making:
                target = Path(making) / "made"
                _make(target, gxx, linker, nm, gtest)
                target.rename(folder)
    return folder


def _make(target: Path, gxx: str, linker: str, nm: str, gtest: Path) -> None:
    target.mkdir()
    shutil.copy(HERE / "call.h", target)
    for name, (flag, text) in HEADERS.items():
        (target / name).mkdir()
        header = target / name / "all.h"
        header.write_text(text)
        _run(gxx, *COMMON, flag, "-x", "c++-header", str(header), "-o", f"{header}.gch")
    harness = str(target / "harness.o")
    for source, made in (("driver.cpp", str(target / "driver.o")), ("harness.cpp", harness)):
        _run(gxx, *COMMON, "-O1", "-c", str(HERE / source), "-o", made)
    _run(linker, "-r", harness, str(gtest), "-o", str(target / "runtime.o"))
    listed = [_run(nm, "-D", "--defined-only", "--format=just-symbols", _file(gxx, name)) for name in _SHARED]
    (target / "reserved.txt").write_text(re.sub(r"@\S*", "", "".join(listed)))
