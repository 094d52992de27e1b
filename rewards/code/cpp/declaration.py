"""Parses a row's C++ `declaration` into types, against which the values of test cases are validated.

    read_declaration("struct P { int x; double y; }; P moved(const P& p, std::vector<int> by);")

Runs in the caller's process; a declaration is trusted, as tests are. It has structs and aliases, then one function.
`std::` may be omitted. Types are plain data: integers, floats, bool, char, strings, vector, list, deque, array, set,
pair, tuple, map, optional, and structs of these. Pointers, classes with methods, templates and enumerations are
rejected, because a test case cannot hold their values.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["int", "float", "bool", "str", "char", "list", "set", "tuple", "map", "optional", "struct", "void"]

_TYPES = tomllib.loads(Path(__file__).with_name("types.toml").read_text("utf-8"))
INTEGERS: Mapping[str, tuple[int, int]] = _TYPES["integers"]  # type -> smallest and largest value
_PLAIN: Mapping[str, Kind] = {**dict.fromkeys(INTEGERS, "int"), **_TYPES["plain"]}
_GENERIC: Mapping[str, tuple[Kind, int, int]] = _TYPES["generic"]  # template -> kind, fewest and most arguments
_SPECIFIERS = frozenset({"const", "volatile", "constexpr", "inline", "static", "extern", "typename", "struct"})
NUMBER_WORDS = frozenset({"long", "short", "int", "signed", "unsigned", "char", "double"})
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|^[ \t]*#[^\n]*|\[\[.*?\]\]|\busing\s+namespace\s+std\s*;", re.S | re.M)
_TOKEN = re.compile(r"[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)*|\d+|&&|\S")
_NAME = re.compile(r"[A-Za-z_]\w*")
_DEEPEST = 32  # nesting depth of type arguments


class DeclarationError(ValueError):
    """A declaration that cannot be parsed, or a type whose values a test case cannot hold."""


@dataclass(frozen=True)
class Type:
    """A type. args: its type arguments, or a struct's field types. cpp: the C++ spelling, "" if there is none. fields:
    a struct's field names. size: an array's length, 0 for other types.
    """

    kind: Kind
    args: tuple[Type, ...] = ()
    cpp: str = ""
    fields: tuple[str, ...] = ()
    size: int = 0

    def holds(self, *kinds: Kind) -> bool:
        """Whether the type or any type inside it is of one of these kinds."""
        return self.kind in kinds or any(arg.holds(*kinds) for arg in self.args)

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.args))
        return self.cpp.removeprefix("::") if self.kind == "struct" else f"{self.kind}[{inner}]" if inner else self.kind


@dataclass(frozen=True)
class Param:
    """A parameter. mutable: a non-const lvalue reference, through which the function can change its argument."""

    name: str
    type: Type
    mutable: bool = False


@dataclass(frozen=True)
class Declaration:
    """A function. structs: declared before it. texts: name -> source of each struct and alias, in order."""

    function: str
    params: tuple[Param, ...]
    result: Type
    structs: tuple[Type, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> list[Type]:
        """Types of the mutable parameters, whose values the driver writes after the call."""
        return [param.type for param in self.params if param.mutable]


def read_declaration(text: str) -> Declaration:
    """Parse structs, aliases, then the function, with or without a final `;` or a body. Raises DeclarationError."""
    return _Reader(_COMMENT.sub(" ", text)).read()


class _Reader:
    """Recursive-descent parser; each method starts at the current token and advances past what it parses."""

    def __init__(self, text: str) -> None:
        self._tokens = [re.sub(r"\s+", "", token) for token in _TOKEN.findall(text)]
        self._at = 0
        self._names: dict[str, Type] = {}
        self._texts: dict[str, str] = {}

    def read(self) -> Declaration:
        """The whole text."""
        while self._at < len(self._tokens):
            if self._accept(";"):
                continue
            if self._peek() in ("struct", "class") and self._peek(2) in ("{", ":", "final"):
                self._struct()
            elif self._accept("using"):
                name = self._name("an alias")
                self._expect("=", f"using {name}")
                self._alias(name, self._type(name))
            elif self._accept("typedef"):
                kind = self._type("a typedef")
                self._alias(self._name("a typedef"), kind)
            else:
                return self._function()
        raise DeclarationError("it declares no function")

    def _peek(self, ahead: int = 0) -> str:
        """The current token, or one after it; "" at the end."""
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _accept(self, *tokens: str) -> bool:
        """Whether the current token is one of these; advances if so."""
        accepted = self._peek() in tokens
        self._at += accepted
        return accepted

    def _expect(self, token: str, where: str) -> None:
        """Advance past this token. where: what is being parsed, for the error message."""
        if not self._accept(token):
            rest = " ".join(self._tokens[self._at :])[:60]
            raise DeclarationError(f"{where}: {token!r} must follow, not {rest or 'the end'!r}")

    def _name(self, where: str) -> str:
        """An identifier."""
        name = self._peek()
        if not _NAME.fullmatch(name):
            raise DeclarationError(f"{where}: {name!r} is not an identifier")
        self._at += 1
        return name

    def _alias(self, name: str, kind: Type) -> None:
        """The end of an alias; adds it to the known names."""
        self._expect(";", f"the alias {name}")
        self._names[name], self._texts[name] = kind, f"using {name} = {kind.cpp};"

    def _struct(self) -> None:
        """A struct of plain data; adds it to the known names."""
        self._at += 1
        name = self._name("a struct")
        self._expect("{", f"the struct {name!r}")
        fields: dict[str, Type] = {}
        text = ""
        while not self._accept("}"):
            if self._accept("public"):
                self._expect(":", f"struct {name}")
                continue
            kind = self._type(f"a field of struct {name}")
            while not self._accept(";"):
                declared = self._name(f"a field of struct {name}")
                if self._peek() not in (",", ";", "=", "{"):
                    raise DeclarationError(f"struct {name}: {declared!r} is not a field of plain data")
                fields[declared] = kind
                text += f" {kind.cpp} {' '.join([declared, *self._skip(',', ';')])};"
                self._accept(",")
        if not fields:
            raise DeclarationError(f"struct {name} has no fields")
        self._names[name] = Type("struct", tuple(fields.values()), f"::{name}", tuple(fields))
        self._texts[name] = f"struct {name} {{{text} }};"

    def _skip(self, *ends: str) -> list[str]:
        """The tokens up to one of `ends` outside of brackets, e.g. an initialiser."""
        start, depth = self._at, 0
        while self._peek() and (depth or self._peek() not in ends):
            depth += {"(": 1, "{": 1, "<": 1, ")": -1, "}": -1, ">": -1}.get(self._peek(), 0)
            self._at += 1
        if not self._peek():
            raise DeclarationError(f"a bracket or {ends[-1]!r} is missing at the end")
        return self._tokens[start : self._at]

    def _function(self) -> Declaration:
        """The function, and with it the whole declaration."""
        result = self._type("the result", void=True)
        self._accept("&", "&&")
        name = self._name("the function")
        self._expect("(", f"the function {name!r}")
        self._at += (self._peek(), self._peek(1)) == ("void", ")")
        params: list[Param] = []
        while not self._accept(")"):
            params.append(self._param(len(params)))
            if not self._accept(",") and self._peek() != ")":
                self._expect(")", params[-1].name)
        while self._accept("const", "noexcept"):
            pass
        if self._peek() not in ("", ";", "{"):
            raise DeclarationError(f"cannot read {' '.join(self._tokens[self._at :])[:60]!r} after the parameters")
        if result.kind == "void" and not any(param.mutable for param in params):
            raise self._unusable("the result", "void")
        structs = tuple(kind for kind in self._names.values() if kind.kind == "struct")
        return Declaration(name, tuple(params), result, structs, self._texts)

    def _param(self, number: int) -> Param:
        """One parameter. number: its index, which names it if it has no name."""
        start = self._at
        kind = self._type(f"a{number}")
        constant = "const" in itertools.takewhile("<".__ne__, self._tokens[start : self._at])
        constant |= self._tokens[self._at - 1] == "const"
        mutable = self._accept("&") and not constant
        self._accept("&&")
        name = self._name("a parameter") if self._peek() not in (",", ")", "=") else f"a{number}"
        if self._peek() == "=":
            self._skip(",", ")")
        return Param(name, kind, mutable)

    def _type(self, where: str, void: bool = False, depth: int = 0) -> Type:
        """A type without `&`. void: whether `void` is allowed."""
        start = self._at
        while self._accept(*_SPECIFIERS):
            pass
        words = [self._peek()]
        self._at += 1
        while words[0] in NUMBER_WORDS and self._peek() in (*NUMBER_WORDS, "const"):
            words += [self._peek()] if self._peek() != "const" else []
            self._at += 1
        name, kind = _canonical(words), self._names.get(words[0])
        if name in _PLAIN and (name != "void" or void):
            kind = Type(_PLAIN[name], cpp=name)
        elif name in _GENERIC and self._accept("<") and depth < _DEEPEST:
            kind = self._generic(name, where, depth)
        while self._accept(*_SPECIFIERS):
            pass
        if kind is None or self._peek() == "*":
            self._at += self._peek() == "*"
            raise self._unusable(where, " ".join(self._tokens[start : self._at]))
        return kind

    def _generic(self, name: str, where: str, depth: int) -> Type | None:
        """The type arguments of a template; None if their number is wrong."""
        args: list[Type] = []
        size = 0
        while not args or self._accept(","):
            if name == "std::array" and self._peek().isdecimal():
                size = int(self._peek()[:9])
                self._at += 1
            else:
                args.append(self._type(where, depth=depth + 1))
        self._expect(">", where)
        kind, fewest, most = _GENERIC[name]
        if not fewest <= len(args) + bool(size) <= most:
            return None
        inner = ", ".join([*(arg.cpp for arg in args), *([str(size)] if size else [])])
        if kind in ("map", "set") and args[0].holds("list", "set", "map", "optional"):
            raise DeclarationError(
                f"type '{name}<{inner}>': keys and members of sets must be plain, pairs, tuples or structs"
            )
        return Type(kind, tuple(args), f"{name}<{inner}>", size=size)

    @staticmethod
    def _unusable(where: str, shown: str) -> DeclarationError:
        return DeclarationError(f"{where}: type {shown!r} cannot be tested by values; use {USABLE}")


def _canonical(words: list[str]) -> str:
    """The canonical spelling of a type's words: with `std::` for names in std; `long` for `long int`."""
    if words[0] not in NUMBER_WORDS:
        return f"std::{words[0]}" if f"std::{words[0]}" in {*_PLAIN, *_GENERIC} else words[0]
    if "char" in words and len(words) == 2:
        return "std::uint8_t" if "unsigned" in words else "std::int8_t"
    sizes = [word for word in words if word in ("long", "short", "double", "char")]
    return " ".join([*(["unsigned"] if "unsigned" in words else []), *sizes]) or "int"


USABLE = (
    "integers, floats, bool, char, string, and vector, list, deque, array, set, pair, tuple, map, optional and structs "
    "of these"
)
