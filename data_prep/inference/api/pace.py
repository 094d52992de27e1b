"""Per-key rate limiting: picks the key for each request and waits until its limits per minute have room.

A request counts against its key's limits for a minute after it reached the server. The client does not know that time,
only that it is between sending and the reply. So the minute starts with the reply, or `ARRIVAL_S` after sending
if the reply takes longer.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import math
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from data_prep.errors import DataError

WINDOW_S = 60.0  # limits are per minute
ARRIVAL_S = 5.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0

_numbers = itertools.count()


@dataclass(eq=False)
class Grant:
    """A request's share of its key's limits."""

    key: Key
    sent: float
    tokens: int
    until: float  # it counts until this time
    number: int = -1  # number of its latest entry in the window


@dataclass(eq=False)
class Key:
    """One key and its use within the last minute."""

    secret: str
    name: str  # identifies the key where the key itself must not appear
    used: float = -1.0  # time of last use
    cooling: float = 0.0  # not used before this time
    cooled: float = 0.0  # time of the last rate limit
    rate_limits: int = 0  # rate limits since the last reply
    works: bool = False  # a request with it succeeded
    requests: int = 0
    tokens: int = 0
    window: list[tuple[float, int, Grant]] = field(
        default_factory=list
    )  # heap of end times; only a grant's last entry is valid

    def enter(self, grant: Grant) -> None:
        """Count a request until its end time."""
        self.requests += 1
        self.tokens += grant.tokens
        grant.number = next(_numbers)
        heapq.heappush(self.window, (grant.until, grant.number, grant))

    def leave(self, now: float) -> None:
        """Remove requests whose minute is over."""
        while self.window and self.window[0][0] <= now:
            _, number, grant = heapq.heappop(self.window)
            if number == grant.number:
                self.requests -= 1
                self.tokens -= grant.tokens


class RateLimiter:
    """The keys of a client and their limits per key and minute."""

    def __init__(
        self,
        secrets: Sequence[str],
        requests: int | None = None,
        tokens: int | None = None,
        first_wait: float = FIRST_WAIT_S,
        window: float = WINDOW_S,
    ) -> None:
        self.keys = [Key(secret, key_name(secret)) for secret in secrets]
        self._requests, self._tokens = requests or math.inf, tokens or math.inf
        self._limited = bool(requests or tokens)
        self._first_wait, self._window = first_wait, window
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._why = ""

    async def acquire(self, tokens: int) -> Grant:
        """Wait for a key with room for a request of at most `tokens` tokens. Raises DataError if no key is left."""
        tokens = int(min(tokens, self._tokens))  # a request above the limit is sent alone: the server decides
        async with self._turn:  # first come, first served: small requests must not starve a large one
            while self.keys:
                now = time.monotonic()
                ready = {key: self._ready(key, tokens, now) for key in self.keys}
                key = min(self.keys, key=lambda key: (ready[key], key.used))
                if ready[key] <= now:
                    key.used = now
                    grant = Grant(key, now, tokens, now + ARRIVAL_S + self._window)
                    if self._limited:
                        key.enter(grant)
                    return grant
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(ready[key] - now):
                        await self._changed.wait()
            raise DataError(f"the API key was rejected{self._why}; check api_key_env")

    def _ready(self, key: Key, tokens: int, now: float) -> float:
        """When the key can next be tried for a request of `tokens` tokens; not after `now` if it has room."""
        if key.cooling > now:
            return key.cooling
        key.leave(now)
        full = key.requests >= self._requests or key.tokens + tokens > self._tokens
        return key.window[0][0] if full and key.window else 0.0

    def settle(self, grant: Grant, tokens: int | None = None) -> None:
        """A reply or an error arrived: the minute starts now at the latest, with `tokens` as the actual use."""
        key, now = grant.key, time.monotonic()
        if self._limited and grant.until > now:  # still counting
            key.requests -= 1
            key.tokens -= grant.tokens
            grant.until = min(grant.until, now + self._window)
            grant.tokens = grant.tokens if tokens is None else tokens
            key.enter(grant)
        self._changed.set()

    def served(self, grant: Grant) -> None:
        """Reset the key's back-off after a reply."""
        grant.key.works = True
        if grant.sent >= grant.key.cooled:
            grant.key.rate_limits = 0

    def cool(self, grant: Grant, wait: float | None) -> None:
        """The key was rate-limited: pause it for `wait` as the server asked, or with exponential back-off."""
        key, now = grant.key, time.monotonic()
        if grant.sent >= key.cooled:  # requests sent before the last rate limit do not count again
            key.rate_limits, key.cooled = key.rate_limits + 1, now
        rest = backed_off(min(self._first_wait * 2 ** (key.rate_limits - 1), LONGEST_WAIT_S), wait)
        key.cooling = max(key.cooling, now + rest)

    def refuse(self, key: Key, why: str = "") -> None:
        """Stop using a key. why: the provider's message."""
        self._why = f" ({why})" if why else ""
        if key in self.keys:
            self.keys.remove(key)
            self._changed.set()

    def recall(self, name: str, ago: float, tokens: int) -> None:
        """Count a request that an earlier process sent with a key `ago` seconds ago."""
        sent = time.monotonic() - ago
        for key in self.keys if self._limited else ():
            if key.name == name:
                key.enter(Grant(key, sent, tokens, sent + ARRIVAL_S + self._window))


def backed_off(longest: float, asked: float | None) -> float:
    """Seconds to wait: between half of `longest` and `longest`; if the server asked for a time, that plus jitter.

    Random, so that clients that failed together do not retry together.
    """
    spread = random.uniform(longest / 2, longest)  # noqa: S311 - no secret depends on it
    return spread if asked is None else asked + spread - longest / 2


def key_name(secret: str) -> str:
    """Eight hex digits that identify a key without revealing it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]
