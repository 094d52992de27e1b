"""A pool of locked-down worker processes for work that may never end: the caller keeps the deadline and kills.

A fork server (forkserver.py), started as the sandbox's zygotes are, imports the heavy libraries once and forks workers
from that state, so that a killed worker is replaced in milliseconds. Requests and replies are JSON lines over socket
pairs. Works from any thread, inside asyncio, after fork (each process builds its own pool) and under spawn; signals and
alarms of the host process are not touched. The fork server ends with its host, and workers end with it.

A deadline counts the CPU time of the worker, which comes with every reply, so that a busy machine changes no verdict.
"""

from __future__ import annotations

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
REQUESTS_PER_WORKER = 2000  # then replaced, so that sympy's caches do not grow without end
# Backstop for a worker that uses no CPU time: seconds of wall time, and more for each second of its deadline.
WALL_BASE, WALL_FACTOR = 120.0, 30.0
_POLL_SECONDS = 0.01
_LATE = "no reply within {:g} s of CPU time"
_QUEUED = 16  # batches per worker that `ask_all` holds, finished ones that wait for an earlier one included

# The first entry of sys.path is the working directory under -c; anyone may have put a sympy.py there.
_BOOT = "import sys; sys.path = [*sys.path[1:], sys.argv[1]]; from rewards.processes.forkserver import main; main()"


class DeadlineError(Exception):
    """The worker used up its CPU time, did not answer in time, or ran into a resource limit, and was killed."""


class WorkerError(RewardError):
    """Workers cannot be started, or die on this request."""


Request = Mapping[str, Any]
Reply = dict[str, Any]
Answer = Reply | DeadlineError | WorkerError


