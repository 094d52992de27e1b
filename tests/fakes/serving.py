"""The reward server as a real process, asked with httpx2 or with bytes over a socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

REPO = Path(__file__).resolve().parents[2]
ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"},
    {"id": "b", "prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": " 3+3? "}], "answer": "6"},
]


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    client: httpx2.Client = field(default_factory=lambda: httpx2.Client(trust_env=False, limits=httpx2.Limits()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, timeout: float = 30) -> tuple[int, Any, httpx2.Headers]:
        """(status, JSON of the answer, headers); body: JSON value, bytes as they are, or None for GET."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        answer = self.client.request(method, self.url + path, content=data, timeout=timeout)
        is_json = "json" in answer.headers["content-type"]
        return answer.status_code, answer.json() if is_json else answer.text, answer.headers

    def score(self, *completions: str) -> tuple[int, Any]:
        """Status and values (or the error) for completions of rows without ids."""
        rows = [{"answer": "4", "prompt": "2+2?"}] * len(completions)
        status, answer, _ = self.ask("/score", {"rows": rows, "completions": list(completions)})
        return status, [score["value"] for score in answer["scores"]] if status == 200 else answer["error"]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, *parts: bytes) -> str:
        """All that the server answers to these bytes, until it closes the connection."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return received(connection)

    def metric(self, name: str) -> int:
        lines = dict(line.rsplit(" ", 1) for line in self.ask("/metrics")[1].splitlines())
        return int(lines.get(name, 0))


def received(connection: socket.socket) -> str:
    content = b""
    try:
        while part := connection.recv(65536):
            content += part
    except ConnectionResetError:
        pass
    return content.decode()


def post(body: bytes | Any, path: str = "/score", *headers: str) -> bytes:
    """A request as bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@contextmanager
def serving(
    folder: Path,
    *words: str,
    rows: list[dict[str, Any]] | None = ROWS,
    port: int = 0,
    module: str = "rewards",
    stderr: int | None = None,
) -> Iterator[Running]:
    command = [sys.executable, "-m", module, "serve", "--port", str(port), *words]
    if rows is not None:
        source = folder / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command += ["--input", str(source)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield Running(process, int(json.loads(line)["serving"].rpartition(":")[2]))
        finally:
            process.kill()
