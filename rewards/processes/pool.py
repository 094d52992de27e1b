"""A pool of confined worker processes for work that may not terminate: the caller enforces deadlines by killing.

A fork server (forkserver.py), started like the sandbox's zygotes, imports the heavy libraries once and forks workers
from that state, so that a killed worker is replaced in milliseconds. Requests and replies are JSON lines over socket
pairs. Works from any thread, inside asyncio, after fork (each process builds its own pool) and under spawn; uses no
signals or alarms of the host process. The fork server ends with its host, and workers end with it.

Deadlines are in the worker's CPU time, which every reply contains, so that verdicts do not depend on load.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards.errors import RewardError
from rewards.forks import once_per_process
from rewards.sandbox.supervisor import Lost, Zygote

_LOG = logging.getLogger(__name__)
REQUESTS_PER_WORKER = 2000  # then the worker is replaced, to bound the growth of sympy's caches
# Limit for workers that use no CPU time: wall seconds, plus a multiple of the deadline.
WALL_BASE, WALL_FACTOR = 120.0, 30.0
_POLL_SECONDS = 0.01
_LATE = "no reply within {:g} s of CPU time"
_QUEUED = 16  # batches per worker that `ask_all` holds, including finished ones waiting for an earlier one

# With -c the first entry of sys.path is the working directory, which may contain a file such as sympy.py.
_BOOT = "import sys; sys.path = [*sys.path[1:], sys.argv[1]]; from rewards.processes.forkserver import main; main()"


class DeadlineError(Exception):
    """The worker was killed: it used up its CPU time, did not reply in time, or hit a resource limit."""


class WorkerError(RewardError):
    """Workers cannot be started, or this request kills them."""


Request = Mapping[str, Any]
Reply = dict[str, Any]
Answer = Reply | DeadlineError | WorkerError


@dataclass
class _Worker:
    """pidfd: used for killing, since `pid` may be reused after the worker ended. cpu: CPU seconds used up to its last
    reply.
    """

    pid: int
    pidfd: int
    sock: socket.socket
    served: int = 0
    cpu: float = 0.0
    unread: bytearray = field(default_factory=bytearray)

    def end(self) -> None:
        """Kill the process and close its descriptors."""
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)

    def reply(self, deadline: float) -> bytes:
        """The reply (JSON) to the oldest unanswered request.

        Raises DeadlineError, WorkerError (the worker reports a bug), OSError if the worker died.
        """
        cpu, status, reply = self._line(deadline).split(b" ", 2)
        spent, self.cpu = float(cpu) - self.cpu, float(cpu)
        self.served += 1
        if status == b"error":
            raise WorkerError(f"the worker failed: {json.loads(reply)}")
        if status == b"limit":
            raise DeadlineError(f"out of {json.loads(reply)}")
        if spent > deadline:  # on a busy machine the deadline is noticed late
            raise DeadlineError(_LATE.format(deadline))
        return reply

    def _line(self, deadline: float) -> bytes:
        """The next line from the worker. Raises DeadlineError, OSError."""
        start, wall, left = time.monotonic(), WALL_BASE + WALL_FACTOR * deadline, deadline
        while b"\n" not in self.unread:
            self.sock.settimeout(max(left, _POLL_SECONDS))
            try:
                part = self.sock.recv(1 << 18)
            except TimeoutError:
                left = deadline - (cpu_clock(self.pid) - self.cpu)
                if left <= 0:
                    raise DeadlineError(_LATE.format(deadline)) from None
                if time.monotonic() - start > wall:
                    raise DeadlineError(f"no reply within {wall:g} s") from None
                continue
            if not part:
                raise ConnectionResetError("the worker ended")
            self.unread += part
        end = self.unread.index(b"\n")
        line = bytes(self.unread[:end])
        del self.unread[: end + 1]
        return line


def cpu_clock(pid: int) -> float:
    """CPU seconds used by a process. Raises OSError if there is no such process."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


