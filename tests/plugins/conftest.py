"""The interpreter of verl's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from launchers import envs


@pytest.fixture(scope="session")
def verl_python() -> Path:
    return envs.ensure("verl", "cpu")
