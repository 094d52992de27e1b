"""A real Slurm takes the rendered job: a mini recipe runs to its report, and a GPU request is granted."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import House
from tests.slurm_cluster import cluster


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environ:
        yield environ


def _state(job: str, environ: dict[str, str]) -> str:
    shown = subprocess.run(["scontrol", "show", "job", job], env=environ, capture_output=True, text=True).stdout
    return shown.split("JobState=")[1].split()[0]


def _finish(job: str, environ: dict[str, str], seconds: float) -> str:
    end = time.monotonic() + seconds
    while (state := _state(job, environ)) in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING"):
        assert time.monotonic() < end, state
        time.sleep(0.5)
    return state


def test_a_mini_recipe_runs_as_a_slurm_job(slurm: dict[str, str], house: House) -> None:
    small = "eval=null train.steps=2 train.global_batch=8 train.micro_batch=8"
    environ = {"SLURM_CONF": slurm["SLURM_CONF"], "SCALE": "mini", "SET": small}
    submitted = house.launch("submit", "min_o1/sft_long", "--make-variables", "--out", "my runs", **environ)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    state = _finish(job, slurm, 300)
    (run,) = house.path.glob("my runs/min_o1/sft_long/*")
    said = "".join(path.read_text() for path in run.glob("logs/slurm-*.out"))
    assert state == "COMPLETED", said
    assert (run / "report.html").is_file()
    assert json.loads((run / "train" / "trainer_state.json").read_text())["global_step"] == 2


def test_a_second_submission_waits_for_the_first_and_status_shows_both(slurm: dict[str, str], house: House) -> None:
    house.write("configs/sites/later.yaml", "extra: [--begin=now+1hour]\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=later")
    first = house.launch("submit", *words, **slurm)
    assert first.returncode == 0, first.stderr
    job = first.stdout.strip()
    second = house.launch("submit", *words, **slurm)
    assert f"(after job {job} of the same run)" in second.stdout, second.stderr
    (found,) = json.loads(house.launch("status", "--json", **slurm).stdout)
    assert (found["state"], found["jobs"][0]) == ("queued", job)
    subprocess.run(["scancel", *found["jobs"]], env=slurm, check=True)


def test_slurm_grants_what_the_hardware_profile_asks(slurm: dict[str, str], house: House) -> None:
    house.write("configs/sites/here.yaml", "partition: gpu\ngpu_type: h800\n")
    run = Path(house.launch("render", "min_o1/sft_short", "--set", "site=here").stdout.strip())
    (run / "local.sh").write_text('echo "gpus on node: $SLURM_GPUS_ON_NODE, parts: $*"\n')
    (run / "logs").mkdir(exist_ok=True)
    sent = subprocess.run(
        ["sbatch", "--parsable", run / "job.sbatch", "data", "train"],
        env=slurm,
        capture_output=True,
        text=True,
    )
    assert sent.returncode == 0, sent.stderr
    assert _finish(sent.stdout.strip(), slurm, 60) == "COMPLETED"
    (log,) = run.glob("logs/slurm-*.out")
    assert "gpus on node: 4, parts: data train" in log.read_text()


def test_what_sbatch_refuses_is_one_line(slurm: dict[str, str], house: House) -> None:
    house.write("configs/sites/here.yaml", "partition: nowhere\n")
    done = house.launch("submit", "min_o1/sft_short", "--set", "site=here", **slurm)
    assert done.returncode == 1
    assert "sbatch refused the job" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_slurm_the_message_says_what_to_do(house: House) -> None:
    done = house.launch("submit", "min_o1/sft_short", PATH="/usr/local/nowhere")
    assert done.returncode == 1
    assert "sbatch is not on PATH" in done.stderr
