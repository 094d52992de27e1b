"""A real Slurm takes the rendered job: a mini recipe runs to its report, and a GPU request is granted."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers.run import events
from tests.conftest import Repo
from tests.slurm_cluster import cluster, finish, start_again


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environ:
        yield environ


def test_a_mini_recipe_runs_as_a_chain_of_jobs(slurm: dict[str, str], repo: Repo) -> None:
    small = "eval=null train.steps=2 train.global_batch=8 train.micro_batch=8"
    environ = {"SLURM_CONF": slurm["SLURM_CONF"], "SCALE": "mini", "SET": small}
    submitted = repo.launch("submit", "min_o1/sft_long", "--make-variables", "--out", "my runs", **environ)
    assert submitted.returncode == 0, submitted.stderr
    jobs = {name: job for job, name in (line.split() for line in submitted.stdout.splitlines())}
    assert list(jobs) == ["data", "train", "report"]
    state = finish(jobs["report"], slurm, 300)
    (run,) = repo.path.glob("my runs/min_o1/sft_long/*")
    said = "".join(path.read_text() for path in run.glob("logs/slurm-*.out"))
    assert state == "COMPLETED", said
    assert (run / "report.html").is_file()
    assert json.loads((run / "train" / "trainer_state.json").read_text())["global_step"] == 2
    attempts = [event for event in events.read(run) if event["event"] == "attempt"]
    assert [(one["parts"], one["job"]) for one in attempts] == [([name], job) for name, job in jobs.items()]
    again = repo.launch("submit", "min_o1/sft_long", "--make-variables", "--out", "my runs", **environ)
    assert (again.returncode, "this run is finished" in again.stderr) == (2, True)


def test_a_second_submission_waits_for_the_first_and_status_shows_both(slurm: dict[str, str], repo: Repo) -> None:
    repo.write("configs/sites/later.yaml", "extra: [--begin=now+1hour]\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=later")
    first = repo.launch("submit", *words, **slurm)
    assert first.returncode == 0, first.stderr
    jobs = [line.split()[0] for line in first.stdout.splitlines()]
    second = repo.launch("submit", *words, **slurm)
    assert f"(after job {jobs[-1]} of the same run)" in second.stdout.splitlines()[0], second.stderr
    (found,) = json.loads(repo.launch("status", "--json", **slurm).stdout)
    assert (found["state"], found["jobs"][: len(jobs)]) == ("queued", jobs)
    cancelled = repo.launch("cancel", found["run"], "--json", **slurm)
    assert set(json.loads(cancelled.stdout)["cancelled"]) == set(found["jobs"])
    assert repo.launch("cancel", found["run"], **slurm).stdout.strip() == "Slurm has no jobs of this run"


def test_jobs_that_can_never_start_make_way_for_a_new_submission(slurm: dict[str, str], repo: Repo) -> None:
    repo.write("configs/sites/broken.yaml", "modules: [no-such-module]\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=broken")
    lines = repo.launch("submit", *words, **slurm).stdout.splitlines()
    jobs = [line.split()[0] for line in lines]
    assert finish(jobs[0], slurm, 60) == "FAILED"
    assert finish(jobs[-1], slurm, 60) == "CANCELLED"
    run = next(repo.path.glob("runs/min_o1/sft_long/*"))
    told = repo.launch("logs", str(run), **slurm)
    assert "missing module" in told.stdout, told.stdout + told.stderr
    repo.write("configs/sites/broken.yaml", "extra: [--begin=now+1hour]\n")
    again = repo.launch("submit", *words, **slurm)
    assert "after job" not in again.stdout, again.stderr
    assert repo.launch("cancel", str(run), **slurm).returncode == 0


def test_each_job_of_the_chain_is_granted_what_it_asks(slurm: dict[str, str], repo: Repo) -> None:
    repo.write("configs/sites/here.yaml", "partition: gpu\ngpu_type: h800\n")
    shown = repo.launch("submit", "min_o1/sft_short", "--set", "site=here", "--dry-run", PATH="/usr/bin:/bin")
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


ODD = 'it\'s #1 of 50%j "q" $HOME'


def _submit(repo: Repo, slurm: dict[str, str], site: str, script: str, *recipe: str) -> tuple[Path, str]:
    """Submit a run's training with another local.sh; the run, and the job's number."""
    repo.write("configs/sites/here.yaml", site)
    shown = repo.launch("submit", *recipe, "--set", "site=here", "--dry-run")
    line = next(words for words in map(shlex.split, shown.stdout.splitlines()) if words[-1] == "train")
    run = Path(line[-2]).parent
    (run / "local.sh").write_text(script)
    words = [word for word in line if not word.startswith("--dependency")]
    return run, subprocess.run(words, env=slurm, capture_output=True, text=True, check=True).stdout.strip()


def test_the_log_is_in_the_run_whatever_its_path_holds(slurm: dict[str, str], repo: Repo) -> None:
    run, job = _submit(repo, slurm, "", "echo started\n", "min_o1/sft_long", "--scale", "mini", "--out", ODD)
    assert finish(job, slurm, 60) == "COMPLETED"
    assert "started" in (run / f"logs/slurm-{job}.out").read_text()
    refused = repo.launch("submit", "min_o1/sft_long", "--scale", "mini", "--out", "a\\b", "--dry-run")
    assert (refused.returncode, "must not contain a backslash" in refused.stderr) == (2, True)


SHOW = """
import json, os, pathlib, sys, time
names = ("PET_NODE_RANK", "PET_MASTER_ADDR", "SLURM_GPUS_ON_NODE", "SLURM_CPUS_PER_TASK")
print("task", json.dumps([os.environ[name] for name in names]), flush=True)
rank, shown = os.environ["PET_NODE_RANK"], pathlib.Path(os.environ["POSTTRAIN_LOG"]).with_name("rank0_has_shown")
if rank == "0":
    shown.touch()
