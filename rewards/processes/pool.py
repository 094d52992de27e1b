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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.errors import RewardError

_LOG = logging.getLogger(__name__)
START_SECONDS = 120.0  # a cold import of sympy from a slow disk on a busy machine
REQUESTS_PER_WORKER = 2000  # then replaced, so that sympy's caches do not grow without end

# The first entry of sys.path is the working directory under -c; anyone may have put a sympy.py there.
_BOOT = (
    "import sys; sys.path[0:1] = []; sys.path.append(sys.argv[1]); from rewards.processes.nursery import main; main()"
)


class DeadlineError(Exception):
    """The worker did not answer in time, or ran into a resource limit, and was killed."""


class WorkerError(RewardError):
    """Workers cannot be started, or die on this request."""


@dataclass
class _Worker:
    pid: int
    sock: socket.socket
    served: int = 0

    def ask(self, line: bytes, deadline: float) -> dict[str, Any]:
        """Send one request, wait for its reply. Raises TimeoutError, or ConnectionError if it died."""
        until = time.monotonic() + deadline
        self.sock.settimeout(deadline)
        self.sock.sendall(line)
        reply = b""
        while not reply.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            part = self.sock.recv(65536)
            if not part:
                raise ConnectionResetError("the worker ended")
            reply += part
        self.served += 1
        answer = json.loads(reply)
        assert isinstance(answer, dict)
        return answer


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

    def ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        """The worker's reply. deadline: seconds for this request, not counting the wait for a free worker.

        Raises DeadlineError, and WorkerError when two workers died on this request or none can be started.
        """
        line = json.dumps(request).encode() + b"\n"
        with self._slots:
            for _ in range(2):
                worker = self._take()
                kept = False
                try:
                    reply = worker.ask(line, deadline)
                    kept = not reply.keys() & {"limit", "error"}  # such a worker ends itself
                except TimeoutError:
                    raise DeadlineError(f"no reply within {deadline:g} s") from None
                except ConnectionError:
                    continue  # killed from outside, or crashed: once more on a fresh worker
                finally:
                    # also on KeyboardInterrupt: a worker with a request under way must not be asked again
                    self._return(worker, kept)
                if "error" in reply:
                    raise WorkerError(f"the worker failed: {reply['error']}")
                if "limit" in reply:
                    raise DeadlineError(f"out of {reply['limit']}")
                return reply
        raise WorkerError("two workers died on this request")

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
        return _Worker(int(json.loads(reply)["pid"]), ours)

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
