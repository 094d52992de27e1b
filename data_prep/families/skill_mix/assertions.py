"""GoogleTest assertions about one function as test cases that are data.

    cases('TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }', read_declaration("int add(int a, int b);"))
    # [{"args": [1, 2], "expected": 3, "weight": 1.0}]

Tests are read, not run: variables with literal values, calls of the function, EXPECT_ or ASSERT_ EQ, TRUE, FALSE,
DOUBLE_EQ, FLOAT_EQ, NEAR and THROW of a result or its parts, also in a loop over an index. Every statement has to be
understood, and the assertions have to determine the whole result of each call: all else is NotConvertible. Expressions
are parsed by Python's parser, with which C++ agrees on all that is read here.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.families.skill_mix.cpp_tokens import (
    WORD,
    NotConvertible,
    closing,
    number_of,
    split,
    text_of,
    tokens,
    top_level,
)
from rewards.code.cpp.declaration import Declaration, Type, read_declaration
from rewards.code.cpp.values import RAISES, fitted

_ASSERTION = re.compile(r"(?:EXPECT|ASSERT)_(EQ|TRUE|FALSE|DOUBLE_EQ|FLOAT_EQ|NEAR|THROW)")
_CONSTANTS: Mapping[str, Any] = {
    "true": True, "false": False, "INT_MAX": 2**31 - 1, "INT_MIN": -(2**31), "UINT_MAX": 2**32 - 1,
    "LLONG_MAX": 2**63 - 1, "LLONG_MIN": -(2**63), "M_PI": math.pi, "std::nullopt": None, "nullopt": None,
}  # fmt: skip
_FUNCTIONS: Mapping[str, Callable[[float], float]] = {
    "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "log": math.log, "exp": math.exp, "fabs": abs,
}  # fmt: skip
_OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: lambda a, b: int(a / b) if isinstance(a, int) and isinstance(b, int) else a / b,
}  # fmt: skip
_ATOM = re.compile(r"""::|[A-Za-z_"']|\.?\d""")  # the beginning of a name or a literal
_SIZE = "size()"  # the step of a path that names no part
_LONGEST_LOOP = 1000


@dataclass
class _Call:
    """One call, and what was asserted: path of a part -> its value. Paths begin with "result".

    tolerance: the largest of the assertions, in proportion to max(1, |expected|).
    """

    args: list[Any]
    facts: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    tolerance: float = 0.0
    raises: str = ""


@dataclass(frozen=True)
class _Place:
    """A part of a call's result in an expression."""

    call: _Call
    path: tuple[Any, ...]
    kind: Type


@dataclass(frozen=True)
class _Value:
    """data: of braces a list, whatever they are braces of. kind: None where the source does not name the type."""

    data: Any
    kind: Type | None = None


_Name = _Place | _Value
_INTEGER, _BOOL = Type("int", cpp="long long"), Type("bool", cpp="bool")


def cases(source: str, declaration: Declaration) -> list[dict[str, Any]]:
    """A case for each call; the weights of those in one TEST add up to 1. Raises NotConvertible."""
    words = tokens(source)
    constants: dict[str, _Name] = {}
    made: list[dict[str, Any]] = []
    try:
        for head, body in top_level(words):
            if head[:1] in (["TEST"], ["TEST_F"]):
                test = _Test(declaration, dict(constants))
                test.run(body)
                weight = 1 / max(1, len(test.calls))
                made += [{**_case(call, declaration), "weight": weight} for call in test.calls]
            elif head[:1] == ["const"] and not body:
                test = _Test(declaration, constants)
                test.run([*head, ";"])
            elif head and re.match(r"TEST_P|TYPED_TEST|INSTANTIATE", head[0]):
                raise NotConvertible("parameterised tests")
    except NotConvertible:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as problem:  # C++ read in a wrong way
        raise NotConvertible(f"not understood: {problem}") from problem
    if not made:
        raise NotConvertible("no TEST calls the function")
    return made


