"""A shell's or a scheduler's environment variables: used as meant or replaced, and said; never a silent hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from tests.conftest import Repo

INHERITED = {
    "RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "10.9.8.7", "MASTER_PORT": "29500",
    "PET_NNODES": "2", "RAY_ADDRESS": "10.9.8.7:6379", "PYTHONPATH": "/somebody/elses", "FORCE_TORCHRUN": "1",
    "http_proxy": "http://10.9.8.7:3128", "CUDA_VISIBLE_DEVICES": "5",
}  # fmt: skip
ROWS = "".join(f'{{"prompt": "{at}+1=?", "completion": "{at + 1}", "answer": "{at + 1}"}}\n' for at in range(8))


def test_a_training_runs_as_if_alone_whatever_it_inherits(repo: Repo, tmp_path: Path) -> None:
    rows, temporary = tmp_path / "rows.jsonl", tmp_path / ("t" * 90)
    temporary.mkdir()
    rows.write_text(ROWS)
    home = tmp_path / "home" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    home.mkdir(parents=True)
    for package in ("yaml", "torch"):
        (home / f"{package}.py").write_text("raise ImportError('a package of the home folder')\n")
    words = [
        "data=" + str(rows),
        "controls=null",
        "train.steps=2",
        "eval=null",
        "train.global_batch=8",
        "train.micro_batch=4",
    ]
    said = [word for pair in words for word in ("--set", pair)]
    line = ["run", "min_o1/sft_short", "--scale", "mini", "--json", "--out", str(tmp_path / "runs"), *said]
    done = repo.launch(
        *line,
        **{
            **INHERITED,
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(repo.path),
            "PYTHONUSERBASE": str(tmp_path / "home"),
        },
    )
    assert done.returncode == 0, done.stderr
    run = Path(json.loads(done.stdout)["run"])
    notes = (next(run.glob("logs/*/environment.log"))).read_text()
    for name in (
        "RANK=3",
        "WORLD_SIZE=8",
        "MASTER_ADDR=10.9.8.7",
        "PET_NNODES=2",
        "RAY_ADDRESS=",
        "CUDA_VISIBLE_DEVICES=5",
        "TMPDIR=",
        "a proxy",
    ):
        assert notes.count(f"note: {name}") == 1, name
        assert name in done.stderr


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
    assert ("needs 8 GPUs and CUDA_VISIBLE_DEVICES shows 2" in done.stderr) is not enough