while not shown.exists():  # a failing task ends the other one
    time.sleep(0.1)
sys.exit(3 * int(rank))
"""


def test_one_task_of_each_node_sees_all_its_gpus_and_its_exit_status_is_the_jobs(
    slurm: dict[str, str], repo: Repo
) -> None:
    profile = (repo.path / "configs/hardware/h800x8x2.yaml").read_text()
    repo.write("configs/hardware/h800x8x2.yaml", profile.replace("cpus: 96", "cpus: 40"))
    script = f"""export POSTTRAIN_LOG="$(dirname "$0")/logs/train.log" PYTHONPATH=$PWD
    CORE=$(python3 -m launchers.envs core)
    "$CORE" -m launchers.run.nodes torchrun 2 8 -- "$CORE" -c {shlex.quote(SHOW)}
    """
    run, job = _submit(repo, slurm, "gpu_type: h800\n", script, "bleuberi/grpo", "--set", "hardware=h800x8x2")
    assert finish(job, slurm, 60) == "FAILED"
    text = (run / f"logs/slurm-{job}.out").read_text()
    assert [json.loads(line.partition(" ")[2]) for line in text.splitlines() if line.startswith("task")] == [
        [rank, "127.0.0.1", "8", "40"] for rank in ("0", "1")
    ], text
    shown = subprocess.run(["scontrol", "show", "job", job], env=slurm, capture_output=True, text=True).stdout
    assert "ExitCode=3:0" in shown
    assert "Requeue=1 Restarts=0" in shown


ALONE = "trap 'echo told; exit 1' TERM; sleep 100 & wait"
SEVERAL = """CORE=$(python3 -m launchers.envs core)
trap 'echo told' EXIT
PYTHONPATH=$PWD "$CORE" -m launchers.run.nodes torchrun 2 8 -- /bin/sleep 100
exit 1"""


@pytest.mark.parametrize(("recipe", "script", "started"), [
    (("min_o1/sft_short",), ALONE, "start 0"), (("bleuberi/grpo", "--set", "hardware=h800x8x2"), SEVERAL, "node 1"),
])  # fmt: skip
def test_a_preempted_job_is_told_and_starts_again_with_its_log(
    slurm: dict[str, str], repo: Repo, recipe: tuple[str, ...], script: str, started: str
) -> None:
    """Slurm gives it some seconds: those signal the tasks on several nodes at once, and the job's own shell last."""
    script = f'echo "start ${{SLURM_RESTART_COUNT-0}}"\n[ -z "${{SLURM_RESTART_COUNT-}}" ] || exit 7\n{script}\n'
    run, job = _submit(repo, slurm, "partition: gpu\n", script, *recipe)
    log = run / f"logs/slurm-{job}.out"

    def wait_for(text: str) -> None:
        end = time.monotonic() + 60
        while not (log.exists() and text in log.read_text()):
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)

    wait_for(started)
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
    subprocess.run([*urgent, "--wrap=true"], env=slurm, check=True, capture_output=True)
    wait_for("told")
    start_again(job, slurm)
    assert finish(job, slurm, 60) == "FAILED", log.read_text()
    starts = [line for line in log.read_text().splitlines() if line in ("start 0", "told", "start 1")]
    assert starts == ["start 0", "told", "start 1"], log.read_text()
    assert [event["attempt"] for event in events.read(run) if event["event"] == "attempt"] == [1, 2]


@pytest.mark.parametrize(("site", "said", "hint"), [
    ("partition: nowhere", "Invalid partition name specified", "partition in configs/sites"),
    ("gpu_type: a100", "node configuration is not available", "HARDWARE=: no node of the partition has"),
])  # fmt: skip
def test_what_sbatch_refuses_is_one_line(slurm: dict[str, str], repo: Repo, site: str, said: str, hint: str) -> None:
    repo.write("configs/sites/here.yaml", f"{site}\n")
    done = repo.launch("submit", "min_o1/sft_short", "--set", "site=here", **slurm)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "sbatch rejected the job" in line
    assert said in line
    assert hint in line


def test_without_slurm_the_message_says_what_to_do(repo: Repo) -> None:
    done = repo.launch("submit", "min_o1/sft_short", PATH="/usr/local/nowhere")
    assert done.returncode == 1
    assert "sbatch is not on PATH" in done.stderr
