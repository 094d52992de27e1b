"""Attacks that an isolation level must stop before it is used; `python -m rewards selfcheck` runs them as well.

Each attack has a real target, created by this process: a listening socket, a file, a child process, a token in the
environment, a secret in memory. The sandboxed program receives the targets' addresses and prints which attacks worked.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.sandbox.types import Case, Limits

if TYPE_CHECKING:
    from rewards.sandbox.box import Sandbox

ATTACKS = tomllib.loads(Path(__file__).with_name("attacks.toml").read_text("utf-8"))
PROGRAM = r"""
import ctypes, gc, json, os, resource, socket, sys, threading
world, libc, succeeded = json.loads(sys.stdin.read()), ctypes.CDLL(None), {}
for name, attack in world["attacks"].items():
    try: succeeded[name] = eval(attack) is not False
    except Exception: succeeded[name] = False
print(json.dumps(succeeded))
"""
BUILD = b'#include <unistd.h>\nasm(".incbin \\"%s\\"");\nint main() { return 0; }\n'


@contextlib.contextmanager
def world() -> Iterator[dict[str, Any]]:
    """The targets, created by this process and removed afterwards."""
    token = secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix="probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
        subprocess.Popen(["sleep", "60"], env={}, start_new_session=True) as victim,
    ):
        os.chmod(folder, 0o755)  # noqa: S103 - the sandbox must stop the program, not the file's mode
        path = Path(folder, "expected.txt")
        path.write_text(token)
        abstract.bind("\0" + token)
        abstract.listen()
        addresses = {"port": server.getsockname()[1], "abstract": token, "file": str(path), "victim": victim.pid}
        try:
            yield {**addresses, "prefix": f"secret {token} ", "attacks": ATTACKS}
        finally:
            victim.kill()


def attack(sandbox: Sandbox, build: bool = False) -> list[tuple[str, bool]]:
    """(name, stopped) for every attack. An empty list means that the program returned no output."""
    with world() as targets:
        secret = targets["prefix"] + secrets.token_hex(8)
        ran = sandbox.python(PROGRAM, [Case(json.dumps(targets).encode())], Limits(cpu_s=5, wall_s=20)).runs
        assert secret
        succeeded = {}
        with contextlib.suppress(ValueError, IndexError):
            succeeded = json.loads(ran[0].stdout)
        attacks = [(name, not success) for name, success in succeeded.items()]
        if build and (compiler := shutil.which("g++")):
            source = BUILD % targets["file"].encode()
            built = sandbox.build({"a.cpp": source}, [compiler, "-c", "a.cpp", "-o", "a.o"], outputs=["a.o"])
            attacks.append(("build in a file of ours", built.status == "exit" and targets["file"] in built.log))
        return attacks
