"""Types of C++ test data: a row's `declaration`, read into types that values can be checked against.

    read_declaration("struct P { int x; double y; }; P moved(const P& p, std::vector<int> by);")

A declaration holds structs and aliases, then one function. `std::` may be left out. A type is plain data: integers,
floats, bool, char, strings, vector, list, deque, array, set, pair, tuple, map, optional, and structs of these.
Pointers, classes with methods, templates and enumerations are refused: no test case could hold their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["int", "float", "bool", "str", "char", "list", "set", "tuple", "map", "optional", "struct", "void"]

# Type -> smallest and largest value (LP64).
INTEGERS: Mapping[str, tuple[int, int]] = {
    **{
        name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for name, bits in {"int": 32, "short": 16, "long": 64, "long long": 64}.items()
    },
    **{name: (0, 2**bits - 1) for name, bits in {"unsigned short": 16, "unsigned": 32, "unsigned long": 64}.items()},
    "unsigned long long": (0, 2**64 - 1),
    "std::size_t": (0, 2**64 - 1),
    "std::ptrdiff_t": (-(2**63), 2**63 - 1),
    **{f"std::int{bits}_t": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"std::uint{bits}_t": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_PLAIN: Mapping[str, Kind] = {
    **dict.fromkeys(INTEGERS, "int"),
    "double": "float", "float": "float", "long double": "float", "bool": "bool", "char": "char", "void": "void",
    "std::string": "str", "std::string_view": "str",
}  # fmt: skip
# Template -> kind, fewest and most arguments.
_GENERIC: Mapping[str, tuple[Kind, int, int]] = {
    "std::vector": ("list", 1, 1), "std::list": ("list", 1, 1), "std::deque": ("list", 1, 1),
    "std::array": ("list", 2, 2), "std::set": ("set", 1, 1), "std::unordered_set": ("set", 1, 1),
    "std::pair": ("tuple", 2, 2), "std::tuple": ("tuple", 1, 16), "std::map": ("map", 2, 2),
    "std::unordered_map": ("map", 2, 2), "std::optional": ("optional", 1, 1),
}  # fmt: skip
_SPECIFIERS = frozenset({"const", "volatile", "constexpr", "inline", "static", "extern", "typename", "struct"})
_NUMBER_WORDS = frozenset({"long", "short", "int", "signed", "unsigned", "char", "double"})
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|^[ \t]*#[^\n]*|\[\[.*?\]\]|\busing\s+namespace\s+std\s*;", re.S | re.M)
_TOKEN = re.compile(r"[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)*|\d+|&&|\S")
_NAME = re.compile(r"[A-Za-z_]\w*")
_DEEPEST = 32  # type arguments in one another


class DeclarationError(ValueError):
    """A declaration that cannot be read, or a type that no test case can hold; the message is for its author."""


@dataclass(frozen=True)
class Type:
    """kind with its arguments. cpp: the C++ spelling ("" of a Python type). fields: a struct's names; size: an
    array's length, 0 for other types.
    """

    kind: Kind
    args: tuple[Type, ...] = ()
    cpp: str = ""
    fields: tuple[str, ...] = ()
    size: int = 0

    def holds(self, *kinds: Kind) -> bool:
        """Whether any of these kinds is in the type."""
        return self.kind in kinds or any(arg.holds(*kinds) for arg in self.args)

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.args))
        return self.cpp if self.kind == "struct" else f"{self.kind}[{inner}]" if inner else self.kind


@dataclass(frozen=True)
class Param:
    """mutable: a reference through which the function can change its argument."""

    name: str
    type: Type
    mutable: bool = False


@dataclass(frozen=True)
class Declaration:
    """A function, and the text of each struct and alias before it by name, in order."""

    function: str
    params: tuple[Param, ...]
    result: Type
    structs: tuple[Type, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> list[Type]:
        """Types of the parameters whose values come back."""
        return [param.type for param in self.params if param.mutable]


def read_declaration(text: str) -> Declaration:
    """Structs, aliases, then the function; with or without a last `;` or a body. Raises DeclarationError."""
    return _Reader(_COMMENT.sub(" ", text)).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [re.sub(r"\s+", "", token) for token in _TOKEN.findall(text)]
        self._at = 0
        self._names: dict[str, Type] = {}
        self._texts: dict[str, str] = {}

    def read(self) -> Declaration:
        while self._at < len(self._tokens):
            first, statement = self._tokens[self._at], self._until(";")
            if not statement:
                continue
            if first in ("struct", "class") and "{" in statement[:3]:
                self._struct(statement)
            elif first == "using" and statement[2:3] == ["="]:
                self._alias(statement[1], statement[3:])
            elif first == "typedef" and len(statement) > 2:
                self._alias(statement[-1], statement[1:-1])
            else:
                return self._function(statement)
        raise DeclarationError("it declares no function")

    def _until(self, end: str) -> list[str]:
        """The tokens up to `end` outside of braces, which is passed over."""
        start, depth = self._at, 0
        while self._at < len(self._tokens) and (depth or self._tokens[self._at] != end):
            depth += {"{": 1, "}": -1}.get(self._tokens[self._at], 0)
            self._at += 1
        self._at += 1
        return self._tokens[start : self._at - 1]

    def _alias(self, name: str, tokens: list[str]) -> None:
        self._names[name] = self._type(tokens, name)
        self._texts[name] = f"using {name} = {self._names[name].cpp};"

    def _struct(self, tokens: Sequence[str]) -> None:
        name, body = tokens[1], tokens[3:]
        if not _NAME.fullmatch(name) or body[-1:] != ["}"]:
            raise DeclarationError(f"cannot read the struct {name!r}: write struct Name {{ type field; … }};")
        fields: dict[str, Type] = {}
        text = ""
        for member in _split(body[:-1], ";"):
            member = member[2:] if member[:2] == ["public", ":"] else member
            written: Sequence[str] = ()
            for number, part in enumerate(_split(member, ",")):
                declared = list(_before(list(_before(part, "=")), "{"))
                written = written if number else declared[:-1]
                if not declared or not written or not _NAME.fullmatch(declared[-1]) or "(" in member:
                    raise DeclarationError(f"struct {name}: {' '.join(member)[:60]!r} is not a field of plain data")
                kind = fields[declared[-1]] = self._type(written, f"{name}.{declared[-1]}")
                text += f" {kind.cpp} {' '.join(part[len(declared) - 1 if number == 0 else 0 :])};"
        if not fields:
            raise DeclarationError(f"struct {name} has no fields")
        self._names[name] = Type("struct", tuple(fields.values()), name, tuple(fields))
        self._texts[name] = f"struct {name} {{{text} }};"

    def _function(self, tokens: list[str]) -> Declaration:
        head = list(_before(tokens, "{"))
        opened = _outside(head, "(")
        if opened is None or opened < 2 or not _NAME.fullmatch(head[opened - 1]):
            raise DeclarationError(f"not a C++ function: {' '.join(head)[:120]!r}")
        closed = _closing(head, opened)
        if closed is None:
            raise DeclarationError(f"a bracket is never closed: {' '.join(head)[:120]!r}")
        tail = [token for token in head[closed + 1 :] if token not in ("const", "noexcept")]
        if tail:
            raise DeclarationError(f"cannot read {' '.join(tail)[:60]!r} after the parameters")
        inside = head[opened + 1 : closed]
        parts = [] if inside == ["void"] else list(_split(inside, ","))
        params = tuple(self._param(part, number) for number, part in enumerate(parts))
        result = self._type(head[: opened - 1], "the result", void=any(param.mutable for param in params))
        structs = tuple(kind for kind in self._names.values() if kind.kind == "struct")
        return Declaration(head[opened - 1], params, result, structs, self._texts)

    def _param(self, tokens: list[str], number: int) -> Param:
        tokens = list(_before(tokens, "="))
        name = f"a{number}"
        if (
            len(tokens) > 1
            and _NAME.fullmatch(tokens[-1])
            and (tokens[-2] in ("&", ">", "*") or not self._is_type(tokens[-1]))
        ):
            *tokens, name = tokens
        constant = "const" in _before(tokens, "<") or tokens[-2:-1] == ["const"]
        return Param(name, self._type(tokens, name), tokens[-1:] == ["&"] and not constant)

    def _is_type(self, word: str) -> bool:
        names = (word, f"std::{word}")
        known = any(name in _PLAIN or name in _GENERIC for name in names)
        return known or word in self._names or word in _SPECIFIERS or word in _NUMBER_WORDS

    def _type(self, tokens: Sequence[str], where: str, void: bool = False, depth: int = 0) -> Type:
        shown = " ".join(tokens)
        words = [word for word in tokens if word not in _SPECIFIERS]
        while words[-1:] in (["&"], ["&&"]):
            words.pop()
        name = _canonical(list(_before(words, "<")))
        if len(words) == 1 and words[0] in self._names:
            return self._names[words[0]]
        if name in _PLAIN and "<" not in words and (name != "void" or void):
            return Type(_PLAIN[name], cpp=name)
        if name in _GENERIC and words[-1] == ">" and depth < _DEEPEST:
            kind, fewest, most = _GENERIC[name]
            parts = list(_split(words[words.index("<") + 1 : -1], ","))
            size = int(parts.pop()[0]) if name == "std::array" and parts[-1][0].isdecimal() else 0
            args = tuple(self._type(part, where, depth=depth + 1) for part in parts)
            if fewest <= len(args) + bool(size) <= most:
                inner = ", ".join([*(arg.cpp for arg in args), *([str(size)] if size else [])])
                return plain_keys(Type(kind, args, f"{name}<{inner}>", size=size), shown)
        raise DeclarationError(f"{where}: type {shown!r} cannot be tested by values; use {USABLE}")


def plain_keys(kind: Type, shown: str) -> Type:
    """The type itself. Raises DeclarationError where keys or members of sets have no order in every language."""
    if kind.kind in ("map", "set") and kind.args[0].holds("list", "set", "map", "optional"):
        raise DeclarationError(f"type {shown!r}: keys and members of sets must be plain, pairs, tuples or structs")
    return kind


def _canonical(words: list[str]) -> str:
    """One spelling for each plain type: `std::` before what is in std, `long int` as `long`."""
    if len(words) == 1 and f"std::{words[0]}" in {*_PLAIN, *_GENERIC}:
        return f"std::{words[0]}"
    if not set(words) <= _NUMBER_WORDS or not words:
        return "".join(words)
    if "char" in words and len(words) == 2:
        return "std::uint8_t" if "unsigned" in words else "std::int8_t"
    sizes = [word for word in words if word in ("long", "short", "double", "char")]
    return " ".join([*(["unsigned"] if "unsigned" in words else []), *sizes]) or "int"


def _before(tokens: Sequence[str], mark: str) -> Sequence[str]:
    return tokens[: tokens.index(mark)] if mark in tokens else tokens


def _split(tokens: Sequence[str], mark: str) -> Iterator[list[str]]:
    """Tokens between marks that stand in no bracket."""
    part: list[str] = []
    depth = 0
    for token in tokens:
        depth += {"<": 1, "(": 1, "{": 1, ">": -1, ")": -1, "}": -1}.get(token, 0)
        if token == mark and not depth:
            yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


def _outside(tokens: Sequence[str], mark: str) -> int | None:
    """Where `mark` first stands outside of angle brackets."""
    depth = 0
    for at, token in enumerate(tokens):
        if token == mark and not depth:
            return at
        depth += {"<": 1, ">": -1}.get(token, 0)
    return None


def _closing(tokens: Sequence[str], opened: int) -> int | None:
    depth = 0
    for at in range(opened, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at], 0)
        if not depth:
            return at
    return None


USABLE = (
    "integers, floats, bool, char, string, and vector, list, deque, array, set, pair, tuple, map, optional and structs "
    "of these"
)
