"""A CPU as verl's accelerator: a platform in verl's registry, and three patches of torch and transformers.

VERL_PLATFORM=cpu selects the platform; VERL_ENGINE_DEVICE=cuda makes verl find its FSDP engine, which is registered
only for cuda and npu. The rollout engine `transformers` is registered next to verl's own (cpu_rollout.py); with
POSTTRAIN_ROLLOUT=transformers it also replaces `vllm`.
"""

import contextlib
import os
from types import ModuleType
from typing import Any

import torch
import torch.distributed.fsdp
import wrapt

from verl.plugin.platform import PlatformBase, PlatformRegistry

BACKEND = "gloo"
ANSWERS = {  # return values of torch.cuda functions that verl calls without checking for a GPU
    **dict.fromkeys(("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"), 0),
    **dict.fromkeys(("empty_cache", "set_device", "ipc_collect", "reset_peak_memory_stats", "synchronize")),
    "mem_get_info": (0, 0),
    "get_device_name": "CPU",
    "current_device": torch.device("cpu"),
    "device": contextlib.nullcontext(),
    "is_available": False,  # True would enable profilers and memory reports that need a GPU
}


class CpuModule(ModuleType):
    """torch.cpu with the functions that verl calls on torch.cuda."""

    def __init__(self) -> None:
        super().__init__("torch_cpu_for_verl")
        self.get_rng_state = lambda *_, **__: torch.get_rng_state()
        self.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
        self.manual_seed = self.manual_seed_all = torch.manual_seed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return (lambda *_, **__: ANSWERS[name]) if name in ANSWERS else getattr(torch.cpu, name)


def _nothing(self: Any, *_: Any) -> None:
    """No-op for functions that only apply to accelerators."""


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """verl's accelerator interface for a CPU."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CpuModule()
    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # not auto-detected, only selected by VERL_PLATFORM=cpu

    def current_device(self) -> torch.device:  # passed to Tensor.to()
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
        return "GPU"  # requested by verl's placement groups; a logical resource, ray_init.num_gpus = ranks

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights reach vLLM through shared memory


def install() -> None:
    """Apply patches for which there is no setting, and register the transformers rollout; called in each process."""
    _name_each_device_once()
    _do_not_pin_memory()
    wrapt.register_post_import_hook(_attention_without_flash, "transformers.modeling_utils")
    wrapt.register_post_import_hook(_offer_adapter, "verl.workers.rollout.base")
    wrapt.register_post_import_hook(_offer_replica, "verl.workers.rollout.replica")


def _name_each_device_once() -> None:
    """verl joins "cpu:gloo" and "<device>:<backend>", but torch rejects a list with the same device twice."""

    @wrapt.patch_function_wrapper(torch.distributed, "init_process_group")
    def once(initialise: Any, _: None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("backend") == f"cpu:{BACKEND},cpu:{BACKEND}":
            kwargs = {**kwargs, "backend": f"cpu:{BACKEND}"}
        return initialise(*args, **kwargs)


def _do_not_pin_memory() -> None:
    """The FSDP2 engine offloads the reference policy to pinned memory, which needs an accelerator's driver."""

    class Unpinned(torch.distributed.fsdp.CPUOffloadPolicy):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    torch.distributed.fsdp.CPUOffloadPolicy = Unpinned  # type: ignore[misc]


def _attention_without_flash(modeling: ModuleType) -> None:
    """verl requests flash attention (hard-coded for the critic, the default for the actor); a CPU has none."""

    @wrapt.patch_function_wrapper(modeling, "PreTrainedModel._check_and_adjust_attn_implementation")
    def sdpa_instead(check: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        requested, *others = args
        return check("sdpa" if requested == "flash_attention_2" else requested, *others, **kwargs)


def rollout_names() -> list[str]:
    """The values of rollout.name that are served by transformers."""
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
