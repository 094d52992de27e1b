"""Converts GoogleTest assertions about one function to test cases as data.

    cases('TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }', read_declaration("int add(int a, int b);"))
    # [{"args": [1, 2], "expected": 3, "weight": 1.0}]

Tests are parsed, not run: variables with literal values, calls of the function, EXPECT_ or ASSERT_ EQ, TRUE, FALSE,
DOUBLE_EQ, FLOAT_EQ, NEAR and THROW on a result or its parts, also in a loop over an index. Every statement must be
understood, and the assertions must determine the complete result of each call; otherwise NotConvertible is raised.
Expressions are parsed by Python's parser, which agrees with C++ on the supported subset.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.families.skill_mix.tokens import WORD, closing, cpp_words, number_of, split, text_of, top_level
from rewards.code.cpp.declaration import Declaration, Type, read_declaration
from rewards.code.cpp.values import RAISES, fitted

Step = int | str | tuple[Any, ...]  # selects a part of a value: an index, a field, a key, or "size()"
Path = tuple[Step, ...]

_ASSERTION = re.compile(r"(?:EXPECT|ASSERT)_(EQ|TRUE|FALSE|DOUBLE_EQ|FLOAT_EQ|NEAR|THROW)")
_ARGUMENTS = {"TRUE": 1, "FALSE": 1, "NEAR": 3}  # number of arguments of an assertion; others have 2
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
_ATOM = re.compile(r"""::|[A-Za-z_"']|\.?\d""")  # start of a name or a literal
_SIZE, _EMPTY = "size()", "empty()"
# Methods that describe a container, their return type, and their step. `count` says less than the value at its key,
# which must be asserted as well.
_MEASURES = {"size": _SIZE, "length": _SIZE, "empty": _EMPTY, "count": "count()"}
_MEASURED = {step: Type("bool" if step == _EMPTY else "int") for step in _MEASURES.values()}
_PARTS = {"first": 0, "second": 1}
_LONGEST_LOOP = 1000


class NotConvertible(ValueError):
    """Tests that do not determine exactly what each call returns."""


@dataclass
class _Call:
    """One call and the asserted values of its result's parts.

    tolerance: the largest in the assertions, relative to max(1, |expected|).
    """

    args: list[Any]
    facts: dict[Path, Any] = field(default_factory=dict)
    tolerance: float = 0.0
    raises: str = ""


@dataclass(frozen=True)
class _Place:
    """A part of a call's result, in an expression."""

    call: _Call
    path: Path
    kind: Type


def cases(source: str, declaration: Declaration) -> list[dict[str, Any]]:
    """A case for each call; the weights within one TEST sum to 1. Raises NotConvertible."""
    made: list[dict[str, Any]] = []
    try:
        _check_types(declaration)
        shared = _Test(declaration, {})
        for head, body in top_level(cpp_words(source)):
            if head[:1] in (["TEST"], ["TEST_F"]):
                test = _Test(declaration, dict(shared.names))
                test.run(body)
                made += [{**_case(call, declaration.result), "weight": 1 / len(test.calls)} for call in test.calls]
            elif head[:1] == ["const"] and not body:
                shared.run(head)
            elif head and re.match(r"TEST_P|TYPED_TEST|INSTANTIATE", head[0]):
                raise NotConvertible("parameterised tests")
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as problem:  # unsupported C++
        raise NotConvertible(f"not understood: {problem}") from problem
    if not made:
        raise NotConvertible("no TEST calls the function")
    return made


def _check_types(declaration: Declaration) -> None:
    """Raises NotConvertible for types whose values or assertions are not supported."""
    if declaration.result.kind == "void":
        raise NotConvertible("changed arguments of a void function are asserted")
    todo = [declaration.result, *(param.type for param in declaration.params)]
    for kind in todo:  # grows during the loop
        if kind.kind == "optional" and kind.args[0].args:  # {} may be no value or an empty value
            raise NotConvertible(f"braces of a {kind}")
        todo += kind.args


