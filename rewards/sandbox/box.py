"""`Sandbox`: the public face. Picks a rung, keeps a runner for programs and one for builds."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from rewards.sandbox.rungs import Rung, python_start
from rewards.sandbox.supervisor import Runner
from rewards.sandbox.types import Case, Limits, Program, Ran

_log = logging.getLogger(__name__)


class Sandbox:
    """Runs untrusted programs behind the best walls that this machine has. Thread-safe, usable after fork."""

    def __init__(self, rung: Rung | None = None) -> None:
        self.rung: Rung = rung or "namespaces"
        self._programs = Runner(lambda: python_start(self.rung))

    def python(
        self,
        code: str,
        cases: Sequence[Case],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        keep_going: Callable[[int, Ran], bool] | None = None,
    ) -> Program:
        """Run a Python solution on each case, every time in a fresh process. keep_going(index, run): go on?"""
        return self._programs.python(code, cases, limits, keep_going)

    def close(self) -> None:
        self._programs.close()

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
