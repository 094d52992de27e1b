"""What a C++ solution offers to its tests: prototypes, types, constants, without the bodies of plain functions.

Tests are compiled against this text instead of the solution itself, so that no macro, overload or specialisation
of the solution reaches them, and so that solutions with the same interface share one compiled object.

This reads tokens, not C++: what it takes for a declaration and is none makes the tests fail to compile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+ | //[^\n]* | /\*.*?(?:\*/|\Z))
  | (?P<directive>(?<![^\n])[ \t]*(?:\#|%:|\?\?=)(?:/\*.*?\*/|//[^\n]*|[^\n])*)
  | (?P<text>(?:u8|u|U|L)?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)" | (?:u8|u|U|L)?"(?:[^"\\\n]|\\.)*"
      | (?:u8|u|U|L)?'(?:[^'\\\n]|\\.)*')
  | (?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
  | (?P<word>[^\W\d]\w*)
  | (?P<mark2>::|->|\[\[|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)
_OPENING, _CLOSING = {"(": ")", "[": "]", "{": "}", "[[": "]"}, {")", "]", "}"}
# Words with which an interface could reach into the tests instead of being called by them.
_REACHING = re.compile(
    r"asm|__asm|__asm__|_Pragma|__attribute__|__attribute|testing|graded_\w+|friend|TEST\w*|TYPED_TEST\w*"
    r"|(?:EXPECT|ASSERT|GTEST|INSTANTIATE|REGISTER|FRIEND|SCOPED|STATIC_ASSERT)_\w*|RUN_ALL_TESTS|ADD_FAILURE\w*|FAIL"
    r"|SUCCEED"
)
_KEPT_WHOLE = {"inline", "constexpr", "static", "template"}


@dataclass
class _Item:
    """A declaration. names: what it introduces; empty: it is always wanted."""

    text: str
    names: set[str]
    words: set[str]


@dataclass
class _Reader:
    tokens: list[str]
    at: int = 0
    items: list[_Item] = field(default_factory=list)

    def declaration(self) -> list[str]:
        """The tokens up to and including the `;` or the block that ends the declaration."""
        start = self.at
        while self.at < len(self.tokens):
            part = self.tokens[self.at]
            self.at += 1
            if part == ";" or part in _CLOSING:
                break
            if part in _OPENING:
                self._skip(part)
                if part == "{" and self._ends(start):
                    break
        return self.tokens[start : self.at]

    def _skip(self, opened: str) -> None:
        depth = 2 if opened == "[[" else 1
        while self.at < len(self.tokens) and depth:
            part = self.tokens[self.at]
            depth += 2 if part == "[[" else 1 if part in _OPENING else -1 if part in _CLOSING else 0
            self.at += 1

    def _ends(self, start: int) -> bool:
        """Whether the block that was just skipped is a function's or namespace's: nothing follows it."""
        if self.tokens[self.at : self.at + 1] == [";"]:
            return False
        head = _head(self.tokens[start : self.at])
        return not (set(head) & {"struct", "class", "enum", "union"} and "(" not in head) and "=" not in _outer(head)


def interface(source: str, tests: str) -> str:
    """Declarations of `source` that `tests` mention, and what those mention, in their order."""
    items = _items(_tokens(source))
    wanted = {part for part in _tokens(tests) if _is_word(part)}
    chosen: set[int] = set()
    while True:
        more = [i for i, item in enumerate(items) if i not in chosen and (not item.names or item.names & wanted)]
        if not more:
            return "\n".join(item.text for i, item in enumerate(items) if i in chosen)
        chosen.update(more)
        wanted |= {word for i in more for word in items[i].words}


def reaching(declarations: str) -> str:
    """The word by which declarations that nobody vouches for could decide a test by themselves, "" if none.

    E.g. a result type with an operator== that is always true.
    """
    if re.search(r"^\s*(#|%:)", declarations, re.MULTILINE):
        return "#"
    tokens = _tokens(declarations)
    for i, part in enumerate(tokens):
        if part in ("operator", "[[") or _REACHING.fullmatch(part):
            return part
        if part in ("std", "__gnu_cxx", "__cxxabiv1") and tokens[i - 1] == "namespace" and tokens[i + 1] != ";":
            return f"namespace {part}"
        if tokens[i : i + 3] == ["template", "<", ">"]:
            return "template <>"
    return ""


def macros(source: str) -> set[str]:
    """Names that the source defines as macros."""
    return set(_DEFINE.findall(source))


def _tokens(source: str) -> list[str]:
    """Without comments and preprocessor lines."""
    source = re.sub(r"\\[ \t]*\r?\n", "", source).replace("\r", "")
    return [
        match.group().strip()
        for match in _TOKEN.finditer(source)
        if match.lastgroup not in ("skip", "directive") and match.group().strip()
    ]


def _is_word(part: str) -> bool:
    return part[0].isalpha() or part[0] == "_"


def _items(tokens: list[str]) -> list[_Item]:
    reader = _Reader(tokens)
    while reader.at < len(tokens):
        declaration = reader.declaration()
        if declaration:
            reader.items += _read(declaration)
    return reader.items


def _read(tokens: list[str]) -> list[_Item]:
    """What one declaration at namespace scope offers."""
    head = _head(tokens)
    first = next((t for t in head if t not in ("inline", "static", "constexpr", "extern")), "")
    if first == "namespace":
        return _namespace(tokens, head)
    if first == "using" and "namespace" in head:
        return [_Item(" ".join(tokens), set(), set())]
    if first in ("using", "typedef"):
        names = {tokens[1]} if first == "using" else {t for t in tokens[-2:-1] if _is_word(t)}
        return [_item(tokens, names)]
    if tokens[:3] == ["template", "<", ">"] or "operator" in head or not tokens[-1:] or tokens[0] in _CLOSING:
        return []
    if set(head) & {"struct", "class", "enum", "union"} and "(" not in _after_angles(head):
        return [_item(tokens, _type_name(head))] if tokens[-1] == ";" else []
    return _function_or_constant(tokens, head)


def _namespace(tokens: list[str], head: list[str]) -> list[_Item]:
    name = "".join(head[head.index("namespace") + 1 :])
    if not name or name.split("::")[0] in ("std", "testing", "__gnu_cxx") or "{" not in tokens:
        return []
    inner = _items(tokens[tokens.index("{") + 1 : -1])
    return [_Item(f"namespace {name} {{ {item.text} }}", item.names, item.words) for item in inner]


def _function_or_constant(tokens: list[str], head: list[str]) -> list[_Item]:
    plain = _after_angles(head)
    opened = plain.index("(") if "(" in plain else -1
    if opened < 1 or "=" in plain[:opened]:
        if set(head) & {"const", "constexpr"} and "=" in plain and not set(tokens) & {"(", "{", "["}:
            return [_item(tokens, {plain[plain.index("=") - 1]})]
        return []
    name = plain[opened - 1]
    if tokens[-1] != "}" or not _is_word(name) or name == "main" or (opened > 1 and plain[opened - 2] == "::"):
        return []  # a prototype, a variable, or a member that its class declares already
    whole = set(head) & _KEPT_WHOLE or ("auto" in plain[:opened] and "->" not in plain[opened:])
    return [_item(tokens if whole else [*head, ";"], {name})]


def _item(tokens: list[str], names: set[str]) -> _Item:
    return _Item(" ".join(tokens), names, {part for part in tokens if _is_word(part)})


def _head(tokens: Sequence[str]) -> list[str]:
    """Up to the first block or the end."""
    depth = 0
    for i, part in enumerate(tokens):
        if part in ("(", "[", "[["):
            depth += 1 + (part == "[[")
        elif part in (")", "]"):
            depth -= 1
        elif depth == 0 and part in ("{", ";"):
            return list(tokens[:i])
    return list(tokens)


def _outer(tokens: Sequence[str]) -> list[str]:
    """Without what stands in brackets."""
    kept, depth = [], 0
    for part in tokens:
        depth -= part in _CLOSING
        if depth == 0:
            kept.append(part)
        depth += part in _OPENING
    return kept


def _after_angles(tokens: Sequence[str]) -> list[str]:
    """Without template arguments, as far as tokens show them."""
    kept: list[str] = []
    depth = 0
    for part in tokens:
        if part == "<" and (depth or (kept and _is_word(kept[-1]))):
            depth += 1
        elif part == ">" and depth:
            depth -= 1
        elif depth == 0:
            kept.append(part)
    return kept


def _type_name(head: Sequence[str]) -> set[str]:
    at = max(i for i, part in enumerate(head) if part in ("struct", "class", "enum", "union") and "<" not in head[:i])
    words = [part for part in head[at + 1 :] if _is_word(part) and part not in ("final", "class", "struct")]
    return set(words[:1])
