"""The process that imports a worker's libraries once and forks workers from that state (started by pool.py).

It never receives a request: it receives one end of a socket pair per worker and forks, like the sandbox's zygote. A
worker has no descriptors except its socket, no standard streams, and is confined (rewards/sandbox): Landlock allows
reading the interpreter's libraries and no writing or executing; seccomp allows no sockets, no new processes and no
signals to other processes; rlimits bound memory and files.

Limits: without Landlock (kernels before 5.13) a worker can read files, and without
libseccomp it can open sockets. pool.py logs a warning.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from rewards.errors import RewardError
from rewards.sandbox import filters
from rewards.sandbox.inside import restrict, zygote

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


class Isolation:
    """The confinement of all workers, prepared once. root: the repository; workers can read its folder `rewards`.

    rules: descriptor of a Landlock ruleset. problems: missing kernel or library support.
    """

    def __init__(self, root: str, memory_mb: int) -> None:
        library = [path for path in sys.path if path != root] + [str(Path(root) / "rewards"), *_SYSTEM_LIBRARIES]
        self._memory_mb = memory_mb
        self._filter: restrict.Filter | None = None
        self.rules = restrict.landlock_rules((path, restrict.READ) for path in library)
        self.problems = [] if self.rules is not None else ["this kernel has no Landlock: workers can read files"]
        try:
            self._filter = restrict.Filter(filters.write("python"))
        except RewardError as problem:
            self.problems.append(f"workers can open sockets: {problem}")

    def enter(self) -> None:
        """Confine this process permanently."""
        limits = ((resource.RLIMIT_AS, self._memory_mb << 20), (resource.RLIMIT_NOFILE, 16))
        for which, value in (*limits, (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
            restrict.limit(which, value)
        restrict.give_up_rights(self.rules)
        if self._filter is not None:
            self._filter.install()


def main() -> None:
    """argv: root, memory in MB, the module with `handle`, modules to import. The control socket is descriptor 0."""
    root, memory_mb, handler, *preload = sys.argv[1:]
    control, server = socket.socket(fileno=0), os.getpid()
    restrict.die_with_parent(json.loads(control.recv(4096))["parent"])
    tempfile.tempdir = os.devnull  # workers have no writable folder, but libraries look for one at import
    module = [importlib.import_module(name) for name in (*preload, handler)][-1]
    if hasattr(module, "warm_up"):
        module.warm_up()
    gc.freeze()  # garbage collection in workers must not touch, and so copy, shared memory
    isolation = Isolation(root, int(memory_mb))
    control.send(json.dumps(isolation.problems).encode())
    zygote.serve(control, lambda _, fds, __: _work(module, fds[0], isolation, server))
    os._exit(0)  # exit at once: interpreter shutdown with sympy is slow


def _work(module: Any, fd: int, isolation: Isolation, server: int) -> NoReturn:
    """Send the process id, then reply to each request with "<CPU seconds> ok|limit|error <JSON>".

    The worker ends when the socket closes. An exception in `handle` is a bug: its message is the reply, and the worker
    ends.
    """
    restrict.die_with_parent(server)
    sock = socket.socket(fileno=fd)

    def send(status: str, value: Any) -> None:
        sock.sendall(f"{time.process_time():.6f} {status} {json.dumps(value)}\n".encode())

    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        restrict.close_all_but([0, 1, 2, fd, *([] if isolation.rules is None else [isolation.rules])])
        sock.sendall(b"%d\n" % os.getpid())
        isolation.enter()
        with sock.makefile("rb") as requests:
            for line in requests:
                reply = module.handle(json.loads(line))
                if "limit" in reply:
                    send("limit", reply["limit"])
                    break
                send("ok", reply)
    finally:
        if problem := sys.exc_info()[1]:
            with contextlib.suppress(OSError):
                send("error", f"{type(problem).__name__}: {problem}"[:500])
        os._exit(0)
