"""The process that imports a worker's libraries once and forks workers from that state (started by pool.py).

It never sees a request: it gets one end of a socket pair per worker, forks, and answers with the pid. A
worker runs with an address-space limit, no core files, no file writes, no descriptors but its socket, and no
standard streams. What this does not stop: a worker may read files and the network if the library it runs can
be made to.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PARENT_POLL_SECONDS = 1.0
_CPU_SECONDS = 60  # per request; the host's deadline comes first unless the host is stopped


def main() -> NoReturn:
    """argv: root, module, memory in MB. The control socket is descriptor 0."""
    module = importlib.import_module(sys.argv[2])
    module.warm_up()
    control = socket.socket(fileno=0)
    parent = os.getppid()
    control.sendall(b'{"ready": true}\n')
    while os.getppid() == parent:
        # A fork of the host may hold a copy of its end, so a closed socket is not the only sign of its death.
        if not select.select([control], [], [], _PARENT_POLL_SECONDS)[0]:
            continue
        line, fds, _, _ = socket.recv_fds(control, 65536, 1)
        if not line:
            break
        while not line.endswith(b"\n"):
            line += control.recv(65536)
        for pid in json.loads(line)["reap"]:
            os.waitpid(pid, 0)
        pid = os.fork()
        if pid == 0:
            work(module, fds[0], int(sys.argv[3]))
        os.close(fds[0])
        control.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    os._exit(0)  # at once: tearing sympy down takes longer than workers may outlive their host


def work(module: Any, fd: int, memory_mb: int) -> NoReturn:
    """Answer requests until the socket closes. Never returns into the nursery's loop."""
    os.dup2(fd, 3)
    sock = socket.socket(fileno=3)
    try:
        os.closerange(4, 4096)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        lock_down(memory_mb)
        with sock.makefile("rb") as requests:
            for line in requests:
                allow_cpu()
                reply = module.handle(json.loads(line))
                sock.sendall(json.dumps(reply).encode() + b"\n")
                if "limit" in reply:
                    break
    finally:
        if problem := sys.exc_info()[1]:
            with contextlib.suppress(OSError):
                sock.sendall(json.dumps({"error": f"{type(problem).__name__}: {problem}"[:500]}).encode() + b"\n")
        os._exit(0)


def lock_down(memory_mb: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    size = memory_mb << 20
    for limit, value in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(limit, (value, value))


def allow_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + _CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
