"""The zygote: started once by the supervisor, it forks a job for each solution. It never reads a solution or its input.

Control messages are JSON on a SEQPACKET socket, with descriptors. Each message starts one job (job.py): a forked
process with its own socket, which restricts itself, compiles, and forks a test process per case. When a job ends, the
zygote reports its exit code on that job's socket. The zygote trusts the supervisor and has no other input.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from . import interpreter, job, restrict

CONTROL_FD = 3
_KINDS = {"python": job.run_python, "binary": job.run_binary, "build": job.run_build}


def main(register_at_fork: Callable[..., None]) -> NoReturn:
    """Run the zygote. Descriptor 0 is the control socket; the first message holds the settings (see levels.py)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is for the supervisor's process
    os.dup2(0, CONTROL_FD)
    for stream in (0, 1):
        os.dup2(os.memfd_create("none", 0), stream)  # seekable, as a test process's are
    os.closerange(CONTROL_FD + 1, 4096)
    control = socket.socket(fileno=CONTROL_FD)
    settings = json.loads(control.recv(1 << 20))
    if settings["parent"]:
        restrict.die_with_parent(settings["parent"])
    os.environ.clear()
    sys.path.remove(settings["code"])
    if settings["library"]:
        # Root's standard library may be in a folder that other users cannot enter; as the working directory they can.
        os.chdir(settings["library"])
        sys.path[:] = ["/proc/self/cwd", "/proc/self/cwd/lib-dynload"]
        for module in list(sys.modules.values()):  # loaded packages import their submodules from there, too
            if getattr(module, "__path__", None):
                module.__path__ = [path.replace(settings["library"], "/proc/self/cwd", 1) for path in module.__path__]
    if settings["packages"]:
        sys.path.append(settings["packages"])
        restrict.LIBC.setenv(b"OPENBLAS_NUM_THREADS", b"1", 1)  # each of its threads takes 40 MB of address space
    restrict.LIBC.mallopt(restrict.M_ARENA_MAX, 2)  # else each thread reserves 64 MiB of address space
    interpreter.prepare()
    os.register_at_fork = register_at_fork
    if settings["scratch"]:
        os.chmod(settings["scratch"], 0o1777)  # noqa: S103 - jobs may have user ids of their own
    restrictions, zygote = job.Restrictions(settings), os.getpid()
    gc.collect()
    gc.freeze()
    gc.disable()
    control.send(b'{"ready": true}')
    serve(control, lambda request, fds, number: _run_job(request, fds, restrictions, restrictions.uid(number), zygote))
    os._exit(0)


def serve(control: socket.socket, run: Callable[[dict[str, Any], list[int], int], object]) -> None:
    """Fork jobs, and report on their sockets how they ended, until the supervisor closes the control socket.

    run: called in each job with its message, the message's descriptors (the first is the job's socket) and the job's
    number.
    """
    number, poll = 0, select.poll()
    poll.register(control, select.POLLIN)
    jobs: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    while True:
        for ready, _ in poll.poll():
            if ready in jobs:
                poll.unregister(ready)
                os.close(ready)
                pid, sock = jobs.pop(ready)
                _, status = os.waitpid(pid, 0)
                with sock, contextlib.suppress(OSError):  # the supervisor may have closed it
                    sock.send(json.dumps({"ended": os.waitstatus_to_exitcode(status)}).encode())
                continue
            message, fds, _, _ = socket.recv_fds(control, 65536, 2)
            if not message:
                return
            number += 1
            pid = restrict.fork(partial(run, json.loads(message), fds, number), failed=70)
            for fd in fds[1:]:
                os.close(fd)
            pidfd = os.pidfd_open(pid)
            jobs[pidfd] = pid, socket.socket(fileno=fds[0])
            poll.register(pidfd, select.POLLIN)


def _run_job(
    request: dict[str, Any], fds: list[int], restrictions: job.Restrictions, uid: int | None, zygote: int
) -> None:
    """A job's process, from its fork to its end. fds: its socket and the payload. zygote: the parent's process id."""
    rules = [] if restrictions.rules is None else [restrictions.rules]
    restrict.close_all_but([0, 1, 2, *fds, *rules])
    restrict.become(uid)
    restrict.die_with_parent(zygote)
    request["zygote"] = zygote
    _KINDS[request["kind"]](request, socket.socket(fileno=fds[0]), fds[1], restrictions)