@dataclass
class _Test:
    """The body of one test."""

    declaration: Declaration
    names: dict[str, _Name]
    calls: list[_Call] = field(default_factory=list)

    def run(self, tokens: list[str]) -> None:
        for statement in split(tokens, ";"):
            while statement[:1] == ["for"]:
                statement = self._loop(statement)
            if statement:
                self._statement(statement)

    def _loop(self, tokens: list[str]) -> list[str]:
        """`for (size_t i = 0; i < n; ++i) {…}`. Returns what follows it."""
        closed = closing(tokens, 1)
        clauses = split(tokens[2:closed], ";")
        if len(clauses) != 3 or clauses[0][-2:] != ["=", "0"] or clauses[1][1:2] != ["<"] or "++" not in clauses[2]:
            raise NotConvertible(f"a loop: for ({' '.join(tokens[2:closed])[:60]})")
        name, count = clauses[0][-3], self._count(clauses[1][2:])
        if tokens[closed + 1 : closed + 2] != ["{"]:
            raise NotConvertible("a loop without braces")
        end = closing(tokens, closed + 1)
        for number in range(count):
            inner = _Test(self.declaration, {**self.names, name: _Value(number, _INTEGER)}, self.calls)
            inner.run(tokens[closed + 2 : end])
        return tokens[end + 1 :]

    def _count(self, tokens: list[str]) -> int:
        value = self._value(parsed(tokens))
        if isinstance(value, _Place):  # e.g. result.size(), which was asserted before
            value = _Value(value.call.facts.get(value.path, None))
        if not isinstance(value.data, int) or value.data > _LONGEST_LOOP:
            raise NotConvertible(f"a loop up to {' '.join(tokens)[:60]}")
        return value.data

    def _statement(self, tokens: list[str]) -> None:
        tokens = split(tokens, "<<")[0]
        if (match := _ASSERTION.fullmatch(tokens[0])) and tokens[1:2] == ["("]:
            self._assertion(match[1], split(tokens[2:-1], ","))
        elif tokens[0] in ("using", "std::cout", "cout"):
            pass
        else:
            self._variable(tokens)

    def _variable(self, tokens: list[str]) -> None:
        """`const auto name = value`, `std::vector<int> name{1, 2}`, `int name(3)`, `int a = 1, b = 2`."""
        first, *others = split(tokens, ",")
        end = next((at for at, token in enumerate(first) if token in ("=", "{", "(")), len(first))
        written = [word for word in first[: end - 1] if word not in ("const", "constexpr", "static", "&")]
        if end < 2 or not written or not WORD.fullmatch(first[end - 1]):
            raise NotConvertible(f"statement {' '.join(tokens)[:80]}")
        kind = None if written == ["auto"] else self._type(written)
        for name, *initial in (first[end - 1 :], *others):
            initial = (initial[1:] if initial[:1] == ["="] else initial) or ["{", "}"]
            if kind is not None and initial[0] == "(":
                initial = [" ".join(written), *initial]
            value = self._value(_checked_braces(parsed(initial), kind))
            self.names[name] = value if isinstance(value, _Place) else _Value(value.data, kind or value.kind)

    def _type(self, words: Sequence[str]) -> Type:
        texts = " ".join(self.declaration.texts.values())
        declared = read_declaration(f"{texts} {' '.join(words)} named();")
        return declared.result

    def _assertion(self, kind: str, parts: list[list[str]]) -> None:
        if kind == "THROW":
            place = self._value(parsed(parts[0]))
            name = "".join(parts[1])
            name = name if name.startswith("std::") else f"std::{name}"
            if not isinstance(place, _Place) or name not in RAISES:
                raise NotConvertible(f"throws {name}")
            place.call.raises = name
        elif kind in ("TRUE", "FALSE"):
            self._truth(parts[0], kind == "TRUE")
        else:
            margin = self._data(parsed(parts[2])) if kind == "NEAR" else None
            self._equal(parts[0], parts[1], kind, margin)

    def _truth(self, tokens: list[str], expected: bool) -> None:
        place = self._value(parsed(tokens))
        if not isinstance(place, _Place):
            raise NotConvertible(f"assertion of {' '.join(tokens)[:80]}")
        if place.path[-1] == _SIZE and place.kind is _BOOL:  # empty()
            if expected:  # what is not empty is determined by other assertions or not at all
                place.call.facts[place.path] = 0
        elif place.kind.kind == "bool":
            place.call.facts[place.path] = expected
        else:
            raise NotConvertible(f"truth of a {place.kind}")

    def _equal(self, left: list[str], right: list[str], kind: str, margin: float | None) -> None:
        for side, other in ((left, right), (right, left)):
            if self._is_place(side):
                place = self._value(parsed(side))
                assert isinstance(place, _Place)
                value = self._fitted(parsed(other), place.kind)
                place.call.facts[place.path] = value
                if margin is None and kind in ("DOUBLE_EQ", "FLOAT_EQ"):
                    margin = 4 * (math.ulp(value) if kind == "DOUBLE_EQ" else max(abs(value) * 2**-23, 2**-149))
                if margin:
                    scale = max(1.0, abs(value)) if isinstance(value, int | float) else 1.0
                    place.call.tolerance = max(place.call.tolerance, margin / scale)
                return
        raise NotConvertible(f"{' '.join(left)[:40]} is compared with {' '.join(right)[:40]}")

    def _is_place(self, tokens: Sequence[str]) -> bool:
        return tokens[0] == self.declaration.function or isinstance(self.names.get(tokens[0]), _Place)

    def _value(self, node: ast.expr) -> _Name:
        """What an expression stands for."""
        match node:
            case ast.List(elts=parts):
                return _Value([self._data(part) for part in parts])
            case ast.Name(id=word):
                return self._word(word)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                number = self._number(operand)
                return _Value(-number if isinstance(node.op, ast.USub) else number)
            case ast.BinOp(left=left, right=right) if type(node.op) in _OPERATIONS:
                return _Value(_OPERATIONS[type(node.op)](self._number(left), self._number(right)))
            case ast.Subscript(value=inner, slice=index):
                key = self._data(index)
                return _part(self._value(inner), tuple(key) if isinstance(key, list) else key)
            case ast.Attribute(value=inner, attr=name):
                return _part(self._value(inner), {"first": 0, "second": 1}.get(name, name))
            case ast.Call(func=ast.Attribute(value=inner, attr="size" | "length" | "empty" as name)):
                return _part(self._value(inner), _SIZE, name == "empty")
            case ast.Call(func=ast.Attribute(value=inner, attr="count"), args=[key]):
                # It says less than the value at the key, which has to be asserted too.
                return _part(self._value(inner), ("count", ast.dump(key)))
            case ast.Call(func=ast.Name(id=name), args=parts):
                return self._called(name, parts)
        raise NotConvertible(f"not understood: {ast.unparse(node)[:80]}")

    def _data(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, _Place):
            raise NotConvertible("a result is part of a value, or compared with another")
        return value.data

    def _fitted(self, node: ast.expr, kind: Type) -> Any:
        return fitted(self._data(_checked_braces(node, kind)), kind, "value")

    def _number(self, node: ast.expr) -> Any:
        data = self._data(node)
        if not isinstance(data, int | float):
            raise NotConvertible("arithmetic with what is no number")
        return data

    def _word(self, word: str) -> _Name:
        """A literal, a variable or a constant."""
        if word[0] in "\"'" or word.startswith('u8"'):
            return _Value(text_of(word))
        if re.match(r"\.?\d", word):
            return _Value(number_of(word))
        return self.names[word] if word in self.names else _Value(_CONSTANTS[word])

    def _called(self, name: str, parts: list[ast.expr]) -> _Name:
        """The function, one of the library, or a type with its constructor's arguments."""
        plain = name.removeprefix("std::")
        if name == self.declaration.function:
            return self._call(parts)
        if plain in ("make_pair", "make_tuple"):
            return _Value([self._data(part) for part in parts])
        if plain in _FUNCTIONS:
            return _Value(_FUNCTIONS[plain](*(float(self._data(part)) for part in parts)))
        kind = self._type([name])
        data = [self._data(_checked_braces(part, kind)) for part in parts]
        if len(parts) == 1 and (isinstance(parts[0], ast.List) or kind.kind not in ("list", "tuple", "struct")):
            return _Value(data[0], kind)
        if kind.kind in ("tuple", "struct"):
            return _Value(data, kind)
        raise NotConvertible(f"constructor of a {kind}")

    def _call(self, arguments: list[ast.expr]) -> _Place:
        declared = self.declaration
        if len(arguments) != len(declared.params):
            raise NotConvertible(f"{len(arguments)} arguments")
        pairs = list(zip(arguments, declared.params, strict=True))
        call = _Call([self._fitted(part, param.type) for part, param in pairs])
        self.calls.append(call)
        for number, (part, param) in enumerate(pairs):
            if param.mutable and isinstance(part, ast.Name):  # it may have changed
                self.names[part.id] = _Place(call, (number,), param.type)
        return _Place(call, ("result",), declared.result)


