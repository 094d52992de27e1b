"""A CPU as verl's accelerator: a platform through verl's own registry, and three patches of torch and transformers.

VERL_PLATFORM=cpu chooses the platform; VERL_ENGINE_DEVICE=cuda makes verl look its FSDP engine up under the only
device names it knows. `rollout.name=transformers` is registered beside verl's own engines (cpu_rollout.py); with
POSTTRAIN_ROLLOUT=transformers a config that says `vllm` is served by it too.
"""

from __future__ import annotations

import contextlib
import functools
import os
from types import ModuleType
from typing import Any

import torch
import torch.distributed.fsdp

from launchers.plugins.verl.hooks import after_import
from verl.plugin.platform import PlatformBase, PlatformRegistry

BACKEND = "gloo"
NO_MEMORY_STATISTICS = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
NOTHING_TO_DO = ("empty_cache", "set_device", "ipc_collect", "reset_peak_memory_stats", "synchronize")


class CpuModule(ModuleType):
    """torch.cpu, and what verl calls on torch.cuda without asking whether there is one."""

    def __init__(self) -> None:
        super().__init__("torch_cpu_for_verl")
        for name in NO_MEMORY_STATISTICS:
            setattr(self, name, lambda *_, **__: 0)
        for name in NOTHING_TO_DO:
            setattr(self, name, lambda *_, **__: None)
        self.mem_get_info = lambda *_, **__: (0, 0)
        self.get_rng_state = lambda *_, **__: torch.get_rng_state()
        self.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
        self.manual_seed = self.manual_seed_all = torch.manual_seed
        self.get_device_name = lambda *_, **__: "CPU"
        self.current_device = lambda: torch.device("cpu")
        self.device = lambda *_, **__: contextlib.nullcontext()
        self.is_available = lambda: False  # True would start profilers and memory reports that need a GPU

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(torch.cpu, name)


def _nothing(self: Any, *_: Any) -> None:
    """What only an accelerator has to do, or can tell."""


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """What verl asks of an accelerator, answered by a CPU."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CpuModule()
    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never by detection, only by VERL_PLATFORM=cpu

    def current_device(self) -> torch.device:  # verl passes it on to Tensor.to()
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return BACKEND

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def ray_resource_name(self) -> str:
        return "GPU"  # a number that Ray only counts: ray_init.num_gpus = ranks. verl's placement asks for it by name

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights reach vLLM through shared memory


def install() -> None:
    """Patch what has no setting, and offer the transformers rollout; called in each process."""
    _name_each_device_once()
    _do_not_pin_memory()
    after_import("transformers.modeling_utils", _attention_without_flash)
    after_import("verl.workers.rollout.base", _offer_adapter)
    after_import("verl.workers.rollout.replica", _offer_replica)


def _name_each_device_once() -> None:
    """verl joins "cpu:gloo" and "<device>:<backend>"; torch refuses a list that names a device twice."""
    initialise = torch.distributed.init_process_group

    @functools.wraps(initialise)
    def once(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        both = f"cpu:{BACKEND},cpu:{BACKEND}"
        return initialise(f"cpu:{BACKEND}" if backend == both else backend, *args, **kwargs)

    torch.distributed.init_process_group = once


def _do_not_pin_memory() -> None:
    """The FSDP2 engine keeps a reference policy in pinned memory; pinning needs an accelerator's driver."""

    class Unpinned(torch.distributed.fsdp.CPUOffloadPolicy):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    torch.distributed.fsdp.CPUOffloadPolicy = Unpinned  # type: ignore[misc]


def _attention_without_flash(modeling: ModuleType) -> None:
    """verl's critic loader asks for flash attention in its source, its actor by default; there is none on a CPU."""
    model = modeling.PreTrainedModel
    check = model._check_and_adjust_attn_implementation

    @functools.wraps(check)
    def sdpa_instead(self: Any, attn_implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        implementation = "sdpa" if attn_implementation == "flash_attention_2" else attn_implementation
        return check(self, implementation, *args, **kwargs)

    model._check_and_adjust_attn_implementation = sdpa_instead


def rollout_names() -> list[str]:
    """The values of rollout.name that transformers serves."""
    return ["transformers", *(["vllm"] if os.environ.get("POSTTRAIN_ROLLOUT") == "transformers" else [])]


def _offer_adapter(base: ModuleType) -> None:
    for name in rollout_names():
        base._ROLLOUT_REGISTRY[(name, "async")] = "launchers.plugins.verl.cpu_rollout.TransformersAdapter"


def _offer_replica(replica: ModuleType) -> None:
    def load() -> type:
        from launchers.plugins.verl.cpu_rollout import TransformersReplica

        return TransformersReplica

    for name in rollout_names():
        replica.RolloutReplicaRegistry.register(name, load)
