"""HTTP requests to reward-model servers: deadlines, retries with backoff, bounded concurrency.

Synchronous, for use from threads, asyncio (through threads) and Ray workers; each process creates its own client.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from rewards.errors import RewardError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_RETRY_AFTER_S = 0.25, 30.0, 120.0
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LARGEST_REPLY = 64 << 20  # bytes
SERVICE = "service:"  # prefix of a server started by the launcher; the rest identifies its model
URL_VARIABLE = "POSTTRAIN_REWARD_MODEL_URL"  # set by the launcher to that server's address
KEPT_S = 2.0  # lifetime of idle connections, below vLLM's 5 s, so that the server closes none during a request


class ServerError(Exception):
    """No usable reply after all tries. timed_out: the last try exceeded its deadline."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def server_url(url: str) -> str:
    """`url` without a trailing / or /v1. Raises RewardError if it is not a server address."""
    if url.startswith(SERVICE):
        return url
    import httpx2  # imported here: the launcher does not need it

    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        parts = httpx2.URL("")
    if parts.userinfo:
        raise RewardError("url must not contain a user name or password: set key_env to a variable that holds the key")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise RewardError(f"url {url!r} is not an address such as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")


class Client:
    """Requests to one server, never through a proxy. timeout: seconds per try to connect, to send, and to receive.
    concurrency: parallel requests; waiting for a connection does not count. key: sent as bearer token.
    """

    def __init__(self, url: str, timeout: float, retries: int, concurrency: int, key: str = "") -> None:
        if url.startswith(SERVICE) and not (url := os.environ.get(URL_VARIABLE, "")):
            raise RewardError(f"{URL_VARIABLE} is not set: the run's own script starts the reward-model server")
        import httpx2

        self.url, self._timeout, self._retries = server_url(url), timeout, retries
        self.threads = ThreadPoolExecutor(concurrency, thread_name_prefix="reward model")  # shared by all batches
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout, pool=None),
            limits=httpx2.Limits(max_connections=concurrency, keepalive_expiry=KEPT_S),
            trust_env=False,
            headers={"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})},
        )

    def request(self, path: str, read: Callable[[bytes], T], body: Mapping[str, Any] | None = None) -> T:
        """The reply, parsed by `read`, whose ValueError means an unusable reply. body: posted as JSON; None: GET.

        Raises ServerError.
        """
        import httpx2

        for tried in range(self._retries + 1):
            # jitter: clients that failed together should not retry together
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**tried) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            timed_out = False
            try:
                response, content = self._try(path, body)
                if response.status_code < 300:
                    return read(content)
                problem = f"status {response.status_code}: {_message(content)}"
                if response.status_code not in RETRIED:
                    raise ServerError(problem)
                timed_out = response.status_code in (408, 504)
                if (after := response.headers.get("retry-after", "")).isdecimal():
                    wait = min(int(after), LONGEST_RETRY_AFTER_S)
            except httpx2.TimeoutException:
                problem, timed_out = f"no reply within {self._timeout:g} s", True
            except httpx2.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            except ValueError as error:
                problem = f"an unusable reply: {_one_line(str(error))}"
            if tried < self._retries:
                time.sleep(wait)
        tries = f" ({self._retries + 1} tries)" if self._retries else ""
        raise ServerError(f"{self.url}{path}: {problem}{tries}", timed_out)

    def _try(self, path: str, body: Mapping[str, Any] | None) -> tuple[httpx2.Response, bytes]:
        """One try: the response and its content. Raises ValueError for a reply that is too large."""
        import httpx2

        method, payload = ("GET", None) if body is None else ("POST", json.dumps(body))
        content = bytearray()
        with self._client.stream(method, self.url + path, content=payload) as response:
            deadline = time.monotonic() + self._timeout  # httpx2's timeout applies to each chunk
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > LARGEST_REPLY:
                    raise ValueError(f"more than {LARGEST_REPLY} bytes")
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("the reply took too long")
        return response, bytes(content)


def _message(content: bytes) -> str:
    """The error message in a body in the format of OpenAI, vLLM or FastAPI, on one line."""
    try:
        body = json.loads(content)
        error = body.get("error", body.get("detail", body))
        return _one_line(str(error.get("message", error) if isinstance(error, dict) else error))
    except (ValueError, RecursionError, AttributeError):
        return _one_line(content[:2000].decode("utf-8", "replace"))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300] or "no message"
