"""A function's signature in Python or C++, read into types that both languages share.

    read("def top(xs: list[int], n: int) -> list[int]", "python")
    read("std::vector<int> top(const std::vector<int>& xs, int n)", "cpp")

Types are plain values: int, float, bool, str, char, list, set, tuple, map, optional. What else a signature holds (a
class, a pointer, a template) is refused, for no test case could be written as data.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Language = Literal["python", "cpp"]
Kind = Literal["int", "float", "bool", "str", "char", "list", "set", "tuple", "map", "optional"]

KEYWORDS = frozenset({"const", "constexpr", "inline", "static", "typename"})  # that change no type here
INTEGERS: Mapping[str, tuple[int, int]] = {  # C++ type -> smallest and largest value (LP64)
    "int": (-(2**31), 2**31 - 1),
    "short": (-(2**15), 2**15 - 1),
    "long": (-(2**63), 2**63 - 1),
    "long long": (-(2**63), 2**63 - 1),
    "unsigned": (0, 2**32 - 1),
    "unsigned long": (0, 2**64 - 1),
    "unsigned long long": (0, 2**64 - 1),
    "std::size_t": (0, 2**64 - 1),
    "std::int8_t": (-(2**7), 2**7 - 1),
    "std::uint8_t": (0, 2**8 - 1),
    "std::int16_t": (-(2**15), 2**15 - 1),
    "std::uint16_t": (0, 2**16 - 1),
    "std::int32_t": (-(2**31), 2**31 - 1),
    "std::uint32_t": (0, 2**32 - 1),
    "std::int64_t": (-(2**63), 2**63 - 1),
    "std::uint64_t": (0, 2**64 - 1),
}
_SAME = {  # other spellings
    "signed": "int", "signed int": "int", "unsigned int": "unsigned", "long int": "long", "long long int": "long long",
    "unsigned long int": "unsigned long", "short int": "short", "std::string_view": "std::string",
}  # fmt: skip
_CPP_PLAIN: Mapping[str, Kind] = {
    **dict.fromkeys(INTEGERS, "int"),
    "double": "float", "float": "float", "bool": "bool", "char": "char", "std::string": "str",
}  # fmt: skip
# Template -> kind, least and most number of arguments.
_CPP_GENERIC: Mapping[str, tuple[Kind, int, int]] = {
    "std::vector": ("list", 1, 1), "std::list": ("list", 1, 1), "std::deque": ("list", 1, 1),
    "std::set": ("set", 1, 1), "std::unordered_set": ("set", 1, 1), "std::pair": ("tuple", 2, 2),
    "std::tuple": ("tuple", 1, 8), "std::map": ("map", 2, 2), "std::unordered_map": ("map", 2, 2),
    "std::optional": ("optional", 1, 1),
}  # fmt: skip
_STD = {name.removeprefix("std::") for name in (*_CPP_GENERIC, *_CPP_PLAIN, *_SAME) if name.startswith("std::")}
_PY_PLAIN: Mapping[str, Kind] = {"int": "int", "float": "float", "bool": "bool", "str": "str"}
_PY_GENERIC: Mapping[str, Kind] = {
    "list": "list", "List": "list", "set": "set", "Set": "set", "tuple": "tuple", "Tuple": "tuple",
    "dict": "map", "Dict": "map", "Optional": "optional",
}  # fmt: skip
_ARITY: Mapping[Kind, int] = {"list": 1, "set": 1, "map": 2, "optional": 1}


class SignatureError(ValueError):
    """A signature that cannot be read, or a type that no test case can hold; the message is for who wrote it."""


@dataclass(frozen=True)
class Type:
    """kind and its arguments; cpp: the C++ spelling, "" where the signature is Python's."""

    kind: Kind
    args: tuple[Type, ...] = ()
    cpp: str = ""

    def holds(self, *kinds: Kind) -> bool:
        """Whether any of these kinds is in the type."""
        return self.kind in kinds or any(arg.holds(*kinds) for arg in self.args)

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.args))
        return f"{self.kind}[{inner}]" if inner else self.kind


@dataclass(frozen=True)
class Signature:
    """name(params) -> result; params with their names, in order."""

    name: str
    params: tuple[tuple[str, Type], ...]
    result: Type


def read(text: str, language: Language) -> Signature:
    """A signature as questions have it, with or without what follows it. Raises SignatureError."""
    return _python(text) if language == "python" else _cpp(text)


# Python


def _python(text: str) -> Signature:
    head = text.strip().rstrip(":").strip()
    head = head if head.startswith(("def ", "async def ")) else f"def {head}"
    try:
        (found,) = ast.parse(f"{head}: ...").body
    except (SyntaxError, ValueError) as error:
        raise SignatureError(f"not a Python function signature: {text[:120]!r}") from error
    if not isinstance(found, ast.FunctionDef):
        raise SignatureError(f"not a plain Python function: {text[:120]!r}")
    given = found.args
    if given.vararg or given.kwarg or given.kwonlyargs:
        raise SignatureError("only positional parameters can be tested: no *args, **kwargs or keyword-only ones")
    params = tuple((one.arg, _annotated(one.annotation, one.arg)) for one in (*given.posonlyargs, *given.args))
    return Signature(found.name, params, _annotated(found.returns, "the result"))


