"""A pool of worker processes for work that may never end: the caller keeps the deadline and kills.

A nursery process (nursery.py) imports the heavy libraries once and forks workers from that state, so
a killed worker is replaced in milliseconds. Requests and replies are JSON lines over socket pairs; nothing is
pickled. Works from any thread, inside asyncio, after fork (each process builds its own pool) and under spawn.
Signals and alarms of the host process are not touched.

Nothing outlives the host: the nursery ends when its socket closes or its parent changes, and workers die with
the nursery.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards.errors import RewardError

_LOG = logging.getLogger(__name__)
START_SECONDS = 120.0  # a cold import of sympy from a slow disk on a busy machine
# A deadline counts the worker's CPU time, so that a busy machine changes no verdict. A worker that uses none, or is
# never run, is stopped after this many seconds, and this many more for each second of its deadline.
WALL_BASE, WALL_FACTOR = 120.0, 30.0
_POLL_SECONDS = 0.01
REQUESTS_PER_WORKER = 2000  # then replaced, so that sympy's caches do not grow without end

# The first entry of sys.path is the working directory under -c; anyone may have put a sympy.py there.
_BOOT = (
    "import sys; sys.path[0:1] = []; sys.path.append(sys.argv[1]); from rewards.processes.nursery import main; main()"
)


class DeadlineError(Exception):
    """The worker used up its CPU time, did not answer in time, or ran into a resource limit, and was killed."""


class WorkerError(RewardError):
    """Workers cannot be started, or die on this request."""


Reply = dict[str, Any]


@dataclass
class _Worker:
    """cpu: CPU seconds that the worker had used when it sent its last reply."""

    pid: int
    sock: socket.socket
    served: int = 0
    cpu: float = 0.0
    unread: bytearray = field(default_factory=bytearray)

    def send(self, requests: bytes) -> None:
        self.sock.settimeout(WALL_BASE)
        self.sock.sendall(requests)

    def reply(self, deadline: float) -> Reply:
        """The reply to the oldest request without one.

        Raises DeadlineError, WorkerError (the worker reports a defect), ConnectionError if the worker died.
        """
        used, reply = json.loads(self._line(deadline))
        spent, self.cpu = used - self.cpu, used
        self.served += 1
        if "error" in reply:
            raise WorkerError(f"the worker failed: {reply['error']}")
        if "limit" in reply:
            raise DeadlineError(f"out of {reply['limit']}")
        if spent > deadline:  # this process was too late to stop it; on an idle machine it would not have been
            raise DeadlineError(_over(deadline))
        assert isinstance(reply, dict)
        return reply

    def _line(self, deadline: float) -> bytes:
        start, wall = time.monotonic(), WALL_BASE + WALL_FACTOR * deadline
        left = deadline
        while (end := self.unread.find(b"\n")) < 0:
            self.sock.settimeout(max(left, _POLL_SECONDS))
            try:
                part = self.sock.recv(1 << 18)
            except TimeoutError:
                left = deadline - (_cpu_clock(self.pid) - self.cpu)
                if left <= 0:
                    raise DeadlineError(_over(deadline)) from None
                if time.monotonic() - start > wall:
                    raise DeadlineError(f"no reply within {wall:g} s") from None
                continue
            if not part:
                raise ConnectionResetError("the worker ended")
            self.unread += part
        line = bytes(self.unread[:end])
        del self.unread[: end + 1]
        return line


def _over(deadline: float) -> str:
    return f"no reply within {deadline:g} s of CPU time"


def _cpu_clock(pid: int) -> float:
    """CPU seconds that a process has used. Raises ConnectionError if there is no such process."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) returns for a process
    except OSError:
        raise ConnectionResetError("the worker ended") from None


