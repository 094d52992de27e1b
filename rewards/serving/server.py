"""Runs the app on uvicorn with additional limits: connections, header size, and time to send and receive."""

import asyncio
import json
import signal
import socket
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rewards.errors import RewardError
from rewards.serving.app import App

BACKLOG = 1024
MAX_HEAD = 1 << 16  # bytes of the request line and headers


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A client has `read_timeout` seconds to send a complete request, and to receive a response."""

    app: App
    _timer: asyncio.TimerHandle | None = None  # runs while waiting for the client
    _head = 0  # bytes received of an incomplete head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.app.settings.connections:
            self._refuse(503, f"the limit of {self.app.settings.connections} connections is reached")
        else:
            self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(400, f"the request's head has more than {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = -(1 << 62)  # the body does not count

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head = 0
        self._stop_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def shutdown(self) -> None:
        """On SIGTERM: complete requests are answered, incomplete ones are dropped."""
        if self._timer:
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _start_timer(self) -> None:
        self._timer = self._timer or self.loop.call_later(self.app.settings.read_timeout, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """End a connection whose client exceeded `read_timeout`."""
        if self.flow.write_paused:
            self.transport.abort()
        elif self.cycle and self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()  # the rest of a request that was already rejected
        else:
            self._refuse(408, f"the request was not complete after {self.app.settings.read_timeout:g} s")

    def _refuse(self, status: int, message: str) -> None:
        """Send an error response without the app, unless a response is being sent, and close the connection."""
        cycle = self.cycle
        responding = cycle is not None and cycle.response_started and not cycle.response_complete
        if not self.transport.is_closing() and not responding:
            self.app.answers[status] += 1
            body = json.dumps({"error": message})
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RewardError, in one line, for an address that cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as problem:
        raise RewardError(f"{host} port {port}: {problem.strerror}; choose another, or 0 for a free one") from None


def run(app: App, listening: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT; returns whether all requests finished. Prints a JSON line at start and end."""
    config = uvicorn.Config(
        app, http=BoundedProtocol, loop="uvloop", ws="none", lifespan="off", log_level="error", access_log=False,
        proxy_headers=False, server_header=False, date_header=False, backlog=BACKLOG, interface="asgi3",
        timeout_keep_alive=round(app.settings.read_timeout) + 1, timeout_graceful_shutdown=app.settings.grace,
    )  # fmt: skip
    server = uvicorn.Server(config)

    def stop(*_: Any) -> None:  # called before uvicorn sets its handlers, and when it re-raises the signal at exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    url = f"http://{app.settings.host}:{listening.getsockname()[1]}"
    print(json.dumps({"serving": url, "reward": app.reward.name, "rows": len(app.by_id)}), flush=True)
    server.run(sockets=[listening])
    print(json.dumps({"outcomes": dict(app.outcomes)}), flush=True)
    return app.close()
