"""A patient JSON client for reward-model servers: deadlines, retries with jitter, Retry-After, few at once.

Standard library only, and no event loop: it serves threads, asyncio (through threads) and Ray workers alike.
Connections are kept; nothing is shared with a forked child, which makes its own client.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import random
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from email.message import Message
from typing import Any, TypeVar

from rewards.errors import RewardError

T = TypeVar("T")
Reply = tuple[int, Message, bytes]  # status, headers, body

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 30.0
LONGEST_RETRY_AFTER_S = 120.0
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LARGEST_REPLY = 64 << 20  # bytes


class Refused(Exception):
    """The server said no, and would say so again: a 4xx status with its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status


class Unanswered(Exception):
    """No usable answer after all tries. timed_out: the last one ran into its deadline."""

    def __init__(self, message: str, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Unusable(Exception):
    """A reply that is not what was asked for; raised by the caller's reader, and tried again."""


class _Failed(Exception):
    """One try that may be repeated. wait: seconds the server asked for, if it did."""

    def __init__(self, message: str, timed_out: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.message, self.timed_out, self.wait = message, timed_out, wait


class Client:
    """Talks to one server. timeout: seconds for one try, to its last byte. most: requests under way at once."""

    def __init__(self, url: str, *, timeout: float = 60.0, retries: int = 5, most: int = 32, key: str = "") -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        parts = urllib.parse.urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise RewardError(f"url {url!r} is not an address such as http://127.0.0.1:8000")
        self._secure, self._host, self._port, self._base = parts.scheme == "https", parts.hostname, port, parts.path
        self._timeout, self._retries = timeout, retries
        self._headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        self._slots = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the reply's JSON. Raises Refused and Unanswered."""
        return self._patiently("POST", path, json.dumps(body).encode(), lambda content: read(_json(content)))

    def get(self, path: str, read: Callable[[Any], T]) -> T:
        """As `post`."""
        return self._patiently("GET", path, b"", lambda content: read(_json(content)))

    def ping(self, path: str, missing_ok: bool = False) -> None:
        """Return once the server answers. missing_ok: also with 404. Raises as `post`."""
        try:
            self._patiently("GET", path, b"", len)
        except Refused as problem:
            if not (missing_ok and problem.status == 404):
                raise

    def _patiently(self, method: str, path: str, body: bytes, read: Callable[[bytes], T]) -> T:
        for tried in range(self._retries + 1):
            try:
                with self._slots:
                    status, headers, content = self._once(method, path, body)
                _check_status(status, headers, content)
                return read(content)
            except _Failed as failed:
                last = failed
            except Unusable as problem:
                last = _Failed(f"an unusable reply: {problem}")
            if tried < self._retries:
                time.sleep(_wait(tried) if last.wait is None else min(last.wait, LONGEST_RETRY_AFTER_S))
        times = f" ({self._retries + 1} tries)" if self._retries else ""
        raise Unanswered(f"{self.url}{path}: {last.message}{times}", last.timed_out)

    def _once(self, method: str, path: str, body: bytes) -> Reply:
        deadline = time.monotonic() + self._timeout
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._exchange(kept, method, path, body, deadline)
            except _StaleError:
                pass  # the server had closed this kept connection: a new one, and no try is lost
        try:
            return self._exchange(self._connection(), method, path, body, deadline)
        except _StaleError as problem:
            raise _Failed(str(problem)) from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, context=ssl.create_default_context())
        return http.client.HTTPConnection(self._host, self._port)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes, deadline: float
    ) -> Reply:
        kept = False
        try:
            connection.timeout = _left(deadline)
            if connection.sock is None:
                connection.connect()
            sock = connection.sock
            sock.settimeout(_left(deadline))
            connection.request(method, self._base + path, body or None, self._headers)
            response = connection.getresponse()
            content = b""
            while piece := response.read1(1 << 16):
                content += piece
                if len(content) > LARGEST_REPLY:
                    raise _Failed(f"a reply of more than {LARGEST_REPLY} bytes")
                sock.settimeout(_left(deadline))
            if response.length:
                raise _Failed(f"the reply was cut {response.length} bytes before its end")
            response.close()  # read whole: the connection can be used again
            kept = not response.will_close
            return response.status, response.headers, content
        except TimeoutError:
            raise _Failed(f"no answer within {self._timeout:g} s", timed_out=True) from None
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as problem:
            raise _StaleError(f"the connection was closed ({type(problem).__name__})") from None
        except (OSError, http.client.HTTPException) as problem:
            raise _Failed(f"{type(problem).__name__}: {problem}") from None
        finally:
            if kept:
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()


class _StaleError(Exception):
    """The peer closed the connection without an answer."""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _wait(tried: int) -> float:
    """Exponential with jitter, so that clients turned away together do not come back together."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**tried) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


def _check_status(status: int, headers: Message, content: bytes) -> None:
    if status in RETRIED:
        raise _Failed(f"status {status}: {_message(content)}", status in (408, 504), _retry_after(headers))
    if status >= 300:
        raise Refused(status, _message(content))


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Unusable("not JSON") from None


def _message(content: bytes) -> str:
    """The error in a body as OpenAI, vLLM or FastAPI write it, on one line."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body))
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    return " ".join(text.split())[:300] or "no message"


def _retry_after(headers: Message) -> float | None:
    """Seconds that Retry-After asks for, given as seconds or as a date; None without a usable one."""
    given = str(headers.get("Retry-After", ""))
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
