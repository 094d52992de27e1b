"""Chat messages of a row, and a model's own chat template without transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from rewards.errors import RewardError

Messages = list[dict[str, str]]

# Marks that open and close turns in chat templates: in an answer they would forge a turn. (Not <s> and </s>: HTML has
# them too, and no template opens a turn with them alone.)
CONTROL_MARK = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)
_LAST = re.compile(rf"(?:{CONTROL_MARK.pattern}|</s>)\Z")
_LONGEST = 64  # characters; no control mark is longer


def without_end_token(text: str, own: Collection[str] = ()) -> str:
    """`text` without the control marks at its very end, which a decoder may have kept. Linear in the text.

    own: marks of this shape that belong to the text, such as a thinking format's.
    """
    end = kept = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        start = max(0, end - _LONGEST)
        mark = _LAST.search(text[start:end])
        if mark is None or mark.group() in own:
            return text[:kept]
        end = kept = start + mark.start()


def prompt_messages(prompt: Any) -> Messages:
    """A row's `prompt` as chat messages that end with the user. Raises RewardError if it is not such."""
    if isinstance(prompt, str) and prompt:
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise RewardError(f"the row's prompt is {str(prompt)[:80]!r}, not a list of chat messages")
    for message in prompt:
        if not (
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        ):
            raise RewardError(f"the row's prompt holds {str(message)[:80]!r}, not a message with role and content")
    if prompt[-1]["role"] == "assistant":
        raise RewardError("the row's prompt ends with the assistant, not with what it was to answer")
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


class ChatTemplate:
    """The chat template of the tokenizer in `folder`, in jinja's sandbox. Raises RewardError if there is none."""

    def __init__(self, folder: Path) -> None:
        from jinja2 import TemplateSyntaxError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        file, beside = folder / "tokenizer_config.json", folder / "chat_template.jinja"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            source = beside.read_text(encoding="utf-8") if beside.is_file() else config.get("chat_template")
        except OSError as problem:
            raise RewardError(f"tokenizer {str(folder)!r}: {file.name}: {problem.strerror}; name its folder") from None
        except (ValueError, AttributeError):
            raise RewardError(f"{file} is not a JSON object") from None
        if isinstance(source, list):  # several, by name
            source = {each.get("name"): each.get("template") for each in source}.get("default")
        if not isinstance(source, str):
            raise RewardError(f"tokenizer {str(folder)!r} has no chat template")
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        # what transformers offers to templates
        env.filters["tojson"] = lambda value, indent=None: json.dumps(value, indent=indent, ensure_ascii=False)
        env.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
        try:
            self._template = env.from_string(source)
        except TemplateSyntaxError as problem:
            raise RewardError(f"{folder}: its chat template cannot be read: {problem}") from None
        self._tokens = {}
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            token = config.get(name)
            self._tokens[name] = str((token.get("content") if isinstance(token, dict) else token) or "")

    def render(self, messages: Messages) -> str:
        """The conversation as text. Raises RewardError if the template refuses it."""
        from jinja2 import TemplateError

        try:
            return self._template.render(messages=messages, add_generation_prompt=False, tools=None, **self._tokens)
        except (TemplateError, TypeError, ValueError) as problem:
            raise RewardError(f"the chat template refuses the conversation: {str(problem)[:200]}") from None


@lru_cache(maxsize=16)
def chat_template(folder: str) -> ChatTemplate:
    """As ChatTemplate, read once."""
    return ChatTemplate(Path(folder).expanduser())


def _raise(message: str) -> None:
    raise ValueError(message)
