"""A few attacks that a level must stop before it is trusted, and that `python -m rewards selfcheck` tries.

Each attack aims at something real that this process set up: a listening socket, a file, a child, a token in
the environment, a secret in memory. The program gets their addresses and prints what it could reach.
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
world, libc, through = json.loads(sys.stdin.read()), ctypes.CDLL(None), {}
for name, attack in world["attacks"].items():
    try: through[name] = eval(attack) is not False
    except Exception: through[name] = False
print(json.dumps(through))
"""
BUILD = b'#include <unistd.h>\nasm(".incbin \\"%s\\"");\nint main() { return 0; }\n'


@contextlib.contextmanager
def world() -> Iterator[dict[str, Any]]:
    """Things to attack, all of them this process's own, removed afterwards."""
    token = secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix="probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
        subprocess.Popen(["sleep", "60"], env={}, start_new_session=True) as victim,
    ):
        os.chmod(folder, 0o755)  # noqa: S103 - what stops the program must not be the file's mode
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
    """(name, stopped?) of every attack. An empty list means that not even the program's own output came back."""
    with world() as targets:
        secret = targets["prefix"] + secrets.token_hex(8)
        ran = sandbox.python(PROGRAM, [Case(json.dumps(targets).encode())], Limits(cpu_s=5, wall_s=20)).runs
        assert secret
        through = {}
        with contextlib.suppress(ValueError, IndexError):
            through = json.loads(ran[0].stdout)
        attacks = [(name, not reached) for name, reached in through.items()]
        if build and (compiler := shutil.which("g++")):
            source = BUILD % targets["file"].encode()
            built = sandbox.build({"a.cpp": source}, [compiler, "-c", "a.cpp", "-o", "a.o"], outputs=["a.o"])
            attacks.append(("build in a file of ours", built.status == "exit" and targets["file"] in built.log))
        return attacks
