"""`make test` names all missing system packages in one line, and stops before a test runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("system_packages.py")
REPO = SCRIPT.parents[1]


def _path_without(folder: Path, *hidden: str) -> str:
    """A PATH whose only folder has links to the commands of the real PATH, without the hidden ones."""
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for command in Path(place).iterdir() if Path(place).is_dir() else ():
            link = folder / command.name
            if command.name not in hidden and not link.is_symlink():
                link.symlink_to(command)
    return str(folder)


@pytest.fixture
def hidden(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PATH": _path_without(tmp_path / "bin", "bwrap", "shellcheck", "sbatch", "apt-get")}


def test_nothing_is_missing_here() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_missing_is_named_in_one_line_with_the_command_that_installs_it(hidden: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], env=hidden, capture_output=True, text=True)
    assert done.returncode == 2
    names = "bubblewrap shellcheck slurm-wlm"
    assert done.stderr == f"error: the tests need {names}: sudo apt-get install --no-install-recommends {names}\n"


def test_make_test_stops_before_a_test_runs(hidden: dict[str, str]) -> None:
    done = subprocess.run(["make", "test"], cwd=REPO, env=hidden, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the tests need bubblewrap" in done.stderr
    assert "passed" not in done.stdout


def test_as_root_apt_get_installs_what_is_missing(tmp_path: Path, hidden: dict[str, str]) -> None:
    """apt-get is played by a script that notes its arguments and adds the command of the package."""
    bin = Path(hidden["PATH"])
    apt = bin / "apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        + "".join(f"ln -sf {shutil.which('true')} {bin}/{command}\n" for command in ("bwrap", "shellcheck", "sbatch"))
    )
    apt.chmod(0o755)
    fake_root = "import os, runpy, sys; os.geteuid = lambda: 0; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", fake_root, str(SCRIPT)], env=hidden, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == "install -y -qq --no-install-recommends bubblewrap shellcheck slurm-wlm"
