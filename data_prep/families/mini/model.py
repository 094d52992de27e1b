"""An untrained mini model: a Qwen2 with half a million parameters and its own byte-level BPE tokenizer.

It trains in minutes on a laptop's CPU, yet is a plain Qwen2 checkpoint for every trainer and server:
head size 32 (the smallest in vLLM's CPU attention), Qwen2's split regex, ChatML. Needs transformers.
"""

from pathlib import Path
from typing import Any

from data_prep.families.mini.worlds import WORLDS, World

# Qwen2's pre-tokenizer (transformers/models/qwen2/tokenization_qwen2.py): each digit is a token of its own.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ENDOFTEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(world: World) -> Any:
    """Byte-level BPE trained on the world's curriculum and the chat roles; encodes any UTF-8 text. Deterministic.

    Text is normalised to NFC as in Qwen2; newer transformers do so for every qwen2 checkpoint anyway.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    texts = world.texts()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=world.vocab - 3,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=50,
        show_progress=False,
    )
    texts += ["check"] * (len(texts) // 2) + ["system\nuser\nassistant\n"] * 500
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([ENDOFTEXT, IM_START, IM_END])  # after the merges, as in Qwen2
    return tokenizer


def save_tokenizer(out: str, world: World) -> dict[str, int]:
    """Write the tokenizer, with torchtune's vocab.json and merges.txt. Returns the special tokens' ids."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = train_tokenizer(world)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=ENDOFTEXT,
        additional_special_tokens=[IM_START, IM_END],
        chat_template=CHATML,
        model_max_length=world.shape["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(out)
    tokenizer.model.save(out)
    return {token: tokenizer.token_to_id(token) for token in (ENDOFTEXT, IM_START, IM_END)}


def build(out: str, seed: int, subject: str) -> None:
    """Write a world's untrained checkpoint (float32, random weights from `seed`) with its tokenizer into `out`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    world = WORLDS[subject]
    Path(out).mkdir(parents=True, exist_ok=True)
    ids = save_tokenizer(out, world)
    special: dict[str, Any] = {"eos_token_id": ids[IM_END], "pad_token_id": ids[ENDOFTEXT], "bos_token_id": None}
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=world.vocab, **world.shape, **special)).float()
    model.generation_config.update(**special)
    model.save_pretrained(out)
