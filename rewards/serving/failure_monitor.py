"""Outcomes as they come in, over a window: a run or server stops when too many of them are failures."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable

from rewards.base import FailureLimit, Score


class Watch:
    """The last `window` outcomes. A window, so that a long good start does not hide a late failure."""

    def __init__(self, limit: FailureLimit, window: int = 1000) -> None:
        self._limit, self._window = limit, window
        self._lock = threading.Lock()
        self._last: deque[str] = deque()
        self._recent: Counter[str] = Counter()

    def saw(self, scores: Iterable[Score]) -> None:
        """Raise TooManyFailures if the share of errors or timeouts is above its limit now."""
        with self._lock:
            for score in scores:
                self._last.append(score.outcome)
                self._recent[score.outcome] += 1
                if len(self._last) > self._window:
                    self._recent[self._last.popleft()] -= 1
            self._limit.check(self._recent)
