"""verl's transfer of weights to vLLM on a CPU, whole and stopped in the middle. Needs verl's environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

SEND = """
import asyncio, sys, time
import torch
import launchers.plugins.verl
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

def weights():
    for number in range(3):
        yield f"layer{number}", torch.arange(200_000, dtype=torch.float32) + number
    if sys.argv[2] == "stay":
        print("on its way", flush=True)
        time.sleep(60)

asyncio.run(BucketedWeightSender(sys.argv[1], bucket_size_mb=1, use_shm=True).async_send_weights(weights()))
"""
RECEIVE = """
import sys
import torch
import launchers.plugins.verl
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

def received(weights, is_last):
    for name, weight in weights:
        expected = torch.arange(200_000, dtype=torch.float32) + int(name[-1])
        print(name, torch.equal(weight, expected), flush=True)

BucketedWeightReceiver(sys.argv[1], torch.device("cpu"), use_shm=True).receive_weights(received)
"""


def _ends(folder: Path, sender: str) -> list[subprocess.Popen[str]]:
    """Sender and receiver, whose processes that remove shared memory are killed with them, as Ray does it."""
    environ = {**os.environ, "VERL_USE_EXTERNAL_MODULES": "launchers.plugins.verl", "VERL_PLATFORM": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, f"ipc://{folder}/s", sender],
            env=environ, stdout=subprocess.PIPE, text=True, process_group=0,
        )
        for script in (SEND, RECEIVE)
    ]  # fmt: skip


def test_weights_arrive_as_they_were(tmp_path: Path) -> None:
    sender, receiver = _ends(tmp_path, "end")
    lines = receiver.communicate(timeout=60)[0].splitlines()
    assert [line for line in lines if line.startswith("layer")] == [f"layer{number} True" for number in range(3)]
    assert (sender.wait(60), receiver.returncode) == (0, 0)


def test_a_transfer_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    ends = _ends(tmp_path, "stay")
    assert ends[0].stdout is not None
    assert "on its way\n" in iter(ends[0].stdout.readline, "")
    for end in ends:
        os.killpg(end.pid, signal.SIGKILL)
        end.wait(60)
    assert {name for name in os.listdir("/dev/shm") if name.startswith("verl_weights")} <= before
