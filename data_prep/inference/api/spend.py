"""What requests cost, before, while and after they run, and a cap that none of them passes.

A request is sent only when the cap has room for the most that it may cost, beside all that was paid, all that may
have been (an answer that never arrived) and the most that those on their way may cost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from data_prep.core.totals import Totals
from data_prep.errors import LimitPassed
from data_prep.inference.api.prices import Price
from data_prep.inference.api.requests import Call

SAY_EVERY_S = 30.0
ROUNDING = 1e-12  # dollars


class Spend:
    """Dollars of one step: paid, on their way, and the cap. Without a price nothing is known and nothing is said."""

    def __init__(self, totals: Totals, price: Price | None, cap: float | None, step: str = "") -> None:
        self.price, self.cap = price, cap
        self._totals, self._step = totals, step
        self._on_their_way = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._said, self._before = time.monotonic(), totals.usd

    def most(self, call: Call) -> float | None:
        """Dollars that a call may cost, None where its price is not known."""
        return self.price.usd(call.prompt_tokens, call.completion_tokens) if self.price else None

    def paid(self, used: tuple[int, int] | None, most: float | None) -> float | None:
        """Dollars of an answer: those of its usage, or the most where it does not say."""
        return self.price.usd(*used) if self.price and used else most

    @asynccontextmanager
    async def room_for(self, usd: float | None) -> AsyncIterator[None]:
        """Wait until so many dollars may be spent: the block begins with the record of it. Raises LimitPassed."""
        async with self._turn:
            while self.cap is not None and self._totals.at_most + (usd or 0.0) > self.cap + ROUNDING:
                if not self._on_their_way:
                    raise self._reached(self.cap, usd or 0.0)
                self._freed.clear()
                await self._freed.wait()
            self._on_their_way += 1
        try:
            yield  # nothing else runs between the look at the room and the record, which takes it
        finally:
            self._on_their_way -= 1
            self._freed.set()

    def _reached(self, cap: float, next_usd: float) -> LimitPassed:
        totals, lost = self._totals, ""
        if totals.open:
            lost = f", of it up to {dollars(totals.lost_usd)} for answers that never arrived"
        return LimitPassed(
            f"spend_cap {dollars(cap)} is reached: {totals.answers:,} answers cost at most {dollars(totals.at_most)}"
            f"{lost}, and the next may cost {dollars(next_usd)}; all answers are kept: "
            "raise spend_cap and run the same command again"
        )

    def project(self, calls: Sequence[Call], rows: int | None) -> None:
        """Print what calls will cost at most, before the first of them goes out; `rows` is how many the step gets."""
        if self.price is None or not calls:
            return
        prompts = self.price.usd(sum(call.prompt_tokens for call in calls), 0)
        most = sum(self.most(call) or 0.0 for call in calls)
        total = ""
        if rows and rows > len(calls):
            total = f"; at most {dollars(most * rows / len(calls))} for {rows:,} rows, asked once each"
        self._say(
            f"{len(calls):,} requests will cost at most {dollars(most)} (prompts {dollars(prompts)} of it){total}"
            + (f"; {dollars(self._totals.at_most)} may have been paid before" if self._totals.answers else "")
        )

    def report(self, asked: int, rows: int | None, now: bool = False) -> None:
        """Print every now and then what was paid, and what it comes to for all rows when `asked` are done."""
        late = time.monotonic() - self._said >= SAY_EVERY_S
        if self.price is None and late:
            self._say(f"{asked:,} requests of this run are done")
        elif self.price is not None and (late or now):
            paid, totals, projection = self._totals.usd - self._before, self._totals, ""
            if rows and asked and rows > asked:
                projection = f", about {dollars(paid * rows / asked)} for {rows:,} rows"
            self._say(
                f"{dollars(totals.usd)} for {totals.answers:,} answers ({totals.prompt_tokens:,} + "
                f"{totals.completion_tokens:,} tokens){projection}"
            )

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        cap = f"; spend_cap {dollars(self.cap)}" if self.cap is not None else ""
        print(f"{self._step}: {text}{cap}", file=sys.stderr)


def dollars(usd: float) -> str:
    """`$1.23`, with as many digits as a small sum needs."""
    return f"${usd:,.2f}" if usd >= 1 or usd <= 0 else f"${usd:.3g}" if usd >= 0.0001 else f"${usd:.1e}"
