"""Asks an OpenAI-compatible endpoint, many requests at a time; each ends as samples or as an outcome.

HTTP is the openai SDK's. Here is what it lacks: which failures are tried again and when, limits of each key (`pace`), a
spend cap (`spend`), and answers kept on disk (`journal`); none of them changes a reply. Requests go out in the order in
which they were asked for, whichever thread asks, so that the endpoint stays busy while an earlier part waits for its
slowest reply.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qsl

from data_prep.core.step import Drop, Row
from data_prep.errors import DataError, LimitPassed
from data_prep.inference.api import replies
from data_prep.inference.api.batch import Batches
from data_prep.inference.api.journal import Journal, Memory, reply_json
from data_prep.inference.api.keys import NO_KEY
from data_prep.inference.api.pace import ARRIVAL_S, FIRST_WAIT_S, LONGEST_WAIT_S, WINDOW_S, Grant, Key, Pace
from data_prep.inference.api.prices import Price
from data_prep.inference.api.providers import Form
from data_prep.inference.api.replies import PASSING, Failed, Refusal, Reply, as_drop
from data_prep.inference.api.requests import Call, Request, call
from data_prep.inference.api.spend import Spend
from data_prep.inference.sampling import Sample, Sampling, prompt_seed

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response
    from openai import APIStatusError, AsyncOpenAI

Watch = Callable[[], Coroutine[Any, Any, None]]
Result = TypeVar("Result")
# Number of the call of `ask`, place in it, what is asked, number of samples before it, where the reply goes.
_Item = tuple[int, int, Request, Sampling, int, "asyncio.Future[Reply]"]

CANCEL_AGAIN_S = 0.5
RATE_PATIENCE = 2  # tries of each key that end in 429, to one of others: limits by the minute take minutes
FORM_CHECK_S = 10.0  # the first request goes alone for so long: a refusal of its parameters comes at once
CLOSED = "the client was closed: another part of the step has failed"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


@dataclass
class ChatClient:
    """A client of one model; `with` keeps connections and counts from one call to the next. Threads may share it."""

    base_url: str | Sequence[str]  # several are replicas of one server: each request goes to the least busy
    model: str
    api_keys: Sequence[str] = ()
    concurrency: int = 64
    timeout: float = 600.0  # seconds for one attempt, all of it: a trickle counts as silence
    tries: int = 6
    form: Form = field(default_factory=Form)
    longest: int | None = None  # tokens of a completion that the endpoint accepts as max_tokens
    exact_model: bool = False  # another model's name in a reply ends the run
    first_wait: float = FIRST_WAIT_S
    give_up: int | None = None  # after so many requests in a row that failed in all their tries
    requests_per_minute: int | None = None  # of each key
    tokens_per_minute: int | None = None
    window: float = WINDOW_S  # the minute that limits are for
    journal: Path | None = None  # file that answers are kept in
    price: Price | None = None
    spend_cap: float | None = None  # dollars; needs a price
    batch: bool = False
    name: str = "endpoint"  # of the step, for what is printed about its cost
    rows: int | None = None  # that the step gets in all
    watch: Watch | None = None  # runs beside the requests; when it raises (a server has died), so do they

    def __post_init__(self) -> None:
        self._open: ExitStack | None = None
        self._closed = False
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        self.urls = [url.rstrip("/") for url in urls]

    def __enter__(self) -> Self:
        self._closed = False
        with ExitStack() as stack:
            self._journal = Journal(self.journal, self.window + ARRIVAL_S) if self.journal else Memory()
            stack.callback(self._journal.close)
            self._spend = Spend(self._journal.totals, self.price, self.spend_cap, self.name, self.batch)
            keys, limits = self.api_keys or [NO_KEY], (self.requests_per_minute, self.tokens_per_minute)
            self._pace = Pace(keys, *limits, first_wait=self.first_wait, window=self.window)
            for sent in self._journal.sent.values():
                self._pace.recall(sent.key, time.time() - sent.at, sent.tokens)
            self._http = http_client(self.urls)
            self._sdks: dict[tuple[str, str], AsyncOpenAI] = {}
            self._busy: Counter[str] = Counter(dict.fromkeys(self.urls, 0))
            self._asking: dict[str, asyncio.Future[Reply | None]] = {}
            self._orders, self._done, self._missed, self._suspects = count(), 0, 0, 0
            self._trial: asyncio.Event | None = None  # set when the request that is sent alone has ended
            self._accepted = False  # whether an answer has shown that the form of requests is accepted
            self._warned: set[str] = set()
            self._batches = Batches(
                self.sdk, self.urls[0], self._journal, self._spend, self._pace.keys,
                self.refused, self._check_model, self.hide, self.timeout, self.tries, self.first_wait,
            )  # fmt: skip
            self._loop = asyncio.new_event_loop()
            stack.callback(self._loop.close)
            self._thread = threading.Thread(target=self._loop.run_forever, name="requests", daemon=True)
            self._thread.start()
            stack.callback(self._thread.join)
            stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self._on_loop(self._start())
            stack.callback(lambda: self._on_loop(self._stop()))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        opened, self._open, self._closed = self._open, None, True
        self._spend.report(self._done, None, now=True)
        opened.close()

    def _on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine that the thread of requests runs."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not wait([future], timeout=CANCEL_AGAIN_S).done:
                if not self._thread.is_alive():  # another thread has closed the client meanwhile
                    raise DataError(CLOSED)
            return future.result()
        finally:
            future.cancel()  # without effect on one that is done

    async def _start(self) -> None:
        self._todo: asyncio.PriorityQueue[_Item] = asyncio.PriorityQueue()
        self._fatal: asyncio.Future[None] = self._loop.create_future()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self.concurrency)]
        if self.watch is not None:
            self._tasks.append(asyncio.create_task(self.watch()))
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def _stop(self) -> None:
        """End all tasks, those of threads that wait for replies included."""
        self._halt(DataError(CLOSED))
        self._fatal.exception()
        pending = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        while pending:  # a task whose request swallows the cancellation takes the next one
            for task in pending:
                task.cancel()
            ended, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
            await asyncio.gather(*ended, return_exceptions=True)
        await self._http.aclose()

    def sdk(self, key: Key, url: str | None = None) -> AsyncOpenAI:
        """The SDK's client for a key; it neither retries nor times out by itself."""
        from openai import AsyncOpenAI

        url = url or self.urls[0]
        if (url, key.name) not in self._sdks:
            headers = {name: value.replace("{key}", key.secret) for name, value in self.form.headers.items()}
            address, _, query = url.partition("?")
            self._sdks[url, key.name] = AsyncOpenAI(
                api_key=key.secret, base_url=address, http_client=self._http, max_retries=0, timeout=None,
                default_headers=headers, default_query=dict(parse_qsl(query)),
            )  # fmt: skip
        return self._sdks[url, key.name]

    def run(self, rows: Sequence[Row], sampling: Sampling) -> list[list[Sample] | Drop]:
        """For each row its samples, in the rows' order, or a Drop. Raises DataError for what cannot succeed."""
        requests = [Request(row["prompt"], prompt_seed(sampling.seed, str(row["id"]))) for row in rows]
        return [
            as_drop(reply, str(row["id"])) if isinstance(reply, Failed) else list(reply)
            for row, reply in zip(rows, self.ask(requests, sampling), strict=True)
        ]

    def ask(self, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Replies in the order of the requests, whatever the order of arrival. Raises DataError."""
        if self._closed:
            raise DataError(CLOSED)
        if self._open is None:
            try:
                with self:
                    return self.ask(requests, sampling)
            finally:
                self._closed = False
        if self.longest is not None and sampling.max_tokens > self.longest:
            sampling = replace(sampling, max_tokens=self.longest)
        return self._on_loop(self._ask(requests, sampling))

    async def _ask(self, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        order = next(self._orders)
        if order == 0:
            self._announce(requests, sampling)
        asking = self._ask_in_batches(requests, sampling) if self.batch else self._queue(order, requests, sampling)
        work = asyncio.ensure_future(asking)
        ends: list[asyncio.Future[Any]] = [work, self._fatal]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            self._fatal.result()
        return await work

    def _announce(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """Print what these and all others will cost, where that is known, and what of the sampling is left out."""
        if ignored := self.form.ignored(sampling):
            self._warn(f"{', '.join(ignored)}: not sent, the provider does not take it")
        if self.price is not None:
            calls = [call(self.model, request, sampling, form=self.form) for request in requests]
            self._spend.project([one for one in calls if self._journal.get(one.name) is None], self.rows)

    async def _queue(self, order: int, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Replies to requests that wait behind those of earlier calls."""
        single = "n" in self.form.omit
        parts = range(sampling.n) if single else range(1)
        drawn = replace(sampling, n=1) if single else sampling
        futures: list[list[asyncio.Future[Reply]]] = []
        for place, request in enumerate(requests):
            futures.append([self._loop.create_future() for _ in parts])
            for done, future in enumerate(futures[-1]):
                self._todo.put_nowait((order, place * len(parts) + done, request, drawn, done, future))
        results = [[await future for future in of_one] for of_one in futures]
        return [_joined(of_one) for of_one in results]

    async def _work(self) -> None:
        """Take the next request that waits, until cancelled."""
        while True:
            _, _, request, sampling, done, future = await self._todo.get()
            if future.cancelled():
                continue
            reply = await self._complete(request, sampling, done)
            self._count(reply)
            if not future.done():
                future.set_result(reply)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let the first error of a task end all that threads wait for."""
        if not task.cancelled() and (error := task.exception()):
            self._halt(error)

    def _halt(self, error: BaseException) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    def _count(self, reply: Reply) -> None:
        """Report progress. Raises LimitPassed when the endpoint seems to be gone, rather than try all the rest."""
        self._done += 1
        self._spend.report(self._done, self.rows)
        gone = isinstance(reply, Failed) and reply.failure in PASSING
        self._missed = self._missed + 1 if gone else 0
        if self.give_up and self._missed >= self.give_up and isinstance(reply, Failed):
            raise LimitPassed(
                f"{self.urls[0]}: the last {self._missed:,} requests all failed after {self.tries} tries each; "
                f"the last: {reply.failure} ({reply.detail}); all answers are kept: "
                "run the same command again when it is back"
            )

    async def _ask_in_batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """`_ask` by the Batch API; an endpoint that gives fewer samples than asked for gets another batch."""
        results: list[Reply | None] = [None] * len(requests)
        samples: list[tuple[Sample, ...]] = [()] * len(requests)
        while todo := [place for place, reply in enumerate(results) if reply is None]:
            calls = {at: call(self.model, requests[at], sampling, len(samples[at]), self.form) for at in todo}
            answers = await self._batches.answer({one.name: one for one in calls.values()})
            for at, one in calls.items():
                reply = answers[one.name]
                if isinstance(reply, Failed):
                    results[at] = reply
                    continue
                samples[at] += reply
                if len(samples[at]) >= sampling.n:
                    results[at] = samples[at][: sampling.n]
        return [reply for reply in results if reply is not None]

    async def _complete(self, request: Request, sampling: Sampling, done: int) -> Reply:
        """All n samples of one request, numbered from `done`; an endpoint that gives fewer is asked for the rest."""
        samples: tuple[Sample, ...] = ()
        whole = replace(sampling, n=done + sampling.n)
        while len(samples) < sampling.n:
            reply = await self._once(call(self.model, request, whole, done + len(samples), self.form))
            if isinstance(reply, Failed):
                return reply
            samples += reply
        return samples[: sampling.n]

    async def _once(self, one: Call) -> Reply:
        """The reply to a call: the journal's, that of an equal call on its way, or a new one."""
        name = one.name
        if (kept := self._journal.get(name)) is not None:
            return kept
        while name in self._asking:
            reply = await asyncio.shield(self._asking[name])
            if reply is not None:
                return reply
        going = self._asking[name] = self._loop.create_future()
        try:
            reply = await self._first_alone(one)
            going.set_result(reply)
            return reply
        finally:
            if not going.done():
                going.set_result(None)  # it failed: others ask for themselves
            del self._asking[name]

    async def _first_alone(self, one: Call) -> Reply:
        """The reply to a call, sent beside others once an answer has shown that their form is accepted."""
        while not self._accepted:
            if self._fatal.done():
                self._fatal.result()
            if self._trial is None:
                return await self._try_form(one)
            await self._trial.wait()
        return await self._persist(one)

    async def _try_form(self, one: Call) -> Reply:
        """The reply to a call that is sent alone. Raises DataError where its form is refused."""
        trial = self._trial = asyncio.Event()
        timer = self._loop.call_later(FORM_CHECK_S, self._accept)
        try:
            reply = await self._persist(one)
            if not isinstance(reply, Failed):
                self._accept()
            elif reply.failure == "bad_request":
                # A prompt may be at fault as well, which the provider's words do not show: a second one decides.
                self._suspects += 1
                if self._suspects == 2:
                    raise self._form_refused(reply.detail)
            return reply
        except DataError as error:
            self._halt(error)  # before another request can take this one's turn
            raise
        finally:
            timer.cancel()
            trial.set()
            self._trial = None

    def _accept(self) -> None:
        self._accepted = True
        if self._trial is not None:
            self._trial.set()

    def _form_refused(self, words: str) -> DataError:
        return DataError(
            f"{self.urls[0]} refuses the form of the requests: {words}; the rest was not sent: check model, and change "
            "parameters by provider, rename, omit or extra_body"
        )

    async def _persist(self, one: Call) -> Reply:
        wait, failures, refusals = self.first_wait, 0, 0
        patience = RATE_PATIENCE * self.tries * len(self._pace.keys)
        while True:
            reply = await self._attempt(one)
            if not isinstance(reply, Failed) or reply.failure not in PASSING:
                return reply
            if reply.failure == "rate_limited":  # the key rests, and there may be others
                refusals += 1
                if refusals >= patience:
                    return reply
                continue
            failures += 1
            if failures == self.tries:
                return reply
            # Full jitter: clients that failed together do not come back together.
            spread = random.uniform(wait / 2, wait)  # noqa: S311 - no secret depends on it
            await asyncio.sleep(spread if reply.wait is None else reply.wait + spread - wait / 2)
            wait = min(2 * wait, LONGEST_WAIT_S)

    async def _attempt(self, one: Call) -> Reply:
        """Send a call once, when limits and cap allow it, and write down its outcome."""
        from openai import APIConnectionError, APIStatusError

        most = self._spend.most(one)
        async with self._spend.reserved(most) as written:
            try:
                grant = await self._pace.acquire(one.tokens)
            except DataError as error:
                raise DataError(f"{self.urls[0]}: {error}") from None
            number = self._journal.number()
            sent = {"sent": number, "at": round(time.time(), 3), "key": grant.key.name, "most": one.tokens}
            self._journal.note(sent if most is None else {**sent, "usd": most})
            written()
            try:
                answer = await self._post(one, grant.key)
            except TimeoutError:
                return Failed("timeout", f"no answer within {self.timeout:g} s")
            except APIStatusError as error:
                self._pace.settle(grant)
                self._journal.note({"free": number})
                return self._not_answered(error, grant)
            except APIConnectionError as error:
                cause = error.__cause__ or error
                if type(cause).__name__ == "ConnectError":  # it was not sent
                    self._journal.note({"free": number})
                return Failed("connection", self.hide(f"{type(cause).__name__} {cause}".strip()))
            read = replies.read_answer(answer.content)
            self._check_model(read.model)
            used = read.usage
            self._pace.settle(grant, used.prompt + used.completion if used else None)
            self._pace.served(grant)
            reply = read.reply
            if isinstance(reply, Failed):
                reply = Failed(reply.failure, self.hide(reply.detail))
                if reply.failure == "rate_limited":
                    self._pace.cool(grant, None)
            end: dict[str, Any] = {"used": [used.prompt, used.completion]} if used else {}
            if (paid := self._spend.paid(used, most)) is not None:
                end["usd"] = paid
            if replies.is_final(reply):
                await self._journal.keep({"got": number, "name": one.name, "reply": reply_json(reply), **end})
            elif used:
                self._journal.note({"paid": number, **end})
            return reply

    async def _post(self, one: Call, key: Key) -> Response:
        """The response to a call, of the least busy replica. Raises TimeoutError and the SDK's errors."""
        from httpx2 import Response

        url = min(self.urls, key=self._busy.__getitem__)
        self._busy[url] += 1
        try:
            async with asyncio.timeout(self.timeout):  # wait_for swallows a cancellation that meets an error
                return await self.sdk(key, url).post("/chat/completions", cast_to=Response, content=one.body)
        finally:
            self._busy[url] -= 1

    def _not_answered(self, error: APIStatusError, grant: Grant) -> Failed:
        """The failure that an error status stands for. Raises DataError for what no other request would change."""
        refusal, failed = self.refused(error, grant.key)
        if failed.failure == "rate_limited":
            self._pace.cool(grant, failed.wait)
        elif failed.failure == "bad_request" and not self._accepted and refusal.is_about_the_form:
            raise self._form_refused(failed.detail)
        return failed

    def refused(self, error: APIStatusError, key: Key) -> tuple[Refusal, Failed]:
        """An error status, as a refusal in the provider's words and as a failure. Raises DataError without a key."""
        body = error.body if error.body is not None else error.response.text
        refusal = replies.read_refusal(error.status_code, body)
        failed = refusal.failed(error.response.headers)
        detail = self.hide(failed.detail)
        if refusal.is_about_the_key or (failed.failure == "forbidden" and not key.works):
            self._pace.refuse(key, self.hide(f"{refusal.status} {refusal.words}"))
            if not self._pace.keys:
                words = self.hide(refusal.words)
                raise DataError(
                    f"{self.urls[0]}: the API key was refused ({refusal.status} {words}); check api_key_env"
                )
            return refusal, Failed("rate_limited", "another key is tried")
        if refusal.status == 404:
            raise DataError(f"{self.urls[0]}: no model {self.model!r} there, or no such path ({detail})")
        return refusal, Failed(failed.failure, detail, failed.wait)

    def _check_model(self, answered: str | None) -> None:
        """Warn once of each other model that answers. Raises DataError where none may."""
        if not answered or replies.is_same_model(self.model, answered):
            return
        if self.exact_model:
            raise DataError(
                f"{self.urls[0]}: {answered[:100]!r} answered, {self.model!r} was asked (model_name: exact)"
            )
        self._warn(f"{answered[:100]!r} answers for {self.model!r}")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            print(f"{self.name}: {self.urls[0]}: {text}", file=sys.stderr)

    def hide(self, text: str) -> str:
        """Text from the server, which may repeat a key, or parts of it around asterisks."""
        for secret in self.api_keys:
            text = text.replace(secret, "***")
        return " ".join("***" if "**" in word else word for word in text.split(" "))


def http_client(urls: Sequence[str]) -> AsyncClient:
    """The connections to an endpoint, by a proxy where the environment names one; none leads to this machine.

    Raises DataError, in one line, for a proxy or certificates that cannot be used.
    """
    from httpx2 import URL, AsyncClient, Limits

    own = all(URL(url).host in LOOPBACK for url in urls)
    unlimited = Limits(max_connections=None, max_keepalive_connections=None)  # `concurrency` is the limit
    try:
        return AsyncClient(timeout=None, limits=unlimited, follow_redirects=True, trust_env=not own, verify=not own)
    except ImportError as error:
        raise DataError(
            f"{_variables(PROXIES)}: a SOCKS proxy needs the package socksio, which is not installed: "
            "name an HTTP proxy, unset the variable, or exempt the endpoint's host by NO_PROXY"
        ) from error
    except OSError as error:
        where = _variables(("SSL_CERT_FILE", "SSL_CERT_DIR"))
        raise DataError(f"{where}: no certificates can be read from it ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{_variables(PROXIES)}: not a proxy's address (http://host:port)") from error


def _variables(names: Sequence[str]) -> str:
    """Names of those environment variables that are set; their values may hold passwords."""
    return ", ".join(name for name in names if os.environ.get(name) or os.environ.get(name.lower())) or names[0]


def _joined(parts: Sequence[Reply]) -> Reply:
    """One reply of several, a failure where one of them is."""
    samples: list[Sample] = []
    for part in parts:
        if isinstance(part, Failed):
            return part
        samples += part
    return tuple(samples)
