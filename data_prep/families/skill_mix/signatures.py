"""Parses a function signature in Python or C++ into types that both languages share.

    read("def top(xs: list[int], n: int) -> list[int]", "python")
    read("std::vector<int> top(const std::vector<int>& xs, int n)", "cpp")

Types are plain values: int, float, bool, str, char, list, set, tuple, map, optional. Anything else in a signature (a
class, a pointer, a template) is rejected, since its test cases could not be written as data.
"""

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from rewards.code.cpp import declaration
from rewards.code.cpp.declaration import Declaration, DeclarationError, Kind, Param, Type, read_declaration

Language = Literal["python", "cpp"]
USABLE: Mapping[Language, str] = {
    "python": "int, float, bool, str, list, set, tuple, dict and Optional of these",
    "cpp": declaration.USABLE,
}
_PY_PLAIN: Mapping[str, Kind] = {"int": "int", "float": "float", "bool": "bool", "str": "str"}
_PY_GENERIC: Mapping[str, Kind] = {
    "list": "list", "List": "list", "set": "set", "Set": "set", "tuple": "tuple", "Tuple": "tuple",
    "dict": "map", "Dict": "map", "Optional": "optional",
}  # fmt: skip
_ARITY: Mapping[Kind, int] = {"list": 1, "set": 1, "map": 2, "optional": 1}


class SignatureError(ValueError):
    """An invalid signature, or a type that test cases cannot represent; the message is for its author."""


def read(text: str, language: Language) -> Declaration:
    """Parse a question's signature, with or without a body after it. Raises SignatureError.

    The result of a void C++ function is its first mutable reference.
    """
    if language == "python":
        return _python(text)
    try:
        declared = read_declaration(text)
    except DeclarationError as error:
        raise SignatureError(str(error)) from error
    return replace(declared, result=declared.changed[0]) if declared.result.kind == "void" else declared


def _python(text: str) -> Declaration:
    head = text.strip().rstrip(":").strip()
    head = head if head.startswith(("def ", "async def ")) else f"def {head}"
    try:
        (definition,) = ast.parse(f"{head}: ...").body
    except (SyntaxError, ValueError) as error:
        raise SignatureError(f"not a Python function signature: {text[:120]!r}") from error
    if not isinstance(definition, ast.FunctionDef):
        raise SignatureError(f"not a plain Python function: {text[:120]!r}")
    given = definition.args
    if given.vararg or given.kwarg or given.kwonlyargs:
        raise SignatureError("only positional parameters can be tested: no *args, **kwargs or keyword-only ones")
    arguments = (*given.posonlyargs, *given.args)
    params = tuple(Param(argument.arg, _type(argument.annotation, argument.arg)) for argument in arguments)
    return Declaration(definition.name, params, _type(definition.returns, "the result"))


def _type(node: ast.expr | None, what: str) -> Type:
    """The type of an annotation, which may be quoted. Raises SignatureError."""
    if node is None:
        raise SignatureError(f"{what} has no type; annotate it, for example with `list[int]`")
    if isinstance(node, ast.Constant) and isinstance(text := node.value, str):
        try:
            node = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise SignatureError(f"{what}: not a type: {text[:60]!r}") from error
    shown = ast.unparse(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [side for side in (node.left, node.right) if ast.unparse(side) != "None"]
        if len(sides) == 1:
            return Type("optional", (_type(sides[0], what),))
    name = _last_name(node)
    if name in _PY_PLAIN:
        return Type(_PY_PLAIN[name])
    if isinstance(node, ast.Subscript) and (generic := _last_name(node.value)) in _PY_GENERIC:
        kind = _PY_GENERIC[generic]
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        endless = any(isinstance(item, ast.Constant) and item.value is ... for item in inside)
        if kind == "tuple" and endless and len(inside) == 2:
            return Type("list", (_type(inside[0], what),))
        if not endless and len(inside) == _ARITY.get(kind, len(inside)):
            made = Type(kind, tuple(_type(part, what) for part in inside))
            if kind in ("map", "set") and made.args[0].kind not in ("int", "str", "bool", "char"):
                raise SignatureError(f"type {shown!r}: keys and members of sets must be int, str, bool or char")
            return made
    raise SignatureError(f"{what}: type {shown!r} cannot be tested by values; use {USABLE['python']}")


def _last_name(node: ast.expr) -> str:
    """`List` of `typing.List`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
