"""`Sandbox`: the public face. Picks a level, keeps a zygote for programs and one for builds."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rewards.errors import RewardError
from rewards.sandbox import environment, filters, probe
from rewards.sandbox.inside import restrict
from rewards.sandbox.levels import LEVELS, UNSAFE, Level, Start, build_start, python_start
from rewards.sandbox.supervisor import Runner
from rewards.sandbox.types import BUILD_LIMITS, Built, Case, Limits, Program, Ran, TestRun

_TOOLCHAINS = ("/usr/",)
_log = logging.getLogger(__name__)


class Sandbox:
    """Runs untrusted programs at the strongest isolation level of this machine. Thread-safe, usable after fork.

    level: the one to use; by default the strongest that stops a small set of attacks, which is tried out here (a tenth
    of a second). unsafe: allow level "none" (rlimits only) where there is no other; also REWARDS_SANDBOX_UNSAFE=1.
    Raises RewardError where no level can be used.
    """

    def __init__(self, level: Level | None = None, unsafe: bool | None = None) -> None:
        self._programs = Runner(lambda: python_start(self.level))
        self._builds = Runner(self._build_start)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._scratch_lock = threading.Lock()
        self.unsafe = os.environ.get(UNSAFE) == "1" if unsafe is None else unsafe
        self.level: Level = "none"
        self.level = self._choose([level] if level else LEVELS)
        _log.log(logging.WARNING if self.level == "none" else logging.INFO, "sandbox isolation level: %s", self.level)

    def _choose(self, levels: Sequence[Level]) -> Level:
        problems = []
        for level in levels:
            if level not in LEVELS:
                raise RewardError(f"sandbox: no isolation level {level!r}; levels: {', '.join(LEVELS)}")
            problem = self._problem(level)
            if not problem:
                return level
            problems.append(f"{level}: {problem}")
        raise RewardError(f"sandbox: this machine cannot isolate untrusted code ({'; '.join(problems)})")

    def _problem(self, level: Level) -> str:
        """Why this level cannot be used, and what to do about it; nothing if it can."""
        if level == "none":
            return "" if self.unsafe else f"only by hand: set {UNSAFE}=1 where all programs are trusted"
        if level == "namespaces" and shutil.which("bwrap") is None:
            return "bwrap is missing, install bubblewrap"
        if level == "landlock" and restrict.landlock_version() == 0:
            return "the kernel has no Landlock, boot one from 5.13 on with lsm=landlock"
        try:
            filters.library()
        except RewardError as problem:
            return str(problem)
        self.level = level
        attacks = probe.attack(self)
        through = [name for name, stopped in attacks if not stopped]
        if attacks and not through:
            return ""
        self._programs.close()
        return f"got through: {', '.join(through)}" if through else self._programs.last_problem or "programs do not run"

    def python(
        self,
        code: str,
        cases: Sequence[Case],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        keep_going: Callable[[int, Ran], bool] | None = None,
        preamble: str = "",
    ) -> Program:
        """Run a Python solution on each case, every time in a fresh process. keep_going(index, run): go on?

        preamble: trusted source, executed once in the program's namespace before the program.

        A call's result is JSON only as far as the program kept to the rules: its bytes may be anything.
        """
        return self._programs.python(code, cases, limits, keep_going, preamble)

    def run_tests(
        self,
        program: str,
        tests: str,
        settings: Mapping[str, Any],
        limits: Limits,
        judging: Limits,
        processes: int,
        again: Callable[[Sequence[Ran]], bool],
    ) -> TestRun:
        """Run tests (see inside/judge.py for `settings`) against a program; each has a process, limits and a job of
        its own, and they test_run over a channel. A program's process that ends is replaced when the tests ask the next
        question, at most `processes` in all, and if again(runs so far).
        """
        return self._programs.run_tests(program, tests, settings, limits, judging, processes, again)

    def execute(
        self,
        binary: bytes,
        argv: Sequence[str],
        cases: Sequence[Case],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        channels: Mapping[int, bytes | None] = {},
        keep_going: Callable[[int, Ran], bool] | None = None,
    ) -> list[Ran]:
        """Run a compiled program on each case, every time in a fresh process with no environment.

        channels: further descriptors, by the number (3 to 31) that the program finds them at: bytes to read, or
        None for a pipe to write into, whose content is in Ran.channels. A pipe holds 64 KiB; what is in it
        cannot be taken back. Every case gets channels of its own.
        """
        if not all(3 <= at < 32 for at in channels):
            raise RewardError(f"sandbox: channels are numbered 3 to 31, not {sorted(channels)}")
        return self._programs.execute(binary, argv, cases, limits, channels, keep_going)

    def build(
        self,
        files: Mapping[str, bytes],
        argv: Sequence[str],
        limits: Limits = BUILD_LIMITS,
        outputs: Sequence[str] = ("a.out",),
    ) -> Built:
        """Run a compiler (argv[0] is its absolute path) in a new directory that holds `files`, and read `outputs`.

        Names are relative paths. No network, no files but the toolchain's and its own, limits per process. Raises
        RewardError for a compiler that is not there or a name that leaves the directory.
        """
        compiler = os.path.realpath(argv[0])
        if not os.access(compiler, os.X_OK) or not compiler.startswith(_TOOLCHAINS):
            raise RewardError(f"sandbox: no compiler {argv[0]!r} under {' or '.join(_TOOLCHAINS)}")
        for name in (*files, *outputs):
            if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
                raise RewardError(f"sandbox: {name!r} is not a path inside the build's directory")
        return self._builds.build(files, [compiler, *argv[1:]], limits, outputs)

    def _build_start(self) -> Start:
        if self.level == "namespaces":
            return build_start(self.level, "/build")
        with self._scratch_lock:
            if self._scratch is None:
                self._scratch = tempfile.TemporaryDirectory(prefix="build-", ignore_cleanup_errors=True)
        return build_start(self.level, self._scratch.name)

    def close(self) -> None:
        """End every process. The sandbox can be used again afterwards."""
        self._programs.close()
        self._builds.close()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_shared: dict[int, Sandbox] = {}
_lock = threading.Lock()


def shared() -> Sandbox:
    """This process's sandbox, at the strongest level. Closed at exit.

    Raises RewardError where no level can be used, and where the environment of Python programs is not built.
    """
    with _lock:
        if os.getpid() not in _shared:
            environment.packages(required=True)
            _shared.clear()  # a fork: the parent's is the parent's
            _shared[os.getpid()] = Sandbox()
            atexit.register(_shared[os.getpid()].close)
        return _shared[os.getpid()]


def selfcheck(level: Level | None = None) -> probe.Report:
    """Level, versions, and whether each attack of a small set is stopped here. Raises RewardError as Sandbox does."""
    with Sandbox(level) as sandbox:
        return probe.Report(sandbox.level, probe.versions(), probe.attack(sandbox, build=True))


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
