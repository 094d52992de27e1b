"""`Sandbox`: the public face. Picks a rung, keeps a runner for programs and one for builds."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rewards.base import RewardError
from rewards.sandbox.rungs import Rung, Start, build_start, python_start
from rewards.sandbox.supervisor import Runner
from rewards.sandbox.types import BUILD_LIMITS, Built, Case, Limits, Program, Ran

_TOOLCHAINS = ("/usr/",)
_log = logging.getLogger(__name__)


class Sandbox:
    """Runs untrusted programs behind the best walls that this machine has. Thread-safe, usable after fork."""

    def __init__(self, rung: Rung | None = None) -> None:
        self.rung: Rung = rung or "namespaces"
        self._programs = Runner(lambda: python_start(self.rung))
        self._builds = Runner(self._build_start)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def python(
        self,
        code: str,
        cases: Sequence[Case],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        keep_going: Callable[[int, Ran], bool] | None = None,
    ) -> Program:
        """Run a Python solution on each case, every time in a fresh process. keep_going(index, run): go on?"""
        return self._programs.python(code, cases, limits, keep_going)

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

        channels: further descriptors, by the number (3 or above) that the program finds them at: bytes to read, or
        None for a pipe to write into, whose content is in Ran.channels. A pipe holds 64 KiB; what is in it
        cannot be taken back. Every case gets channels of its own.
        """
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
        if self.rung == "namespaces":
            return build_start(self.rung, "/build")
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="build-", ignore_cleanup_errors=True)
        return build_start(self.rung, self._scratch.name)

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
    """This process's sandbox, on the best rung. Closed at exit."""
    with _lock:
        if os.getpid() not in _shared:
            _shared.clear()
            _shared[os.getpid()] = Sandbox()
        return _shared[os.getpid()]
