"""Cost of requests, projected and actual, and the spend cap.

A request is sent only if the cap has room for its maximum cost in addition to what was paid, what may have been
billed (a reply that never arrived) and the maximum cost of requests in flight.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from data_prep.core.totals import Totals
from data_prep.errors import LimitExceeded
from data_prep.inference.api.prices import Price
from data_prep.inference.api.requests import Call

SAY_EVERY_S = 30.0
ROUNDING = 1e-12  # dollars


class Spend:
    """Dollars of one step: paid, in flight, and the cap. Without a price no cost is reported."""

    def __init__(self, totals: Totals, price: Price | None, cap: float | None, step: str = "") -> None:
        self.price, self.cap = price, cap
        self._totals, self._step = totals, step
        self._in_flight = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._said, self._before = time.monotonic(), totals.usd

    def most(self, call: Call) -> float | None:
        """Maximum cost of a call in dollars, None without a price."""
        return self.price.usd(call.prompt_tokens, call.completion_tokens) if self.price else None

    def paid(self, used: tuple[int, int] | None, most: float | None) -> float | None:
        """Cost of a reply in dollars: from its usage, or the maximum if it has none."""
        return self.price.usd(*used) if self.price and used else most

    @asynccontextmanager
    async def room_for(self, usd: float | None) -> AsyncIterator[None]:
        """Wait until `usd` dollars may be spent; the block starts by recording them. Raises LimitExceeded."""
        async with self._turn:
            while self.cap is not None and self._totals.at_most + (usd or 0.0) > self.cap + ROUNDING:
                if not self._in_flight:
                    raise self._reached(self.cap, usd or 0.0)
                self._freed.clear()
                await self._freed.wait()
            self._in_flight += 1
        try:
            yield  # no other task runs between this check and the record
        finally:
            self._in_flight -= 1
            self._freed.set()

    def _reached(self, cap: float, next_usd: float) -> LimitExceeded:
        totals, lost = self._totals, ""
        if totals.open:
            lost = f" (up to {dollars(totals.lost_usd)} of it for replies that never arrived)"
        return LimitExceeded(
            f"spend_cap {dollars(cap)} is reached: {totals.answers:,} replies cost at most {dollars(totals.at_most)}"
            f"{lost}, and the next may cost {dollars(next_usd)}; all replies are kept: "
            "raise spend_cap and rerun the same command"
        )

    def project(self, calls: Sequence[Call], rows: int | None) -> None:
        """Print the maximum cost of the calls before the first is sent. rows: total rows of the step."""
        if self.price is None or not calls:
            return
        prompts = self.price.usd(sum(call.prompt_tokens for call in calls), 0)
        most = sum(self.most(call) or 0.0 for call in calls)
        total = ""
        if rows and rows > len(calls):
            total = f"; at most {dollars(most * rows / len(calls))} for {rows:,} rows with one request each"
        self._say(
            f"{len(calls):,} requests will cost at most {dollars(most)} ({dollars(prompts)} of it for prompts){total}"
            + (f"; {dollars(self._totals.at_most)} may have been paid before" if self._totals.answers else "")
        )

    def report(self, asked: int, rows: int | None, now: bool = False) -> None:
        """Print the cost so far and a projection for all rows, at most every SAY_EVERY_S. asked: finished requests."""
        late = time.monotonic() - self._said >= SAY_EVERY_S
        if self.price is None and late:
            self._say(f"{asked:,} requests of this run are done")
        elif self.price is not None and (late or now):
            paid, totals, projection = self._totals.usd - self._before, self._totals, ""
            if rows and asked and rows > asked:
                projection = f", about {dollars(paid * rows / asked)} for {rows:,} rows"
            self._say(
                f"{dollars(totals.usd)} for {totals.answers:,} replies ({totals.prompt_tokens:,} + "
                f"{totals.completion_tokens:,} tokens){projection}"
            )

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        cap = f"; spend_cap {dollars(self.cap)}" if self.cap is not None else ""
        print(f"{self._step}: {text}{cap}", file=sys.stderr)


def dollars(usd: float) -> str:
    """`$1.23`, with more digits for small sums."""
    return f"${usd:,.2f}" if usd >= 1 or usd <= 0 else f"${usd:.3g}" if usd >= 0.0001 else f"${usd:.1e}"
