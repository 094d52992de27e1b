"""Runs hostile programs as the user that starts it, and prints what each could do, as JSON. No test framework.

python -m tests.attacks.driver namespaces|landlock|outside [name …]
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewards.sandbox import Case, Limits, Sandbox
from tests.attacks import programs

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LIMITS = Limits(cpu_s=10, wall_s=20)
# What a sandbox must never show: in this process's memory as an expected output would be, and in its environment.
PREFIX = secrets.token_hex(8)
EXPECTED = [f"{PREFIX}:{secrets.token_hex(16)}"]


@contextlib.contextmanager
def world() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Targets made for one attack, and what to ask afterwards whether they were hit."""
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="attacked-"))
        os.chmod(folder, 0o777)
        file = Path(folder, "expected.txt")
        file.write_text(EXPECTED[0])
        file.chmod(0o666)
        token = secrets.token_hex(6)
        tcp = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp, abstract, abstract_dgram, unix = (
            ends.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
            )
        )
        udp.bind(("127.0.0.1", 0))
        abstract.bind("\0" + token)
        abstract_dgram.bind("\0" + token + "d")
        unix.bind(folder + "/socket")
        os.chmod(folder + "/socket", 0o777)
        for sock in (tcp, abstract, unix):
            sock.listen()
        for sock in (tcp, udp, abstract, abstract_dgram, unix):
            sock.setblocking(False)
        victim = subprocess.Popen(["sleep", "60"], env={"HF_TOKEN": "x"}, start_new_session=True)
        ends.callback(victim.wait)
        ends.callback(victim.kill)
        told = {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": token,
            "abstract_dgram": token + "d",
            "unix_path": folder + "/socket",
            "file": str(file),
            "folder": folder,
            "victim": victim.pid,
            "supervisor": os.getpid(),
            "prefix": PREFIX,
            "token": token,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "repository": str(REPOSITORY),
            "source": __file__,
        }
        yield told, {"listeners": (tcp, abstract, unix), "mailboxes": (udp, abstract_dgram), "victim": victim}


def hits(told: dict[str, Any], targets: dict[str, Any]) -> list[str]:
    """Targets that something has touched."""
    found = []
    for sock in targets["listeners"]:
        with contextlib.suppress(BlockingIOError):
            sock.accept()[0].close()
            found.append("a listener was reached")
    for sock in targets["mailboxes"]:
        with contextlib.suppress(BlockingIOError):
            sock.recv(1)
            found.append("a datagram arrived")
    if targets["victim"].poll() is not None:
        found.append("the victim is dead")
    elif Path(f"/proc/{told['victim']}/stat").read_text().split()[2] in "Tt":
        found.append("the victim is stopped")
    if sorted(os.listdir(told["folder"])) != ["expected.txt", "socket"]:
        found.append("the folder has changed")
    elif Path(told["file"]).read_text() != EXPECTED[0] or os.stat(told["file"]).st_mode & 0o777 != 0o666:
        found.append("the file has changed")
    return found


def inside(sandbox: Sandbox, name: str) -> dict[str, Any]:
    with world() as (told, targets):
        runs = sandbox.python(programs.source(name), [Case(json.dumps(told).encode())], LIMITS).runs
        return {
            "status": runs[0].status,
            "message": runs[0].message,
            "through": b"BREACHED" in runs[0].stdout,
            "hits": hits(told, targets),
        }


def outside(name: str) -> dict[str, Any]:
    """The same program without isolation."""
    with world() as (told, targets), tempfile.TemporaryDirectory(prefix="outside-") as cwd:
        command = [sys.executable, "-c", programs.source(name)]
        environ = {"HF_TOKEN": "x", "PATH": "/usr/bin:/bin"}
        ran = subprocess.run(
            command, input=json.dumps(told).encode(), capture_output=True, cwd=cwd, env=environ, timeout=60
        )
        error = ran.stderr.decode().strip().rpartition("\n")[2]
        return {"through": b"BREACHED" in ran.stdout, "hits": hits(told, targets), "message": error}


def in_a_fork(name: str) -> dict[str, Any]:
    """The same program in a fork of this process, as harnesses that only fork would run it."""
    with world() as (told, _):
        out, stdin = os.memfd_create("out"), os.memfd_create("in")
        os.pwrite(stdin, json.dumps(told).encode(), 0)
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(stdin, 0)
                os.dup2(out, 1)
                sys.stdin = open(0)  # noqa: SIM115 - for the program, until it ends
                exec(programs.source(name), {"__name__": "__main__"})
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        return {"through": b"BREACHED" in os.pread(out, 999, 0)}


def main(where: str, *names: str) -> None:
    """Print {"level", "uid", "attacks": {name: outcome}, "seconds"}."""
    os.environ["HF_TOKEN"] = "x"
    signal.alarm(500)
    began = time.monotonic()
    if where == "outside":
        found = {name: outside(name) for name in names or programs.OUTSIDE}
        found |= {name: in_a_fork(name) for name in programs.IN_A_FORK}
    else:
        with Sandbox(where) as sandbox:  # type: ignore[arg-type]
            found = {name: inside(sandbox, name) for name in names or programs.ATTACKS}
            alive = sandbox.python("print('fine')", [Case()]).runs[0].stdout == b"fine\n"
        found["the sandbox afterwards"] = {"through": not alive, "hits": [], "status": "ok"}
    told = {"level": where, "uid": os.getuid(), "attacks": found, "seconds": time.monotonic() - began}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
