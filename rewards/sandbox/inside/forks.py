"""What the standard library does in the child of every fork, cut down to what jobs and leaves need.

Each page that a child writes to for the first time costs it a fault. `threading` cleans up after other threads and
`random` seeds itself in Python, together a sixth of a small test's whole CPU time; zygotes and jobs have no other
threads, and the seeding can do without its Python part.
"""

from __future__ import annotations

import _random
import os
from collections.abc import Callable
from typing import Any

_register = os.register_at_fork
_held: list[dict[str, Callable[[], Any]]] = []


def hold() -> None:
    """Keep what modules register from now on, instead of registering it. To be called before they are imported."""
    os.register_at_fork = lambda **hooks: _held.append(hooks)


def release(leaves_fork: bool) -> None:
    """Register what is needed. leaves_fork: programs may start threads and then fork, so nothing may be missing."""
    import random
    import threading

    os.register_at_fork = _register
    shared = random._inst  # behind random.random() and the like; no two leaves may draw the same numbers
    cheaper = {
        shared.seed: _random.Random.seed.__get__(shared),  # the same without Python's part
        threading._after_fork: None,  # type: ignore[attr-defined]
    }
    for hooks in _held:
        hook = hooks.get("after_in_child")
        if leaves_fork or hook not in cheaper:
            _register(**hooks)
        elif (instead := cheaper[hook]) is not None:
            _register(after_in_child=instead)
    _held.clear()
