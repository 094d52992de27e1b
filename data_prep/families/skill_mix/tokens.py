"""Tokenises source code; splits C++ tests into statements and blocks, and evaluates their literals."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from data_prep.families.skill_mix.signatures import Language

_SKIP: Mapping[Language, str] = {
    "python": r"\#[^\n]*",
    "cpp": r"//[^\n]* | /\*.*?(?:\*/|\Z) | (?:(?<=\n)|\A)[ \t]*\#(?:\\\n|[^\n])*",
}
_TEXT: Mapping[Language, str] = {
    "python": r"""[bBfFrRuU]{0,2}(?:(?P<mark>\"{3}|'{3}).*?(?:(?P=mark)|\Z) | "(?:[^"\\\n]|\\.)*"
        | '(?:[^'\\\n]|\\.)*')""",
    "cpp": r"""R"(?P<mark>[^()\\\s]{0,16})\(.*?(?:\)(?P=mark)"|\Z) | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)+'""",
}
_REST = r"""
  | (?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
  | (?P<word>[^\W\d]\w*)
  | (?P<sign>::|->|<<=|>>=|<<|\*\*|//|[<>=!+\-*/%^&|]=|&&|\|\||\+\+|--|[^\s\w])
"""
_TOKEN = {
    language: re.compile(f"(?P<skip>{_SKIP[language]}) | (?P<text>{_TEXT[language]}) {_REST}", re.VERBOSE | re.DOTALL)
    for language in _SKIP
}
_GENERIC = re.compile(r"(?:std::)?(?:vector|list|deque|array|set|unordered_set|pair|tuple|map|unordered_map|optional)")
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
WORD = re.compile(r"[A-Za-z_]\w*")


def tokenise(code: str, language: Language) -> list[re.Match[str]]:
    """Tokens, without comments and directives; `lastgroup` is text, number, word or sign."""
    return [match for match in _TOKEN[language].finditer(code) if not match["skip"]]


def cpp_words(source: str) -> list[str]:
    """C++ tokens; a qualified name is one token, and so is a template with its arguments."""
    merged: list[str] = []
    depth = 0
    for word in (token.group() for token in tokenise(source, "cpp")):
        if depth or (word == "<" and merged and _GENERIC.fullmatch(merged[-1])):
            depth += {"<": 1, ">": -1}.get(word, 0)
            merged[-1] += f" {word}" if WORD.match(word) and WORD.match(merged[-1][-1]) else word
        elif merged and (merged[-1].endswith("::") or (word == "::" and WORD.match(merged[-1]))):
            merged[-1] += word
        else:
            merged.append(word)
    return merged


def top_level(words: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """(tokens before a block or `;`, the block's tokens) of each item at namespace scope."""
    head: list[str] = []
    at = 0
    while at < len(words):
        if words[at] == "{" and "=" not in head:
            end = closing(words, at)
            yield head, list(words[at + 1 : end])
            head, at = [], end
        elif words[at] == ";":
            yield head, []
            head = []
        else:
            head.append(words[at])
        at += 1


def closing(words: Sequence[str], opened: int) -> int:
    """The index of the bracket that closes the one at `opened`. Raises ValueError if there is none."""
    depth = 0
    for at in range(opened, len(words)):
        depth += _BRACKETS.get(words[at], 0)
        if not depth:
            return at
    raise ValueError("a bracket is never closed")


def split(words: Sequence[str], mark: str) -> list[list[str]]:
    """The parts between marks outside brackets; none for empty input."""
    parts: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += _BRACKETS.get(word, 0)
        if word == mark and not depth:
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def text_of(literal: str) -> str:
    """The value of a string or character literal; C++ escapes are Python's except `?`. Raises ValueError."""
    try:
        return str(ast.literal_eval(literal.replace("\\?", "?")))
    except SyntaxError as problem:
        raise ValueError(f"literal {literal[:40]}") from problem


def number_of(literal: str) -> int | float:
    """The value of a number literal. Raises ValueError."""
    literal = literal.rstrip("uUlL").replace("'", "").lower()
    if literal[:2] in ("0x", "0b"):
        return int(literal, 0)
    if literal.isdecimal():
        return int(literal, 8) if len(literal) > 1 and literal[0] == "0" else int(literal)
    return float(literal.rstrip("f"))
