"""Runs a command whose whole family dies with its caller, or with the command itself, however either dies.

    python guard.py GRACE_S COMMAND…     with a pipe as stdin that the caller holds open

The pipe's end means that the caller wants the command stopped, or is gone (`kill -9` closes pipes too). A
server such as vLLM's leaves engine processes behind when only its first process is killed; here they stay
descendants of the guard (PR_SET_CHILD_SUBREAPER), so they are found wherever they have moved. Standard
library only, and run by path: it must start at once in any interpreter.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
PAUSE_S, LOOK_EVERY_S = 0.02, 0.5
GRACE_S = 8.0  # from the request to stop until the kill


@contextmanager
def guarded(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends, with all that it started, when the block does or this process dies. options: of Popen."""
    whole = [sys.executable, __file__, str(GRACE_S), *command]
    with subprocess.Popen(whole, stdin=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()  # what the guard waits for
            process.wait()


def descendants(of: int) -> list[int]:
    """Process ids of the living children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything; state and parent follow its last parenthesis.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue  # it has just ended
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    pids, todo = [], [of]
    while todo:
        below = children.get(todo.pop(), [])
        pids += below
        todo += below
    return pids


def _signal_all(number: signal.Signals, trackers: bool = True) -> bool:
    """Signal every descendant, or all but Python's resource trackers; whether there was one."""
    family = [pid for pid in descendants(os.getpid()) if trackers or not _is_tracker(pid)]
    for pid in family:
        with suppress(ProcessLookupError):  # it has just ended, which is what was wanted
            os.kill(pid, number)
    return bool(family)


def _is_tracker(pid: int) -> bool:
    """Whether it is a process that removes shared memory when those that use it are gone, and ends then."""
    with suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait_for_all(seconds: float) -> None:
    """Return when no descendant is left, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while descendants(os.getpid()) and time.monotonic() < deadline:
        _reap()
        time.sleep(PAUSE_S)


def main(grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or stdin does; then end what is left of its family."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A terminal's Ctrl-C, or a polite kill of the group, must not end the guard before its wards.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def before_command() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # should the guard itself be killed

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=before_command)
    pidfd, caller = os.pidfd_open(child.pid), os.getppid()
    ready: list[int] = []
    # A process that the caller has forked may hold the pipe open after it: the parent's id tells as well.
    while not ready and os.getppid() == caller:
        ready, _, _ = select.select([0, pidfd], [], [], LOOK_EVERY_S)
    status = child.wait() if pidfd in ready else 0
    if pidfd not in ready:
        os.kill(child.pid, signal.SIGTERM)  # the first process tells its own; others may need no more
        select.select([pidfd], [], [], grace_s)
        child.poll()
    _signal_all(signal.SIGTERM)
    for trackers in (False, True):
        _wait_for_all(1)
        while _signal_all(signal.SIGKILL, trackers):
            _reap()
            time.sleep(PAUSE_S)
    _reap()  # what orphans have used counts as ours
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
