"""A row by the model's own chat template (transformers), as evaluation asks, for checks/tokens.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig

from launchers.checks.tokens import Inspection, Message, Rendered, Vocabulary


def rendered(tokenizer: Any, chat: Sequence[Message], inspection: Inspection) -> Rendered | None:
    """The row, with loss on its last answer; None where the template refuses it, which becomes a fault."""
    answered = chat[-1]["role"] == "assistant"
    try:
        prompt = tokenizer.apply_chat_template(
            list(chat[:-1] if answered else chat), tokenize=False, add_generation_prompt=True
        )
        text = tokenizer.apply_chat_template(list(chat), tokenize=False) if answered else prompt
    except (TemplateError, ValueError, KeyError) as problem:
        inspection.refuse_row(chat, problem)
        return None
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    before = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if answered else len(ids)
    return Rendered(ids, [at >= before for at in range(len(ids))])


def vocabulary(tokenizer: Any, model: str, revision: str | None) -> Vocabulary:
    """A transformers tokenizer, with the tokens at which a server of the model stops."""
    try:
        configured = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
    except OSError:  # it has no generation_config.json
        configured = None
    ends = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    marks = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Vocabulary(
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        frozenset({*tokenizer.all_special_ids, *marks}), frozenset(ends), tokenizer.bos_token_id,
    )  # fmt: skip
