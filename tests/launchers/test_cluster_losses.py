"""Runs on a real Slurm that lose a worker, a node, Ray's head or their job: they come back, with the same result."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launchers.run import events
from tests.conftest import Repo
from tests.launchers.test_several_nodes import LONG, logs, losses, steps, submit, trainings, two_nodes
from tests.slurm_cluster import cluster, finish, kill, lose_node, processes, start_node, state

STEP = '''"""A step that takes its time."""

import time

from data_prep.core.step import Params, Step


class SlowParams(Params):
    log: str
    seconds: float


class Slow(Step):
    """Notes each shard that it works on."""

    kind = "slow"
    shard_rows = 10
    unkeyed = ("log", "seconds")
    Params = SlowParams

    def processes(self):
        return None

    def apply(self, rows, ctx):
        with open(self.params.log, "a") as log:
            log.write("shard\\n")
        time.sleep(self.params.seconds)
        return [{**row, "completion": row["completion"].upper()} for row in rows]
'''
PROBLEM = "Find all real numbers $x$ with $x^2 = {}$."
SHARDS = 120


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environ:
        yield environ


def until(true: Callable[[], bool], run: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, logs(run)
        time.sleep(0.2)


def attempts(run: Path, part: str) -> int:
    return sum(event["event"] == "attempt" and event["parts"] == [part] for event in events.read(run))


def kill_one(mark: str, slurm: dict[str, str]) -> None:
    """Kill one of the jobs' processes whose command line has the mark."""
    pids = [pid for pid, words in processes(slurm).items() if mark in words]
    assert pids, processes(slurm)
    kill(pids[:1])


