"""Small models of four families: their tokenizer classes, special tokens and chat templates, with random weights.

    <llamafactory python> tests/launchers/small_models.py FOLDER

The templates are those of meta-llama/Meta-Llama-3-8B-Instruct, Qwen/Qwen2.5-7B-Instruct, google/gemma-2-2b-it and
mistralai/Mistral-7B-Instruct-v0.2. Vocabularies are bytes (Llama, Qwen) or characters with byte fallback (the others).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama3": {
        "class": "PreTrainedTokenizerFast", "template": "llama", "bytes": True, "bos": "<|begin_of_text|>",
        "eos": "<|eot_id|>", "config": "LlamaConfig",
        "special": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    },
    "qwen2.5": {
        "class": "Qwen2Tokenizer", "template": "qwen", "bytes": True, "bos": None, "eos": "<|im_end|>",
        "pad": "<|endoftext|>", "config": "Qwen2Config", "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    },
    "gemma": {
        "class": "GemmaTokenizer", "template": "gemma", "bytes": False, "bos": "<bos>", "eos": "<eos>", "pad": "<pad>",
        "ends": ["<eos>", "<end_of_turn>"], "config": "GemmaConfig",
        "special": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    },
    "mistral": {
        "class": "LlamaTokenizer", "template": "mistral", "bytes": False, "bos": "<s>", "eos": "</s>",
        "config": "MistralConfig", "special": ["<unk>", "<s>", "</s>"],
    },
}  # fmt: skip
# Base models end a text with another token than a turn, and Llama's has no chat template.
FAMILIES["llama3-base"] = {**FAMILIES["llama3"], "eos": "<|end_of_text|>", "template": None}
FAMILIES["qwen2.5-base"] = {**FAMILIES["qwen2.5"], "eos": "<|endoftext|>"}


def tokenizer(family: dict[str, Any]) -> Any:
    """A `tokenizers` pipeline of the family's kind."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = family["special"]
    if family["bytes"]:
        symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        symbols = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", *map(chr, range(33, 127))]
    vocabulary = {symbol: number for number, symbol in enumerate([*special, *symbols])}
    byte_fallback = not family["bytes"]
    made = Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>" if byte_fallback else None, byte_fallback=byte_fallback)
    )
    if family["bytes"]:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        made.normalizer = normalizers.Replace(" ", "▁")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if family["bos"]:
        made.post_processor = processors.TemplateProcessing(
            single=f"{family['bos']} $A", pair=f"{family['bos']} $A {family['bos']} $B",
            special_tokens=[(family["bos"], vocabulary[family["bos"]])],
        )  # fmt: skip
    return made


def build(folder: Path, family: dict[str, Any]) -> None:
    """A model folder as the Hub would hold it."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    made = tokenizer(family)
    made.save(str(folder / "tokenizer.json"))
    ends = [made.token_to_id(text) for text in family.get("ends", [family["eos"]])]
    said = {
        "tokenizer_class": family["class"], "bos_token": family["bos"], "eos_token": family["eos"],
        "pad_token": family.get("pad"), "unk_token": None if family["bytes"] else "<unk>",
        "chat_template": family["template"] and (TEMPLATES / f"{family['template']}.jinja").read_text(),
        "model_max_length": 512, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(
        json.dumps({key: one for key, one in said.items() if one is not None})
    )
    config = getattr(transformers, family["config"])(
        vocab_size=made.get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=32,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False,
        bos_token_id=made.token_to_id(family["bos"]) if family["bos"] else None, eos_token_id=ends[0],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)


if __name__ == "__main__":
    for name, family in FAMILIES.items():
        build(Path(sys.argv[1]) / name, family)
