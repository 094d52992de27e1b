"""Asks an OpenAI-compatible endpoint, many requests at a time; each ends as samples or as an outcome.

What may pass (429, 5xx, a lost connection, half an answer) is tried again after a wait that grows and is spread at
random, or that the server's Retry-After names; what cannot pass (refused keys, an unknown model, a spent budget) ends
the run in one line. Limits are kept by `pace`, money by `spend`, answers by `journal`; none of them changes a reply.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from data_prep.core.step import Drop, Row
from data_prep.errors import DataError, LimitPassed
from data_prep.inference.api.batch import Batches
from data_prep.inference.api.journal import Journal, Memory, reply_json
from data_prep.inference.api.keys import NO_KEY
from data_prep.inference.api.pace import ARRIVAL_S, FIRST_WAIT_S, LONGEST_WAIT_S, WINDOW_S, Key, Pace
from data_prep.inference.api.prices import Price
from data_prep.inference.api.replies import PASSING, Failed, Reply, as_drop, is_final, read_answer, refusal, refuses_key
from data_prep.inference.api.requests import Call, Request, call
from data_prep.inference.api.spend import Spend
from data_prep.inference.sampling import Sample, Sampling, prompt_seed

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

Watch = Callable[[], Awaitable[None]]

CANCEL_AGAIN_S = 0.5
RATE_PATIENCE = 2  # tries of each key that end in 429, to one of others: limits by the minute take minutes
LANE = 16  # requests that share a pool of connections


@dataclass
class ChatClient:
    """A client of one model at one endpoint; `with` keeps its connections and counts from one call to the next."""

    base_url: str
    model: str
    api_keys: Sequence[str] = ()
    concurrency: int = 64
    timeout: float = 600.0  # seconds for one attempt, all of it: a trickle counts as silence
    tries: int = 6
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the request body
    first_wait: float = FIRST_WAIT_S
    give_up: int | None = None  # after so many requests in a row that failed in all their tries
    requests_per_minute: int | None = None  # of each key
    tokens_per_minute: int | None = None
    window: float = WINDOW_S  # the minute that limits are for
    journal: Path | None = None  # file that answers are kept in
    price: Price | None = None
    spend_cap: float | None = None  # dollars; needs a price
    batch: bool = False
    name: str = "endpoint"  # of the step, for what is said of its cost
    rows: int | None = None  # that the step gets in all
    watch: Watch | None = None  # for `ask` and `run` that are given none

    def __post_init__(self) -> None:
        self._open: ExitStack | None = None

    def __enter__(self) -> Self:
        from httpx2 import AsyncClient, Limits, Timeout, create_ssl_context

        with ExitStack() as stack:
            self._journal = Journal(self.journal, self.window + ARRIVAL_S) if self.journal else Memory()
            stack.callback(self._journal.close)
            self._spend = Spend(self._journal.totals, self.price, self.spend_cap, self.name, self.batch)
            keys, limits = self.api_keys or [NO_KEY], (self.requests_per_minute, self.tokens_per_minute)
            self._pace = Pace(keys, *limits, first_wait=self.first_wait, window=self.window)
            for sent in self._journal.sent.values():
                self._pace.recall(sent.key, time.time() - sent.at, sent.tokens)
            self._asking: dict[str, asyncio.Future[Reply | None]] = {}
            self._asked = self._missed = 0
            self._runner = stack.enter_context(asyncio.Runner())
            # Time-outs are for all of an attempt, and the number of requests is kept by the workers. A pool of
            # connections is gone through for each request: many small ones cost less than one large one.
            lanes, trust = -(-self.concurrency // LANE), create_ssl_context()
            unlimited = Limits(max_connections=None, max_keepalive_connections=None)
            clients = [
                AsyncClient(timeout=Timeout(None), limits=unlimited, follow_redirects=True, verify=trust)
                for _ in range(lanes)
            ]
            for client in clients:
                stack.callback(self._leave, client)
            self._lanes: Iterator[AsyncClient] = cycle(clients)
            self._batches = Batches(
                clients[0], self.base_url, self.model, self._journal, self._spend, self._pace.keys,
                self._refused, self._hide, self.timeout, self.tries, self.first_wait,
            )  # fmt: skip
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        opened, self._open = self._open, None
        self._spend.tell(self._asked, None, now=True)
        opened.close()

    def _leave(self, client: AsyncClient) -> None:
        self._runner.run(client.aclose())

    def run(self, rows: Sequence[Row], sampling: Sampling, watch: Watch | None = None) -> list[list[Sample] | Drop]:
        """For each row its samples, in the rows' order, or a Drop. Raises DataError for what cannot pass.

        `watch` runs beside the requests; when it raises (the server has died), so does this.
        """
        requests = [Request(row["prompt"], prompt_seed(sampling.seed, str(row["id"]))) for row in rows]
        return [
            as_drop(reply, str(row["id"])) if isinstance(reply, Failed) else list(reply)
            for row, reply in zip(rows, self.ask(requests, sampling, watch), strict=True)
        ]

    def ask(self, requests: Sequence[Request], sampling: Sampling, watch: Watch | None = None) -> list[Reply]:
        """Replies in the order of the requests, whatever the order of arrival. Raises DataError."""
        if self._open is None:
            with self:
                return self.ask(requests, sampling, watch)
        watch = watch or self.watch
        if not self._asked:
            self._project(requests, sampling)
        replies = self._runner.run(self._ask(requests, sampling, watch))
        self._asked += len(requests)
        return replies

    def _project(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """Say what these and all others will cost, where that is known."""
        if self.price is not None:
            calls = [call(self.model, request, sampling, extra=self.extra) for request in requests]
            self._spend.project([one for one in calls if self._journal.get(one.name) is None], self.rows)

    async def _ask(self, requests: Sequence[Request], sampling: Sampling, watch: Watch | None) -> list[Reply]:
        if self.batch:
            return await self._ask_in_batches(requests, sampling)
        replies: dict[int, Reply] = {}
        todo = iter(enumerate(requests))

        async def work() -> None:
            for place, request in todo:  # shared: each worker takes the next that nobody has taken
                reply = replies[place] = await self._complete(request, sampling)
                self._look(reply)
                self._spend.tell(self._asked + len(replies), self.rows)

        workers = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(requests)))]
        await _all_or_first_error(workers, watch)
        return [replies[place] for place in range(len(requests))]

    def _look(self, reply: Reply) -> None:
        """Raise LimitPassed when the endpoint seems to be gone, rather than try all the rest in vain."""
        gone = isinstance(reply, Failed) and reply.failure in PASSING
        self._missed = self._missed + 1 if gone else 0
        if self.give_up and self._missed >= self.give_up and isinstance(reply, Failed):
            raise LimitPassed(
                f"{self.base_url}: the last {self._missed:,} requests all failed after {self.tries} tries each; "
                f"the last: {reply.failure} ({reply.detail}); all answers are kept: "
                "run the same command again when it is back"
            )

    async def _ask_in_batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """`_ask` by the Batch API; an endpoint that gives fewer samples than asked for gets another batch."""
        replies: list[Reply | None] = [None] * len(requests)
        samples: list[tuple[Sample, ...]] = [()] * len(requests)
        while todo := [place for place, reply in enumerate(replies) if reply is None]:
            calls = {at: call(self.model, requests[at], sampling, len(samples[at]), self.extra) for at in todo}
            names = {at: one.name for at, one in calls.items()}
            found = await self._batches.answer({names[at]: calls[at] for at in todo})
            for at in todo:
                reply = found[names[at]]
                if isinstance(reply, Failed):
                    replies[at] = reply
                    continue
                samples[at] += reply
                if len(samples[at]) >= sampling.n:
                    replies[at] = samples[at][: sampling.n]
        return [reply for reply in replies if reply is not None]

    async def _complete(self, request: Request, sampling: Sampling) -> Reply:
        """All n samples of one request; an endpoint that gives fewer is asked again for the rest."""
        samples: tuple[Sample, ...] = ()
        while len(samples) < sampling.n:
            reply = await self._once(call(self.model, request, sampling, len(samples), self.extra))
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
        going = self._asking[name] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._persist(one, name)
            going.set_result(reply)
            return reply
        finally:
            if not going.done():
                going.set_result(None)  # it came to nothing: others ask for themselves
            del self._asking[name]

    async def _persist(self, one: Call, name: str) -> Reply:
        wait, failures, refusals = self.first_wait, 0, 0
        patience = RATE_PATIENCE * self.tries * len(self._pace.keys)
        while True:
            reply = await self._attempt(one, name)
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

    async def _attempt(self, one: Call, name: str) -> Reply:
        """Send a call once, when limits and cap allow it, and write down what became of it."""
        from httpx2 import ConnectError, HTTPError

        most = self._spend.most(one)
        async with self._spend.reserved(most) as written:
            try:
                grant = await self._pace.acquire(one.tokens)
            except DataError as error:
                raise DataError(f"{self.base_url}: {error}") from None
            number = self._journal.number()
            sent = {"sent": number, "at": round(time.time(), 3), "key": grant.key.name, "most": one.tokens}
            self._journal.note(sent if most is None else {**sent, "usd": most})
            written()
            headers = {"authorization": f"Bearer {grant.key.secret}", "content-type": "application/json"}
            try:
                async with asyncio.timeout(self.timeout):  # wait_for swallows a cancellation that meets an error
                    answer = await next(self._lanes).post(
                        f"{self.base_url}/chat/completions", content=one.body, headers=headers
                    )
            except TimeoutError:
                return Failed("timeout", f"no answer within {self.timeout:g} s")
            except HTTPError as error:
                if isinstance(error, ConnectError):
                    self._journal.note({"free": number})
                return Failed("connection", type(error.__cause__ or error).__name__)
            if not answer.is_success:
                self._pace.settle(grant)
                self._journal.note({"free": number})
                failed = self._refused(answer, grant.key)
                if failed.failure == "rate_limited":
                    self._pace.cool(grant, failed.wait)
                return failed
            reply, used = read_answer(answer.content, self.model)
            self._pace.settle(grant, used.prompt + used.completion if used else None)
            self._pace.served(grant)
            end: dict[str, Any] = {"used": [used.prompt, used.completion]} if used else {}
            if (paid := self._spend.paid(used, most)) is not None:
                end["usd"] = paid
            if is_final(reply):
                await self._journal.keep({"got": number, "name": name, "reply": reply_json(reply), **end})
            elif used:
                self._journal.note({"paid": number, **end})
            return reply

    def _refused(self, answer: Response, key: Key) -> Failed:
        """What an error status means for the request, its key and the run. Raises DataError."""
        status = answer.status_code
        failed, code = refusal(status, answer.headers, answer.content)
        detail = self._hide(failed.detail)
        if refuses_key(status, code):
            self._pace.refuse(key)
            if not self._pace.keys:
                # The server's own words are left out: they may repeat part of the key.
                raise DataError(f"{self.base_url}: the API key was refused ({status}); check api_key_env")
            return Failed("rate_limited", "another key is tried")
        if status == 404:
            raise DataError(f"{self.base_url}: no model {self.model!r} there, or no such path ({detail})")
        return Failed(failed.failure, detail, failed.wait)

    def _hide(self, text: str) -> str:
        """Text from the server, which may repeat a key."""
        for secret in self.api_keys:
            text = text.replace(secret, "***")
        return text


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
