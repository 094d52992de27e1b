"""Who attacks: the user that runs the tests, and where that is root an unprivileged user as well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.isolation import LEVELS, require
from tests.isolation import box as box

REPO = Path(__file__).resolve().parent.parent.parent
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
USERS = ["self", "nobody"] if os.geteuid() == 0 else ["self"]


@lru_cache
def command_of(user: str) -> tuple[str, ...]:
    """How to run Python as `user` from the repository; empty if that user cannot (e.g. a checkout below /root)."""
    if user == "self":
        return (sys.executable,)
    for python in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable):
        command = (*NOBODY, python)
        check = [*command, "-c", "import sys, rewards.sandbox; assert sys.version_info >= (3, 10)"]
        if shutil.which(python) and subprocess.run(check, cwd=REPO, capture_output=True).returncode == 0:
            return command
    return ()


@lru_cache
def run_as(user: str, *argv: str) -> dict[str, Any]:
    """What `python -m argv…` prints (JSON) when `user` runs it."""
    command = command_of(user)
    if not command:
        pytest.skip("no Python from 3.10 on that an unprivileged user may run on this checkout")
    done = subprocess.run([*command, "-m", *argv], cwd=REPO, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(told, dict)
    return told


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    require(request.param)
    return str(request.param)


@pytest.fixture
def attacked(user: str, level: str) -> dict[str, Any]:
    """Outcomes of every hostile program, run once per user and level."""
    return run_as(user, "tests.attacks.driver", level)


@pytest.fixture
def without_isolation(user: str) -> dict[str, Any]:
    return run_as(user, "tests.attacks.driver", "outside")


@pytest.fixture
def launch(user: str) -> Callable[..., subprocess.Popen[str]]:
    """Start `python argv…` as the user, from the repository."""
    if not command_of(user):
        pytest.skip("no Python from 3.10 on that an unprivileged user may run on this checkout")

    def start(*argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command_of(user), *argv], cwd=REPO, stdout=subprocess.PIPE, text=True)

    return start
