"""A reward-model server that speaks vLLM's /classify and /pooling, and fails as its script says.

    with RewardServer(script=[Status(429, {"Retry-After": "0"}), Cut()]) as server:
        ...  # the first request gets 429, the second a dropped connection, the rest an answer

The value of a conversation is `value(text)`, by default its length, so that a test sees what was read.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes.openai_server import Cut, Raw, Slow, Status, Trickle, _head, _send

Fault = Status | Slow | Raw | Cut | Trickle
KNOWN = ("/classify", "/pooling")


def texts_of(body: dict[str, Any]) -> list[str]:
    """What the reward model would read, one text per conversation."""
    return ["".join(f"<{m['role']}>{m['content']}" for m in body["messages"])]


class RewardServer:
    """`bodies` and `most_at_once` say afterwards what it saw."""

    def __init__(
        self,
        script: Iterable[Fault | None] | Callable[[dict[str, Any]], Fault | None] = (),
        value: Callable[[str], Any] = len,
        port: int = 0,
        model: str = "rm",
    ) -> None:
        self._script = script if callable(script) else None
        self._faults = iter(()) if callable(script) else iter(script)
        self._value = value
        self._lock = threading.Lock()
        self._now = self.most_at_once = 0
        self._stopping = threading.Event()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                models = {"object": "list", "data": [{"id": model}]}
                known = {"/health": b"", "/v1/models": json.dumps(models).encode()}
                _send(self, 200 if self.path in known else 404, known.get(self.path, b"{}"), {})

            def do_POST(self) -> None:
                owner._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def texts(self) -> list[str]:
        return [text for body in self.bodies for text in texts_of(body)]

    def __enter__(self) -> RewardServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["content-length"])))
        with self._lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.keys.append(http.headers.get("authorization", ""))
            fault = self._script(body) if self._script else next(self._faults, None)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._answer(http, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            http.close_connection = True
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, http: BaseHTTPRequestHandler, body: dict[str, Any], fault: Fault | None) -> None:
        if isinstance(fault, Status) or http.path not in KNOWN:
            status = fault if isinstance(fault, Status) else Status(404)
            _send(http, status.code, json.dumps({"error": dict(status.error)}).encode(), status.headers)
            return
        if isinstance(fault, Slow):
            self._stopping.wait(fault.seconds)
        content = fault.content if isinstance(fault, Raw) else self._reply(http.path, body)
        if isinstance(fault, Cut):
            http.close_connection = True
            if fault.part:
                _head(http, 200, len(content), {})
                http.wfile.write(content[: int(len(content) * fault.part)])
        elif isinstance(fault, Trickle):
            http.close_connection = True
            _head(http, 200, len(content), {})
            for byte in content:
                if self._stopping.wait(fault.seconds):
                    return
                http.wfile.write(bytes([byte]))
                http.wfile.flush()
        else:
            _send(http, 200, content, {})

    def _reply(self, path: str, body: dict[str, Any]) -> bytes:
        values = [self._value(text) for text in texts_of(body)]
        name = "probs" if path == "/classify" else "data"
        data = [{"index": i, name: value if isinstance(value, list) else [value]} for i, value in enumerate(values)]
        reply = {"object": "list", "model": "rm", "data": data[::-1], "usage": {"prompt_tokens": 9}}  # by index
        return json.dumps(reply).encode()
