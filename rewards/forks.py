"""State that a forked child must not share with its parent: locks that another thread held, connections, pools."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def lock() -> threading.Lock:
    """A lock of the process (never of an object: it is kept for ever) that is free in a forked child."""
    made = threading.Lock()
    os.register_at_fork(after_in_child=made._at_fork_reinit)  # type: ignore[attr-defined]  # as in the standard library
    return made


def once_per_process(make: Callable[..., T]) -> Callable[..., T]:
    """`make`, called once for each list of hashable arguments, by one thread at a time, and again in a forked child."""
    guard, made = lock(), functools.lru_cache(maxsize=64)(make)
    os.register_at_fork(after_in_child=made.cache_clear)

    @functools.wraps(make)
    def get(*args: Any) -> T:
        with guard:
            return made(*args)

    get.cache_clear = made.cache_clear  # type: ignore[attr-defined]
    return get
