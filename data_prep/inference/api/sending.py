"""Sends one call to an endpoint until it has an outcome: rate limits, spend cap, retries, journal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from data_prep.errors import DataError
from data_prep.inference.api import replies
from data_prep.inference.api.journal import Journal, reply_json
from data_prep.inference.api.pace import FIRST_WAIT_S, LONGEST_WAIT_S, Grant, Key, RateLimiter, backed_off
from data_prep.inference.api.providers import Form
from data_prep.inference.api.replies import PASSING, Failed, Reply
from data_prep.inference.api.requests import Call
from data_prep.inference.api.spend import Spend

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response
    from openai import APIStatusError, AsyncOpenAI

REST_S = 10.0  # pause of a replica after a failed connection
RATE_PATIENCE = 2  # factor on `tries` for 429: per-minute limits take minutes to clear


@dataclass
class Settings:
    """An endpoint, and how calls are sent to it."""

    base_url: str | Sequence[str]  # several: replicas, of which each request goes to the least busy
    model: str
    api_keys: Sequence[str] = ()
    timeout: float = 600.0  # seconds for a whole attempt, however slowly data arrives
    tries: int = 6
    form: Form = field(default_factory=Form)
    exact_model: bool = False  # fail if a reply names another model
    first_wait: float = FIRST_WAIT_S
    name: str = "endpoint"  # of the step, for messages


@dataclass
class Sender:
    """Sends calls to one endpoint, or to the least busy of its replicas."""

    settings: Settings
    urls: Sequence[str]
    http: AsyncClient
    pace: RateLimiter
    spend: Spend
    journal: Journal
    accepted: bool = False  # whether a reply has shown that the request format is accepted
    _warned: set[str] = field(default_factory=set)
    _busy: Counter[str] = field(default_factory=Counter)
    _paused_until: dict[str, float] = field(default_factory=dict)  # by url, on the monotonic clock
    _sdks: dict[tuple[str, str], AsyncOpenAI] = field(default_factory=dict)

    def _sdk(self, key: Key, url: str) -> AsyncOpenAI:
        """The SDK's client for a key, with its own retries and timeouts disabled."""
        from openai import AsyncOpenAI

        if (url, key.name) not in self._sdks:
            headers = {name: value.replace("{key}", key.secret) for name, value in self.settings.form.headers.items()}
            address, _, query = url.partition("?")
            self._sdks[url, key.name] = AsyncOpenAI(
                api_key=key.secret, base_url=address, http_client=self.http, max_retries=0, timeout=None,
                default_headers=headers, default_query=dict(parse_qsl(query)),
            )  # fmt: skip
        return self._sdks[url, key.name]

    async def send(self, call: Call) -> Reply:
        """The reply to a call; transient failures are retried. Raises DataError, and LimitExceeded at the spend cap."""
        wait, failures, refusals = self.settings.first_wait, 0, 0
        patience = RATE_PATIENCE * self.settings.tries * len(self.pace.keys)
        while True:
            reply = await self._attempt(call)
            if not isinstance(reply, Failed) or reply.failure not in PASSING:
                return reply
            if reply.failure == "rate_limited":  # the key is paused; another may be free
                refusals += 1
                if refusals >= patience:
                    return reply
                continue
            failures += 1
            if failures == self.settings.tries:
                return reply
            await asyncio.sleep(backed_off(wait, reply.wait))
            wait = min(2 * wait, LONGEST_WAIT_S)

    async def _attempt(self, call: Call) -> Reply:
        """Send a call once, when limits and cap allow it, and record its outcome."""
        from openai import APIConnectionError, APIStatusError

        most = self.spend.most(call)
        try:
            grant = await self.pace.acquire(call.tokens)
        except DataError as error:
            raise DataError(f"{self.urls[0]}: {error}") from None
        async with self.spend.room_for(most):
            number = self.journal.number()
            sent = {"sent": number, "at": round(time.time(), 3), "key": grant.key.name, "most": call.tokens}
            self.journal.note(sent if most is None else {**sent, "usd": most})
            try:
                answer = await self._post(call, grant.key)
            except TimeoutError:
                return Failed("timeout", f"no reply within {self.settings.timeout:g} s")
            except APIStatusError as error:
                self.pace.settle(grant)
                self.journal.note({"free": number})
                return self._not_answered(error, grant)
            except APIConnectionError as error:
                cause = error.__cause__ or error
                if type(cause).__name__ == "ConnectError":  # it was not sent
                    self.journal.note({"free": number})
                return Failed("connection", self._hide(f"{type(cause).__name__} {cause}".strip()))
            read = replies.read_answer(answer.content)
            self._check_model(read.model)
            used = read.usage
            self.pace.settle(grant, sum(used) if used else None)
            self.pace.served(grant)
            reply = read.reply
            if isinstance(reply, Failed):
                reply = Failed(reply.failure, self._hide(reply.detail))
                if reply.failure == "rate_limited":
                    self.pace.cool(grant, None)
            end: dict[str, Any] = {"used": list(used)} if used else {}
            if (paid := self.spend.paid(used, most)) is not None:
                end["usd"] = paid
            if replies.is_final(reply):
                await self.journal.keep({"got": number, "name": call.name, "reply": reply_json(reply), **end})
            elif used:
                self.journal.note({"paid": number, **end})
            return reply

    async def _post(self, call: Call, key: Key) -> Response:
        """The response of the least busy replica. Raises TimeoutError and the SDK's errors.

        A replica whose connection failed is skipped for REST_S while there is another.
        """
        from httpx2 import Response
        from openai import APIConnectionError

        now = time.monotonic()
        ready = [url for url in self.urls if self._paused_until.get(url, now) <= now] or self.urls
        url = min(ready, key=self._busy.__getitem__)
        self._busy[url] += 1
        try:
            async with asyncio.timeout(self.settings.timeout):  # wait_for swallows a cancellation that meets an error
                return await self._sdk(key, url).post("/chat/completions", cast_to=Response, content=call.body)
        except APIConnectionError:
            self._paused_until[url] = time.monotonic() + REST_S
            raise
        finally:
            self._busy[url] -= 1

    def _not_answered(self, error: APIStatusError, grant: Grant) -> Failed:
        """The failure for an error status. Raises DataError if all other requests would fail as well."""
        body, key = error.body if error.body is not None else error.response.text, grant.key
        refusal = replies.read_refusal(error.status_code, body)
        failed = refusal.failed(replies.retry_after(error.response.headers))
        failed = replace(failed, detail=self._hide(failed.detail))
        if refusal.is_about_the_key or (failed.failure == "forbidden" and not key.works):
            self.pace.refuse(key, f"{refusal.status} {self._hide(refusal.words)}")
            failed = Failed("rate_limited", "another key is tried")
        elif refusal.status == 404:
            raise DataError(f"{self.urls[0]}: unknown model {self.settings.model!r}, or wrong path ({failed.detail})")
        if failed.failure == "rate_limited":
            self.pace.cool(grant, failed.wait)
        elif failed.failure == "bad_request" and not self.accepted and refusal.is_about_the_form:
            raise self.form_refused(failed.detail)
        return failed

    def form_refused(self, words: str) -> DataError:
        """The error for a request format that is always rejected."""
        return DataError(
            f"{self.urls[0]} rejects the requests: {words}; no more were sent: check model, or change the "
            "parameters by provider, rename, omit or extra_body"
        )

    def _check_model(self, answered: str | None) -> None:
        """Warn once about each other model that replies. Raises DataError if that is not allowed."""
        model = self.settings.model
        if not answered or replies.is_same_model(model, answered):
            return
        if self.settings.exact_model:
            raise DataError(f"{self.urls[0]}: {answered[:100]!r} replied instead of {model!r} (model_name: exact)")
        self.warn(f"{answered[:100]!r} replies instead of {model!r}")

    def warn(self, text: str) -> None:
        """Print a warning, once."""
        if text not in self._warned:
            self._warned.add(text)
            print(f"{self.settings.name}: {self.urls[0]}: {text}", file=sys.stderr)

    def _hide(self, text: str) -> str:
        """The server's text without keys, which it may repeat, also partly masked by asterisks."""
        for secret in self.settings.api_keys:
            text = text.replace(secret, "***")
        return " ".join("***" if "**" in word else word for word in text.split(" "))
