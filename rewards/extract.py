"""Extracts the final answer of a completion: from the last balanced box, or by a fallback.

A base model often continues with another few-shot example ("Question: …"). The completion is therefore split
before such headings, and the first part with an answer counts. Within a part the last answer counts, so that a
correction replaces the earlier answer.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal


def cut_short(row: Mapping[str, Any]) -> bool:
    """Whether the row's completion was truncated at the length limit (meta.finish_reason is "length")."""
    meta = row.get("meta")
    return isinstance(meta, dict) and meta.get("finish_reason") == "length"


_PHRASES: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_END_OF_TURN = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|im_start)\|>")
_NEXT_EXAMPLE = re.compile(_PHRASES["next_example"])


def parts(text: str) -> list[str]:
    """The completion, split before each heading of another example and at each end-of-turn token."""
    turns = _END_OF_TURN.split(text) if "<|" in text else [text]
    if len(turns) == 1 and _NEXT_EXAMPLE.search(text) is None:
        return turns  # the usual case
    return [part for turn in turns for part in _NEXT_EXAMPLE.split(turn) if part.strip()] or [text]


_OPENING = r"\\(?:boxed|fbox|framebox(?:\s*\[[^\[\]{}]{0,40}\])?)\s*\{"
_BOX = re.compile(_OPENING)
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\]+)(?=\s*(?:\$|\\[\])]))")  # `\boxed 2$`
_FLAT = re.compile(r"((?:[^{}\\]|\\[A-Za-z]|\{[^{}\\]*\})*)\}")  # content of a box with braces nested at most once
_TOKEN = re.compile(_OPENING + r"|\\[\\{}]|[{}]")
MAX_BOXES = 64  # in one list
# Separators of boxes in one list: commas or words on one or more lines, or only spaces on one line.
_BLANK = r"(?:[\s$()~]|\\q?quad(?![A-Za-z])|\\[ ,;:!()\[\]])"
_AND = r"(?:[,;、&和或]|\b(?:and|or)\b|\\(?:text(?:rm|normal)?|mbox|mathrm)\{[\s,]*(?:and|or)?[\s,]*\})"
_LISTED = re.compile(
    rf"\}}(?:{_BLANK}*{_AND}(?:{_BLANK}|{_AND})*|(?P<blank>(?:(?!\n){_BLANK})*))"
    r"(?:[A-Za-z](?:_(?:\w|\{\w+\}))? ?= ?)?\\(?:boxed|fbox)\s*\{$"
)
_REJECTED = re.compile(r"\b(?:[Nn]ot|instead of|rather than)[\s$]*\\(?:boxed|fbox)\s*\{$")
_GAP = 80  # characters between two boxes of one list


def with_braces(text: str) -> str:
    r"""Rewrites `\boxed 2`, which boxes one token in TeX, as `\boxed{2}`."""
    return _BARE_BOX.sub(r"\\boxed{\1}", text) if "\\boxed " in text else text


def has_box(text: str) -> bool:
    """Whether the text opens a box, closed or not."""
    return _BOX.search(text) is not None


def box_span(text: str) -> tuple[int, int] | None:
    r"""Span of the content of the balanced `\boxed{}`, `\fbox{}` or `\framebox{}` that closes last.

    Of nested boxes it is the outermost, so that `\boxed{1, \boxed{2}}` is not read as 2. Escaped braces do not
    count. One pass, linear in the text's length. None without a balanced box.
    """
    at = text.rfind("\\boxed{")
    flat = _FLAT.match(text, at + 7) if at >= 0 else None
    if flat and text.find("}", flat.end()) < 0:
        return flat.span(1)  # the usual case: no other box closes after this one
    first = _BOX.search(text)
    if first is None:
        return None
    span: tuple[int, int] | None = None
    stack: list[int] = []  # start of a box's content, -1 for a plain group
    for token in _TOKEN.finditer(text, first.start()):
        mark = token.group()
        if mark == "{":
            stack.append(-1)
        elif mark == "}":
            start = stack.pop() if stack else -1
            if start >= 0:
                span = start, token.start()
        elif len(mark) > 2:
            stack.append(token.end())
    return span


def last_box(text: str) -> str | None:
    r"""Content of the last box, None without one. A list of boxes is joined: `\boxed{2} and \boxed{3}` is "2, 3"."""
    span = box_span(text)
    for _ in range(MAX_BOXES):
        rejected = _REJECTED.search(text, max(0, span[0] - _GAP), span[0]) if span else None
        if span is None or (not rejected and text[span[0] : span[1]].strip()):
            break
        # Rejected and empty boxes: `\boxed{6}, not \boxed{5}`; "\boxed{6}. The answer is given in \boxed{}."
        earlier = box_span(text[: rejected.start() if rejected else span[0] - 1])
        if not rejected and earlier is None:
            break
        span = earlier
    else:
        span = None
    if span is None:
        return None
    content, start, count = text[span[0] : span[1]], span[0], 1
    while count < MAX_BOXES and "}" in (gap := text[max(0, start - _GAP) : start]) and (listed := _LISTED.search(gap)):
        stop = start - len(gap) + listed.start()
        span = box_span(text[: stop + 1])
        if span is None or span[1] != stop:
            break
        item, start, count = text[span[0] : stop], span[0], count + 1
        if listed["blank"] is None or item != content:  # a repeated box is not a list
            content = f"{item}, {content}"
    return content