class Pool:
    """Up to `size` workers that run `module.handle`, started on demand.

    memory_mb: address space per worker. preload: modules that the fork server imports in addition to `module`.
    """

    def __init__(self, module: str, size: int, memory_mb: int = 2048, preload: Sequence[str] = ()) -> None:
        self._module, self._size, self._memory_mb, self.preload = module, size, memory_mb, preload
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self.server: Zygote | None = None

    def grow(self, size: int) -> None:
        """Raise the number of workers to `size`, if that is more."""
        with self._lock:
            for _ in range(self._size, size):
                self._slots.release()
            self._size = max(size, self._size)

    def ask_each(self, requests: Sequence[Request], deadline: float) -> list[Answer]:
        """Replies to requests that are sent together to one worker, which is much cheaper than one at a time.

        deadline: CPU seconds per request. After a failed request the rest goes to a new worker; the answer to a request
        that kills two workers is a WorkerError. All requests together should be at most 64 kB of JSON. Raises
        WorkerError if no worker can be started.
        """
        lines = [json.dumps(request).encode() + b"\n" for request in requests]
        replies: list[bytes | DeadlineError | WorkerError] = []
        fatal = -1  # index of the last request that killed a worker
        with self._slots:
            while len(replies) < len(lines):
                worker, kept = self._take(fresh=fatal == len(replies)), False
                try:
                    worker.sock.settimeout(WALL_BASE)
                    worker.sock.sendall(b"".join(lines[len(replies) :]))
                    while len(replies) < len(lines):
                        replies.append(worker.reply(deadline))
                    kept = True
                except (DeadlineError, WorkerError) as problem:
                    replies.append(problem)
                except OSError:  # killed from outside, or crashed: retry once on a new worker
                    if fatal == len(replies):
                        replies.append(WorkerError("this request killed two workers"))
                    else:
                        fatal = len(replies)
                finally:
                    # also on KeyboardInterrupt: a worker with a pending request must not be reused
                    self._return(worker, kept)
        return [json.loads(reply) if isinstance(reply, bytes) else reply for reply in replies]

    def ask_all(self, batches: Iterable[Sequence[Request]], deadline: float, workers: int) -> Iterator[list[Answer]]:
        """`ask_each` for every batch, on `workers` workers in parallel; in order, with a bounded number in memory."""
        if workers == 1:
            yield from (self.ask_each(batch, deadline) for batch in batches)
            return
        queued: deque[Future[list[Answer]]] = deque()
        threads = ThreadPoolExecutor(workers)
        try:
            for batch in batches:
                queued.append(threads.submit(self.ask_each, batch, deadline))
                if len(queued) >= _QUEUED * workers:
                    yield queued.popleft().result()
            while queued:
                yield queued.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _take(self, fresh: bool) -> _Worker:
        """An idle worker, or a new one if there is none. fresh: always a new one, since idle ones may be dead, too."""
        with self._lock:
            if fresh and self._idle:
                self._idle.pop().end()
            try:
                return self._idle.pop() if self._idle and not fresh else self._fork()
            except OSError:  # the fork server was killed: restart it once
                self.close()
            try:
                return self._fork()
            except OSError as problem:
                self.close()
                raise WorkerError(f"the workers' fork server does not respond: {problem}") from problem

    def _return(self, worker: _Worker, kept: bool) -> None:
        """Make the worker idle, or end it if it is not to be kept or has served its maximum of requests."""
        with self._lock:
            if kept and worker.served < REQUESTS_PER_WORKER:
                self._idle.append(worker)
            else:
                worker.end()

    def _fork(self) -> _Worker:
        """A new worker. Raises OSError if the fork server has died, WorkerError if it cannot be started."""
        server = self.server = self.server or self._start()
        ours, child_end = socket.socketpair()
        with child_end:
            socket.send_fds(server.control, [b"{}"], [child_end.fileno()])
        ours.settimeout(WALL_BASE)
        if not (greeting := ours.recv(32)).endswith(b"\n"):
            raise ConnectionResetError("the worker ended")
        return _Worker(pid := int(greeting), os.pidfd_open(pid), ours)

    def _start(self) -> Zygote:
        """A new fork server. Raises WorkerError."""
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-s", "-c", _BOOT, root, str(self._memory_mb), self._module, *self.preload]
        # no secrets in the environment, and a fixed hash seed for sympy's term order
        environment = {"PYTHONHASHSEED": "0"}
        try:
            server = Zygote((command, {"parent": os.getpid()}), environment)
        except Lost as problem:
            last = str(problem).rpartition("\n")[2]
            raise WorkerError(f"cannot start workers of {self._module}: {last}") from None
        for warning in json.loads(server.ready):
            _LOG.warning("workers of %s: %s", self._module, warning)
        return server

    def close(self, wait: bool = False) -> None:
        """End the fork server and all workers. The pool can be used again afterwards.

        wait: let idle workers exit normally, so that their CPU time is added to this process's.
        """
        for worker in self._idle:
            if wait:
                worker.sock.shutdown(socket.SHUT_WR)
                while worker.sock.recv(4096):  # closed after the fork server has reaped the worker
                    pass
            worker.end()
        if self.server is not None:
            self.server.close()
        self._idle, self.server = [], None


_pool = once_per_process(lambda module: Pool(module, 0))


def shared(module: str, size: int, preload: Sequence[str] = ()) -> Pool:
    """This process's shared pool for `module`; it has as many workers as the largest `size` requested so far.

    preload: as in Pool; the first caller's value is used.
    """
    pool = _pool(module)
    pool.preload = pool.preload or preload
    pool.grow(size)
    return pool
