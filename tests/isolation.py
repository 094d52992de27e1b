"""The sandbox's isolation levels in tests. What the kernel offers is asked without the sandbox's own code: a level that
it offers and the sandbox does not reach fails the tests, and is no reason to skip them.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from functools import lru_cache

import pytest

from rewards.sandbox import Sandbox

LEVELS = ("namespaces", "landlock")
LANDLOCK_CREATE_RULESET = 444  # the system call, on every architecture


@lru_cache
def is_offered(level: str) -> bool:
    """Whether this kernel lets this user make namespaces (for bubblewrap), or knows Landlock."""
    if level == "namespaces":
        command = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
        return subprocess.run(command, capture_output=True).returncode == 0
    return bool(ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, 1) > 0)  # 1: ask for the version


def require(level: str) -> None:
    """Skip the test on a kernel that does not offer a level."""
    if not is_offered(level):
        pytest.skip(f"this kernel offers no {level} to this user")


@pytest.fixture(scope="module", params=LEVELS)
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each level."""
    require(request.param)
    with Sandbox(request.param) as sandbox:
        yield sandbox
