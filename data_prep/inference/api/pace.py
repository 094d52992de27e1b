"""Per-key rate limiting: picks the key for each request and waits until its limits per minute have room.

A request counts against its key's limits for a minute after it reached the server. When that was is not known here:
not before it was sent, nor after its answer came. So it counts from the answer, or from `ARRIVAL_S` after sending
where the answer takes longer than that.
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
    """A request's place in its key's last minute."""

    key: Key
    sent: float
    tokens: int
    until: float  # counts until then
    number: int = -1  # of its latest entry in the window


@dataclass(eq=False)
class Key:
    """One key, and what it has been used for in the last minute."""

    secret: str
    name: str  # tells keys apart where the key itself must not stand
    used: float = -1.0  # when it was used last
    cooling: float = 0.0  # not to be used before
    cooled: float = 0.0  # when it was last told to cool down
    strikes: int = 0  # refusals for its rate since its last answer
    works: bool = False  # a request with it was answered
    requests: int = 0
    tokens: int = 0
    window: list[tuple[float, int, Grant]] = field(
        default_factory=list
    )  # a heap of ends; all but a grant's last are stale

    def enter(self, grant: Grant) -> None:
        """Count a request until its end."""
        self.requests += 1
        self.tokens += grant.tokens
        grant.number = next(_numbers)
        heapq.heappush(self.window, (grant.until, grant.number, grant))

    def leave(self, now: float) -> None:
        """Forget what is over a minute old."""
        while self.window and self.window[0][0] <= now:
            _, number, grant = heapq.heappop(self.window)
            if number == grant.number:
                self.requests -= 1
                self.tokens -= grant.tokens


class Pace:
    """The keys of a client, and their limits: of each key, per minute."""

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
        """A key that may be used for a request of at most so many tokens now. Raises DataError when no key is left."""
        tokens = int(min(tokens, self._tokens))  # what no limit admits goes alone: it is for the server to refuse
        async with self._turn:  # first come, first served: small requests do not overtake a large one for ever
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
            raise DataError(f"the API key was refused{self._why}; check api_key_env")

    def _ready(self, key: Key, tokens: int, now: float) -> float:
        """When the key may next be tried for a request of so many tokens: now or before it, if it may go."""
        if key.cooling > now:
            return key.cooling
        key.leave(now)
        full = key.requests >= self._requests or key.tokens + tokens > self._tokens
        return key.window[0][0] if full and key.window else 0.0

    def settle(self, grant: Grant, tokens: int | None = None) -> None:
        """An answer came, or an error: the request has reached the server by now, and took so many tokens."""
        key, now = grant.key, time.monotonic()
        if self._limited and grant.until > now:  # it still counts
            key.requests -= 1
            key.tokens -= grant.tokens
            grant.until = min(grant.until, now + self._window)
            grant.tokens = grant.tokens if tokens is None else tokens
            key.enter(grant)
        self._changed.set()

    def served(self, grant: Grant) -> None:
        """Reset the key's back-off after an answer."""
        grant.key.works = True
        if grant.sent >= grant.key.cooled:
            grant.key.strikes = 0

    def cool(self, grant: Grant, wait: float | None) -> None:
        """The key was refused for its rate: it rests as long as the server asks, or longer each time."""
        key, now = grant.key, time.monotonic()
        if grant.sent >= key.cooled:  # what was sent before says nothing new
            key.strikes, key.cooled = key.strikes + 1, now
        rest = backed_off(min(self._first_wait * 2 ** (key.strikes - 1), LONGEST_WAIT_S), wait)
        key.cooling = max(key.cooling, now + rest)

    def refuse(self, key: Key, why: str = "") -> None:
        """The key is not used again. `why`: the provider's words."""
        self._why = f" ({why})" if why else ""
        if key in self.keys:
            self.keys.remove(key)
            self._changed.set()

    def recall(self, name: str, ago: float, tokens: int) -> None:
        """Count what an earlier process sent with a key, so many seconds ago."""
        sent = time.monotonic() - ago
        for key in self.keys if self._limited else ():
            if key.name == name:
                key.enter(Grant(key, sent, tokens, sent + ARRIVAL_S + self._window))


def backed_off(longest: float, asked: float | None) -> float:
    """Seconds to wait: half of `longest` to all of it, beside at least what the server asked for.

    At random, so that clients that failed together do not come back together.
    """
    spread = random.uniform(longest / 2, longest)  # noqa: S311 - no secret depends on it
    return spread if asked is None else asked + spread - longest / 2


def key_name(secret: str) -> str:
    """Eight hex digits that tell a key from others and say nothing of it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]
