"""What a C++ solution offers to its tests: prototypes, types, constants, without the bodies of plain functions.

Tests are compiled against this text instead of the solution itself, so that no macro, overload or specialisation
of the solution reaches them, and so that solutions with the same interface share one compiled object.

This reads tokens, not C++: what it takes for a declaration and is none makes the tests fail to compile. It takes
time in proportion to the text, whatever that holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+ | //[^\n]* | /\*.*?(?:\*/|\Z))
  | (?P<directive>(?<![^\n])[ \t]*(?:\#|%:|\?\?=)(?:/\*.*?(?:\*/|\Z)|//[^\n]*|[^\n])*)
  | (?P<text>(?:u8|u|U|L)?R"(?P<mark>[^()\\\s]{0,16})\(.*?(?:\)(?P=mark)"|\Z)
      | (?:u8|u|U|L)?"(?:[^"\\\n]|\\.)*(?:"|(?=\n)|\Z) | (?:u8|u|U|L)?'(?:[^'\\\n]|\\.)*(?:'|(?=\n)|\Z))
  | (?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
  | (?P<word>[^\W\d]\w*)
  | (?P<sign>::|->\*?|\[\[|<<=?|[<>=!+\-*/%^&|]=|&&|\|\||\+\+|--|\.\.\.|\.\*|.)
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
_DEEPEST = 8  # namespaces in one another
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

    def declaration(self) -> list[str]:
        """The tokens up to and including the `;` or the block that ends the declaration."""
        start, closing = self.at, None
        while self.at < len(self.tokens):
            part = self.tokens[self.at]
            self.at += 1
            if part == ";" or part in _CLOSING:
                break
            if part in _OPENING:
                if part == "{" and closing is None:
                    closing = _closes(self.tokens[start : self.at])
                self._skip(part)
                if part == "{" and closing and self.tokens[self.at : self.at + 1] != [";"]:
                    break
        return self.tokens[start : self.at]

    def _skip(self, opened: str) -> None:
        depth = 2 if opened == "[[" else 1
        while self.at < len(self.tokens) and depth:
            part = self.tokens[self.at]
            depth += 2 if part == "[[" else 1 if part in _OPENING else -1 if part in _CLOSING else 0
            self.at += 1


def _closes(tokens: list[str]) -> bool:
    """Whether the first block ends the declaration, as a function's or a namespace's does."""
    head = _head(tokens)
    return not (set(head) & {"struct", "class", "enum", "union"} and "(" not in head) and "=" not in _outer(head)


def interface(source: str, tests: str) -> str:
    """Declarations of `source` that `tests` mention, and what those mention, in their order."""
    items = _items(_tokens(source))
    by_name: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        for name in item.names:
            by_name.setdefault(name, []).append(i)
    chosen = {i for i, item in enumerate(items) if not item.names}
    todo = {part for part in _tokens(tests) if _is_word(part)}
    seen = set(todo)
    while todo:
        for i in by_name.get(todo.pop(), []):
            chosen.add(i)
            todo |= items[i].words - seen
            seen |= items[i].words
    return "\n".join(items[i].text for i in sorted(chosen))


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
        if (
            part in ("std", "__gnu_cxx", "__cxxabiv1")
            and tokens[i - 1 : i] == ["namespace"]
            and tokens[i + 1 : i + 2] != [";"]
        ):
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


def _items(tokens: list[str], depth: int = 0) -> list[_Item]:
    reader, items = _Reader(tokens), []
    while reader.at < len(tokens) and depth < _DEEPEST:
        items += _read(reader.declaration(), depth)
    return items


def _read(tokens: list[str], depth: int) -> list[_Item]:
    """What one declaration at namespace scope offers."""
    head = _head(tokens)
    first = next((t for t in head if t not in ("inline", "static", "constexpr", "extern")), "")
    if first == "namespace":
        return _namespace(tokens, head, depth)
    if first == "using" and "namespace" in head:
        return [_Item(_text(tokens), set(), set())]
    if first in ("using", "typedef"):
        names = {tokens[1]} if first == "using" else {t for t in tokens[-2:-1] if _is_word(t)}
        return [_item(tokens, names)]
    if tokens[:3] == ["template", "<", ">"] or "operator" in head or not tokens[-1:] or tokens[0] in _CLOSING:
        return []
    if set(head) & {"struct", "class", "enum", "union"} and "(" not in _after_angles(head):
        return [_item(tokens, _type_name(head))] if tokens[-1] == ";" else []
    return _function_or_constant(tokens, head)


def _namespace(tokens: list[str], head: list[str], depth: int) -> list[_Item]:
    name = "".join(head[head.index("namespace") + 1 :])
    if not name or name.split("::")[0] in ("std", "testing", "__gnu_cxx") or "{" not in tokens:
        return []
    inner = _items(tokens[tokens.index("{") + 1 : -1], depth + 1)
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
    return _Item(_text(tokens), names, {part for part in tokens if _is_word(part)})


def _text(tokens: Sequence[str]) -> str:
    """The tokens as source. `>>` was read as two, for it may close two template argument lists; it does so as one."""
    words: list[str] = []
    for part in tokens:
        if words and words[-1][-1:] == ">" and words[-1].strip(">-") == "" and part in (">", ">="):
            words[-1] += part
        else:
            words.append(part)
    return " ".join(words)


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
    plain = _after_angles(head)
    at = next((i for i, part in enumerate(plain) if part in ("struct", "class", "enum", "union")), len(plain))
    words = [part for part in plain[at + 1 :] if _is_word(part) and part not in ("class", "struct")]
    return set(words[:1])
