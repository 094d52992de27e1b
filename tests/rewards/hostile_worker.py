"""A worker that does what an answer could do if its code were executed; test_pool.py names the action."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


def _write(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT)


def _kill(pid: str) -> None:
    os.kill(int(pid), signal.SIGKILL)


def _peek(pid: str) -> str:
    return f"{len(os.listdir(f'/proc/{pid}/fd'))}"


def _ptrace(pid: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, int(pid), 0, 0) < 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")


def _sleep(seconds: str) -> str:
    time.sleep(float(seconds))
    return seconds


def _process(seconds: str) -> int:
    time.sleep(float(seconds))
    return os.getpid()


def _compute(seconds: str) -> None:
    end = time.process_time() + float(seconds)
    while time.process_time() < end:
        pass


DEEDS: dict[str, Callable[[str], Any]] = {
    "tcp": lambda _: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "udp": lambda _: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "write": _write,
    "read": lambda path: os.read(os.open(path, os.O_RDONLY), 10),
    "list": os.listdir,
    "delete": os.unlink,
    "rename": lambda path: os.rename(path, path + ".moved"),
    "exec": lambda _: os.execv("/bin/sh", ["sh", "-c", "true"]),
    "shell": lambda _: subprocess.run("true", shell=True, check=True),
    "fork": lambda _: os.fork(),
    "kill": _kill,
    "proc": _peek,
    "ptrace": _ptrace,
    "memory": lambda _: mmap.mmap(-1, 4 << 30),
    "memfd": lambda _: os.memfd_create("x"),
    "limits": lambda _: __import__("resource").setrlimit(__import__("resource").RLIMIT_NOFILE, (64, 64)),
    "late import": lambda _: __import__("wave").__name__,  # honest, and must go on working
    "environment": lambda _: " ".join(os.environ),
    "sleep": _sleep,
    "compute": _compute,
    "process": _process,
    "die": lambda _: os._exit(3),
    "defect": lambda _: {}["missing"],
}


def handle(request: dict[str, Any]) -> dict[str, Any]:
    if request["deed"] == "defect":
        return DEEDS["defect"]("")
    try:
        return {"done": str(DEEDS[request["deed"]](request.get("what", "")))}
    except (OSError, ValueError) as problem:
        return {"refused": f"{type(problem).__name__}: {problem}"}


def warm_up() -> None:
    pass
