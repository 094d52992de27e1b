"""What the standard library does in the child of every fork, cut down to what jobs and test processes need.

Each page that a child writes to for the first time costs it a fault. `threading` cleans up after other threads and
`random` seeds itself in Python, together up to a tenth of a small test's whole CPU time; zygotes and jobs have no other
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


def release(programs_fork: bool) -> None:
    """Register what is needed. programs_fork: programs may start threads and then fork, so nothing may be missing."""
    import random
    import threading

    os.register_at_fork = _register
    shared = random._inst  # behind random.random() and the like; no two test processes may draw the same numbers
    cheaper = {
        shared.seed: _random.Random.seed.__get__(shared),  # the same without Python's part
        threading._after_fork: None,  # type: ignore[attr-defined]
    }
    for hooks in _held:
        hook = hooks.get("after_in_child")
        if programs_fork or hook not in cheaper:
            _register(**hooks)
        elif (instead := cheaper[hook]) is not None:
            _register(after_in_child=instead)
    _held.clear()