def made(repo: Repo) -> dict[str, bytes]:
    """Rows and drops of all data steps, by file."""
    folder = repo.path / ".cache/steps"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/shards/*.jsonl")}


def slow(repo: Repo, name: str, shards: int) -> tuple[Path, tuple[str, ...]]:
    """A recipe whose data take their time on a Ray cluster of two nodes: the log of its shards, and what to submit."""
    two_nodes(repo, "data: {engine: ray}\n", cpus=2)
    log = repo.path / f"worked-{name}"
    repo.write("recipes/x/slow.py", STEP)
    rows = [
        {"prompt": PROBLEM.format(n * n), "completion": f"{name} = {n} or {name} = -{n}"} for n in range(10 * shards)
    ]
    repo.write(f"recipes/x/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    steps = (
        f"- load: {{path: {name}.jsonl}}",
        f"- recipes.x.slow:Slow: {{seconds: 1.5, log: {log}}}",
        "- dedup: {near: 0.9}",
    )
    with (repo.path / "recipes/x/data.yaml").open("a") as pipelines:
        pipelines.write(f"{name}:\n  " + "\n  ".join(steps) + "\n")
    base = "extends: [../min_o1/sft_long.yaml, ../min_o1/mini.yaml, ../min_o1/sft_long.mini.yaml]\neval: null\n"
    repo.write(f"recipes/x/{name}.yaml", f"{base}data: {name}\n")
    return log, (f"x/{name}", "--set", "hardware=cpu_x2")


@pytest.mark.full
def test_ray_clusters_of_two_jobs_on_the_same_hosts_do_not_meet(slurm: dict[str, str], repo: Repo) -> None:
    runs = [submit(repo, slurm, *slow(repo, name, shards)[1]) for name, shards in (("short", 20), ("long", 60))]
    for run, jobs in runs:
        assert finish(jobs["data"], slurm, 300) == "COMPLETED", logs(run)
        assert repo.launch("cancel", str(run), SLURM_CONF=slurm["SLURM_CONF"]).returncode == 0
    ends = [[event["time"] for event in events.read(run) if event["event"].startswith("phase")] for run, _ in runs]
    assert ends[1][0] < ends[0][1] < ends[1][1], "the second began before the first ended, and went on after it"


@pytest.mark.full
def test_data_steps_on_the_jobs_ray_cluster_lose_nothing(slurm: dict[str, str], repo: Repo) -> None:
    log, words = slow(repo, "x", SHARDS)

    def worked() -> int:
        return len(log.read_text().split()) if log.exists() else 0

    def goes_on(run: Path) -> None:
        before = worked()
        until(lambda: worked() >= before + 8, run)
        assert worked() < SHARDS, "it was over before"

    run, jobs = submit(repo, slurm, *words)
    goes_on(run)
    kill_one("ray::_call", slurm)
    goes_on(run)
    kill_one("gcs_server", slurm)
    until(lambda: attempts(run, "data") == 2, run)
    goes_on(run)
    assert repo.launch("cancel", str(run), SLURM_CONF=slurm["SLURM_CONF"]).returncode == 0
    assert finish(jobs["data"], slurm, 60) == "CANCELLED"
    run, jobs = submit(repo, slurm, *words)
    goes_on(run)
    lose_node("n1", slurm)
    until(lambda: state(jobs["data"], slurm) == "PENDING", run)
    start_node("n1", slurm)
    assert finish(jobs["data"], slurm, 500) == "COMPLETED", logs(run)
    repo.launch("cancel", str(run), SLURM_CONF=slurm["SLURM_CONF"])
    assert SHARDS <= worked() <= SHARDS + 5 * 8, "more was done again than was in flight"
    disturbed = made(repo)
    (repo.path / ".cache/steps").rename(repo.path / "disturbed")
    pipelines = repo.path / "recipes/x/data.yaml"
    pipelines.write_text(pipelines.read_text().replace("seconds: 1.5", "seconds: 0"))  # which changes no key
    done = repo.launch("data", words[0], "--set", "hardware=cpu")
    assert done.returncode == 0, done.stderr
    assert len(disturbed) > SHARDS
    assert made(repo) == disturbed


@pytest.mark.full
def test_a_training_on_two_nodes_survives_the_loss_of_one_a_signal_and_a_cancellation(
    slurm: dict[str, str], repo: Repo
) -> None:
    two_nodes(repo)
    words = (*LONG, "--set", "hardware=cpu_x2", "--set", "train.micro_batch=4")
    run, jobs = submit(repo, slurm, *words)
    until(lambda: steps(run) >= 30, run)
    lose_node("n1", slurm)
    until(lambda: state(jobs["train"], slurm) == "PENDING", run)
    start_node("n1", slurm)  # at once, and the job two minutes later: Slurm repeats its order to end the old attempt
    until(lambda: attempts(run, "train") == 2 and steps(run) >= 50, run, 500)
    subprocess.run(["scancel", "--batch", "--signal=USR1", jobs["train"]], env=slurm, check=True)
    until(lambda: state(jobs["train"], slurm) == "PENDING", run)
    assert "stopped on request, with a checkpoint at step" in trainings(run)[1].read_text()
    until(lambda: attempts(run, "train") == 3 and steps(run) >= 80, run, 500)
    assert repo.launch("cancel", str(run), SLURM_CONF=slurm["SLURM_CONF"]).returncode == 0
    again, jobs = submit(repo, slurm, *words)
    assert again == run
    assert finish(jobs["report"], slurm, 500) == "COMPLETED", logs(run)
    (repo.path / "runs").rename(repo.path / "disturbed")
    undisturbed, jobs = submit(repo, slurm, *words)
    assert finish(jobs["report"], slurm, 500) == "COMPLETED", logs(undisturbed)
    (disturbed,) = repo.path.glob("disturbed/min_o1/sft_long/*")
    assert len(losses(undisturbed)) == 120
    assert losses(disturbed) == losses(undisturbed)


@pytest.mark.full
def test_online_rl_comes_back_when_rays_head_is_killed(slurm: dict[str, str], repo: Repo) -> None:
    two_nodes(repo)
    small = (
        "eval=null validation=null stop=null train.steps=16 train.save_every=2 train.global_batch=16 "
        "train.micro_batch=8 rollout.prompts=4 rollout.samples=4 hardware=cpu_x2"
    )
    run, jobs = submit(
        repo, slurm, "min_o1/grpo", "--scale", "mini", *(word for one in small.split() for word in ("--set", one))
    )
    until(lambda: steps(run) >= 2, run, 500)
    kill_one("gcs_server", slurm)
    until(lambda: state(jobs["train"], slurm) == "PENDING", run, 90)
    assert finish(jobs["report"], slurm, 580) == "COMPLETED", logs(run)
    assert attempts(run, "train") == 2
    assert json.loads((run / "train/merged/done.json").read_text())["step"] == 16
    numbers = [event["step"] for event in events.read(run) if event["event"] == "train_step"]
    assert numbers.count(1) == 1, "it started from step 1 again"
