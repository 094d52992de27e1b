"""A managed vLLM server: starts, is watched while it lives, and leaves nothing behind.

    with serve("Qwen/Qwen2.5-1.5B-Instruct", python=vllm_python) as endpoint:
        rows = endpoint.client().run(prompts, Sampling(n=4))

    python -m data_prep.inference.vllm.server MODEL [--python PYTHON] [--port 8000]     until Ctrl-C

The server runs below `core/guard.py`, which ends its whole family when this process stops, crashes or is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_prep.core import guard
from data_prep.errors import DataError
from data_prep.inference.api.client import ChatClient
from data_prep.inference.models import Model, check_hub, find_model
from data_prep.inference.vllm.settings import Device, EngineOptions, device_of, engine_args, environ

HOST = "127.0.0.1"
START_TIMEOUT_S = 1800.0  # a 32B model from a cold network disk takes its minutes
GRACE_S = 8.0
LOOK_EVERY_S = 0.1
GUARD = Path(guard.__file__)
# A request must mean the same here as offline: vLLM would else apply a model's own sampling defaults to it.
NEUTRAL = {"repetition_penalty": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
TELLING = re.compile(r"\b[\w.]*(Error|Exception|Interrupt|Killed)\b.*")


@dataclass(frozen=True)
class Endpoint:
    """A server that answers."""

    base_url: str  # ends in /v1
    model: str  # the name to ask for
    log: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise DataError, with the log's last telling line, when the server has died."""
        if (status := self.process.poll()) is not None:
            raise DataError(f"vLLM serving {self.model} died (status {status}): {last_line(self.log)}; log: {self.log}")

    async def watch(self) -> None:
        """Return never; raise DataError as soon as the server has died."""
        while True:
            self.check()
            await asyncio.sleep(LOOK_EVERY_S)

    def client(self, concurrency: int = 64) -> ChatClient:
        """A client that also asks for token counts, which the protocol lacks when n > 1."""
        return ChatClient(self.base_url, self.model, concurrency=concurrency, extra={"return_token_ids": True})


@contextmanager
def serve(
    model: str,
    *,
    revision: str | None = None,
    base: Path | None = None,
    port: int = 0,
    python: Path | None = None,
    options: EngineOptions | None = None,
    log: Path | None = None,
    start_timeout: float = START_TIMEOUT_S,
) -> Iterator[Endpoint]:
    """Serve `model` with the vLLM of the interpreter `python` (default: this one) while the block runs.

    Port 0 takes a free one. Raises DataError, in one line, for a model that is not there, a port in use, no
    vLLM, or a server that does not come up. Stops within seconds of the block's end.
    """
    found = find_model(model, revision, base or Path.cwd())
    check_hub(found)
    python = python or Path(sys.executable)
    device = device_of(python.absolute().parent.parent)
    port = free_port(port)
    if log is None:
        handle, name = tempfile.mkstemp(prefix="vllm-", suffix=".log")
        os.close(handle)
        log = Path(name)
    command = server_command(found, python, port, options or EngineOptions(), device)
    variables = {**os.environ, **environ(found, device), "VLLM_LOGGING_LEVEL": "INFO"}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, str(GUARD), str(GRACE_S), *command],
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            env=variables, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            endpoint = Endpoint(f"http://{HOST}:{port}/v1", model, log, process)
            _await_health(endpoint, port, start_timeout)
            yield endpoint
        finally:
            assert process.stdin is not None
            process.stdin.close()  # what the guard waits for
            process.wait()


def server_command(model: Model, python: Path, port: int, options: EngineOptions, device: Device) -> list[str]:
    """The server's command line, as a list: no shell reads it."""
    flags = []
    for name, value in engine_args(model, options, device).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags.append(f"--{flag}={value}")
    return [
        # The module, not the `vllm` command, which asks for a distribution called vllm: CPU builds lack it.
        str(python), "-m", "vllm.entrypoints.openai.api_server",
        f"--host={HOST}", f"--port={port}", f"--served-model-name={model.name}",
        f"--override-generation-config={json.dumps(NEUTRAL)}", "--disable-uvicorn-access-log", *flags,
        *([f"--chat-template={options.chat_template}"] if options.chat_template else []),
    ]  # fmt: skip


def free_port(port: int) -> int:
    """The port, or a free one for 0. Raises DataError, naming who holds it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left (TIME_WAIT) is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DataError(f"port {port}: {error.strerror}") from error
            raise DataError(f"port {port} is in use{_holder(port)}; choose another one, or 0 for a free one") from error
        return int(probe.getsockname()[1])


def _holder(port: int) -> str:
    """` by process 123 (python server.py)`, where the kernel lets us see it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: listening
                inodes.add(f"socket:[{fields[9]}]")
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(handle) in inodes:
                pid = handle.parts[2]
                words = Path("/proc", pid, "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                return f" by process {pid} ({' '.join(words).strip()[:80]})"
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return ""


def _await_health(endpoint: Endpoint, port: int, timeout: float) -> None:
    """Return when the server answers. Raises DataError when it dies, or has not come up in time."""
    deadline = time.monotonic() + timeout
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy to this machine
    while time.monotonic() < deadline:
        try:
            with opener.open(f"http://{HOST}:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass  # not up yet
        try:
            endpoint.process.wait(LOOK_EVERY_S)  # ends the wait at once when the server dies
        except subprocess.TimeoutExpired:
            continue
        endpoint.check()
    raise DataError(
        f"vLLM serving {endpoint.model} did not answer within {timeout:g} s: {last_line(endpoint.log)}; "
        f"log: {endpoint.log}"
    )


def last_line(log: Path, most: int = 200_000) -> str:
    """The last line of a log that tells what went wrong, or else its last line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - most))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    for line in reversed(lines):
        # vLLM ends with "see root cause above": the cause is what its engine said before.
        if (found := TELLING.search(line)) and "root cause" not in line:
            return found[0][:300]
    return lines[-1][:300] if lines else "it wrote nothing"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="data_prep.inference.vllm.server", description="Serve a model with vLLM.")
    parser.add_argument("model", help="Hub id or folder")
    parser.add_argument("--revision")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--python", type=Path, help="interpreter of the vLLM environment (default: this one)")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(argv)
    try:
        with serve(args.model, revision=args.revision, port=args.port, python=args.python, log=args.log) as endpoint:
            print(endpoint.base_url, flush=True)
            endpoint.process.wait()
            endpoint.check()
    except DataError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
