"""Wrong versions of a right solution: a comparison turned round, a constant off by one, + for -, a stub.

Tests that cannot tell these from the solution test little. Python is changed in its syntax tree, C++ token by token
outside of comments, strings and preprocessor lines; what a C++ change makes of the program only a compiler knows.
What is inside a `raise` or `throw` stays: what an exception says is seldom tested.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from data_prep.families.skill_mix.signatures import Language, SignatureError, read
from rewards.code.cpp.declaration import Type


@dataclass(frozen=True)
class Mutant:
    """change: what differs, in words, with the line of the solution."""

    code: str
    change: str


@dataclass(frozen=True)
class _Change:
    """A mutant not yet made: what differs, the line, and the code when asked for."""

    words: str
    line: int
    place: tuple[int, ...]
    code: Callable[[], str]


def mutants(gold: str, language: Language, seed: str) -> Iterator[Mutant]:
    """All mutants, in an order that the seed decides: first one of each line, then a second of each, and so on."""
    changes = list(_python(gold) if language == "python" else _cpp(gold))
    changes.sort(key=lambda one: hashlib.sha256(f"{seed}:{one.place}".encode()).hexdigest())
    lines: dict[int, int] = {}
    ranked = []
    for number, one in enumerate(changes):
        lines[one.line] = lines.get(one.line, 0) + 1
        ranked.append((lines[one.line], number, one))
    for _, _, one in sorted(ranked, key=lambda entry: entry[:2]):
        yield Mutant(one.code(), f"line {one.line}: {one.words}")


def stub(gold: str, language: Language, function: str, signature: str) -> str | None:
    """The solution with the function's body gone and a default value for an answer; None where it is not found."""
    return _python_stub(gold, function, signature) if language == "python" else _cpp_stub(gold, function)


# Python

_COMPARED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_CALCULATED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_CALLED: Mapping[str, str] = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
_PLAIN: Mapping[str, ast.expr] = {
    "int": ast.Constant(0), "float": ast.Constant(0.0), "bool": ast.Constant(False), "str": ast.Constant(""),
    "char": ast.Constant(""), "list": ast.List([], ast.Load()), "map": ast.Dict([], []),
    "set": ast.Call(ast.Name("set", ast.Load()), [], []), "optional": ast.Constant(None),
}  # fmt: skip


def _python(gold: str) -> Iterator[_Change]:
    try:
        tree = ast.parse(gold)
    except (SyntaxError, ValueError, RecursionError):
        return
    for at, node in enumerate(_sites(tree)):
        for number in range(len(node.ops) if isinstance(node, ast.Compare) else 1):
            if words := _edit(copy.deepcopy(node), number):
                yield _Change(words, node.lineno, (at, number), partial(_edited, tree, at, number))


def _edited(tree: ast.Module, at: int, number: int) -> str:
    """The source with that site changed."""
    changed = copy.deepcopy(tree)
    _edit(next(islice(_sites(changed), at, None)), number)
    return ast.unparse(changed)


_Site = ast.expr | ast.stmt


def _sites(tree: ast.AST) -> Iterator[_Site]:
    """Nodes that may be changed, in a fixed order: none in a raise, an annotation or an import."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.Assert):
                continue
            if isinstance(node, ast.expr | ast.stmt):
                yield node
            yield from _sites(node)


def _edit(node: _Site, number: int) -> str:
    """Change the node in place and say how; "" where there is nothing to change."""
    match node:
        case ast.Compare():
            old = node.ops[number]
            node.ops[number] = _COMPARED[type(old)]()
            return f"{type(old).__name__} to {type(node.ops[number]).__name__}"
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _CALCULATED and not _text(node):
            old_op = node.op
            node.op = _CALCULATED[type(old_op)]()
            return f"{type(old_op).__name__} to {type(node.op).__name__}"
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return f"to {type(node.op).__name__}"
        case ast.Constant(value=bool() as value):
            node.value = not value
            return f"{value} to {node.value}"
        case ast.Constant(value=int() as value):
            node.value = value + 1
            return f"{value} to {node.value}"
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            node.func = ast.Name(_CALLED[name], ast.Load())
            if name == "sorted":
                node.keywords = []
            return f"{name} to {_CALLED[name]}"
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            sign = type(node.op).__name__
            node.op = ast.UAdd() if isinstance(node.op, ast.USub) else node.op
            if sign == "Not":
                node.operand = ast.UnaryOp(ast.Not(), node.operand)
            return f"without {sign}"
    return ""


def _text(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether text is formatted or joined: no number changes."""
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(
        isinstance(one, ast.JoinedStr | ast.List | ast.ListComp | ast.Constant) and _is_text(one) for one in sides
    )


