"""Starts the real verl on a CPU, the way README.md of launchers/plugins/verl says, and watches its processes."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.families.mini import curriculum
from tests.conftest import REPO

ENVIRONMENT = {
    "PYTHONPATH": str(REPO),
    "PYTHONDONTWRITEBYTECODE": "",
    "VERL_USE_EXTERNAL_MODULES": "launchers.plugins.verl",
    "VERL_PLATFORM": "cpu",
    "VERL_ENGINE_DEVICE": "cuda",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
PROMPTS, SAMPLES = 4, 4
ENDING_S = 180  # after a kill of the driver, Ray's two agents wait for its head for about two minutes before they end
FP32 = "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"
POLICY = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"

# What a run on GPUs says too.
PRODUCTION = [
    f"data.train_batch_size={PROMPTS}",
    "data.max_prompt_length=24",
    "data.max_response_length=72",
    "data.filter_overlong_prompts=True",
    "data.truncation=error",
    f"{POLICY}.strategy=fsdp2",
    f"{POLICY}.optim.lr=1e-3",
    f"{POLICY}.ppo_mini_batch_size={PROMPTS}",
    f"{POLICY}.policy_loss.loss_mode=ppo_clip",
    f"{ROLLOUT}.n={SAMPLES}",
    f"{ROLLOUT}.name=vllm",
    f"{ROLLOUT}.tensor_model_parallel_size=1",
    "algorithm.adv_estimator=adv_group",
    "trainer.logger=[console,file]",
    "trainer.nnodes=1",
]
# The overlay for a CPU; README.md gives the reason for each.
MINI = [
    "trainer.use_v1=False",
    "trainer.device=cpu",
    f"{POLICY}.use_torch_compile=False",
    f"++{POLICY}.fsdp_config.mixed_precision={FP32}",
    f"++actor_rollout_ref.ref.fsdp_config.mixed_precision={FP32}",
    f"++critic.fsdp.mixed_precision={FP32}",
    "actor_rollout_ref.model.use_remove_padding=False",
    "actor_rollout_ref.model.enable_gradient_checkpointing=False",
    f"{ROLLOUT}.agent.num_workers=1",
    "reward.num_workers=1",
    "data.dataloader_num_workers=0",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "ray_kwargs.ray_init.num_cpus=8",
    "+ray_kwargs.ray_init.address=local",  # never a cluster that happens to run here
    "+ray_kwargs.ray_init.include_dashboard=False",
    "+ray_kwargs.ray_init.object_store_memory=200000000",
    "+ray_kwargs.ray_init._system_config={prestart_worker_first_driver:false}",  # two workers that verl's never are
]
VLLM = [
    f"{ROLLOUT}.dtype=float32",
    f"{ROLLOUT}.enforce_eager=True",
    f"{ROLLOUT}.free_cache_engine=False",
    f"+{ROLLOUT}.enable_sleep_mode=False",
    f"{ROLLOUT}.max_model_len=128",
    f"{ROLLOUT}.max_num_seqs=64",
    f"{ROLLOUT}.max_num_batched_tokens=512",
    f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=16",
]
CRITIC = [
    "algorithm.adv_estimator=gae",
    "critic.strategy=fsdp2",
    "critic.optim.lr=1e-3",
    f"critic.ppo_micro_batch_size_per_gpu={PROMPTS * SAMPLES}",
    "critic.model.use_remove_padding=False",
    "critic.model.enable_gradient_checkpointing=False",
]
REWARD = """
import re

def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    found = re.findall(r"boxed.(\\d+)", solution_str)
    digits = sum(character.isdigit() for character in solution_str)
    right = float(bool(found) and found[-1] == str(ground_truth))
    return {"score": right + 0.001 * digits, "acc": right}
"""  # the digits give every group some variance


@dataclass
class Watched:
    """A run that has ended: exit status, output, metrics by step, most memory of all its processes together."""

    status: int
    log: str
    metrics: dict[int, dict[str, Any]]
    peak_gb: float
    left: list[str] = field(default_factory=list)  # processes that outlived it


def write_data(folder: Path) -> None:
    """train.parquet, val.parquet and reward.py."""
    for split, name, levels in (("train", "train", {2: 40, 3: 40}), ("test", "val", {2: 8})):
        rows = [
            {
                "data_source": "arithmetic",
                "prompt": row["prompt"],
                "reward_model": {"style": "rule", "ground_truth": row["answer"]},
                "extra_info": {"index": index},
            }
            for index, row in enumerate(curriculum.questions(levels, split, seed=3))
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    (folder / "reward.py").write_text(REWARD)


def overrides(data: Path, out: Path, model: Path, ranks: int) -> list[str]:
    """Hydra overrides of a run on `ranks` ranks; later ones given to verl win."""
    micro = PROMPTS * SAMPLES // ranks
    return [
        *PRODUCTION,
        *MINI,
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/val.parquet",
        f"reward.custom_reward_function.path={data}/reward.py",
        f"actor_rollout_ref.model.path={model}",
        f"critic.model.path={model}",
        f"{POLICY}.ppo_micro_batch_size_per_gpu={micro}",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu={micro}",
        f"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={micro}",
        f"trainer.n_gpus_per_node={ranks}",
        f"+ray_kwargs.ray_init.num_gpus={ranks}",
        "trainer.val_before_train=False",
        f"trainer.default_local_dir={out}/checkpoints",
        f"hydra.run.dir={out}/hydra",
    ]


def _marked(mark: str) -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                yield process
        except OSError:  # ended meanwhile
            continue


def command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _memory_gb(processes: list[Path]) -> float:
    """Proportional set size: shared pages are counted once over all who share them."""
    total = 0
    for process in processes:
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024**2


def shared_memory() -> set[str]:
    """Named segments of any process of this user that Python's multiprocessing has made."""
    return {
        segment.name
        for segment in Path("/dev/shm").glob("*_*")
        if segment.name.startswith(("psm_", "verl_weights")) and segment.stat().st_uid == os.getuid()
    }


Act = Callable[[str, list[Path]], bool]


def train(python: Path, data: Path, out: Path, words: list[str], act: Act | None = None, **environ: str) -> Watched:
    """Run verl until it ends. `act(log, processes)` is called every second until it says True."""
    out.mkdir(parents=True, exist_ok=True)
    mark, attempt = f"POSTTRAIN_TEST_MARK={uuid.uuid4().hex}", uuid.uuid4().hex[:8]
    metrics, log = out / f"metrics-{attempt}.jsonl", out / f"log-{attempt}.txt"
    environ = {
        **os.environ,
        **ENVIRONMENT,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "VERL_FILE_LOGGER_PATH": str(metrics),
        **environ,
        **dict([mark.split("=")]),
    }
    peak = 0.0
    with log.open("w") as sink:
        running = subprocess.Popen(
            [str(python), "-m", "verl.trainer.main_ppo", *words], cwd=out, env=environ, stdout=sink, stderr=sink
        )
        while running.poll() is None:
            processes = list(_marked(mark))
            peak = max(peak, _memory_gb(processes))
            if act is not None and act(log.read_text(), processes):
                act = None
            time.sleep(1)
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    deadline = time.monotonic() + ENDING_S
    while (left := [command(process) for process in _marked(mark)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return Watched(running.returncode, log.read_text(), {row["step"]: row["data"] for row in rows}, peak, left)
