"""Chat messages of a row, and control marks of chat templates in completions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from rewards.errors import RewardError

Messages = list[dict[str, str]]

# Marks that open and close turns in chat templates: in an answer they would forge a turn. (Not <s> and </s>: HTML has
# them too, and no template opens a turn with them alone.)
CONTROL_MARK = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?(?:start|end)_of_turn>|<\|(?:turn|channel)>|<(?:turn|channel)\|>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)\]|<</?SYS>>"
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


def prompt_messages(row: Mapping[str, Any]) -> Messages:
    """A row's `prompt` as chat messages that do not end with the assistant. Raises RewardError if it is not such."""
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt:
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise RewardError(f"the row's prompt is {str(prompt)[:80]!r}, not a list of chat messages")
    messages = []
    for message in prompt:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise RewardError(f"the row's prompt holds {str(message)[:80]!r}, not a message with role and content")
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] == "assistant":
        raise RewardError("the row's prompt ends with the assistant, so there is nothing left to answer")
    return messages