@dataclass
class _Test:
    """The body of one test. names: variables and their values: data (lists for braces) or places."""

    declaration: Declaration
    names: dict[str, Any]
    calls: list[_Call] = field(default_factory=list)

    def run(self, words: list[str]) -> None:
        for statement in split(words, ";"):
            while statement[:1] == ["for"]:
                statement = self._loop(statement)
            if statement:
                self._statement(statement)

    def _loop(self, words: list[str]) -> list[str]:
        """`for (size_t i = 0; i < n; ++i) {…}`. Returns the rest after the loop."""
        closed = closing(words, 1)
        match split(words[2:closed], ";"):
            case [[*_, name, "=", "0"], [_, "<", *bound], step] if "++" in step and words[closed + 1] == "{":
                count = self._value(parsed(bound))
            case _:
                raise NotConvertible(f"a loop: for ({' '.join(words[2:closed])[:60]})")
        if isinstance(count, _Place):  # for example result.size(), asserted earlier
            count = count.call.facts[count.path]
        if not isinstance(count, int) or count > _LONGEST_LOOP:
            raise NotConvertible(f"a loop up to {count}")
        end = closing(words, closed + 1)
        for number in range(count):
            _Test(self.declaration, {**self.names, name: number}, self.calls).run(words[closed + 2 : end])
        return words[end + 1 :]

    def _statement(self, words: list[str]) -> None:
        words = split(words, "<<")[0]
        if (match := _ASSERTION.fullmatch(words[0])) and words[1:2] == ["("]:
            self._assertion(match[1], split(words[2:-1], ","))
        elif words[0] not in ("using", "std::cout", "cout"):
            self._variable(words)

    def _variable(self, words: list[str]) -> None:
        """`const auto name = value`, `std::vector<int> name{1, 2}`, `int name(3)`, `int a = 1, b = 2`."""
        first, *others = split(words, ",")
        end = next((at for at, word in enumerate(first) if word in ("=", "{", "(")), len(first))
        written = [word for word in first[: end - 1] if word not in ("const", "constexpr", "static", "&")]
        if end < 2 or not written or not WORD.fullmatch(first[end - 1]):
            raise NotConvertible(f"statement {' '.join(words)[:80]}")
        kind = None if written == ["auto"] else self._type(written)
        for name, *initial in (first[end - 1 :], *others):
            initial = (initial[1:] if initial[:1] == ["="] else initial) or ["{", "}"]
            if kind is not None and initial[0] == "(":
                initial = [" ".join(written), *initial]
            value = self._value(parsed(initial))
            self.names[name] = value if kind is None or isinstance(value, _Place) else fitted(value, kind, name)

    def _type(self, words: Sequence[str]) -> Type:
        structs = " ".join(self.declaration.texts.values())
        return read_declaration(f"{structs} {' '.join(words)} named();").result

    def _assertion(self, kind: str, parts: list[list[str]]) -> None:
        if len(parts) != _ARGUMENTS.get(kind, 2):
            raise NotConvertible(f"{len(parts)} arguments of {kind}")
        if kind == "THROW":
            place, thrown = self._value(parsed(parts[0])), f"std::{''.join(parts[1]).removeprefix('std::')}"
            if not isinstance(place, _Place) or thrown not in RAISES:
                raise NotConvertible(f"throws {thrown}")
            place.call.raises = thrown
            return
        place, *given = [self._value(parsed(part)) for part in parts]
        other = given[0] if given else kind == "TRUE"
        if isinstance(other, _Place):
            place, other = other, place
        if not isinstance(place, _Place) or isinstance(other, _Place):
            raise NotConvertible(f"not a comparison of a result with a value: {' '.join(parts[0])[:80]}")
        if not given and place.kind.kind != "bool":
            raise NotConvertible(f"truth of a {place.kind}")
        value = place.call.facts[place.path] = fitted(other, place.kind, "value")
        if margin := _margin(kind, value, *given[1:]):
            place.call.tolerance = max(place.call.tolerance, margin / max(1.0, abs(value)))

    def _value(self, node: ast.expr) -> Any:
        """The value of an expression: data, or a place."""
        match node:
            case ast.List(elts=parts):
                return [self._data(part) for part in parts]
            case ast.Name(id=word):
                return self._word(word)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.BinOp(left=left, right=right) if type(node.op) in _OPERATIONS:
                return _OPERATIONS[type(node.op)](self._number(left), self._number(right))
            case ast.Subscript(value=inner, slice=index):
                key = self._data(index)
                return _part(self._value(inner), tuple(key) if isinstance(key, list) else key)
            case ast.Attribute(value=inner, attr=name):
                return _part(self._value(inner), _PARTS.get(name, name))
            case ast.Call(func=ast.Attribute(value=inner, attr=name)) if name in _MEASURES:
                return _part(self._value(inner), _MEASURES[name])
            case ast.Call(func=ast.Name(id=name), args=parts):
                return self._called(name, parts)
        raise NotConvertible(ast.unparse(node)[:80])

    def _data(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, _Place):
            raise NotConvertible("a result is part of a value")
        return value

    def _number(self, node: ast.expr) -> Any:
        data = self._data(node)
        if not isinstance(data, int | float):
            raise NotConvertible("arithmetic with a value that is not a number")
        return data

    def _word(self, word: str) -> Any:
        """A literal, a variable or a constant."""
        if word[0] in "\"'":
            return text_of(word)
        if re.match(r"\.?\d", word):
            return number_of(word)
        return self.names[word] if word in self.names else _CONSTANTS[word]

    def _called(self, name: str, parts: list[ast.expr]) -> Any:
        """A call of the function, of a library function, or of a type's constructor."""
        plain = name.removeprefix("std::")
        if name == self.declaration.function:
            return self._call(parts)
        data = [self._data(part) for part in parts]
        if plain in ("make_pair", "make_tuple"):
            return data
        if plain in _FUNCTIONS:
            return _FUNCTIONS[plain](*map(float, data))
        kind = self._type([name])
        if len(parts) == 1 and (isinstance(parts[0], ast.List) or kind.kind not in ("list", "tuple", "struct")):
            return fitted(data[0], kind, name)
        if kind.kind in ("tuple", "struct"):
            return fitted(data, kind, name)
        raise NotConvertible(f"constructor of a {kind}")

    def _call(self, arguments: list[ast.expr]) -> _Place:
        params = self.declaration.params
        pairs = list(zip(arguments, params, strict=True))
        call = _Call([fitted(self._data(argument), param.type, param.name) for argument, param in pairs])
        self.calls.append(call)
        for argument, param in pairs:
            if param.mutable and isinstance(argument, ast.Name):  # its changed value is not part of a case
                self.names.pop(argument.id, None)
        return _Place(call, (), self.declaration.result)


