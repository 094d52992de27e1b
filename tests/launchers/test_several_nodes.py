"""Jobs on two nodes of a real Slurm on this host: torchrun and Ray start on both, and end with each other."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers.run import events
from tests.conftest import Repo
from tests.slurm_cluster import cluster, finish, start_again, state


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environ:
        yield environ


def two_nodes(repo: Repo, extra: str = "", cpus: int = 8) -> None:
    """A profile of two nodes without GPUs, a process on each."""
    profile = (repo.path / "configs/hardware/cpu.yaml").read_text().replace("nodes: 1", "nodes: 2")
    repo.write("configs/hardware/cpu_x2.yaml", profile.replace("cpus: 2", f"cpus: {cpus}") + extra)


def submit(repo: Repo, slurm: dict[str, str], *words: str) -> tuple[Path, dict[str, str]]:
    """Run directory, and the name of each submitted job to its number."""
    done = repo.launch("submit", *words, "--json", SLURM_CONF=slurm["SLURM_CONF"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Path(told["run"]), {one["name"]: one["job"] for one in told["jobs"]}


def logs(run: Path) -> str:
    """The ends of all logs."""
    found = (*run.glob("logs/slurm-*"), *run.glob("logs/*/*.log"))
    return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in found)


def trainings(run: Path) -> list[Path]:
    """The trainer's log of each attempt, in order."""
    return sorted(run.glob("logs/*/train-after.log"))


@pytest.mark.full
def test_llamafactory_trains_on_two_nodes(slurm: dict[str, str], repo: Repo) -> None:
    two_nodes(repo)
    small = "eval=null train.steps=2 train.global_batch=8 train.micro_batch=4 hardware=cpu_x2"
    words = [word for one in small.split() for word in ("--set", one)]
    run, jobs = submit(repo, slurm, "min_o1/sft_long", "--scale", "mini", *words)
    assert finish(jobs["report"], slurm, 500) == "COMPLETED", logs(run)
    assert json.loads((run / "train/trainer_state.json").read_text())["global_step"] == 2
    (other,) = run.glob("logs/*/train-after.node1.log")
    (log,) = trainings(run)
    assert "node 1: " in log.read_text()
    assert "world size: 2" in log.read_text() or "distributed training: True" in log.read_text(), other.read_text()


@pytest.mark.full
def test_torchtune_trains_on_two_nodes_and_needs_nothing_of_the_submitting_shell(
    slurm: dict[str, str], repo: Repo
) -> None:
    two_nodes(repo)
    repo.write("configs/sites/bare.yaml", f"extra: [--export=NONE]\nenviron: {{SLURM_CONF: {slurm['SLURM_CONF']}}}\n")
    small = "trainer=torchtune train.steps=4 train.global_batch=8 train.micro_batch=4 hardware=cpu_x2 site=bare"
    words = [word for one in small.split() for word in ("--set", one)]
    run, jobs = submit(repo, slurm, "min_o1/sft_long", "--scale", "mini", "--set", "eval=null", *words)
    assert finish(jobs["report"], slurm, 500) == "COMPLETED", logs(run)
    assert json.loads((run / "train/merged/done.json").read_text())["step"] == 4
    assert [len(list(run.glob(f"logs/*/train-after{node}.log"))) for node in ("", ".node1")] == [1, 1]
    assert "node 1: " in trainings(run)[0].read_text()


@pytest.mark.full
def test_verl_trains_on_a_ray_cluster_of_two_nodes(slurm: dict[str, str], repo: Repo) -> None:
    two_nodes(repo)
    small = (
        "eval=null validation=null stop=null train.steps=2 train.global_batch=16 train.micro_batch=8 rollout.prompts=4 "
        "rollout.samples=4 hardware=cpu_x2"
    )
    words = [word for one in small.split() for word in ("--set", one)]
    run, jobs = submit(repo, slurm, "min_o1/grpo", "--scale", "mini", *words)
    assert finish(jobs["report"], slurm, 580) == "COMPLETED", logs(run)
    assert json.loads((run / "train/merged/done.json").read_text())["step"] == 2
    assert len(list(run.glob("train/checkpoints/global_step_2/actor/model_world_size_2_rank_*.pt"))) == 2
    assert trainings(run)[0].read_text().count("Ray node ") == 2


