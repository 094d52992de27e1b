"""Fixtures of several files: a rendered run, and stand-ins for a cluster's tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Repo

Tool = Callable[[str, str], Path]


@pytest.fixture
def run(repo: Repo) -> Path:
    return Path(repo.launch("render", "min_o1/sft_long", "--scale", "mini").stdout.strip())


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Puts a script of a name before everything on PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
        return path

    return write