def _annotated(node: ast.expr | None, what: str) -> Type:
    if node is None:
        raise SignatureError(f"{what} has no type; annotate it, such as `list[int]`")
    if isinstance(node, ast.Constant) and isinstance(text := node.value, str):
        try:
            node = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise SignatureError(f"{what}: not a type: {text[:60]!r}") from error
    return _python_type(node, what)


def _python_type(node: ast.expr, what: str) -> Type:
    shown = ast.unparse(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [side for side in (node.left, node.right) if not _is_none(side)]
        if len(sides) == 1:
            return Type("optional", (_python_type(sides[0], what),))
    name = _last_name(node)
    if name in _PY_PLAIN:
        return Type(_PY_PLAIN[name])
    if isinstance(node, ast.Subscript) and (generic := _last_name(node.value)) in _PY_GENERIC:
        kind = _PY_GENERIC[generic]
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        endless = any(isinstance(one, ast.Constant) and one.value is ... for one in inside)
        if kind == "tuple" and endless and len(inside) == 2:
            return Type("list", (_python_type(inside[0], what),))
        if not endless and len(inside) == _ARITY.get(kind, len(inside)):
            return _checked(Type(kind, tuple(_python_type(one, what) for one in inside)), shown)
    raise SignatureError(f"{what}: type {shown!r} cannot be tested by values; use {USABLE['python']}")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _last_name(node: ast.expr) -> str:
    """`List` of `typing.List`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# C++

_WORDS = re.compile(r"[A-Za-z_][\w:]*|[<>(),&*=]|\S")


def _cpp(text: str) -> Signature:
    head = re.split(r"[{;]", re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL), maxsplit=1)[0]
    tokens = _WORDS.findall(head)
    opened = _outside(tokens, "(")
    if opened is None or opened < 2 or not re.fullmatch(r"[A-Za-z_]\w*", tokens[opened - 1]):
        raise SignatureError(f"not a C++ function signature: {text[:120]!r}")
    closed = _closing(tokens, opened)
    if closed is None:
        raise SignatureError(f"a bracket is never closed: {text[:120]!r}")
    tail = [token for token in tokens[closed + 1 :] if token not in ("const", "noexcept")]
    if tail:
        raise SignatureError(f"cannot read {' '.join(tail)[:60]!r} after the parameters")
    params = [_cpp_param(part, number) for number, part in enumerate(_split(tokens[opened + 1 : closed]))]
    return Signature(tokens[opened - 1], tuple(params), _cpp_type(tokens[: opened - 1], "the result"))


def _cpp_param(tokens: list[str], number: int) -> tuple[str, Type]:
    equals = _outside(tokens, "=")
    tokens = tokens[:equals] if equals is not None else tokens
    name = f"a{number}"
    if len(tokens) > 1 and re.fullmatch(r"[A-Za-z_]\w*", tokens[-1]) and not _is_type(tokens[-1]):
        *tokens, name = tokens
    return name, _cpp_type(tokens, name)


def _is_type(word: str) -> bool:
    return word in KEYWORDS or word in _CPP_PLAIN or word in _STD or word in {"long", "int", "signed", "unsigned"}


def _cpp_type(tokens: Sequence[str], what: str) -> Type:
    shown = " ".join(tokens)
    tokens = [word for word in tokens if word not in KEYWORDS and word != "&"]
    opened = tokens.index("<") if "<" in tokens else len(tokens)
    name = _canonical(tokens[:opened])
    if name in _CPP_PLAIN and opened == len(tokens):
        return Type(_CPP_PLAIN[name], cpp=name)
    if name in _CPP_GENERIC and tokens[-1] == ">":
        kind, least, most = _CPP_GENERIC[name]
        args = tuple(_cpp_type(part, what) for part in _split(tokens[opened + 1 : -1]))
        if least <= len(args) <= most:
            spelled = f"{name}<{', '.join(arg.cpp for arg in args)}>"
            return _checked(Type(kind, args, spelled), shown)
    raise SignatureError(f"{what}: type {shown!r} cannot be tested by values; use {USABLE['cpp']}")


def _canonical(words: Sequence[str]) -> str:
    """One spelling for each plain type: `std::` before what is in std, `unsigned int` as `unsigned`."""
    if len(words) == 1 and words[0] in _STD:
        return _canonical([f"std::{words[0]}"])
    name = " ".join(sorted(words, key=lambda word: {"unsigned": 0, "signed": 0, "int": 2}.get(word, 1)))
    return _SAME.get(name, name)


def _checked(found: Type, shown: str) -> Type:
    """Keys and members of sets must be plain: the languages agree on no others."""
    if found.kind in ("map", "set") and found.args[0].kind not in ("int", "str", "bool", "char"):
        raise SignatureError(f"type {shown!r}: keys and members of sets must be int, str, bool or char")
    return found


def _split(tokens: Sequence[str]) -> Iterator[list[str]]:
    """Tokens between commas that stand in no bracket."""
    part: list[str] = []
    depth = 0
    for word in tokens:
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(word, 0)
        if word == "," and not depth:
            yield part
            part = []
        else:
            part.append(word)
    if part:
        yield part


def _outside(tokens: Sequence[str], wanted: str) -> int | None:
    """Where `wanted` stands first outside of angle brackets."""
    depth = 0
    for at, token in enumerate(tokens):
        if token == wanted and not depth:
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


USABLE: Mapping[Language, str] = {
    "python": "int, float, bool, str, list, set, tuple, dict and Optional of these",
    "cpp": "integers, double, bool, char, string, and vector, list, deque, set, pair, tuple, map, optional of these",
}
