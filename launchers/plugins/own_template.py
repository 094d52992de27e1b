"""A row by the model's own chat template (transformers), as evaluation asks, for checks/tokens.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig

from launchers.checks.tokens import Inspection, Message, Rendered, Vocabulary

ANSWER = "ANSWER"  # is rendered in place of an answer, for what the template writes after one


def rendered(tokenizer: Any, chat: Sequence[Message], inspection: Inspection) -> Rendered | None:
    """The prompt that evaluation sends, the answer as it is written (with loss), and what ends an answer.

    None where the template refuses the row, which becomes a fault. An answer's first mark is left out where the prompt
    ends in it already. The template's own rendering of the answer is not used: it may add or drop a thought.
    """
    answered = chat[-1]["role"] == "assistant"
    asked = list(chat[:-1] if answered else chat)
    example = [*asked, {"role": "assistant", "content": ANSWER}]
    try:
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(example, tokenize=False).rpartition(ANSWER)[2] if answered else ""
    except (TemplateError, ValueError, KeyError) as problem:
        inspection.refuse_row(chat, problem)
        return None
    answer = chat[-1]["content"].strip() if answered else ""
    opening = (inspection.settings["thinking"] or {}).get("open") or "<think>"
    if prompt.rstrip().endswith(opening):
        answer = answer.removeprefix(opening).lstrip()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer + after)]
    return Rendered([*ids[0], *ids[1]], [False] * len(ids[0]) + [True] * len(ids[1]))


def vocabulary(tokenizer: Any, model: str, revision: str | None) -> Vocabulary:
    """A transformers tokenizer, with the tokens at which a server of the model stops."""
    try:
        configured = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
    except OSError:  # it has no generation_config.json
        configured = None
    ends = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    marks = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Vocabulary(
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        frozenset({*tokenizer.all_special_ids, *marks}), frozenset(ends), tokenizer.bos_token_id,
    )  # fmt: skip
