"""Asks an OpenAI-compatible endpoint, many requests at a time; each ends as samples or as an outcome.

Nothing that failed is ever returned as text. What may pass (429, 5xx, a lost connection, half an answer) is
tried again after a wait that grows and is spread at random, or that the server's Retry-After names; what
cannot pass (a refused key, an unknown model) ends the run at once in one line.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from data_prep.errors import DataError
from data_prep.sampling import Sample, Sampling, prompt_seed
from data_prep.step import Drop, Row

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

Failure = Literal[
    "rate_limited",
    "server_error",
    "timeout",
    "connection",
    "malformed",
    "bad_request",
    "content_filter",
    "too_long",
]
PASSING: frozenset[Failure] = frozenset({"rate_limited", "server_error", "timeout", "connection", "malformed"})

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0
CANCEL_AGAIN_S = 0.5
NO_KEY = "none"  # servers of one's own ask for no key, and the client library insists on one


@dataclass(frozen=True)
class Failed:
    """Why a request has no samples. `wait` is what the server asked for, in seconds."""

    failure: Failure
    detail: str = ""
    wait: float | None = None


@dataclass(frozen=True)
class Request:
    """One prompt as chat messages, and the seed of its samples."""

    messages: Sequence[Mapping[str, Any]]
    seed: int


Reply = tuple[Sample, ...] | Failed


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    token_ids: list[int] | None = None  # vLLM sends them when asked


class _Usage(BaseModel):
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass
class ChatClient:
    """A client of one model at one endpoint. Keys take turns; a refused key is not used again."""

    base_url: str
    model: str
    api_keys: Sequence[str] = ()
    concurrency: int = 64
    timeout: float = 600.0  # seconds for one attempt, all of it: a trickle counts as silence
    tries: int = 6
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the request body
    first_wait: float = FIRST_WAIT_S

    def __post_init__(self) -> None:
        self._keys = deque(self.api_keys or [NO_KEY])

    def run(
        self, rows: Sequence[Row], sampling: Sampling, watch: Callable[[], Awaitable[None]] | None = None
    ) -> list[list[Sample] | Drop]:
        """For each row its samples, in the rows' order, or a Drop. Raises DataError for what cannot pass.

        `watch` runs beside the requests; when it raises (the server has died), so does this.
        """
        requests = [Request(row["prompt"], prompt_seed(sampling.seed, str(row["id"]))) for row in rows]
        replies = asyncio.run(self.ask(requests, sampling, watch))
        return [
            as_drop(reply, str(row["id"])) if isinstance(reply, Failed) else list(reply)
            for row, reply in zip(rows, replies, strict=True)
        ]

    async def ask(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Callable[[], Awaitable[None]] | None = None,
    ) -> list[Reply]:
        """Replies in the order of the requests, whatever the order of arrival. Raises DataError."""
        replies: dict[int, Reply] = {}
        todo = iter(enumerate(requests))

        async def work(clients: Mapping[str, AsyncOpenAI]) -> None:
            for place, request in todo:  # shared: each worker takes the next that nobody has taken
                replies[place] = await self._complete(clients, request, sampling)

        async with self._clients() as clients:
            workers = [asyncio.create_task(work(clients)) for _ in range(min(self.concurrency, len(requests)))]
            await _all_or_first_error(workers, watch)
        return [replies[place] for place in range(len(requests))]

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[dict[str, AsyncOpenAI]]:
        from openai import AsyncOpenAI

        async with AsyncExitStack() as stack:
            first = AsyncOpenAI(api_key=self._keys[0], base_url=self.base_url, max_retries=0, timeout=self.timeout)
            await stack.enter_async_context(first)
            yield {key: first.with_options(api_key=key) for key in self._keys}

    async def _complete(self, clients: Mapping[str, AsyncOpenAI], request: Request, sampling: Sampling) -> Reply:
        """All n samples of one request; an endpoint that gives fewer is asked again for the rest."""
        samples: tuple[Sample, ...] = ()
        while len(samples) < sampling.n:
            reply = await self._persist(clients, request, sampling, len(samples))
            if isinstance(reply, Failed):
                return reply
            samples += reply
        return samples[: sampling.n]

    async def _persist(
        self, clients: Mapping[str, AsyncOpenAI], request: Request, sampling: Sampling, done: int
    ) -> Reply:
        wait = self.first_wait
        for attempt in range(1, self.tries + 1):
            reply = await self._attempt(clients, request, sampling, done)
            if not isinstance(reply, Failed) or reply.failure not in PASSING or attempt == self.tries:
                return reply
            # Full jitter: clients that failed together do not come back together.
            spread = random.uniform(wait / 2, wait)  # noqa: S311 - no secret depends on it
            await asyncio.sleep(spread if reply.wait is None else reply.wait + spread - wait / 2)
            wait = min(2 * wait, LONGEST_WAIT_S)
        raise AssertionError("tries is at least 1")

    async def _attempt(
        self, clients: Mapping[str, AsyncOpenAI], request: Request, sampling: Sampling, done: int
    ) -> Reply:
        from openai import APIConnectionError, APIStatusError

        if not self._keys:
            raise DataError(f"{self.base_url}: every API key was refused; check api_key_env")
        key = self._keys[0]
        self._keys.rotate(-1)
        call = clients[key].chat.completions.with_raw_response.create(**self._body(request, sampling, done))
        try:
            async with asyncio.timeout(self.timeout):  # wait_for swallows a cancellation that meets an error
                raw = await call
        except TimeoutError:
            return Failed("timeout", f"no answer within {self.timeout:g} s")
        except APIStatusError as error:
            return self._refused(error, key)
        except APIConnectionError as error:  # its subclass for time-outs included
            return Failed("connection", type(error.__cause__ or error).__name__)
        return parse(raw.http_response.content)

    def _body(self, request: Request, sampling: Sampling, done: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            "n": sampling.n - done,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": (request.seed + done) % 2**31,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        extra = dict(self.extra)
        if sampling.top_k:
            extra["top_k"] = sampling.top_k  # not OpenAI's; vLLM and most other servers know it
        return {**body, "extra_body": extra} if extra else body

    def _refused(self, error: APIStatusError, key: str) -> Failed:
        status, detail = error.status_code, self._say(error)
        if status in (401, 403) or _code(error) == "insufficient_quota":
            if key in self._keys:
                self._keys.remove(key)
            if not self._keys:
                # The server's own words are left out: they may repeat part of the key.
                raise DataError(f"{self.base_url}: the API key was refused ({status}); check api_key_env")
            return Failed("rate_limited", "another key is tried", 0.0)
        if status == 404:
            raise DataError(f"{self.base_url}: no model {self.model!r} there, or no such path ({detail})")
        if status == 429:
            return Failed("rate_limited", detail, retry_after(error.response.headers))
        if status in (408, 409) or status >= 500:
            return Failed("server_error", f"{status} {detail}", retry_after(error.response.headers))
        if "context length" in detail or _code(error) == "context_length_exceeded":
            return Failed("too_long", detail)
        return Failed("bad_request", f"{status} {detail}")

    def _say(self, error: APIStatusError) -> str:
        body = error.body if isinstance(error.body, dict) else {}
        text = str(body.get("message") or error.response.text or "").replace("\n", " ")[:300]
        for key in self.api_keys:
            text = text.replace(key, "***")
        return text


def parse(content: bytes) -> Reply:
    """Samples of a chat completion's body, or why there are none."""
    try:
        answer = _Completion.model_validate_json(content)
    except ValidationError as error:
        return Failed("malformed", error.errors(include_url=False)[0]["msg"])
    if not answer.choices:
        return Failed("malformed", "no choices")
    usable = [choice for choice in answer.choices if choice.finish_reason != "content_filter"]
    if not usable:
        return Failed("content_filter")
    samples = []
    for choice in usable:
        if choice.message.content is None or choice.finish_reason is None:
            return Failed("malformed", "a choice without content")
        tokens = len(choice.token_ids) if choice.token_ids is not None else None
        if tokens is None and len(answer.choices) == 1 and answer.usage:
            tokens = answer.usage.completion_tokens
        samples.append(Sample(choice.message.content, choice.finish_reason, tokens))
    return tuple(samples)


