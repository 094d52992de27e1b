"""A chat endpoint that speaks the OpenAI protocol and fails on order.

    with OpenAIServer(script=[Status(429, {"Retry-After": "0"}), Cut()]) as server:
        ...  # the first request gets 429, the second a dropped connection, the rest an answer

An answer names its prompt, seed and number (`hello|17|0`), so that a test sees whether order and seeds
are kept.
`script` may also be a function of the request, for faults that depend on the prompt or the key.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPT_TOKENS, COMPLETION_TOKENS = 3, 5  # of each request, and of each of its choices


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    number: int  # from 0, in order of arrival
    time: float  # time.monotonic()
    key: str
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Status:
    """An error status, with `error` in a body as OpenAI writes it, or another `body`."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=lambda: {"message": "scripted"})
    body: Any = None

    @property
    def content(self) -> bytes:
        """The body's bytes."""
        return json.dumps({"error": dict(self.error)} if self.body is None else self.body).encode()


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


@dataclass(frozen=True)
class Model:
    """An answer that says it is of this model."""

    name: str


Fault = Status | Slow | Raw | Cut | Trickle | Finish | Model
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
        self.answered: list[Request] = []  # in full
        self.connections = 0
        self.usage = (0, 0)  # tokens of prompts and completions in what was answered
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with owner._lock:
                    owner.connections += 1

            def do_POST(self) -> None:
                if self.path.partition("?")[0].endswith("/chat/completions"):
                    owner._serve(self)
                else:
                    self.send_error(404)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256  # clients come many at a time; the default of 5 resets some of them

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exc_info()[1], ConnectionError):  # a killed client's are no news
                    super().handle_error(request, client_address)

        self._http = Server(("127.0.0.1", 0), Handler)
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
        content = http.rfile.read(length := int(http.headers["content-length"]))
        if len(content) < length:
            return  # the client was killed on the way
        body = json.loads(content)
        key = http.headers.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            request = Request(len(self.requests), time.monotonic(), key, body, dict(http.headers), http.path)
            self.requests.append(request)
            fault = self._script(request) if self._script else next(self._faults, None)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._answer(http, request, fault)
            self._count(request, fault)
        except (BrokenPipeError, ConnectionResetError):
            http.close_connection = True  # the client has gone: what it does about slowness
        finally:
            with self._lock:
                self._now -= 1

    def _count(self, request: Request, fault: Fault | None) -> None:
        """Bill what was answered: all but errors and what the client cannot have heard."""
        if isinstance(fault, Status | Cut):
            return
        finish = fault if isinstance(fault, Finish) else Finish()
        choices = min(request.body.get("n", 1), finish.most)
        with self._lock:
            self.answered.append(request)
            self.usage = (self.usage[0] + PROMPT_TOKENS, self.usage[1] + COMPLETION_TOKENS * choices)

    def _answer(self, http: BaseHTTPRequestHandler, request: Request, fault: Fault | None) -> None:
        if isinstance(fault, Status):
            _send(http, fault.code, fault.content, fault.headers)
            return
        if isinstance(fault, Slow):
            self._stopping.wait(fault.seconds)
        content = fault.content if isinstance(fault, Raw) else _completion(request, _finish(fault), _model(fault))
        if isinstance(fault, Cut):
            http.close_connection = True
            if fault.part:
                _head(http, 200, len(content), {})
                http.wfile.write(content[: int(len(content) * fault.part)])
        elif isinstance(fault, Trickle):
            http.close_connection = True
            _head(http, 200, len(content), {"connection": "close"})  # a client must not ask on it once more
            for byte in content:
                if self._stopping.wait(fault.seconds):
                    return
                http.wfile.write(bytes([byte]))
                http.wfile.flush()
        else:
            _send(http, 200, content, {})


def _finish(fault: Fault | None) -> Finish:
    return fault if isinstance(fault, Finish) else Finish(content=None)


def _model(fault: Fault | None) -> str | None:
    return fault.name if isinstance(fault, Model) else None


def _completion(request: Request, finish: Finish, model: str | None = None) -> bytes:
    seed, n = request.body.get("seed", 0), request.body.get("n", 1)
    choices = [
        {
            "index": i,
            "finish_reason": finish.reason,
            "message": {"role": "assistant", "content": finish.content or f"{request.prompt}|{seed}|{i}"},
        }
        for i in range(min(n, finish.most))
    ]
    spent = COMPLETION_TOKENS * len(choices)
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": spent, "total_tokens": PROMPT_TOKENS + spent}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": model or request.body["model"]}
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
