"""One compiler run in a directory that is thrown away afterwards.

The payload holds a JSON header, then the files' bytes: {"files": [[name, size], …], "argv", "outputs"}. The
compiler may fork and exec within the toolchain, and write in its directory; it has no network and no /etc.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import stat
import tempfile
import time
from typing import Any, NoReturn

from . import restrict
from .job import Restrictions, confine, watch

_LOG_BYTES = 64 << 10
_HEADER_BYTES = 8
_SEAL_GROW = 0x0004


def run(request: dict[str, Any], sock: socket.socket, payload: int, restrictions: Restrictions) -> None:
    """Build, answer with the outcome and descriptors of log and outputs, and remove the directory."""
    restrict.adopt_orphans()
    folder = tempfile.mkdtemp(dir=restrictions.settings["scratch"])
    compiler = 0

    def leave(*_: object) -> NoReturn:
        if compiler:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(compiler, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    # Not SIGKILL when the zygote dies: the compiler's children would go on.
    signal.signal(signal.SIGTERM, leave)
    restrict.die_with_parent(request["zygote"], signal.SIGTERM)
    os.chdir(folder)
    header = _unpack(payload)
    restrictions.enter(folder)
    # The log is a file of fixed size: how much was written is where its shared offset stands.
    log = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(log, _LOG_BYTES)
    fcntl.fcntl(log, fcntl.F_ADD_SEALS, _SEAL_GROW)
    monitor, began = os.getpid(), time.monotonic()
    compiler = os.fork()
    if compiler == 0:
        argv = header["argv"]
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDONLY)
            confine([null, log, log], request | {"at": [0, 1, 2]}, monitor, restrictions, "build")
            os.execve(argv[0], argv, {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": "."})  # noqa: S606
        except BaseException as problem:  # noqa: BLE001 - a test process must never return into its monitor's code
            os.write(2, f"{argv[0]}: {type(problem).__name__}: {problem}\n".encode())
        finally:
            os._exit(127)
    with contextlib.suppress(PermissionError):  # it has done so itself, and gone on
        os.setpgid(compiler, compiler)
    report = watch(compiler, request, began, sock, leave)
    with contextlib.suppress(ProcessLookupError):  # whatever the compiler left behind
        os.killpg(compiler, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    report["cpu_s"] = children.ru_utime + children.ru_stime
    report["log"] = min(_LOG_BYTES, os.lseek(log, 0, os.SEEK_CUR))
    outputs = {name: fd for name in header["outputs"] if (fd := _output(name, request["output_kb"] << 10)) is not None}
    report["outputs"] = list(outputs)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the supervisor may have closed it
        socket.send_fds(sock, [json.dumps(report).encode()], [log, *outputs.values()], socket.MSG_NOSIGNAL)


def _unpack(payload: int) -> dict[str, Any]:
    """The header, after the files have been written into the working directory."""
    size = int.from_bytes(os.pread(payload, _HEADER_BYTES, 0), "little")
    header: dict[str, Any] = json.loads(os.pread(payload, size, _HEADER_BYTES))
    at = _HEADER_BYTES + size
    for name, length in header["files"]:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            end = at + length
            while at < end:
                at += os.sendfile(file.fileno(), payload, at, end - at)
    return header


def _output(name: str, most: int) -> int | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # not made
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return fd
    os.close(fd)
    return None
