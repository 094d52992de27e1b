"""Where the final answer of a text stands: in the last balanced box, or where a fallback finds it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rewards.thinking import as_text

_OPENING = r"\\(?:boxed|fbox|framebox(?:\s*\[[^\[\]{}]{0,40}\])?)\s*\{"
_BOX = re.compile(_OPENING)
_FLAT = re.compile(r"((?:[^{}\\]|\\[A-Za-z]|\{[^{}\\]*\})*)\}")  # content of a box, groups at most one deep
_TOKEN = re.compile(_OPENING + r"|\\[\\{}]|[{}]")


def with_format(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose `thinking`, if given as an object or a mapping, is the text that can be stored."""
    given = dict(params)
    if "thinking" in given:
        given["thinking"] = as_text(given["thinking"])
    return given


def last_box(text: str) -> str | None:
    r"""Content of the balanced `\boxed{}`, `\fbox{}` or `\framebox{}` that closes last, None if there is
    none.

    Of nested boxes this is the outermost, so that `\boxed{1, \boxed{2}}` does not pass for 2. Escaped braces
    do not count. One pass, linear in the text.
    """
    found = box_span(text)
    return None if found is None else text[found[0] : found[1]]


def box_span(text: str) -> tuple[int, int] | None:
    """Where `last_box` starts and ends."""
    at = text.rfind("\\boxed{")
    flat = _FLAT.match(text, at + 7) if at >= 0 else None
    if flat and text.find("}", flat.end()) < 0:
        return flat.span(1)  # the usual case: no other box can close behind this one
    return nested_span(text)


def nested_span(text: str) -> tuple[int, int] | None:
    """`box_span`, for any text."""
    first = _BOX.search(text)
    if first is None:
        return None
    found: tuple[int, int] | None = None
    stack: list[int] = []  # where a box's content starts, -1 for a plain group
    for token in _TOKEN.finditer(text, first.start()):
        mark = token.group()
        if mark == "{":
            stack.append(-1)
        elif mark == "}":
            start = stack.pop() if stack else -1
            if start >= 0:
                found = start, token.start()
        elif len(mark) > 2:
            stack.append(token.end())
    return found


def cut_short(row: Mapping[str, Any]) -> bool:
    """Whether the row says that its completion ended at the length limit."""
    meta = row.get("meta")
    return isinstance(meta, dict) and meta.get("finish_reason") == "length"


def has_box(text: str) -> bool:
    """Whether a box is opened at all, closed or not."""
    return _BOX.search(text) is not None


_NUMBER = re.compile(r"-?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?%?")
_ANSWER_IS = re.compile(r"(?i)\banswer\b[*_\s]{0,9}(?:is\b|[:=])[*_:\s]{0,9}([^\n]{1,200})")
_HASHES = re.compile(r"####[ \t]*([^\n]{1,200})")


def _answer_is(text: str) -> str | None:
    found = _ANSWER_IS.findall(text)
    return found[-1].strip().strip("*").rstrip(".").strip() if found else None


def _hashes(text: str) -> str | None:
    found = _HASHES.findall(text)
    return found[-1].strip() if found else None


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return found[-1] if found else None


def _whole(text: str) -> str | None:
    return text.strip() or None


Fallback = Literal["answer_is", "hashes", "last_number", "whole"]
FALLBACKS = {"answer_is": _answer_is, "hashes": _hashes, "last_number": _last_number, "whole": _whole}


def find_answer(text: str, fallbacks: Sequence[str] = ()) -> tuple[str | None, str]:
    """(answer, how it was found): "box", or the first of `fallbacks` (names in FALLBACKS) that finds one."""
    box = last_box(text)
    if box is not None:
        return box, "box"
    for name in fallbacks:
        found = FALLBACKS[name](text)
        if found:
            return found, name
    return None, ""


def reduce_gold(answer: str) -> str:
    """The final answer of a gold: after the last `####` (GSM8K), else in its last box, else all of it."""
    if "####" in answer:
        return answer.rpartition("####")[2].strip()
    box = last_box(answer) if "box" in answer else None
    return (answer if box is None else box).strip()
