"""verl's transfer of weights to vLLM on a CPU, whole and stopped in the middle. Needs verl's environment.

The two ends are forks, which need not import verl again.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

import launchers.plugins.verl  # noqa: F401 - patches the module above

FORK = multiprocessing.get_context("fork")


def _weight(number: int) -> torch.Tensor:
    return torch.arange(200_000, dtype=torch.float32) + number


def _send(address: str, reports: Connection, stays: bool) -> None:
    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for number in range(3):
            yield f"layer{number}", _weight(number)
        if stays:
            reports.send("on its way")
            time.sleep(60)

    os.setpgid(0, 0)
    asyncio.run(BucketedWeightSender(address, bucket_size_mb=1, use_shm=True).async_send_weights(weights()))


def _receive(address: str, reports: Connection, _: bool) -> None:
    def received(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
        for name, weight in weights:
            reports.send((name, torch.equal(weight, _weight(int(name[-1])))))

    os.setpgid(0, 0)
    BucketedWeightReceiver(address, torch.device("cpu"), use_shm=True).receive_weights(received)


def _ends(folder: Path, stays: bool) -> list[tuple[multiprocessing.process.BaseProcess, Connection]]:
    """Sender and receiver, whose processes that remove shared memory are killed with them, as Ray does it."""
    ends = []
    for work in (_send, _receive):
        reports, told = FORK.Pipe(duplex=False)
        process = FORK.Process(target=work, args=(f"ipc://{folder}/s", told, stays))
        process.start()
        os.setpgid(process.pid or 0, process.pid or 0)
        ends.append((process, reports))
    return ends


def test_weights_arrive_as_they_were(tmp_path: Path) -> None:
    ends = _ends(tmp_path, stays=False)
    for process, _ in ends:
        process.join(60)
    reports = ends[1][1]
    assert [process.exitcode for process, _ in ends] == [0, 0]
    assert [reports.recv() for _ in range(3)] == [(f"layer{number}", True) for number in range(3)]


def test_a_transfer_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    ends = _ends(tmp_path, stays=True)
    assert ends[0][1].recv() == "on its way"
    for process, _ in ends:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join(60)
    assert {name for name in os.listdir("/dev/shm") if name.startswith("verl_weights")} <= before