STATED, STATED_WORDS = _PHRASES["stated"] % _PHRASES, _PHRASES["stated_words"]
_STATED = re.compile("(?i)" + STATED)
_CONDITION, _SUPPOSED, _NOT_MEANT = (re.compile(_PHRASES[name]) for name in ("condition", "supposed", "not_meant"))


def meant(statement: re.Match[str]) -> bool:
    """Whether the text asserts the matched statement: not a condition, another person's opinion, or a wrong answer."""
    text, at = statement.string, statement.start()
    if _CONDITION.search(text, max(0, at - 100), at) or _NOT_MEANT.search(text, max(0, at - 30), at):
        return False
    return "would" not in statement[0] or not _SUPPOSED.search(text, max(0, at - 120), at)


def matches(pattern: re.Pattern[str], words: str, text: str, before: int = 1) -> list[re.Match[str]]:
    """All matches of a pattern, searched from `before` characters before the first of `words` in the text.

    Each match must contain one of the words within its first `before` characters. The words are rare and the patterns
    are slow, so the text before the first word is skipped.
    """
    lower = text.lower()
    positions = [at for word in words.split() if (at := lower.find(word)) >= 0]
    if not positions:
        return []
    return list(pattern.finditer(text, max(0, min(positions) - before) if len(lower) == len(text) else 0))


TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|mbox)\s*\{([^{}]*)\}")
_SENTENCE_END = re.compile(_PHRASES["sentence_end"])
_NO_ANSWER = re.compile(_PHRASES["no_answer"])
_HASHES = re.compile(r"####[ \t]*([^\n]{1,200})")
_VALUE = re.compile(r"[-+=$€£\\.0-9]")
_NUMBER = re.compile(
    r"[-−]?\$?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)(?:[eE][-+]?[0-9]+\b)?(?:/[0-9]+)?%?"
)
_DISPLAY = re.compile(r"(\\\[|\$\$)[^\S\n]*\n\s*([^\n$]{1,400}?)\s*\n\s*(\\\]|\$\$)")  # display math on its own lines
_SUBJECT = re.compile(r"The [^=\n]{1,100} (?:is|equals) (?=[-+$\\(.\d])")  # "The largest $n$ is 34"


def sentence(text: str) -> str:
    """The text up to the end of its first sentence or clause, without surrounding quotes and Markdown."""
    end = _SENTENCE_END.search(text)
    return (text[: end.start()] if end else text).strip().strip("*`\"'“” ").rstrip(".").strip()


def _answer_is(text: str) -> str | None:
    """The last answer that the text states in words ("the answer is 5"), or None."""
    text = _DISPLAY.sub(r"\1\2\3", TEXT_COMMAND.sub(r"\1", text))
    for m in reversed(matches(_STATED, STATED_WORDS, text)):
        if not _NO_ANSWER.match(m[1]) and meant(m) and (answer := sentence(m[1])):
            return _SUBJECT.sub("", answer)
    return None


def _hashes(text: str) -> str | None:
    """The last answer after `####` (GSM8K's format), or None."""
    contents = [content.strip("* \t") for content in _HASHES.findall(text)]
    contents = [content if _VALUE.match(content) else _answer_is(content) or content for content in contents]
    return ([content for content in contents if _VALUE.match(content)] or contents or [""])[-1] or None  # no headings


Fallback = Literal["answer_is", "hashes", "last_number", "whole"]
FALLBACKS: dict[str, Callable[[str], str | None]] = {
    "answer_is": _answer_is,
    "hashes": _hashes,
    "last_number": lambda text: (_NUMBER.findall(text) or [None])[-1],
    "whole": lambda text: text.strip() or None,
}


def find_answer(text: str, fallbacks: Sequence[str] = ()) -> tuple[str | None, str]:
    """(answer, source). source: "box", or the first of `fallbacks` that finds an answer; (None, "") without any."""
    text = with_braces(text)
    at = -1 if fallbacks else text.rfind("\\boxed{")
    if at >= 0 and text.find("box", 0, at) < 0:  # the usual case: with a single box parts make no difference
        flat = _FLAT.match(text, at + 7)
        if flat and text.find("}", flat.end()) < 0 and not _REJECTED.search(text, max(0, at - _GAP), at + 7):
            return flat[1], "box"
    for part in parts(text):
        if (box := last_box(part)) is not None:
            return box, "box"
        for name in fallbacks:
            if answer := FALLBACKS[name](part):
                return answer, name
    return None, ""


@lru_cache(maxsize=4096)
def gold_text(answer: str | int | float) -> str:
    """The final answer of a reference: after the last `####` (GSM8K), else the last box, else all of it.

    Whole floats are written as integers.
    """
    answer = str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer)
    if "####" in answer:
        return answer.rpartition("####")[2].strip()
    box = last_box(with_braces(answer)) if "box" in answer else None
    return (answer if box is None else box).strip()