def parsed(tokens: Sequence[str]) -> ast.expr:
    """The syntax tree of a C++ expression: names and literals are Names of their own text, braces are lists.

    `type{…}` is a call of the type with such a list. Raises NotConvertible.
    """
    words: list[str] = []  # names and literals, which Python's parser sees as _0, _1 …
    source: list[str] = []
    ends: set[int] = set()  # closing braces of `type{…}`
    for at, token in enumerate(tokens):
        if _ATOM.match(token):
            source.append(f"_{len(words)}")
            words.append(token)
            if tokens[at + 1 : at + 2] == ["{"]:
                ends.add(closing(tokens, at + 1))
                source.append("(")
        else:
            source += [{"{": "[", "}": "]"}.get(token, token), *(")" if at in ends else "")]
    try:
        tree = ast.parse(" ".join(source), mode="eval").body
    except SyntaxError as problem:
        raise NotConvertible(f"expression not understood: {' '.join(tokens)[:80]}") from problem
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = words[int(node.id[1:])]
        elif isinstance(node, ast.Attribute):
            node.attr = words[int(node.attr[1:])]
    return tree


def _checked_braces(node: ast.expr, kind: Type | None) -> ast.expr:
    """The expression. Raises NotConvertible for braces that could mean an absent value as well as an empty one."""
    if kind is not None and _may_be_absent(kind) and any(isinstance(part, ast.List) for part in ast.walk(node)):
        raise NotConvertible(f"braces of a {kind}")
    return node


