"""Input and output types of the sandbox, used in the caller's process: limits, cases, results."""

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "exit", "signal", "timeout", "memory", "output_limit"]


@dataclass(frozen=True)
class Limits:
    """Limits of one run (one test process), and of compiling a Python solution.

    cpu_s: CPU seconds (user and system) over all threads; the main limit. wall_s: ends programs that sleep; high, so
    that scores do not depend on load. memory_mb: address space, and peak resident memory. output_kb: for each of
    stdout, stderr and a call's result. threads: maximum number; exact if the sandbox has its own user ids (started as
    root), else shared by all concurrent runs. compile_cpu_s: integer CPU seconds for compiling a Python solution.
    """

    cpu_s: float = 4.0
    wall_s: float = 20.0
    memory_mb: int = 512
    output_kb: int = 8192
    open_files: int = 64
    threads: int = 256
    compile_cpu_s: int = 10


# One g++ run: cc1plus needs 1 GB for heavy templates; driver, compiler, assembler and linker are separate processes.
BUILD_LIMITS = Limits(cpu_s=60.0, wall_s=300.0, memory_mb=3072, output_kb=256 * 1024, open_files=256)


@dataclass(frozen=True)
class Case:
    """One run of a program: its standard input, or (Python only) a call of `call[0]` with JSON arguments.

    A call uses the method of that name of a class `Solution` if there is one, else the function. result: a
    compiled program also gets descriptor 3, and writes the run's result to it.
    """

    stdin: bytes = b""
    call: tuple[str, list[Any]] | None = None
    result: bool = False


@dataclass(frozen=True)
class Ran:
    """The result of one case. All bytes and texts in it come from an untrusted program.

    status: ok (exit code 0; for a call: it returned a JSON value), exit (another code, an exception, a call without
    result), signal, timeout (CPU or wall time), memory or output_limit.
    result: the call's value as JSON; empty if there is none. message: why the status is not ok, e.g. the last line of
    the traceback.
    """

    status: Status
    stdout: bytes = b""
    result: bytes = b""
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class Program:
    """A Python program's runs, one per case or one for its tests; none if it did not compile.

    judge: the run of the tests' process; its result is what the tests wrote, even if the process was killed.
    """

    compile_error: str | None
    runs: list[Ran]
    judge: Ran = Ran("ok")


@dataclass(frozen=True)
class Built:
    """status: as in Ran. log: the compiler's output, truncated to 64 kB. outputs: the requested files that exist."""

    status: Status
    log: str
    outputs: dict[str, bytes]
    cpu_s: float = 0.0
    message: str = ""