def parsed(words: Sequence[str]) -> ast.expr:
    """The syntax tree of a C++ expression: names and literals are Names with their text, braces are lists.

    `type{…}` is a call of the type with a list. Raises NotConvertible.
    """
    atoms: list[str] = []  # names and literals, passed to Python's parser as _0, _1 …
    source: list[str] = []
    ends: set[int] = set()  # closing braces of `type{…}`
    for at, word in enumerate(words):
        if _ATOM.match(word):
            source.append(f"_{len(atoms)}")
            atoms.append(word)
            if words[at + 1 : at + 2] == ["{"]:
                ends.add(closing(words, at + 1))
                source.append("(")
        else:
            source += [{"{": "[", "}": "]"}.get(word, word), *(")" if at in ends else "")]
    try:
        tree = ast.parse(" ".join(source), mode="eval").body
    except SyntaxError as problem:
        raise NotConvertible(" ".join(words)[:80]) from problem
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = atoms[int(node.id[1:])]
        elif isinstance(node, ast.Attribute):
            node.attr = atoms[int(node.attr[1:])]
    return tree


def _margin(kind: str, value: Any, given: float = 0.0) -> float:
    """The tolerated difference between a result and an asserted value."""
    if kind == "DOUBLE_EQ":
        return 4 * math.ulp(value)
    return 4 * max(abs(value) * 2**-23, 2**-149) if kind == "FLOAT_EQ" else given


def _part(whole: Any, step: Step) -> Any:
    """`.first`, `[2]`, `["key"]`, `.size()`, … of a value or a result."""
    if isinstance(whole, _Place):
        return _Place(whole.call, (*whole.path, step), _kind_of(whole.kind, step))
    return len(whole) if step == _SIZE else whole[step]


def _kind_of(kind: Type, step: Step) -> Type:
    if step in _MEASURED and kind.kind in ("list", "set", "map"):
        return _MEASURED[str(step)]
    if kind.kind == "tuple" and isinstance(step, int):
        return kind.args[step]
    if kind.kind == "struct" and step in kind.fields:
        return kind.args[kind.fields.index(str(step))]
    if kind.kind in ("list", "map"):
        return kind.args[-1]
    raise NotConvertible(f"{step!r} of a {kind}")


def _case(call: _Call, result: Type) -> dict[str, Any]:
    if call.raises:
        return {"args": call.args, "raises": call.raises}
    expected = _whole(call.facts, (), result)
    return {"args": call.args, "expected": expected, **({"tolerance": call.tolerance} if call.tolerance else {})}


def _whole(facts: Mapping[Path, Any], path: Path, kind: Type) -> Any:
    """The value at a path, assembled from its parts. Raises NotConvertible if one is missing."""
    if path in facts:
        return facts[path]
    size = 0 if facts.get((*path, _EMPTY)) else facts.get((*path, _SIZE))
    steps: list[Any] = []
    match kind.kind:
        case "list" | "set" | "map" if size == 0:
            return []
        case "tuple":
            steps = list(range(len(kind.args)))
        case "struct":
            steps = list(kind.fields)
        case "list" if size is not None:
            steps = list(range(size))
        case "map":
            below = {known[len(path)] for known in facts if known[: len(path)] == path and len(known) > len(path)}
            steps = sorted(below - _MEASURED.keys(), key=repr)
            steps = steps if len(steps) == size else []
    if not steps:
        raise NotConvertible(f"assertions do not determine result{list(path)}")
    parts = [_whole(facts, (*path, step), _kind_of(kind, step)) for step in steps]
    if kind.kind == "map":
        keys = [list(step) if isinstance(step, tuple) else step for step in steps]
        return fitted(list(zip(keys, parts, strict=True)), kind, "expected")
    return dict(zip(kind.fields, parts, strict=True)) if kind.kind == "struct" else parts
