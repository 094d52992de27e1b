"""One solution's process: it restricts itself, compiles, forks a test process per case and keeps its limits.

It runs no line of the candidate's program itself. The CPU limit decides; it is read from the test process's
clock, which that process cannot stop. RLIMIT_CPU (whole seconds) stands behind it, wall time is a safety net.
"""

from __future__ import annotations

import fcntl
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, NoReturn

from . import interpreter, restrict

_NEVER_LESS_THAN = 0.002  # seconds between two looks at the clock
_SELF_MB = 1024  # address space for compiling
_ABOVE = 512  # descriptors from here on are in nobody's way


class Restrictions:
    """What every job of this zygote is subject to. settings: see rewards/sandbox/levels.py."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.filters = {kind: restrict.Filter(bytes.fromhex(bpf)) for kind, bpf in settings["filters"].items()}
        self.rules = restrict.landlock_rules(map(tuple, settings["paths"])) if settings["landlock"] else None
        self._jobs = 0

    def next_uid(self) -> int | None:
        """A user id per job, in turn: jobs cannot touch each other, and each has its own thread count."""
        self._jobs += 1
        first = self.settings["first_uid"]
        return None if first is None else int(first + self._jobs % self.settings["uid_count"])

    def enter(self, folder: str = "") -> None:
        """The restrictions that a job shares with its test processes. folder: which it may write in."""
        rules = self.rules
        if folder and rules is not None:
            os.close(rules)
            rules = restrict.landlock_rules([*map(tuple, self.settings["paths"]), (folder, restrict.READ_WRITE)])
        restrict.give_up_rights(rules)
        restrict.undumpable()


def run_python(request: dict[str, Any], sock: socket.socket, payload: int, restrictions: Restrictions) -> None:
    """Serve a Python solution until its socket closes. The payload is its source."""
    restrictions.enter()
    code = _compiled(payload, request["compile_cpu_s"], sock)
    if code is not None:
        names: dict[str, Any] = {}
        if preamble := request.get("preamble"):
            exec(preamble, names)  # noqa: S102 - the supervisor's own text
            gc.freeze()
        _serve(sock, lambda case: interpreter.run(code, case["call"], names, case["role"]), restrictions, "python")


def run_binary(request: dict[str, Any], sock: socket.socket, payload: int, restrictions: Restrictions) -> None:
    """Serve a compiled program until its socket closes. The payload is the executable, in a sealed memfd."""
    restrictions.enter()
    program = fcntl.fcntl(payload, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    os.close(payload)
    _serve(sock, lambda _: os.execve(program, request["argv"], {}), restrictions, "binary", [program])  # noqa: S606


def _compiled(payload: int, cpu_s: int, sock: socket.socket) -> CodeType | None:
    """The program's code; None, after a message, if it is none. A bomb ends this process: the zygote tells."""
    source = os.pread(payload, os.fstat(payload).st_size, 0)
    os.close(payload)
    own = {which: resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS)}
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, own[resource.RLIMIT_CPU][1]))
    resource.setrlimit(resource.RLIMIT_AS, (_SELF_MB << 20, own[resource.RLIMIT_AS][1]))
    try:
        code = compile(source.decode("utf-8", "surrogatepass"), "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as problem:
        _tell(sock, {"compile_error": f"{type(problem).__name__}: {problem}"[:2000]})
        return None
    for which, value in own.items():
        resource.setrlimit(which, value)
    _tell(sock, {"compiled": True})
    return code


def _serve(
    sock: socket.socket, start: Callable[[dict[str, Any]], Any], restrictions: Restrictions, kind: str,
    kept: Sequence[int] = (),
) -> None:  # fmt: skip
    monitor = os.getpid()
    while message := (received := socket.recv_fds(sock, 1 << 17, 32))[0]:
        fds, case, began = received[1], json.loads(message), time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                confine(fds, case, monitor, restrictions, kind, kept)
                start(case)
            except BaseException as problem:  # noqa: BLE001 - a test process must never return into this loop
                os.write(2, f"{type(problem).__name__}: {problem}\n".encode())
            finally:
                os._exit(127)
        for fd in fds:
            os.close(fd)
        _tell(sock, watch(pid, case, began, sock, lambda pid=pid: _leave(pid)))  # type: ignore[misc]


def _leave(pid: int) -> NoReturn:
    os.kill(pid, signal.SIGKILL)
    os._exit(0)


def confine(
    fds: list[int], case: dict[str, Any], monitor: int, restrictions: Restrictions, kind: str, kept: Sequence[int] = ()
) -> None:
    """Descriptors, limits and system calls of a test process. The last call here is the last one that may do harm."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in fds]
    for fd, number in zip(high, case["at"], strict=True):
        os.dup2(fd, number)
    restrict.close_all_but([*case["at"], *kept])
    restrict.die_with_parent(monitor)
    for which, value in (
        (resource.RLIMIT_AS, case["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, case["output_kb"] << 10),
        (resource.RLIMIT_NOFILE, case["open_files"]),
        (resource.RLIMIT_NPROC, restrictions.settings["base_threads"] + case["threads"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        restrict.limit(which, value)
    # A compiler gets SIGXCPU first, which its driver reports. Test processes are watched; this is a second bound.
    seconds = math.ceil(case["cpu_s"]) + (kind != "build")
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if kind == "binary":  # glibc makes every thread's stack as large as this limit, or 2 MiB where there is none
        resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    elif hard == -1 or hard > interpreter.STACK_BYTES:
        resource.setrlimit(resource.RLIMIT_STACK, (interpreter.STACK_BYTES, hard))
    if kind != "python":  # which ignores these; exec would hand that down, and no program would end at its output limit
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if kind in restrictions.filters:
        restrictions.filters[kind].install()


def watch(
    pid: int, limits: dict[str, Any], began: float, sock: socket.socket, leave: Callable[[], NoReturn]
) -> dict[str, Any]:
    """Wait for a test process, end it at its limits, and report how it ended. `leave` is called if the supervisor
    closes the socket.
    """
    cpu_s, wall_s = limits["cpu_s"], limits["wall_s"]
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(sock, select.POLLHUP)
    why = ""
    cores = len(os.sched_getaffinity(0))
    wait = cpu_s / cores
    while not why:
        ready = poll.poll(1000 * max(_NEVER_LESS_THAN, min(wait, began + wall_s - time.monotonic())))
        if any(fd == pidfd for fd, _ in ready):
            break
        if ready:
            leave()
        used = time.clock_gettime((~pid << 3) | 2)  # of all its threads: clock_getcpuclockid(3)
        wait = (cpu_s - used) / cores
        why = "cpu" if used >= cpu_s else "wall" if time.monotonic() - began >= wall_s else ""
    if why:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    os.close(pidfd)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "why": why,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - began,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def _tell(sock: socket.socket, message: dict[str, Any]) -> None:
    try:
        sock.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)
    except OSError:
        os._exit(0)  # the supervisor has closed it
