"""g++, the linker and GoogleTest of this machine, and what is compiled from them once: precompiled headers, the
harness, the names that libraries define.

These come from our own sources and the system's, so they are made outside the sandbox, in a cache folder that
builds in the sandbox may read. A folder is named by everything that went into it and appears in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rewards.code.cpp import elf
from rewards.errors import RewardError
from rewards.sandbox.rungs import toolchain_folder

HERE = Path(__file__).resolve().parent
STANDARD = "-std=c++17"
COMMON = [STANDARD, "-w", "-fPIE", "-fno-gnu-unique", "-fdiagnostics-color=never", "-fmax-errors=5", "-pipe"]
# Leaving a function of the tests is seen by the harness; functions of the system's headers are not watched.
WATCHED = ["-finstrument-functions", "-finstrument-functions-exclude-file-list=/usr/"]
LIBRARIES = ("-lstdc++", "-lm", "-lgcc_s", "-lgcc", "-lc")
SONAMES = frozenset({"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6"})

# What solutions include most: loaded faster than <vector> is parsed. All of libstdc++ is 2.5 times as slow.
USUAL = (
    "vector",
    "string",
    "algorithm",
    "cmath",
    "limits",
    "queue",
    "map",
    "unordered_map",
    "set",
    "unordered_set",
    "utility",
    "numeric",
    "climits",
    "iostream",
    "sstream",
    "stdexcept",
    "functional",
    "tuple",
    "array",
    "list",
    "cstdint",
    "cstdlib",
    "cstring",
    "cctype",
    "iomanip",
    "stack",
    "deque",
    "memory",
    "optional",
    "bitset",
)


@dataclass(frozen=True)
class Toolchain:
    """folder: holds usual/ everything/ fast/ (precompiled headers) runtime.o and reserved.txt.

    loader: the dynamic loader that honest programs name. reserved: symbols that a candidate may not define for
    the tests, for a library or the harness does.
    """

    gxx: str
    linker: str
    relocatable_linker: str
    objcopy: str
    folder: Path
    before: tuple[str, ...]
    after: tuple[str, ...]
    loader: str
    reserved: frozenset[str]

    def compile(self, header: str, *extra: str) -> list[str]:
        """g++ up to the object file, with the precompiled header of this name."""
        return [self.gxx, *COMMON, *FLAGS[header], *extra, "-include", str(self.folder / header / "all.h"), "-c"]

    def link(self, entry: str, *objects: str) -> list[str]:
        """The linker itself: the driver would start it through two more processes."""
        return [self.linker, "-pie", "--eh-frame-hdr", "-s", "-dynamic-linker", self.loader, "-e", entry, *self.before,
                *objects, *self.after]  # fmt: skip


# Precompiled headers by name, with the flags that decide whether g++ accepts them.
HEADERS = {
    "usual": "".join(f"#include <{name}>\n" for name in USUAL),
    "everything": "#include <bits/stdc++.h>\n",
    "fast": "#include <bits/stdc++.h>\n",
    "tests": "#include <gtest/gtest.h>\n" + "".join(f"#include <{name}>\n" for name in USUAL),
}
FLAGS: dict[str, list[str]] = {"usual": ["-O0"], "everything": ["-O0"], "fast": ["-O2"], "tests": ["-O0", *WATCHED]}


@cache
def toolchain() -> Toolchain:
    """This machine's; compiles what is missing (about 15 s of CPU once). Raises RewardError."""
    gxx, objcopy, relocatable = _tool("g++"), _tool("objcopy"), _tool("ld.bfd")
    linker = shutil.which("ld.gold") or relocatable  # gold links these three times as fast
    folder = _made(gxx, relocatable)
    library = Path(_file(gxx, "libc.so.6")).parent
    before = [_file(gxx, name) for name in ("Scrt1.o", "crti.o", "crtbeginS.o")]
    after = [f"-L{Path(_file(gxx, 'libstdc++.so')).parent}", f"-L{library}", *LIBRARIES]
    after += [_file(gxx, name) for name in ("crtendS.o", "crtn.o")]
    return Toolchain(
        gxx, linker, relocatable, objcopy, folder, tuple(before), tuple(after),
        (folder / "loader.txt").read_text(), frozenset((folder / "reserved.txt").read_text().split()),
    )  # fmt: skip


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RewardError(f"C++ rewards need {name}: apt-get install g++ libgtest-dev")
    return found


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    if done.returncode:
        raise RewardError(f"{' '.join(argv)[:200]}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _file(gxx: str, name: str) -> str:
    found = _run(gxx, f"-print-file-name={name}").strip()
    if not os.path.isabs(found):
        raise RewardError(f"g++ finds no {name}: apt-get install g++ libgtest-dev")
    return os.path.realpath(os.path.dirname(found)) + "/" + os.path.basename(found)


def _made(gxx: str, linker: str) -> Path:
    """The folder for exactly these tools and sources."""
    gtest = Path(_file(gxx, "libgtest.a"))
    parts = [_run(gxx, "-v", "--version"), repr((COMMON, FLAGS, HEADERS)), (HERE / "harness.cpp").read_text()]
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
                _make(target, gxx, linker, gtest, folder)
                target.rename(folder)
    return folder


def _make(target: Path, gxx: str, linker: str, gtest: Path, final: Path) -> None:
    for name, text in HEADERS.items():
        place = target / name
        place.mkdir(parents=True)
        (place / "all.h").write_text(text)
        _run(gxx, *COMMON, *FLAGS[name], "-x", "c++-header", str(place / "all.h"), "-o", str(place / "all.h.gch"))
    harness = target / "harness.o"
    _run(gxx, *COMMON, "-O1", "-c", str(HERE / "harness.cpp"), "-o", str(harness))
    _run(linker, "-r", str(harness), str(gtest), "-o", str(target / "runtime.o"))
    probe = target / "probe"
    (target / "probe.cpp").write_text("int main() {}\n")
    _run(gxx, str(target / "probe.cpp"), "-o", str(probe))
    (target / "loader.txt").write_text(elf.interpreter(probe.read_bytes()))
    (target / "reserved.txt").write_text("\n".join(sorted(_reserved(gxx, target / "runtime.o"))))


def _reserved(gxx: str, runtime: Path) -> set[str]:
    """All that system libraries and start files define, and all that the harness needs."""
    names = set(elf.symbols(runtime.read_bytes()).undefined)
    for library in sorted(SONAMES):
        path = _file(gxx, library) if library != "libstdc++.so.6" else _file(gxx, "libstdc++.so")
        names |= elf.symbols(Path(path).read_bytes(), dynamic=True).defined
    for start in ("Scrt1.o", "crti.o", "crtbeginS.o", "crtendS.o", "crtn.o"):
        names |= elf.symbols(Path(_file(gxx, start)).read_bytes()).defined
    for archive in ("libgcc.a", "libc_nonshared.a"):
        listed = _run("nm", "--defined-only", "--extern-only", "--format=posix", _file(gxx, archive))
        names |= {line.split()[0] for line in listed.splitlines() if len(line.split()) > 2}
    return names | {"_GLOBAL_OFFSET_TABLE_", "__dso_handle", "__TMC_END__"}