def _is_text(node: ast.expr) -> bool:
    return not isinstance(node, ast.Constant) or isinstance(node.value, str)


def _python_stub(gold: str, function: str, signature: str) -> str | None:
    try:
        tree = ast.parse(gold)
    except (SyntaxError, ValueError, RecursionError):
        return None
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found:
        return None
    try:
        answer = _default(read(signature, "python").result)
    except SignatureError:
        answer = ast.Constant(None)
    for node in found:
        node.body = [ast.Return(answer)]
    return ast.unparse(ast.fix_missing_locations(tree))


def _default(kind: Type) -> ast.expr:
    if kind.kind == "tuple":
        return ast.Tuple([_default(arg) for arg in kind.args], ast.Load())
    return _PLAIN[kind.kind]


# C++

_TOKEN = re.compile(
    r"""
    (?P<skip>//[^\n]* | /\*.*?(?:\*/|\Z) | (?:(?<=\n)|\A)[ \t]*\#(?:\\\n|[^\n])*)
  | (?P<text>R"(?P<mark>[^()\\\s]{0,16})\(.*?(?:\)(?P=mark)"|\Z) | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)+')
  | (?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
  | (?P<word>[^\W\d]\w*)
  | (?P<sign>::|->|<<=|>>=|[<>=!+\-*/%^&|]=|&&|\|\||\+\+|--|[^\s\w])
    """,
    re.VERBOSE | re.DOTALL,
)
_SIGNS: Mapping[str, str] = {
    "<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "+": "-", "-": "+",
    "+=": "-=", "-=": "+=", "*=": "+=", "*": "+", "/": "*", "%": "/",
}  # fmt: skip
_SPACED = frozenset({"<", ">", "*", "+", "-", "/", "%"})  # that may be something else unless spaces are around them
_WORDS: Mapping[str, str] = {"true": "false", "false": "true", "min": "max", "max": "min"}


@dataclass(frozen=True)
class _Token:
    text: str
    kind: str
    start: int
    end: int


def _tokens(code: str) -> list[_Token]:
    return [
        _Token(match.group(), str(match.lastgroup), match.start(), match.end())
        for match in _TOKEN.finditer(code)
        if not match.group("skip")
    ]


def _cpp(gold: str) -> Iterator[_Change]:
    tokens = _tokens(gold)
    thrown = False
    for at, token in enumerate(tokens):
        thrown = token.text == "throw" or (thrown and token.text != ";")
        before = tokens[at - 1].text if at else ""
        if thrown or before in ("operator", "template", "case") or not (new := _changed(gold, token)):
            continue
        line = gold.count("\n", 0, token.start) + 1
        code = partial("".join, (gold[: token.start], new, gold[token.end :]))
        yield _Change(f"{token.text} to {new}", line, (at,), code)


def _changed(code: str, token: _Token) -> str:
    """What stands in a token's place in a mutant, "" if nothing does."""
    if token.kind == "number":
        return str(int(token.text) + 1) if re.fullmatch(r"0|[1-9][0-9]{0,8}", token.text) else ""
    if token.kind == "word":
        return _WORDS.get(token.text, "")
    if token.text in _SPACED and not (code[token.start - 1 : token.start] == code[token.end : token.end + 1] == " "):
        return ""
    return _SIGNS.get(token.text, "") if token.kind == "sign" else ""


def _cpp_stub(gold: str, function: str) -> str | None:
    """Every definition of a function of that name loses its body."""
    tokens = _tokens(gold)
    made, upto = "", 0
    for at, token in enumerate(tokens[:-1]):
        if token.text != function or tokens[at + 1].text != "(" or token.start < upto:
            continue
        opened = _body(tokens, at + 1)
        closed = _closing(tokens, opened) if opened is not None else None
        if opened is None or closed is None:
            continue
        empty = "{ }" if at and tokens[at - 1].text == "void" else "{ return {}; }"
        made += gold[upto : tokens[opened].start] + empty
        upto = tokens[closed].end
    return made + gold[upto:] if upto else None


def _body(tokens: Sequence[_Token], opened: int) -> int | None:
    """Where the body of a function begins whose parameters begin at `opened`; None if this is a call."""
    closed = _closing(tokens, opened)
    if closed is None:
        return None
    for at in range(closed + 1, len(tokens)):
        if tokens[at].text == "{":
            return at
        if tokens[at].text not in ("const", "noexcept"):
            return None
    return None


def _closing(tokens: Sequence[_Token], opened: int) -> int | None:
    depth = 0
    for at in range(opened, len(tokens)):
        if tokens[at].kind == "sign":
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(tokens[at].text, 0)
        if not depth:
            return at
    return None
