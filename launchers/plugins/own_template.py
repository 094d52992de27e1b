"""Renders rows with the model's own chat template (transformers), as evaluation does, for checks/tokens.py."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig

from launchers.checks.tokens import Inspection, Message, Rendered, Vocabulary

ANSWER = "ANSWER"  # placeholder for an answer, to find the text that the template writes after it


def rendered(tokenizer: Any, chat: Sequence[Message], inspection: Inspection) -> Rendered | None:
    """The prompt of evaluation, the answer verbatim (with loss), and the text that the template writes after it.

    None if the template rejects the row, which is recorded as a fault. The opening tag of a thought is removed from the
    answer if the prompt already ends with it. The template's own rendering of the answer is not used, because it may
    add or drop a thought.
    """
    answered = chat[-1]["role"] == "assistant"
    question = list(chat[:-1] if answered else chat)
    example = [*question, {"role": "assistant", "content": ANSWER}]
    try:
        prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(example, tokenize=False).rpartition(ANSWER)[2] if answered else ""
    except (TemplateError, ValueError, KeyError) as problem:
        inspection.add_template_fault(chat, problem)
        return None
    answer = chat[-1]["content"].strip() if answered else ""
    opening = (inspection.settings["thinking"] or {}).get("open") or "<think>"
    if prompt.rstrip().endswith(opening):
        answer = answer.removeprefix(opening).lstrip()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer + after)]
    return Rendered([*ids[0], *ids[1]], [False] * len(ids[0]) + [True] * len(ids[1]))


def vocabulary(tokenizer: Any, model: str, revision: str | None) -> Vocabulary:
    """The vocabulary of a transformers tokenizer, with the model's stop tokens."""
    try:
        configured = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
    except OSError:  # it has no generation_config.json
        configured = None
    ends = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Vocabulary(
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        frozenset({*tokenizer.all_special_ids, *added}), frozenset(ends), tokenizer.bos_token_id,
    )  # fmt: skip
