"""State that a forked child must not share with its parent: locks held by other threads, connections, pools."""

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def lock() -> threading.Lock:
    """A lock that is free in a forked child. For module level only: it is never garbage-collected."""
    new = threading.Lock()
    os.register_at_fork(after_in_child=new._at_fork_reinit)  # type: ignore[attr-defined]  # as in the standard library
    return new


def once_per_process(make: Callable[..., T]) -> Callable[..., T]:
    """Caches `make` by its hashable arguments. One thread at a time calls it; the cache of a forked child is empty."""
    guard, cached = lock(), functools.lru_cache(maxsize=64)(make)
    os.register_at_fork(after_in_child=cached.cache_clear)

    @functools.wraps(make)
    def get(*args: Any) -> T:
        with guard:
            return cached(*args)

    get.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
    return get
