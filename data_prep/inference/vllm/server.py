"""A managed vLLM server: started, monitored, and stopped with all its processes.

    with serve("Qwen/Qwen2.5-1.5B-Instruct", python=vllm_python, log=log) as endpoint:
        ...  # requests to endpoint.base_urls

The server runs under `core/guard.py`, which ends all its processes when this process stops, crashes or is killed.
"""

import asyncio
import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.core import guard
from data_prep.errors import DataError
from data_prep.inference.models import Model, check_hub, find_model
from data_prep.inference.vllm import settings
from data_prep.inference.vllm.settings import Device, EngineOptions

HOST = "127.0.0.1"
START_TIMEOUT_S = 1800.0  # loading a 32B model from a cold network disk takes minutes
LOOK_EVERY_S = 0.1
FORKED = Path(__file__).with_name("forked.py")
# Otherwise vLLM applies the model's own sampling defaults, and requests differ from offline sampling.
NEUTRAL = {"repetition_penalty": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for local addresses
TELLING = re.compile(r"\b[\w.]*(Error|Exception|Interrupt|Killed)\b.*")


@dataclass(frozen=True)
class Server:
    """A process that serves a model on one port."""

    url: str  # root address
    model: str  # served model name
    log: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise DataError, with the log's most informative last line, if the server has died."""
        if (status := self.process.poll()) is not None:
            raise DataError(f"vLLM serving {self.model} died (status {status}): {last_line(self.log)}; log: {self.log}")


@dataclass(frozen=True)
class Endpoint:
    """Running servers of the same model."""

    servers: Sequence[Server]
    sequences: int  # total concurrent sequences
    max_model_len: int | None = None  # prompt plus completion tokens; None if the model does not generate

    @property
    def base_urls(self) -> list[str]:
        """Addresses, ending in /v1."""
        return [f"{server.url}/v1" for server in self.servers]

    @property
    def base_url(self) -> str:
        """The first server's address."""
        return self.base_urls[0]

    def check(self) -> None:
        """Raise DataError if a server has died."""
        for server in self.servers:
            server.check()

    async def watch(self) -> None:
        """Never returns; raises DataError as soon as a server dies."""
        while True:
            self.check()
            await asyncio.sleep(LOOK_EVERY_S)


@contextmanager
def serve(
    model: str,
    *,
    revision: str | None = None,
    base: Path | None = None,
    host: str = HOST,
    port: int = 0,
    python: Path | None = None,
    options: EngineOptions | None = None,
    log: Path,
) -> Iterator[Endpoint]:
    """Serve `model` with the vLLM of the interpreter `python` (default: this one) while the block runs.

    host: the address to listen on. Port 0 takes a free one; replicas take the following ports. Raises DataError, in one
    line, for a missing model, a port in use, no vLLM, or a server that does not start. Stops within seconds
    of the block's end.
    """
    base, options = base or Path.cwd(), options or EngineOptions()
    local = find_model(model, revision, base)
    check_hub(local)
    python = python or Path(sys.executable)
    device = settings.device_of(python.absolute().parent.parent)
    template = settings.template_file(options.chat_template, base) if options.chat_template else None
    args = settings.engine_args(local, options, device)
    variables = {**os.environ, **settings.environ(local, device), "VLLM_LOGGING_LEVEL": "INFO"}
    with ExitStack() as stack:
        servers = []
        for at, gpus in enumerate(settings.gpu_groups(options, device)):
            chosen = free_port(port + at if port else 0, host)
            command = server_command(local, python, chosen, args, device, template, host)
            file = log if at == 0 else log.with_suffix(f".{at}{log.suffix}")
            visible = {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
            out, own_variables = stack.enter_context(file.open("wb")), {**variables, **visible}
            process = stack.enter_context(
                guard.guarded(command, stdout=out, stderr=subprocess.STDOUT, env=own_variables, start_new_session=True)
            )
            servers.append(Server(f"http://{host}:{chosen}", model, file, process))
        for server in servers:
            _await_health(server)
        most = int(args.get("max_num_seqs", settings.GPU_MAX_SEQS))
        with _DIRECT.open(f"{servers[0].url}/v1/models", timeout=60) as answer:
            length = json.load(answer)["data"][0].get("max_model_len")  # the server's actual limit
        yield Endpoint(servers, most * len(servers), length)


def server_command(
    model: Model,
    python: Path,
    port: int,
    args: Mapping[str, Any],
    device: Device,
    template: Path | None = None,
    host: str = HOST,
) -> list[str]:
    """The server's command line as a list."""
    flags = [f"--chat-template={template}"] if template else []
    for name, value in args.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        else:
            flags.append(f"{flag}={json.dumps(value) if isinstance(value, dict) else value}")
    # The module, not the `vllm` command, which needs a distribution named vllm; CPU builds have another name.
    program = [str(FORKED)] if device == "cpu" else ["-m", "vllm.entrypoints.openai.api_server"]
    return [
        str(python), *program,
        f"--host={host}", f"--port={port}", f"--served-model-name={model.name}",
        f"--override-generation-config={json.dumps(NEUTRAL)}", "--disable-uvicorn-access-log", *flags,
    ]  # fmt: skip


def free_port(port: int, host: str = HOST) -> int:
    """The port, or a free one if it is 0. Raises DataError."""
    try:
        with socket.create_server((host, port)) as probe:  # a port in TIME_WAIT is free
            return int(probe.getsockname()[1])
    except OSError as error:
        used = error.errno == errno.EADDRINUSE
        why = " is in use; choose another one, or 0 for a free one" if used else f": {error.strerror}"
        raise DataError(f"port {port}{why}") from error


def _await_health(server: Server) -> None:
    """Return when the server is up. Raises DataError if it dies or does not start in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(OSError), _DIRECT.open(f"{server.url}/health", timeout=2):  # error: not up yet
            return
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(LOOK_EVERY_S)  # returns at once if the server dies
        server.check()
    raise DataError(
        f"vLLM serving {server.model} did not answer within {START_TIMEOUT_S:g} s: {last_line(server.log)}; "
        f"log: {server.log}"
    )


def last_line(log: Path, most: int = 200_000) -> str:
    """The last line of a log that describes an error, or else its last line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - most))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    for line in reversed(lines):
        # vLLM ends with "see root cause above": the cause is in the engine's earlier output.
        if (match := TELLING.search(line)) and "root cause" not in line:
            return match[0][:300]
    return lines[-1][:300] if lines else "the log is empty"
