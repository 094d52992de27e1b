"""LoRA targets that a model has no module for: peft adapts the others and reports nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def unmatched(config: Any, targets: Sequence[str]) -> str | None:
    """What is wrong with `targets` (names of modules) for a model's config; None if each has a module.

    Models that AutoModelForCausalLM does not build (with images, of their own code) are not looked at.
    """
    if not targets or type(config) not in AutoModelForCausalLM._model_mapping:
        return None
    with torch.device("meta"):
        modules = dict(AutoModelForCausalLM.from_config(config).named_modules())
    lacking = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in modules)]
    linear = {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    known = ", ".join(sorted(linear - {"lm_head"}))
    return f"LoRA targets without a module in the model: {', '.join(lacking)}; it has {known}" if lacking else None
