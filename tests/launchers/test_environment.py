"""A locale, and the GPUs that a shell or a scheduler shows: used as meant, or an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from tests.conftest import REPO, Repo


def test_files_are_utf8_whatever_the_locale_says(repo: Repo, tmp_path: Path) -> None:
    line = ("render", "min_o1/sft_short", "--scale", "mini", "--out", str(tmp_path / "läufe"))
    done = repo.launch(*line, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "·" in (Path(done.stdout.strip()) / "recipe.yaml").read_text("utf-8")


def _script(tmp_path: Path, *pairs: str) -> Path:
    made = plan.build(
        compose.resolve("min_o1/sft_short", Overrides(None, tuple(compose.parse_settings(pairs)))), tmp_path
    )
    path = tmp_path / "local.sh"
    path.write_text(rundir.files(made)["local.sh"])
    return path


@pytest.mark.parametrize(("visible", "enough"), [("0,1,2,3,4,5,6,7", True), ("2,3", False)])
def test_visible_gpus_are_counted(tmp_path: Path, visible: str, enough: bool) -> None:
    script = _script(tmp_path, "hardware=h100x8")
    python = tmp_path / "bin/python3"  # stands for the environments, whose every command then fails
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho /bin/false\n")
    python.chmod(0o755)
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(script), "train"], env=environ, capture_output=True, text=True)
    assert done.returncode == (1 if enough else 2)
    assert ("needs 8 GPUs, but CUDA_VISIBLE_DEVICES lists 2" in done.stderr) is not enough


@pytest.mark.parametrize("package", ["launchers", "data_prep", "rewards"])
def test_another_interpreter_is_told_which_one_to_use(package: str) -> None:
    """-I -S: an interpreter without any package."""
    run = f"import sys, runpy; sys.path.insert(0, {str(REPO)!r}); runpy.run_module({package!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", run], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("No module named ")
    assert line.endswith(f"run $(make -s python) -m {package}")