def losses(run: Path) -> dict[int, float]:
    state = json.loads((run / "train/trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


LONG = ("min_o1/sft_long", "--scale", "mini", "--set", "eval=null", "--set", "train.global_batch=8",
        "--set", "train.micro_batch=8", "--set", "train.steps=120", "--set", "train.save_every=20")  # fmt: skip


def steps(run: Path) -> int:
    return max((event["step"] for event in events.read(run) if event["event"] == "train_step"), default=0)


@pytest.mark.full
def test_a_requeued_training_resumes_and_ends_with_the_losses_of_an_undisturbed_one(
    slurm: dict[str, str], repo: Repo
) -> None:
    run, jobs = submit(repo, slurm, *LONG)
    end = time.monotonic() + 300
    while steps(run) < 45:
        assert time.monotonic() < end, logs(run)
        time.sleep(0.2)
    subprocess.run(["scontrol", "requeue", jobs["train"]], env=slurm, check=True)
    start_again(jobs["train"], slurm)
    assert finish(jobs["report"], slurm, 500) == "COMPLETED", logs(run)
    attempts = [event for event in events.read(run) if event["event"] == "attempt" and event["parts"] == ["train"]]
    assert [event["attempt"] for event in attempts] == [1, 2]
    assert attempts[1]["step"] >= 45
    saved = [
        re.findall(r"Saving model checkpoint to \S+/checkpoint-(\d+)", path.read_text()) for path in trainings(run)
    ]
    assert [int(step) for of_attempt in saved for step in of_attempt] == [20, 40, 60, 80, 100, 120]
    assert all(saved), "each attempt saved some"
    (repo.path / "runs").rename(repo.path / "disturbed")
    done = repo.launch("run", *LONG, "--json")
    assert done.returncode == 0, done.stderr
    (disturbed,) = repo.path.glob("disturbed/min_o1/sft_long/*")
    assert losses(disturbed) == losses(Path(json.loads(done.stdout)["run"]))


@pytest.mark.full
@pytest.mark.parametrize(("chain", "limit"), [("true", "00:05:00"), ("false", "00:03:00")])
def test_a_time_limit_ends_a_training_or_with_chain_starts_its_next_attempt(
    slurm: dict[str, str], repo: Repo, chain: str, limit: str
) -> None:
    repo.write("configs/sites/short.yaml", "signal_s: 100\n")
    settings = ("site=short", f"time_limit={limit}", f"chain={chain}", "train.steps=6000")
    words = [*LONG, *(word for one in settings for word in ("--set", one))]
    run, jobs = submit(repo, slurm, *words)
    if chain == "false":
        assert finish(jobs["train"], slurm, 400) == "FAILED", logs(run)
        shown = repo.launch("logs", str(run), "--json", SLURM_CONF=slurm["SLURM_CONF"])
        assert "time limit" in {one["name"] for one in json.loads(shown.stdout)["failures"]}
        return
    end = time.monotonic() + 200
    while state(jobs["train"], slurm) != "RUNNING":  # it waits for the data's job at first
        assert time.monotonic() < end, logs(run)
        time.sleep(0.5)
    start_again(jobs["train"], slurm, 400)
    end = time.monotonic() + 100
    while len(attempts := [e for e in events.read(run) if e["event"] == "attempt" and e["parts"] == ["train"]]) < 2:
        assert time.monotonic() < end, logs(run)
        time.sleep(1)
    assert {event["job"] for event in attempts} == {jobs["train"]}
    assert attempts[1]["step"] > 20
    assert state(jobs["report"], slurm) == "PENDING"
    assert repo.launch("cancel", str(run), SLURM_CONF=slurm["SLURM_CONF"]).returncode == 0


@pytest.mark.full
def test_a_sweep_is_an_array_of_each_part_with_one_page(slurm: dict[str, str], repo: Repo) -> None:
    small = ("train.steps=2", "train.global_batch=8", "train.micro_batch=8", "eval.limit=8", "eval.n=1")
    words = ["--scale", "mini", *(word for one in small for word in ("--set", one)), "--slurm", "--json"]
    grid = "train.learning_rate=1e-4,1e-3"
    done = repo.launch("sweep", "min_o1/sft_long", grid, *words, SLURM_CONF=slurm["SLURM_CONF"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    study = Path(told["study"])
    said = "\n".join(path.read_text() for path in study.glob("logs/*"))
    assert finish(told["jobs"][-1], slurm, 580) == "COMPLETED", said
    record = json.loads((study / "study.json").read_text())
    assert [(one["cell"], one["status"]) for one in record["runs"]] == [
        ("learning_rate-1e-4", "done"), ("learning_rate-1e-3", "done"),
    ]  # fmt: skip
    assert (study / "report.html").is_file()


STUDY = """\
seeds: [0]
set: {eval: {limit: 8, n: 1}, train: {steps: 2, global_batch: 8, micro_batch: 8}}
cells:
  onward: {recipe: min_o1/sft_long, model_of: start}
  start: {recipe: min_o1/sft_long}
  broken: {recipe: min_o1/sft_short, set: {data: none}}
  blocked: {recipe: min_o1/sft_short, model_of: broken}
questions:
  - {ask: Which is best?, compare: [start, onward, broken, blocked]}
"""


@pytest.mark.full
def test_a_studys_cells_start_from_what_others_have_trained(slurm: dict[str, str], repo: Repo) -> None:
    repo.write("recipes/min_o1/study.yaml", STUDY)
    repo.write("recipes/min_o1/study.mini.yaml", "{}\n")
    with (repo.path / "recipes/min_o1/data.yaml").open("a") as pipelines:  # no sum has nine numbers
        pipelines.write(
            "none:\n  - curriculum: {split: train, levels: {2: 64}, seed: 1}\n  - select: {level: [9, 9]}\n"
        )
    words = ("min_o1", "--scale", "mini", "--slurm", "--json")
    done = repo.launch("study", *words, SLURM_CONF=slurm["SLURM_CONF"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    study = Path(told["study"])
    assert finish(told["jobs"][-1], slurm, 580) == "FAILED", "not all cells are done"
    said = "\n".join(path.read_text() for path in study.glob("logs/*"))
    entries = {entry["cell"]: entry for entry in json.loads((study / "study.json").read_text())["runs"]}
    assert {cell: entry["status"] for cell, entry in entries.items()} == {
        "start": "done", "onward": "done", "broken": "failed", "blocked": "blocked",
    }, said  # fmt: skip
    resolved = json.loads((study / entries["onward"]["run"] / "resolved.json").read_text())
    assert Path(resolved["model"]) == (study / entries["start"]["run"]).resolve() / "train"
    assert entries["blocked"]["reason"] == "it needs broken of seed 0, which did not finish"
    assert (study / "report.html").is_file()
    again = json.loads(repo.launch("study", *words, "--dry-run").stdout)
    assert [line for line in again["lines"] if "-start-" in line or "-onward-" in line] == [], "they are done"
    assert len(again["lines"]) == 9


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_a_second_recipe_begins_with_what_the_first_one_trained(slurm: dict[str, str], repo: Repo) -> None:
    first, jobs = submit(repo, slurm, "sky_t1/7b_sft", "--scale", "mini")
    assert finish(jobs["report"], slurm, 1200) == "COMPLETED", logs(first)
    second, jobs = submit(repo, slurm, "sky_t1/7b", "--scale", "mini")
    assert finish(jobs["report"], slurm, 1500) == "COMPLETED", logs(second)
    assert json.loads((second / "resolved.json").read_text())["model"] == str(first / "train")
    assert len(list(first.parent.iterdir())) == 1  # the first recipe was not done again
    assert (second / "report.html").is_file()
