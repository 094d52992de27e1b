"""Concurrent requests to an OpenAI-compatible endpoint; each ends with samples or a typed failure.

HTTP is handled by the openai SDK. Requests of all threads are sent in the order of submission, so that the endpoint
stays busy while an earlier shard waits for its slowest reply. They run on one event loop in its own thread.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from data_prep.core.step import Drop, Row
from data_prep.errors import DataError, LimitExceeded
from data_prep.inference.api.connections import http_client
from data_prep.inference.api.journal import Journal
from data_prep.inference.api.keys import NO_KEY
from data_prep.inference.api.pace import ARRIVAL_S, WINDOW_S, RateLimiter
from data_prep.inference.api.prices import Price
from data_prep.inference.api.replies import PASSING, Failed, Reply, as_drop, is_final, joined
from data_prep.inference.api.requests import Call, Request, call
from data_prep.inference.api.sending import Sender, Settings
from data_prep.inference.api.spend import Spend
from data_prep.inference.sampling import Sample, Sampling, prompt_seed

Watch = Callable[[], Coroutine[Any, Any, None]]

CANCEL_AGAIN_S = 0.5
FORM_CHECK_S = 10.0  # how long the first request is sent alone: rejected parameters are reported at once
CLOSED = "the client was closed: another part of the step has failed"


@dataclass
class ChatClient(Settings):
    """A thread-safe client for one model; `with` keeps connections and counts between calls."""

    concurrency: int = 64
    longest: int | None = None  # largest max_tokens that the endpoint accepts
    give_up: int | None = None  # stop after this many consecutive requests without a reply
    requests_per_minute: int | None = None  # per key
    tokens_per_minute: int | None = None
    window: float = WINDOW_S  # period of the rate limits
    journal: Path | None = None  # file for replies; by default temporary
    price: Price | None = None
    spend_cap: float | None = None  # dollars; needs a price
    rows: int | None = None  # total rows of the step
    watch: Watch | None = None  # runs alongside the requests; its exception (a server died) ends them

    def __post_init__(self) -> None:
        self._open: ExitStack | None = None
        self._closed = False
        self._lock = threading.Lock()  # serialises submitting and closing
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        self._urls = [url.rstrip("/") for url in urls]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            path = self.journal or Path(stack.enter_context(TemporaryDirectory())) / "journal.jsonl"
            self._journal = Journal(path, self.window + ARRIVAL_S)
            stack.callback(self._journal.close)
            self._spend = Spend(self._journal.totals, self.price, self.spend_cap, self.name)
            keys, limits = self.api_keys or [NO_KEY], (self.requests_per_minute, self.tokens_per_minute)
            pace = RateLimiter(keys, *limits, first_wait=self.first_wait, window=self.window)
            for sent in self._journal.sent.values():
                pace.recall(sent["key"], time.time() - sent["at"], sent["most"])
            self._sender = Sender(self, self._urls, http_client(self._urls), pace, self._spend, self._journal)
            self._watching: asyncio.Task[None] | None = None
            self._error: BaseException | None = None  # the first error of any task; ends all waits
            self._asked, self._done, self._missed, self._suspects = False, 0, 0, 0
            self._equal: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of calls in flight
            self._slots = asyncio.Semaphore(1)  # more once `_accept` has been called
            self._loop = asyncio.new_event_loop()
            stack.callback(self._loop.close)
            thread = threading.Thread(target=self._loop.run_forever, name="requests", daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self._open, self._closed = stack.pop_all(), False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        with self._open:
            with self._lock:  # submitted requests are cancelled, and none is submitted afterwards
                self._open, self._closed = None, True
                stopped = asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
            self._spend.report(self._done, None, now=True)
            stopped.result()

    async def _stop(self) -> None:
        """Cancel all tasks, including those that threads wait for."""
        self._halt(DataError(CLOSED))
        while pending := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in pending:  # repeated, since a request may swallow a cancellation
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        await self._sender.http.aclose()

    def _halt(self, error: BaseException) -> None:
        """End all waits of threads with this error, unless an earlier one did."""
        if self._error is None:
            self._error = error
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._halt(error)

    def run(self, rows: Sequence[Row], sampling: Sampling) -> list[list[Sample] | Drop]:
        """Each row's samples, in the rows' order, or a Drop. Raises DataError if no request can succeed."""
        requests = [Request(row["prompt"], prompt_seed(sampling.seed, str(row["id"]))) for row in rows]
        return [
            as_drop(reply, str(row["id"])) if isinstance(reply, Failed) else list(reply)
            for row, reply in zip(rows, self.ask(requests, sampling), strict=True)
        ]

    def ask(self, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Replies in the order of the requests. Raises DataError."""
        if self._open is None and not self._closed:
            try:
                with self:
                    return self.ask(requests, sampling)
            finally:
                self._closed = False
        if self.longest is not None and sampling.max_tokens > self.longest:
            sampling = replace(sampling, max_tokens=self.longest)
        with self._lock:
            if self._closed:
                raise DataError(CLOSED)
            asked = asyncio.run_coroutine_threadsafe(self._ask(requests, sampling), self._loop)
        try:
            return asked.result()
        except CancelledError:
            raise self._error or DataError(CLOSED) from None
        finally:
            asked.cancel()  # no effect if finished

    async def _ask(self, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        if self._error:
            raise self._error
        if not requests:
            return []
        if not self._asked:
            self._asked = True
            self._announce(requests, sampling)
            if self.watch is not None:
                self._watching = asyncio.create_task(self.watch())
                self._watching.add_done_callback(self._ended)
        parts = sampling.n if "n" in self.form.omit else 1
        drawn = replace(sampling, n=sampling.n // parts)
        tasks = [
            asyncio.create_task(self._complete(request, drawn, part)) for request in requests for part in range(parts)
        ]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            await asyncio.wait(tasks)
            replies = [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
        return [joined(replies[at : at + parts]) for at in range(0, len(replies), parts)]

    def _announce(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """Print the projected cost, if a price is known, and ignored sampling parameters."""
        if ignored := self.form.ignored(sampling):
            self._sender.warn(f"{', '.join(ignored)}: not sent: the provider does not support it")
        if self.price is not None:
            calls = [call(self.model, request, sampling, form=self.form) for request in requests]
            self._spend.project([api_call for api_call in calls if self._journal.get(api_call.name) is None], self.rows)

    def _count(self, reply: Reply) -> None:
        """Report progress. Raises LimitExceeded if the endpoint seems to be down, instead of trying all requests."""
        self._done += 1
        self._spend.report(self._done, self.rows)
        gone = isinstance(reply, Failed) and reply.failure in PASSING
        self._missed = self._missed + 1 if gone else 0
        if self.give_up and self._missed >= self.give_up and isinstance(reply, Failed):
            raise LimitExceeded(
                f"{self._urls[0]}: the last {self._missed:,} requests all failed after {self.tries} tries each; "
                f"the last: {reply.failure} ({reply.detail}); all replies are kept: "
                "rerun the same command when it is back"
            )

    async def _complete(self, request: Request, sampling: Sampling, done: int) -> Reply:
        """All n samples of one request, numbered from `done`; fewer if the rest was filtered or refused."""
        samples: tuple[Sample, ...] = ()
        extended = replace(sampling, n=done + sampling.n)
        async with self._slots:  # first come, first served
            while len(samples) < sampling.n:
                reply = await self._once(call(self.model, request, extended, done + len(samples), self.form))
                if isinstance(reply, Failed):
                    break
                samples += reply
            self._count(reply)
        return reply if isinstance(reply, Failed) and not (samples and is_final(reply)) else samples[: sampling.n]

    async def _once(self, api_call: Call) -> Reply:
        """The reply to a call: from the journal (after an equal call in flight), or a new one."""
        lock = self._equal.setdefault(api_call.name, asyncio.Lock())
        async with lock:
            return self._journal.get(api_call.name) or await self._sent(api_call)

    async def _sent(self, api_call: Call) -> Reply:
        """The reply to a call. Raises DataError if the first reply shows that all requests will be rejected."""
        if self._sender.accepted:
            return await self._sender.send(api_call)
        timer = self._loop.call_later(FORM_CHECK_S, self._accept)
        try:
            reply = await self._sender.send(api_call)
            if not isinstance(reply, Failed):
                self._accept()
            elif reply.failure == "bad_request":
                # The prompt may be the cause, which the provider's message does not show: a second failure decides.
                self._suspects += 1
                if self._suspects == 2:
                    raise self._sender.form_refused(reply.detail)
            return reply
        except DataError as error:
            self._halt(error)  # before the next request is sent
            raise
        finally:
            timer.cancel()

    def _accept(self) -> None:
        """From now on allow `concurrency` requests at once."""
        if not self._sender.accepted:
            self._sender.accepted = True
            for _ in range(self.concurrency - 1):
                self._slots.release()
