"""Chat messages of a row, and control tokens of chat templates in completions."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from rewards.errors import RewardError

Messages = list[dict[str, str]]

# Tokens that open and close turns in chat templates: in an answer they would forge a turn. <s> and </s> are excluded:
# they occur in HTML and never open a turn by themselves.
CONTROL_MARK = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?(?:start|end)_of_turn>|<\|(?:turn|channel)>|<(?:turn|channel)\|>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)\]|<</?SYS>>"
)
_LAST = re.compile(rf"(?:{CONTROL_MARK.pattern}|</s>)\Z")
_MAX_TOKEN = 64  # maximum characters of a control token


def without_end_token(text: str, own: Collection[str] = ()) -> str:
    """`text` without trailing control tokens, which a decoder may have kept. Linear in the text's length.

    own: control tokens that belong to the text, for example a thinking format's tags.
    """
    end = kept = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        start = max(0, end - _MAX_TOKEN)
        mark = _LAST.search(text[start:end])
        if mark is None or mark.group() in own:
            return text[:kept]
        end = kept = start + mark.start()


def prompt_messages(row: Mapping[str, Any]) -> Messages:
    """A row's `prompt`: chat messages that do not end with an assistant turn. Raises RewardError otherwise."""
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt:
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise RewardError(f"the row's prompt must be a list of chat messages, got {str(prompt)[:80]!r}")
    messages = []
    for message in prompt:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise RewardError(f"each message of the row's prompt must have role and content, got {str(message)[:80]!r}")
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] == "assistant":
        raise RewardError("the row's prompt ends with an assistant turn: there is nothing to answer")
    return messages
