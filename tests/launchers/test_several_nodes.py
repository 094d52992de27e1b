"""Jobs on two nodes of a real Slurm on this host: torchrun and Ray start on both, and end with each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import House
from tests.slurm_cluster import cluster, finish

LARGE = "cpus: 2\nhost_memory_gb: 16\n"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environ:
        yield environ


def two_nodes(house: House) -> None:
    """A profile of two nodes without GPUs, a process on each."""
    profile = (house.path / "configs/hardware/cpu.yaml").read_text()
    house.write("configs/hardware/cpu_x2.yaml", profile.replace("nodes: 1", "nodes: 2"))


def submit(house: House, slurm: dict[str, str], *words: str) -> tuple[Path, dict[str, str]]:
    """Run directory, and the name of each submitted job to its number."""
    done = house.launch("submit", *words, "--json", SLURM_CONF=slurm["SLURM_CONF"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Path(told["run"]), {one["name"]: one["job"] for one in told["jobs"]}


def logs(run: Path) -> str:
    return "\n".join(
        f"== {path}\n{path.read_text()}" for path in (*run.glob("logs/slurm-*"), *run.glob("logs/*/*.log"))
    )


@pytest.mark.full
def test_llamafactory_trains_on_two_nodes(slurm: dict[str, str], house: House) -> None:
    two_nodes(house)
    small = "eval=null train.steps=2 train.global_batch=8 train.micro_batch=4 hardware=cpu_x2"
    words = [word for one in small.split() for word in ("--set", one)]
    run, jobs = submit(house, slurm, "min_o1/sft_long", "--scale", "mini", *words)
    assert finish(jobs["report"], slurm, 500) == "COMPLETED", logs(run)
    assert json.loads((run / "train/trainer_state.json").read_text())["global_step"] == 2
    (other,) = run.glob("logs/*/train-after.node1.log")
    assert "node 1: " in logs(run)
    assert "world size: 2" in logs(run) or "distributed training: True" in logs(run), other.read_text()


@pytest.mark.full
def test_verl_trains_on_a_ray_cluster_of_two_nodes(slurm: dict[str, str], house: House) -> None:
    two_nodes(house)
    small = (
        "eval=null validation=null stop=null train.steps=2 train.global_batch=16 train.micro_batch=8 rollout.prompts=4 "
        "rollout.samples=4 hardware=cpu_x2"
    )
    words = [word for one in small.split() for word in ("--set", one)]
    run, jobs = submit(house, slurm, "min_o1/grpo", "--scale", "mini", *words)
    assert finish(jobs["report"], slurm, 580) == "COMPLETED", logs(run)
    assert json.loads((run / "train/merged/done.json").read_text())["step"] == 2
    assert len(list(run.glob("train/checkpoints/global_step_2/actor/model_world_size_2_rank_*.pt"))) == 2
    assert (run / "train.log", logs(run).count("Ray node ")) == (run / "train.log", 2)
