"""Runs a command and ends it with all its descendants when the caller or the command itself ends, however that happens.

    python guard.py GRACE_S COMMAND…     with a pipe as stdin that the caller holds open

A closed pipe means that the caller wants the command stopped or is gone (`kill -9` closes pipes as well). A
server such as vLLM leaves engine processes behind if only its first process is killed. Here orphans become
children of the guard (PR_SET_CHILD_SUBREAPER), so it finds all of them. Standard library only, and run by path, so that
it starts quickly in any interpreter.
"""

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
GRACE_S = 8.0  # between the request to stop and the kill


@contextmanager
def guarded(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends, with its descendants, when the block ends or this process dies. options: Popen's."""
    whole = [sys.executable, __file__, str(GRACE_S), *command]
    with subprocess.Popen(whole, stdin=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()  # tells the guard to stop the command
            process.wait()


def descendants(of: int) -> list[int]:
    """Process ids of all live descendants of a process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may contain anything; state and parent follow the last parenthesis.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue  # it ended meanwhile
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    pids, todo = [], [of]
    while todo:
        below = children.get(todo.pop(), [])
        pids += below
        todo += below
    return pids


def _signal_all(number: signal.Signals, trackers: bool = True) -> bool:
    """Signal all descendants (trackers: Python's resource trackers as well); returns whether there was one."""
    pids = [pid for pid in descendants(os.getpid()) if trackers or not _is_tracker(pid)]
    for pid in pids:
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, number)
    return bool(pids)


def _is_tracker(pid: int) -> bool:
    """Whether it is a Python resource tracker: it frees shared memory after its users end, then ends itself."""
    with suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait_for_all(seconds: float) -> None:
    """Return when no descendant is left, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while descendants(os.getpid()) and time.monotonic() < deadline:
        _reap()
        time.sleep(PAUSE_S)


def main(grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or stdin closes; then end its remaining descendants."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl-C in a terminal, or SIGTERM to the group, must not end the guard before the command.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def before_command() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # if the guard itself is killed

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=before_command)
    pidfd, caller = os.pidfd_open(child.pid), os.getppid()
    ready: list[int] = []
    # A fork of the caller may keep the pipe open after the caller is gone: the parent's id is checked as well.
    while not ready and os.getppid() == caller:
        ready, _, _ = select.select([0, pidfd], [], [], LOOK_EVERY_S)
    status = child.wait() if pidfd in ready else 0
    if pidfd not in ready:
        os.kill(child.pid, signal.SIGTERM)  # the first process usually stops its own children
        select.select([pidfd], [], [], grace_s)
        child.poll()
    _signal_all(signal.SIGTERM)
    for trackers in (False, True):
        _wait_for_all(1)
        while _signal_all(signal.SIGKILL, trackers):
            _reap()
            time.sleep(PAUSE_S)
    _reap()  # so that the CPU time of orphans is added to this process's
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
