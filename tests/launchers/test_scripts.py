"""Rendered scripts: the golden ones, shellcheck, and values that try to reach the shell.

UPDATE_GOLDEN=1 writes tests/launchers/golden again; the diff is then for a person to read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from launchers import envs
from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from launchers.targets import slurm
from tests.conftest import REPO, Repo

GOLDEN = Path(__file__).parent / "golden"
# One of each template and kind of machine; what differs between recipes is checked as values in another file.
CASES: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("min_o1/sft_short", None): ("local.sh", "job.sbatch", "train/llamafactory.yaml"),
    ("sky_t1/sft_lora", None): ("local.sh", "train/llamafactory.yaml"),
    ("sky_t1/flash", "mini"): ("train/llamafactory.yaml",),
    ("skill_mix/dpo", None): ("train/torchtune.yaml",),
    ("skill_mix/sft_gold", "mini"): ("local.sh", "job.sbatch", "train/torchtune.yaml"),
    ("min_o1/grpo", None): ("train/verl.yaml", "train/reward.json"),
    ("min_o1/grpo", "mini"): ("local.sh", "train/cpu.yaml"),
}
HOSTILE = "a b'\"; touch pwned; $(touch pwned) `touch pwned` \\ %j *"


def _files(name: str, scale: str | None, run: Path) -> dict[str, str]:
    resolved, faults = preflight.check(compose.resolve(name, Overrides(scale)))
    assert not faults
    return rundir.files(plan.build(resolved, run))


def _portable(text: str, run: Path) -> str:
    """Without what differs between machines and between versions of the data steps."""
    for real, name in ((run, "<run>"), (envs.cache_dir(), "<cache>"), (REPO, "<repo>")):
        text = text.replace(str(real), name)
    return re.sub(r"export-[0-9a-f]{12}", "export-<key>", text)


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_rendered_files_are_the_golden_ones(name: str, scale: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in slurm._FOLDERS:
        monkeypatch.delenv(variable, raising=False)
    folder = GOLDEN / name.replace("/", "-") / (scale or "full")
    run = Path("/run")
    rendered = {path: _portable(_files(name, scale, run)[path], run) for path in CASES[name, scale]}
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in rendered.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    stored = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert rendered == stored


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_rendered_scripts_pass_shellcheck(name: str, scale: str | None, tmp_path: Path) -> None:
    assert shutil.which("shellcheck"), "shellcheck is missing: apt-get install shellcheck"
    for path, text in _files(name, scale, Path(f"/runs of 'me'/{name}")).items():
        if path.endswith((".sh", ".sbatch")):
            script = tmp_path / path
            script.write_text(text)
            done = subprocess.run(["shellcheck", "--severity=style", script], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_hostile_values_stay_values_in_every_rendered_file(repo: Repo, mini_model: Path) -> None:
    model = repo.path / HOSTILE / "model"
    shutil.copytree(mini_model, model)
    rows = repo.write(f"{HOSTILE}/rows.jsonl", '{"prompt": "1+1?", "completion": "\\\\boxed{2}"}\n')
    runs = repo.path / HOSTILE / "runs"
    options = ["--scale", "mini", "--set", f"model={model}", "--set", f"data={rows}", "--out", str(runs)]
    done = repo.launch("render", "min_o1/sft_short", *options)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.rstrip("\n"))
    for script in ("local.sh", "job.sbatch"):
        checked = subprocess.run(["shellcheck", "--severity=style", run / script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
    ran = subprocess.run(
        ["bash", run / "local.sh", "data"],
        cwd=repo.path,
        env=repo.environ(),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert not list(repo.path.rglob("pwned"))
    assert json.loads((run / "resolved.json").read_text())["model"] == str(model)


def test_the_script_runs_without_the_launcher_and_refuses_unknown_parts(repo: Repo) -> None:
    run = Path(repo.launch("render", "min_o1/sft_long", "--scale", "mini").stdout.strip())
    environ = {key: value for key, value in repo.environ().items() if key != "PYTHONPATH"}
    ran = subprocess.run(["bash", run / "local.sh", "data"], cwd="/", env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "export: 4,800 in" in ran.stderr
    wrong = subprocess.run(["bash", run / "local.sh", "tain"], cwd="/", env=environ, capture_output=True, text=True)
    assert (wrong.returncode, "no part 'tain'" in wrong.stderr) == (2, True)


def test_dry_run_prints_the_exact_submit_lines(repo: Repo) -> None:
    done = repo.make("sbatch/min_o1/sft_short", "DRY_RUN=1", "SET=site=example time_limit=1:00:00")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] + line[-1:] for line in lines] == [
        ["sbatch", "--parsable", part] for part in ("data", "train", "eval", "report")
    ]
    assert "--time=1:00:00" in lines[1]
    text = Path(lines[0][-2]).read_text()
    for line in ("--gres=gpu:4", "--nodes=1", "--time=1:00:00", "--partition=gpu", "--account=my_project"):
        assert f"#SBATCH {line}\n" in text
    assert "module load cuda/13.0\n" in text


def test_a_site_cannot_smuggle_lines_into_the_header(repo: Repo) -> None:
    repo.write("configs/sites/bad.yaml", 'partition: "gpu\\n#SBATCH --wrap=id"\n')
    done = repo.launch("check", "min_o1/sft_short", "--set", "site=bad")
    assert done.returncode == 2
    assert "configs/sites/bad.yaml:1: partition" in done.stderr
