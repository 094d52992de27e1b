"""A SandboxFusion server that runs what it is sent, without its walls, and fails on order.

    with SandboxFusion(script=[Status(503), Cut(0.5)]) as server:
        ...  # the first request gets 503, the second half an answer, the rest a real one

Requests and replies are those of github.com/bytedance/SandboxFusion's POST /run_code; faults are openai_server's.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fakes.openai_server import Cut, Raw, Slow, Status

Fault = Status | Slow | Raw | Cut
Body = Mapping[str, Any]


class SandboxFusion:
    """The server; `bodies` says afterwards what it was asked."""

    def __init__(self, script: Iterable[Fault | None] = (), alive: bool = True) -> None:
        self._faults, self._lock, self._stopping = iter(script), threading.Lock(), threading.Event()
        self.bodies: list[Body] = []
        self.pings = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.pings += 1
                fine = alive and self.path == "/v1/ping"
                _send(self, 200 if fine else 404, b'"pong"' if fine else b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with owner._lock:
                    owner.bodies.append(body)
                    fault = next(owner._faults, None)
                try:
                    owner._answer(self, body, fault)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> SandboxFusion:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _answer(self, http: BaseHTTPRequestHandler, body: Body, fault: Fault | None) -> None:
        if isinstance(fault, Status):
            _send(http, fault.code, b'{"detail": "scripted"}', fault.headers)
            return
        if isinstance(fault, Slow):
            self._stopping.wait(fault.seconds)
        content = fault.content if isinstance(fault, Raw) else json.dumps(run_code(body)).encode()
        if isinstance(fault, Cut):
            http.close_connection = True
            if fault.part:
                _send(http, 200, content, {}, int(len(content) * fault.part))
            return
        _send(http, 200, content)


def run_code(body: Body) -> dict[str, Any]:
    """The reply to one request, as sandbox/server/sandbox_api.py makes it."""
    with TemporaryDirectory() as folder:
        for name, content in body.get("files", {}).items():
            (Path(folder) / name).write_bytes(base64.b64decode(content))
        compiled = None
        if body["language"] == "cpp":
            (Path(folder) / "tmp.cpp").write_text(body["code"])
            command = ["g++", "-std=c++17", "tmp.cpp", "-o", "test"]
            compiled = _run(command, None, body["compile_timeout"], folder)
            run = _run(["./test"], body["stdin"], body["run_timeout"], folder) if compiled["return_code"] == 0 else None
        else:
            (Path(folder) / "tmp.py").write_text(body["code"])
            run = _run([sys.executable, str(Path(folder) / "tmp.py")], body["stdin"], body["run_timeout"], folder)
    codes = [one["return_code"] for one in (compiled, run) if one]
    status = "Success" if all(code == 0 for code in codes) else "Failed"
    return {"status": status, "message": "", "compile_result": compiled, "run_result": run, "files": {}}


def _run(command: list[str], stdin: str | None, timeout: float, folder: str) -> dict[str, Any]:
    began = time.time()
    given = None if stdin is None else stdin.encode()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout, cwd=folder)
    except subprocess.TimeoutExpired as problem:
        said, taken = problem.stdout or b"", time.time() - began
        return {"status": "TimeLimitExceeded", "execution_time": taken, "return_code": None,
                "stdout": said.decode("utf-8", "replace"), "stderr": ""}  # fmt: skip
    said = {"stdout": done.stdout.decode("utf-8", "replace"), "stderr": done.stderr.decode("utf-8", "replace")}
    return {"status": "Finished", "execution_time": time.time() - began, "return_code": done.returncode, **said}


def _send(
    http: BaseHTTPRequestHandler, code: int, content: bytes, headers: Mapping[str, str] = {}, most: int | None = None
) -> None:
    http.send_response(code)
    http.send_header("content-type", "application/json")
    http.send_header("content-length", str(len(content)))
    for name, value in headers.items():
        http.send_header(name, value)
    http.end_headers()
    http.wfile.write(content[:most])