def _may_be_absent(kind: Type) -> bool:
    """Whether an optional of something that braces can stand for is in the type."""
    return (kind.kind == "optional" and bool(kind.args[0].args)) or any(map(_may_be_absent, kind.args))


def _part(container: _Name, step: Any, empty: bool = False) -> _Name:
    """`.first`, `[2]`, `["key"]`, `.size()`, … of a value or of a result."""
    if isinstance(container, _Place):
        return _Place(container.call, (*container.path, step), _BOOL if empty else _kind_of(container.kind, step))
    if step == _SIZE:
        return _Value(not container.data if empty else len(container.data))
    known = container.kind
    data = dict(map(tuple, container.data)) if known is not None and known.kind == "map" else container.data
    return _Value(data[step], known and _kind_of(known, step))


def _tells_size(step: Any) -> bool:
    """Whether a step of a path names no part."""
    return step == _SIZE or (isinstance(step, tuple) and step[:1] == ("count",))


def _kind_of(kind: Type, step: Any) -> Type:
    if _tells_size(step) and kind.kind in ("list", "set", "map"):
        return _INTEGER
    if kind.kind == "tuple" and isinstance(step, int):
        return kind.args[step]
    if kind.kind == "struct" and step in kind.fields:
        return kind.args[kind.fields.index(step)]
    if kind.kind in ("list", "map"):
        return kind.args[-1]
    raise NotConvertible(f"{step!r} of a {kind}")


def _case(call: _Call, declaration: Declaration) -> dict[str, Any]:
    if call.raises:
        return {"args": call.args, "raises": call.raises}
    if any(path[0] != "result" for path in call.facts) or declaration.result.kind == "void":
        raise NotConvertible("what the function makes of its arguments is asserted")
    expected = _whole(call.facts, ("result",), declaration.result)
    return {"args": call.args, "expected": expected, **({"tolerance": call.tolerance} if call.tolerance else {})}


def _whole(facts: Mapping[tuple[Any, ...], Any], path: tuple[Any, ...], kind: Type) -> Any:
    """The value at a path, put together from those of its parts. Raises NotConvertible if one is missing."""
    if path in facts:
        return facts[path]
    size = facts.get((*path, _SIZE))
    if size == 0 and kind.kind in ("list", "set", "map"):
        return []
    steps: list[Any] = []
    match kind.kind:
        case "tuple":
            steps = list(range(len(kind.args)))
        case "struct":
            steps = list(kind.fields)
        case "list" if size is not None:
            steps = list(range(size))
        case "map":
            below = {known[len(path)] for known in facts if known[: len(path)] == path and len(known) > len(path)}
            steps = sorted((step for step in below if not _tells_size(step)), key=repr)
            steps = steps if len(steps) == size else []
    if not steps:
        raise NotConvertible(f"assertions do not determine all of {'.'.join(map(str, path))}")
    parts = [_whole(facts, (*path, step), _kind_of(kind, step)) for step in steps]
    if kind.kind == "map":
        keys = [list(step) if isinstance(step, tuple) else step for step in steps]
        return fitted(list(zip(keys, parts, strict=True)), kind, "expected")
    return dict(zip(kind.fields, parts, strict=True)) if kind.kind == "struct" else parts
