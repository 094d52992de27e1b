"""C++ source of tests as tokens, statements and blocks, and its literals as values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)+\')|//[^\n]*|/\*.*?\*/|^[ \t]*#[^\n]*', re.S | re.M)
_TOKEN = re.compile(
    r"""(?:u8)?"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)+'"""
    r"""|0[xXbB][0-9a-fA-F']+[uUlL]*|(?:\d[\d']*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[uUlLfF]*"""
    r"""|(?:::)?[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*|<<|\+\+|--|==|!=|&&|\|\||[-+*/]=|->|\S"""
)
_GENERIC = re.compile(r"(?:std::)?(?:vector|list|deque|array|set|unordered_set|pair|tuple|map|unordered_map|optional)")
WORD = re.compile(r"[A-Za-z_]\w*")


class NotConvertible(ValueError):
    """Tests that say something else than what a call returns, or not all of it."""


def tokens(source: str) -> list[str]:
    """Tokens without comments and directives; a template and its arguments are one."""
    merged: list[str] = []
    depth = 0
    for word in _TOKEN.findall(_COMMENT.sub(lambda match: match[1] or " ", source)):
        if depth or (word == "<" and merged and _GENERIC.fullmatch(merged[-1])):
            depth += {"<": 1, ">": -1}.get(word, 0)
            merged[-1] += f" {word}" if WORD.match(word) and WORD.match(merged[-1][-1]) else word
        else:
            merged.append(word)
    return merged


def top_level(tokens: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """(what stands before a block or `;`, the block's tokens) of everything at namespace scope."""
    head: list[str] = []
    at = 0
    while at < len(tokens):
        if tokens[at] == "{" and "=" not in head:
            end = closing(tokens, at)
            yield head, list(tokens[at + 1 : end])
            head, at = [], end
        elif tokens[at] == ";":
            yield head, []
            head = []
        else:
            head.append(tokens[at])
        at += 1


def closing(tokens: Sequence[str], opened: int) -> int:
    depth = 0
    for at in range(opened, len(tokens)):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(tokens[at], 0)
        if not depth:
            return at
    raise NotConvertible("a bracket is never closed")


def split(tokens: Sequence[str], mark: str) -> list[list[str]]:
    """Parts between marks outside of brackets; none of nothing."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token, 0)
        if token == mark and not depth:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def text_of(token: str) -> str:
    """A literal of a text or a character. C++'s escapes are Python's but for `?`."""
    try:
        text = ast.literal_eval(token.removeprefix("u8").replace("\\?", "?"))
    except (SyntaxError, ValueError) as problem:
        raise NotConvertible(f"literal {token[:40]}") from problem
    return str(text)


def number_of(token: str) -> int | float:
    token = token.rstrip("uUlL").replace("'", "").lower()
    if token[:2] in ("0x", "0b"):
        return int(token, 0)
    if token.isdecimal():
        return int(token, 8) if len(token) > 1 and token[0] == "0" else int(token)
    return float(token.rstrip("f"))
