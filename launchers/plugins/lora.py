"""Finds LoRA targets without a module in the model, which peft ignores silently."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def unmatched(config: Any, targets: Sequence[str]) -> str | None:
    """The fault of `targets` (module names) that the model lacks; None if each target has a module.

    Models that AutoModelForCausalLM cannot build (multimodal, custom code) are not checked.
    """
    if not targets or type(config) not in AutoModelForCausalLM._model_mapping:
        return None
    with torch.device("meta"):
        modules = dict(AutoModelForCausalLM.from_config(config).named_modules())
    lacking = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in modules)]
    linear = {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    known = ", ".join(sorted(linear - {"lm_head"}))
    return f"LoRA targets without a module in the model: {', '.join(lacking)}; it has {known}" if lacking else None