def as_drop(failed: Failed, row_id: str) -> Drop:
    """A failed request as a row that goes no further."""
    reason = "prompt_too_long" if failed.failure == "too_long" else f"api_error: {failed.failure}"
    return Drop(reason, row_id, failed.detail, bad=True)


def key_source(value: str) -> str:
    """A parameter that says where keys are: they are secrets, and parameters are written down. Raises ValueError."""
    if "/" not in value and not re.fullmatch("[A-Z_][A-Z0-9_]*", value):
        raise ValueError(
            "must be the name of an environment variable (capitals, digits, _) or the path of a file of keys "
            "(with a /, such as ./keys.txt); the value is not shown, lest it be a key"
        )
    return value


def read_keys(source: str | None, base: Path) -> tuple[str, ...]:
    """Keys from an environment variable's name or, with a `/`, a file with one per line. Raises DataError.

    They live in memory only: no parameter, manifest, log or message holds one.
    """
    if source is None:
        return ()
    if "/" in source:
        where, lines = _key_file(source, base)
    else:
        where, lines = f"environment variable {source}", os.environ.get(source, "").split()
    if not lines:
        raise DataError(f"api_key_env: {where} holds no key: set it to one, or write one per line")
    if not all(line.isascii() and line.isprintable() for line in lines):
        raise DataError(f"api_key_env: {where} holds something that is no key: a key is printable ASCII")
    return tuple(lines)


def _key_file(source: str, base: Path) -> tuple[str, list[str]]:
    """A file's path and its lines. What cannot be read is not named: keys may have a `/`, too."""
    try:
        path = base / Path(source).expanduser()
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"api_key_env: {path} is not UTF-8 at byte {error.start}; write one key per line") from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a home that is nobody's
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise DataError(f"api_key_env names no file of keys that can be read{why}; paths start from {base}") from None
    lines = (line.strip() for line in text.splitlines())
    return str(path), [line for line in lines if line and not line.startswith("#")]


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a response asks to wait (RFC 9110, 10.2.3: seconds or a date), at most five minutes."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # NaN is no number


def _code(error: APIStatusError) -> str | None:
    body = error.body if isinstance(error.body, dict) else {}
    return body.get("code")


async def _all_or_first_error(
    workers: Sequence[asyncio.Task[None]], watch: Callable[[], Awaitable[None]] | None
) -> None:
    """Wait for all workers; at the first error, theirs or the watch's, stop the rest and raise it."""
    pending: set[asyncio.Task[None]] = set(workers)
    guard = asyncio.ensure_future(watch()) if watch else None
    try:
        while pending:
            waiting = {*pending, guard} if guard else pending
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            pending -= done
    finally:
        leftover = {*pending, *([guard] if guard else [])}
        while leftover:  # a worker whose request swallows the cancellation would take the next one
            for task in leftover:
                task.cancel()
            ended, leftover = await asyncio.wait(leftover, timeout=CANCEL_AGAIN_S)
            await asyncio.gather(*ended, return_exceptions=True)  # the first error is the one to tell
