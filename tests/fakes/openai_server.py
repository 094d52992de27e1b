"""A chat endpoint that speaks the OpenAI protocol and fails on order.

    with OpenAIServer(script=[Status(429, {"Retry-After": "0"}), Cut()]) as server:
        ...  # the first request gets 429, the second a dropped connection, the rest an answer

An answer names its prompt, seed and number (`hello|17|0`), so that a test sees whether order and seeds
are kept.
`script` may also be a function of the request, for faults that depend on the prompt or the key.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    number: int  # from 0, in order of arrival
    time: float  # time.monotonic()
    key: str
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Status:
    """An error status, with a body as OpenAI writes it."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=lambda: {"message": "scripted"})


@dataclass(frozen=True)
class Slow:
    """An answer after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Raw:
    """Status 200 with these bytes for a body."""

    content: bytes


@dataclass(frozen=True)
class Cut:
    """The connection is closed after `part` (from 0 to 1) of the answer."""

    part: float = 0.0


@dataclass(frozen=True)
class Trickle:
    """The answer byte by byte, with so many seconds between bytes."""

    seconds: float


@dataclass(frozen=True)
class Finish:
    """An answer whose choices end for this reason, at most `most` of them."""

    reason: str = "stop"
    most: int = 1_000_000
    content: str | None = "cut"


Fault = Status | Slow | Raw | Cut | Trickle | Finish
Script = Iterable["Fault | None"] | Callable[[Request], "Fault | None"]


class OpenAIServer:
    """The server; `requests` and `most_at_once` say afterwards what it saw."""

    def __init__(self, script: Script = ()) -> None:
        self._script = script if callable(script) else None
        self._faults = iter(()) if callable(script) else iter(script)
        self._lock = threading.Lock()
        self._now = 0
        self._stopping = threading.Event()
        self.most_at_once = 0
        self.requests: list[Request] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["content-length"])))
        key = http.headers.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            request = Request(len(self.requests), time.monotonic(), key, body)
            self.requests.append(request)
            fault = self._script(request) if self._script else next(self._faults, None)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._answer(http, request, fault)
        except (BrokenPipeError, ConnectionResetError):
            http.close_connection = True  # the client has gone: what it does about slowness
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, http: BaseHTTPRequestHandler, request: Request, fault: Fault | None) -> None:
        if isinstance(fault, Status):
            _send(http, fault.code, json.dumps({"error": dict(fault.error)}).encode(), fault.headers)
            return
        if isinstance(fault, Slow):
            self._stopping.wait(fault.seconds)
        finish = fault if isinstance(fault, Finish) else Finish(content=None)
        content = fault.content if isinstance(fault, Raw) else _completion(request, finish)
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


def _completion(request: Request, finish: Finish) -> bytes:
    seed, n = request.body.get("seed", 0), request.body.get("n", 1)
    choices = [
        {
            "index": i,
            "finish_reason": finish.reason,
            "message": {"role": "assistant", "content": finish.content or f"{request.prompt}|{seed}|{i}"},
        }
        for i in range(min(n, finish.most))
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 5 * len(choices), "total_tokens": 3 + 5 * len(choices)}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": request.body["model"]}
    return json.dumps({**answer, "choices": choices, "usage": usage}).encode()


def _head(http: BaseHTTPRequestHandler, code: int, length: int, headers: Mapping[str, str]) -> None:
    http.send_response(code)
    http.send_header("content-type", "application/json")
    http.send_header("content-length", str(length))
    for name, value in headers.items():
        http.send_header(name, value)
    http.end_headers()


def _send(http: BaseHTTPRequestHandler, code: int, content: bytes, headers: Mapping[str, str]) -> None:
    _head(http, code, len(content), headers)
    http.wfile.write(content)
