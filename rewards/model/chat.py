"""Conversations: the messages of a row checked, and a model's own chat template applied without transformers.

A template is the model's, so it runs in jinja's sandbox; it is given what transformers gives it.
"""

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

# What chat templates use to tell who speaks. A policy that writes one into its answer would forge a turn. (Not <s>
# and </s>: HTML has them too, and no template opens a turn with them alone.)
CONTROL_MARK = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)
_LAST = re.compile(rf"(?:{CONTROL_MARK.pattern}|</s>)\Z")
_LONGEST = 64  # characters of a control mark, and some


def without_end_token(text: str, own: Collection[str] = ()) -> str:
    """`text` without the control marks at its very end, which a decoder may have kept. Linear in the text.

    own: marks of this shape that belong to the text, such as a thinking format's.
    """
    end = kept = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        start = max(0, end - _LONGEST)
        found = _LAST.search(text[start:end])
        if found is None or found.group() in own:
            return text[:kept]
        end = kept = start + found.start()


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
    """The chat template of the tokenizer in `folder`."""

    def __init__(self, folder: Path) -> None:
        from jinja2 import TemplateSyntaxError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        config = _config(folder)
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        env.filters["tojson"] = _tojson
        env.globals["raise_exception"] = _raise
        env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = env.from_string(_source(folder, config))
        except TemplateSyntaxError as problem:
            raise RewardError(f"{folder}: its chat template cannot be read: {problem}") from None
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        self._tokens = {name: text for name in names if (text := _token(config.get(name)))}

    def render(self, messages: Messages) -> str:
        """The conversation as text. Raises RewardError if the template refuses it."""
        from jinja2 import TemplateError

        try:
            return self._template.render(messages=messages, add_generation_prompt=False, tools=None, **self._tokens)
        except (TemplateError, TypeError, ValueError) as problem:
            raise RewardError(f"the chat template refuses the conversation: {str(problem)[:200]}") from None


@lru_cache(maxsize=16)
def chat_template(folder: str) -> ChatTemplate:
    """Raises RewardError, in one line, for a folder without a tokenizer or a template."""
    return ChatTemplate(Path(folder).expanduser())


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise RewardError(f"tokenizer {str(folder)!r}: {file.name}: {problem.strerror}; name its folder") from None
    except ValueError:
        raise RewardError(f"{file} is not JSON") from None
    return config if isinstance(config, dict) else {}


def _source(folder: Path, config: Mapping[str, Any]) -> str:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    given = config.get("chat_template")
    if isinstance(given, list):  # several, by name
        given = next((one.get("template") for one in given if one.get("name") == "default"), None)
    if not isinstance(given, str):
        raise RewardError(f"tokenizer {str(folder)!r} has no chat template")
    return given


def _token(given: Any) -> str:
    text = given.get("content") if isinstance(given, dict) else given
    return text if isinstance(text, str) else ""


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)


def _raise(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