@dataclass
class _Worker:
    """pidfd: by which it is killed, for the number `pid` may be another process's once it has ended. cpu: CPU seconds
    that it had used when it sent its last reply.
    """

    pid: int
    pidfd: int
    sock: socket.socket
    served: int = 0
    cpu: float = 0.0
    unread: bytearray = field(default_factory=bytearray)

    def end(self) -> None:
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)

    def reply(self, deadline: float) -> bytes:
        """The reply, as JSON, to the oldest request without one.

        Raises DeadlineError, WorkerError (the worker reports a defect), OSError if the worker died.
        """
        cpu, status, reply = self._line(deadline).split(b" ", 2)
        spent, self.cpu = float(cpu) - self.cpu, float(cpu)
        self.served += 1
        if status == b"error":
            raise WorkerError(f"the worker failed: {json.loads(reply)}")
        if status == b"limit":
            raise DeadlineError(f"out of {json.loads(reply)}")
        if spent > deadline:  # this process was too late to stop it; on an idle machine it would not have been
            raise DeadlineError(_LATE.format(deadline))
        return reply

    def _line(self, deadline: float) -> bytes:
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
    """CPU seconds that a process has used. Raises OSError if there is no such process."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


class Pool:
    """At most `size` workers that run `module.handle`, started as needed.

    memory_mb: address space of each. preload: modules that the fork server imports besides `module`.
    """

    def __init__(self, module: str, size: int, memory_mb: int = 2048, preload: Sequence[str] = ()) -> None:
        self._module, self._size, self._memory_mb, self.preload = module, size, memory_mb, preload
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self.server: Zygote | None = None

    def grow(self, size: int) -> None:
        """Allow `size` workers, if that is more than now."""
        with self._lock:
            for _ in range(self._size, size):
                self._slots.release()
            self._size = max(size, self._size)

    def ask_each(self, requests: Sequence[Request], deadline: float) -> list[Answer]:
        """Replies to requests that are sent to one worker at once: much cheaper than one after the other.

        deadline: CPU seconds for each. A request that fails costs a fresh worker for the rest; one on which two workers
        died is a WorkerError. Several requests should take at most 64 kB as JSON together. Raises WorkerError when no
        worker can be started.
        """
        lines = [json.dumps(request).encode() + b"\n" for request in requests]
        replies: list[bytes | DeadlineError | WorkerError] = []
        deadly = -1  # the request on which a worker died
        with self._slots:
            while len(replies) < len(lines):
                worker, kept = self._take(fresh=deadly == len(replies)), False
                try:
                    worker.sock.settimeout(WALL_BASE)
                    worker.sock.sendall(b"".join(lines[len(replies) :]))
                    while len(replies) < len(lines):
                        replies.append(worker.reply(deadline))
                    kept = True
                except (DeadlineError, WorkerError) as problem:
                    replies.append(problem)
                except OSError:  # killed from outside, or crashed: once more on a fresh worker
                    if deadly == len(replies):
                        replies.append(WorkerError("two workers died on this request"))
                    else:
                        deadly = len(replies)
                finally:
                    # also on KeyboardInterrupt: a worker with a request under way must not be asked again
                    self._return(worker, kept)
        return [json.loads(reply) if isinstance(reply, bytes) else reply for reply in replies]

    def ask_all(self, batches: Iterable[Sequence[Request]], deadline: float, workers: int) -> Iterator[list[Answer]]:
        """`ask_each` of every batch, by `workers` workers at once; in order, and with a bounded number in memory."""
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
        """An idle worker or a new one. fresh: a new one, since whatever killed a worker may have killed idle ones."""
        with self._lock:
            if fresh and self._idle:
                self._idle.pop().end()
            try:
                return self._idle.pop() if self._idle and not fresh else self._fork()
            except OSError:  # the fork server was killed: start another, once
                self.close()
            try:
                return self._fork()
            except OSError as problem:
                self.close()
                raise WorkerError(f"the workers' fork server does not answer: {problem}") from problem

    def _return(self, worker: _Worker, kept: bool) -> None:
        with self._lock:
            if kept and worker.served < REQUESTS_PER_WORKER:
                self._idle.append(worker)
            else:
                worker.end()

    def _fork(self) -> _Worker:
        server = self.server = self.server or self._start()
        ours, child_end = socket.socketpair()
        with child_end:
            socket.send_fds(server.control, [b"{}"], [child_end.fileno()])
        ours.settimeout(WALL_BASE)
        if not (greeting := ours.recv(32)).endswith(b"\n"):
            raise ConnectionResetError("the worker ended")
        return _Worker(pid := int(greeting), os.pidfd_open(pid), ours)

    def _start(self) -> Zygote:
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-s", "-c", _BOOT, root, str(self._memory_mb), self._module, *self.preload]
        # no secret to read there, and sympy orders terms the same every time
        environment = {"PYTHONHASHSEED": "0"}
        try:
            server = Zygote((command, {"parent": os.getpid()}), environment)
        except Lost as problem:
            last = str(problem).rpartition("\n")[2]
            raise WorkerError(f"cannot start workers of {self._module}: {last}") from None
        for lack in json.loads(server.ready):
            _LOG.warning("workers of %s: %s", self._module, lack)
        return server

    def close(self, wait: bool = False) -> None:
        """End the fork server and with it every worker. The pool can be used again afterwards.

        wait: let idle workers end by themselves, so that their CPU time is added to this process's.
        """
        for worker in self._idle:
            if wait:
                worker.sock.shutdown(socket.SHUT_WR)
                while worker.sock.recv(4096):  # closed once the fork server has waited for it
                    pass
            worker.end()
        if self.server is not None:
            self.server.close()
        self._idle, self.server = [], None


_pool = once_per_process(lambda module: Pool(module, 0))


def shared(module: str, size: int, preload: Sequence[str] = ()) -> Pool:
    """This process's only pool for `module`: it has as many workers as the largest `size` asked for so far.

    preload: as for Pool, by the first caller.
    """
    pool = _pool(module)
    pool.preload = pool.preload or preload
    pool.grow(size)
    return pool
