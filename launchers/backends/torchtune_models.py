"""Maps a model to torchtune's model builder and its arguments, from its config.json or configs/models.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launchers.recipe import models
from launchers.recipe.schema import Lora

# Hugging Face's names of the layers that can have adapters, to torchtune's.
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
MLP = ("gate_proj", "up_proj", "down_proj")
OUTPUT = "lm_head"


class Unsupported(Exception):
    """A model that torchtune cannot build; the message says why and what to do."""


@dataclass(frozen=True)
class Model:
    """`component` in torchtune.models, its arguments (none for a builder of a fixed size), torchtune's ModelType."""

    component: str
    type: str
    tied: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    def with_lora(self) -> Model:
        """The builder with adapters."""
        folder, name = self.component.split(".")
        return Model(f"{folder}.lora_{name}", self.type, self.tied, self.arguments)


@dataclass(frozen=True)
class Adapters:
    """The layers to which torchtune adds adapters."""

    attention: tuple[str, ...]
    mlp: bool
    output: bool


def model_of(name: str, revision: str | None = None) -> Model:
    """torchtune's builder for a local folder or a Hub id. Raises Unsupported."""
    entry = models.known(name).get("torchtune")
    if entry is None and (folder := models.folder(name, revision)):
        return _from_config(models.read_config(folder))
    if entry is None:
        named = ", ".join(sorted(key for key, value in models.catalogue()["models"].items() if "torchtune" in value))
        raise Unsupported(
            f"torchtune's builder for {name!r} is unknown: use a local folder, or add the model to "
            f"configs/models.yaml, which has {named}"
        )
    return Model(entry["builder"], entry["type"])


def _from_config(config: dict[str, Any]) -> Model:
    kind = config.get("model_type")
    if kind not in ("qwen2", "llama"):
        raise Unsupported(f"only qwen2 and llama are supported with torchtune, not {kind!r}: use trainer llamafactory")
    if missing := [key for key in (*sorted(models.SIZES), "rms_norm_eps") if config.get(key) is None]:
        raise Unsupported(f"its config.json has no {', '.join(missing)}")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    if config.get("head_dim") not in (None, hidden // heads):
        raise Unsupported(f"its head_dim {config['head_dim']} is not hidden_size / heads, which torchtune assumes")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    arguments = {
        "vocab_size": config["vocab_size"], "num_layers": config["num_hidden_layers"], "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads") or heads, "embed_dim": hidden,
        "intermediate_dim": config["intermediate_size"], "max_seq_len": config["max_position_embeddings"],
        "attn_dropout": config.get("attention_dropout", 0.0), "norm_eps": config["rms_norm_eps"],
        "rope_base": rope.get("rope_theta", config.get("rope_theta", 10000.0)),
    }  # fmt: skip
    tied = bool(config.get("tie_word_embeddings"))
    if kind == "qwen2":
        if scaling != "default" or config.get("use_sliding_window"):
            raise Unsupported("torchtune's qwen2 supports neither RoPE scaling nor a sliding window")
        return Model("qwen2.qwen2", "QWEN2", tied, {**arguments, "tie_word_embeddings": tied})
    if tied or config.get("attention_bias") or config.get("mlp_bias"):
        raise Unsupported("torchtune's llama3 supports neither biases nor tied embeddings: use trainer llamafactory")
    if scaling == "llama3":
        return Model("llama3_1.llama3_1", "LLAMA3", False, {**arguments, "scale_factor": int(rope["factor"])})
    if scaling != "default":
        raise Unsupported(f"torchtune's llama3 does not support RoPE scaling {scaling!r}")
    return Model("llama3.llama3", "LLAMA3", False, arguments)


def adapters(lora: Lora) -> Adapters:
    """The layers with adapters. Raises Unsupported for combinations that torchtune does not support."""
    if lora.targets == ["all"]:
        return Adapters(tuple(ATTENTION.values()), True, False)
    unknown = [name for name in lora.targets if name not in (*ATTENTION, *MLP, OUTPUT)]
    if unknown:
        raise Unsupported(f"{', '.join(unknown)}: torchtune has {', '.join((*ATTENTION, *MLP, OUTPUT))}, or all")
    some = [name for name in MLP if name in lora.targets]
    if some and len(some) < len(MLP):
        raise Unsupported(f"torchtune adds adapters to all of {', '.join(MLP)} or to none of them")
    attention = tuple(native_name for ours, native_name in ATTENTION.items() if ours in lora.targets)
    if not attention:
        raise Unsupported(f"torchtune needs at least one of {', '.join(ATTENTION)}")
    return Adapters(attention, bool(some), OUTPUT in lora.targets)
