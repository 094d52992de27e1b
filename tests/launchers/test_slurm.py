"""A real Slurm takes the rendered job: a mini recipe runs to its report, and a GPU request is granted."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers.run import events
from tests.conftest import House
from tests.slurm_cluster import cluster, finish


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environ:
        yield environ


def test_a_mini_recipe_runs_as_a_chain_of_jobs(slurm: dict[str, str], house: House) -> None:
    small = "eval=null train.steps=2 train.global_batch=8 train.micro_batch=8"
    environ = {"SLURM_CONF": slurm["SLURM_CONF"], "SCALE": "mini", "SET": small}
    submitted = house.launch("submit", "min_o1/sft_long", "--make-variables", "--out", "my runs", **environ)
    assert submitted.returncode == 0, submitted.stderr
    jobs = {name: job for job, name in (line.split() for line in submitted.stdout.splitlines())}
    assert list(jobs) == ["data", "train", "report"]
    state = finish(jobs["report"], slurm, 300)
    (run,) = house.path.glob("my runs/min_o1/sft_long/*")
    said = "".join(path.read_text() for path in run.glob("logs/slurm-*.out"))
    assert state == "COMPLETED", said
    assert (run / "report.html").is_file()
    assert json.loads((run / "train" / "trainer_state.json").read_text())["global_step"] == 2
    attempts = [event for event in events.read(run) if event["event"] == "attempt"]
    assert [(one["parts"], one["job"]) for one in attempts] == [([name], job) for name, job in jobs.items()]
    again = house.launch("submit", "min_o1/sft_long", "--make-variables", "--out", "my runs", **environ)
    assert (again.returncode, "this run is finished" in again.stderr) == (2, True)


def test_a_second_submission_waits_for_the_first_and_status_shows_both(slurm: dict[str, str], house: House) -> None:
    house.write("configs/sites/later.yaml", "extra: [--begin=now+1hour]\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=later")
    first = house.launch("submit", *words, **slurm)
    assert first.returncode == 0, first.stderr
    jobs = [line.split()[0] for line in first.stdout.splitlines()]
    second = house.launch("submit", *words, **slurm)
    assert f"(after job {jobs[-1]} of the same run)" in second.stdout.splitlines()[0], second.stderr
    (found,) = json.loads(house.launch("status", "--json", **slurm).stdout)
    assert (found["state"], found["jobs"][: len(jobs)]) == ("queued", jobs)
    cancelled = house.launch("cancel", found["run"], "--json", **slurm)
    assert set(json.loads(cancelled.stdout)["cancelled"]) == set(found["jobs"])
    assert house.launch("cancel", found["run"], **slurm).stdout.strip() == "Slurm has no job of this run"


def test_jobs_that_can_never_start_make_way_for_a_new_submission(slurm: dict[str, str], house: House) -> None:
    house.write("configs/sites/broken.yaml", "modules: [no-such-module]\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=broken")
    lines = house.launch("submit", *words, **slurm).stdout.splitlines()
    jobs = [line.split()[0] for line in lines]
    assert finish(jobs[0], slurm, 60) == "FAILED"
    assert finish(jobs[-1], slurm, 60) == "CANCELLED"
    run = next(house.path.glob("runs/min_o1/sft_long/*"))
    told = house.launch("logs", str(run), **slurm)
    assert "missing module" in told.stdout, told.stdout + told.stderr
    house.write("configs/sites/broken.yaml", "extra: [--begin=now+1hour]\n")
    again = house.launch("submit", *words, **slurm)
    assert "after job" not in again.stdout, again.stderr
    assert house.launch("cancel", str(run), **slurm).returncode == 0


def test_each_job_of_the_chain_is_granted_what_it_asks(slurm: dict[str, str], house: House) -> None:
    house.write("configs/sites/here.yaml", "partition: gpu\ngpu_type: h800\n")
    shown = house.launch("submit", "min_o1/sft_short", "--set", "site=here", "--dry-run", PATH="/usr/bin:/bin")
    lines = [shlex.split(line) for line in shown.stdout.splitlines()]
    run = Path(lines[0][-2]).parent
    (run / "local.sh").write_text('echo "cpus $SLURM_CPUS_PER_TASK gpus ${SLURM_GPUS_ON_NODE-none} parts $*"\n')
    jobs = []
    for line in lines:
        after = [f"--dependency=afterok:{jobs[-1]}"] if jobs else []
        words = [*line[:2], *after, *(word for word in line[2:] if not word.startswith("--dependency"))]
        jobs.append(subprocess.run(words, env=slurm, capture_output=True, text=True, check=True).stdout.strip())
    assert finish(jobs[-1], slurm, 60) == "COMPLETED"
    said = [(run / "logs" / f"slurm-{job}.out").read_text() for job in jobs]
    for text, part in zip(said, ("data", "train", "eval", "report"), strict=True):
        cpus, gpus = {"data": (16, "none"), "report": (2, "none")}.get(part, (48, "4"))
        assert f"cpus {cpus} gpus {gpus} parts {part}" in text


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