class Pool:
    """At most `size` workers running `module.handle`, started as needed. memory_mb: address space of each.

    walls: what stands around each worker, once one was started (nursery.py).
    """

    def __init__(self, module: str, size: int, memory_mb: int = 2048) -> None:
        self._module, self._size, self._memory_mb = module, size, memory_mb
        self.walls: tuple[str, ...] = ()
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._dead: list[int] = []  # killed or ended, for the nursery to reap: until then no pid is used again
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def ask(self, request: Mapping[str, Any], deadline: float) -> Reply:
        """The worker's reply. deadline: CPU seconds that the worker may use for this request.

        Raises DeadlineError, and WorkerError when two workers died on this request or none can be started.
        """
        reply = self.ask_each([request], deadline)[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def ask_each(
        self, requests: Sequence[Mapping[str, Any]], deadline: float
    ) -> list[Reply | DeadlineError | WorkerError]:
        """`ask` for several requests, sent to one worker at once: much cheaper than one after the other.

        deadline: CPU seconds for each. A request that fails costs a fresh worker for the rest. The requests should
        take at most 64 kB as JSON together. Raises WorkerError when no worker can be started.
        """
        lines = [json.dumps(request).encode() + b"\n" for request in requests]
        replies: list[Reply | DeadlineError | WorkerError] = []
        deaths = 0  # of workers, on the request whose turn it is
        with self._slots:
            while len(replies) < len(lines):
                worker, kept = self._take(), False
                try:
                    worker.send(b"".join(lines[len(replies) :]))
                    while len(replies) < len(lines):
                        replies.append(worker.reply(deadline))
                        deaths = 0
                    kept = True
                except (DeadlineError, WorkerError) as problem:
                    replies.append(problem)
                    deaths = 0
                except OSError:  # killed from outside, or crashed: once more on a fresh worker
                    deaths += 1
                    if deaths == 2:
                        replies.append(WorkerError("two workers died on this request"))
                        deaths = 0
                finally:
                    # also on KeyboardInterrupt: a worker with a request under way must not be asked again
                    self._return(worker, kept)
        return replies

    def _take(self) -> _Worker:
        with self._lock:
            return self._idle.pop() if self._idle else self._fork()

    def _return(self, worker: _Worker, kept: bool) -> None:
        with self._lock:
            if kept and worker.served < REQUESTS_PER_WORKER:
                self._idle.append(worker)
                return
            worker.sock.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            self._dead.append(worker.pid)

    def _fork(self) -> _Worker:
        for attempt in range(2):
            try:
                return self._ask_nursery()
            except OSError as problem:
                self.close()  # the nursery was killed: start another, once
                if attempt:
                    raise WorkerError(f"the workers' nursery does not answer: {problem}") from problem
        raise AssertionError("unreachable")

    def _ask_nursery(self) -> _Worker:
        control = self._control or self._start()
        ours, theirs = socket.socketpair()
        with theirs:
            request = json.dumps({"reap": self._dead}).encode() + b"\n"
            socket.send_fds(control, [request], [theirs.fileno()])
        self._dead = []
        reply = _read_line(control)
        pid = int(json.loads(reply)["pid"])
        return _Worker(pid, ours)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(START_SECONDS)
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-s", "-c", _BOOT, root, self._module, str(self._memory_mb)]
        with theirs, tempfile.TemporaryFile() as errors:
            self._nursery = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={"PYTHONHASHSEED": "0"},  # nothing to read there, and sympy orders terms the same every time
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the terminal is for the host
            )
            theirs.close()
            try:
                ready = json.loads(_read_line(ours))
            except OSError as problem:
                self.close()
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise WorkerError(f"cannot start workers of {self._module}: {' '.join(last) or problem}") from None
        self.walls = tuple(ready["walls"])
        for missing in ready["problems"]:
            _LOG.warning("workers of %s: %s (walls: %s)", self._module, missing, ", ".join(self.walls))
        self._control = ours
        return ours

    def close(self, wait: bool = False) -> None:
        """End the nursery and with it every worker. The pool can be used again afterwards.

        wait: let idle workers and the nursery end by themselves, so that this process is told their CPU time.
        """
        for worker in self._idle:
            worker.sock.close()
        if self._control is not None:
            self._control.close()
        if self._nursery is not None:
            if not wait:
                self._nursery.kill()
            self._nursery.wait()
        self._idle, self._dead, self._control, self._nursery = [], [], None, None

    def forget(self) -> None:
        """After fork, in the child: drop the parent's workers without touching them."""
        for worker in self._idle:
            worker.sock.close()
        if self._control is not None:
            self._control.close()
        if self._nursery is not None:
            self._nursery.returncode = 0  # not our child: keep Popen from waiting for it


def _read_line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = sock.recv(4096)
        if not part:
            raise ConnectionResetError("it ended")
        line += part
    return line


_pools: dict[tuple[str, int], Pool] = {}
_pools_lock = threading.Lock()


def shared(module: str, size: int) -> Pool:
    """This process's pool of `size` workers for `module`."""
    with _pools_lock:
        if (module, size) not in _pools:
            _pools[module, size] = Pool(module, size)
        return _pools[module, size]


def _after_fork() -> None:
    global _pools_lock
    _pools_lock = threading.Lock()
    for pool in _pools.values():
        pool.forget()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)
