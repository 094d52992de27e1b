"""Locks hold together, environments are keyed by them, and a CPU machine is given nothing for CUDA."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from launchers import envs
from tests.conftest import Repo

LOCKS = sorted(envs.LOCKS.glob("*.txt"))


def _pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;+]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_pins_of_a_lock_do_not_conflict(lock: Path, tmp_path: Path) -> None:
    """uv resolves the wishes under the lock's pins, and finds exactly the lock."""
    environ = dict(os.environ)
    own = lock.with_suffix(".overrides")
    overrides = ["--override", str(own)] if own.exists() else []
    if lock.stem.endswith("-cpu"):
        overrides = ["--override", str(envs.LOCKS / "cpu.overrides")]
        if links := envs._find_links(environ):
            environ["UV_FIND_LINKS"] = links
        else:
            overrides += ["--torch-backend", "cpu"]
    out = tmp_path / "resolved.txt"
    platform = ["--python-version", envs.PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    wishes = [str(lock.with_suffix(".in")), "--constraint", str(lock), "--output-file", str(out)]
    compiling = [envs._uv(environ), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    done = subprocess.run(
        [*compiling, *platform, *overrides, *wishes], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert _pins(out.read_text()) == _pins(lock.read_text())


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.stem.endswith("-cpu")], ids=lambda lock: lock.stem)
def test_a_cpu_lock_names_nothing_of_cuda(lock: Path) -> None:
    names = _pins(lock.read_text())
    assert not [name for name in names if name.startswith(("nvidia", "cuda")) or name in ("deepspeed", "torchvision")]


def test_core_has_no_torch() -> None:
    assert "torch" not in _pins((envs.LOCKS / "core.txt").read_text())


def _without(text: str, package: str) -> str:
    return re.sub(rf"^{package}==.*\n", "", text, flags=re.MULTILINE)


@pytest.mark.full
def test_a_built_environment_is_reused_and_a_changed_lock_is_another(core_python: Path, repo: Repo) -> None:
    assert envs.ensure("core") == core_python
    before = repo.make("-s", "python").stdout.strip()
    lock = repo.path / "configs" / "envs" / "core.txt"
    lock.write_text(_without(lock.read_text(), "mypy"))
    (repo.path / ".cache" / "envs").unlink()
    (repo.path / ".cache" / "envs").mkdir()
    built = repo.make("-s", "python")
    assert built.returncode == 0, built.stderr
    after = built.stdout.strip()
    assert before != after
    assert subprocess.run([after, "-c", "import pydantic"]).returncode == 0
    assert subprocess.run([after, "-c", "import mypy"], capture_output=True).returncode == 1


def test_an_unknown_environment_is_one_line(repo: Repo) -> None:
    done = repo.make("env/vlm")
    assert done.returncode != 0
    assert "no environment 'vlm'" in done.stderr
    assert "llamafactory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_a_half_built_environment_is_built_again(repo: Repo) -> None:
    (repo.path / ".cache" / "envs").unlink()
    lock = repo.path / "configs" / "envs" / "core.txt"
    whole = lock.read_text()
    lock.write_text(f"{whole}no-such-package-of-this-name==0.0.1\n")
    failed = repo.make("-s", "python")
    assert failed.returncode != 0
    assert "uv pip sync core.txt failed" in failed.stderr
    lock.write_text(whole)
    assert repo.make("-s", "python").returncode == 0
