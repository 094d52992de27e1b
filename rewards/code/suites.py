"""Reads and validates a row's `tests`, and converts tests of other data sets (APPS, LiveCodeBench, MBPP, HumanEval).

rewards/README.md shows the forms. Runs in the caller's process; nothing in a row is executed or unpickled.

"language": "python" (the default, except for gtest) or "cpp". "weight" of a case: 1 by default. "declarations": trusted
source that the tests need (in C++: prototypes and types). "tolerance" of a call's cases, or of one case, overrides the
reward's. A case of a C++ call may have "expected_args": the values of the mutable reference parameters after the call,
in order (for a void function, `expected` is the first of them); or, instead of `expected`, "raises": a class of
<stdexcept> such as "std::invalid_argument", or "any". "wrapped": if the expected value is a list of one item, that item
is accepted as well. "prefix": source prepended to a program that does not define `function`.
"""

import ast
import base64
import binascii
import contextlib
import hashlib
import json
import math
import pickletools
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rewards.code.asserts.prepare import prepare
from rewards.code.cpp.declaration import Declaration, DeclarationError, read_declaration
from rewards.code.cpp.values import RAISES, ValueProblem, fitted, packed
from rewards.errors import RewardError, nearest

Kind = Literal["stdio", "call", "asserts", "gtest"]
Language = Literal["python", "cpp"]

LANGUAGES: dict[str, tuple[Language, ...]] = {
    "stdio": ("python", "cpp"),
    "call": ("python", "cpp"),
    "asserts": ("python", "cpp"),
    "gtest": ("cpp",),
}
_TEST = re.compile(r"\b(?:TYPED_)?TEST(?:_[FP])?\b")
_KEYS = frozenset(
    ["kind", "language", "cases", "function", "source", "declarations", "declaration", "tolerance", "wrapped", "prefix"]
)
MOST_BYTES = 1 << 28  # limit for unpacked tests; LiveCodeBench's largest have tens of megabytes
# The opcodes of a pickle that holds one string; any other opcode is an error that names it.
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_IGNORED = ("PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "MEMOIZE")


@dataclass(frozen=True)
class Item:
    """One test. input, output: of a stdio test. args, expected: JSON values of a call. tolerance: None: the reward's.

    For a C++ call: packed: the arguments in the driver's input format. raises: the expected exception class; `expected`
    is None then. changed: expected values of the mutable references, None if they are not checked.
    """

    input: str = ""
    output: str = ""
    args: tuple[Any, ...] = ()
    expected: Any = None
    weight: float = 1.0
    tolerance: float | None = None
    packed: bytes = b""
    raises: str = ""
    changed: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Suite:
    """A row's tests. key: hash of the tests. items: empty for asserts and gtest, whose tests are `source`."""

    kind: Kind
    language: Language
    key: str
    items: tuple[Item, ...] = ()
    function: str = ""
    source: str = ""
    declarations: str = ""
    prefix: str = ""
    wrapped: bool = False
    declaration: Declaration | None = None

    @property
    def isolation(self) -> Literal["data", "shared"]:
        """ "shared" if the tests are source that runs in the program's process, which can then forge verdicts."""
        return "shared" if self.language == "cpp" and self.kind in ("asserts", "gtest") else "data"

    def accepted(self, item: Item) -> tuple[Any, ...]:
        """The return values that count as correct."""
        if self.wrapped and isinstance(item.expected, list) and len(item.expected) == 1:
            return item.expected, item.expected[0]
        return (item.expected,)

    def defines(self, code: str) -> bool:
        """Whether `code` seems to define a function or class that the tests use; True if the tests name none."""
        names: tuple[str, ...] = (self.function,) if self.function else ()
        if self.kind == "asserts" and self.language == "python" and not names:
            with contextlib.suppress(RewardError):  # reported when the tests run
                names = prepare(self.source, "", self.declarations).names
        called = "|".join(map(re.escape, names))
        definition = rf"\b(?:def|class)\s+(?:{called})\b|^(?:{called}) *[=:]"
        if self.language == "cpp":
            definition = rf"\b(?:{called})\s*\([^;{{}}]{{0,500}}\{{"
        return not names or re.search(definition, code, re.MULTILINE) is not None

    def program(self, code: str) -> str:
        """`code`, preceded by the prefix if it does not define the function itself."""
        name = re.escape(self.function)
        if not self.prefix or re.search(rf"^(?:async +)?(?:def|class) +{name}\b|^{name} *[=:]", code, re.MULTILINE):
            return code
        return f"{self.prefix}{code}"


def read(tests: Any) -> Suite:
    """The suite of a row's `tests`: in our form or that of APPS or LiveCodeBench, as an object or as JSON text.

    Raises RewardError with a one-line message for any other value.
    """
    tests = normalised(tests)
    kind, language = _kind(tests)
    unknown = [key for key in tests if key not in _KEYS]
    if unknown:
        raise _bad(f"unknown key {unknown[0]!r}{nearest(str(unknown[0]), _KEYS)}; keys: {', '.join(sorted(_KEYS))}")
    try:
        key = hashlib.sha256(json.dumps(tests, sort_keys=True).encode()).hexdigest()
    except (TypeError, ValueError, RecursionError) as problem:
        raise _bad(f"they are not JSON: {str(problem)[:100]}") from None
    source = kind in ("asserts", "gtest")
    needed = "source" if source else "function" if kind == "call" else ""
    names = ("function", "prefix", *(("source", "declarations") if source else ()))
    texts: dict[str, Any] = {name: _text(tests, name) for name in names if name == needed or tests.get(name)}
    if kind == "gtest" and not _TEST.search(texts["source"]):
        raise _bad("the source has no TEST")
    if source:
        return Suite(kind, language, key, **texts)
    declaration = _declaration(tests, texts["function"]) if kind == "call" and language == "cpp" else None
    cases, tolerance = tests.get("cases"), _tolerance(tests, "", None)
    if not isinstance(cases, list) or not cases:
        raise _bad(f"cases are {_short(cases)}, not a list with a case in it")
    items = tuple(_item(case, kind, number, declaration, tolerance) for number, case in enumerate(cases))
    return Suite(kind, language, key, items, wrapped=tests.get("wrapped") is True, declaration=declaration, **texts)


def _declaration(tests: Mapping[str, Any], function: str) -> Declaration:
    """The parsed declaration of C++ calls. Raises RewardError if it is not of `function`."""
    try:
        declaration = read_declaration(_text(tests, "declaration"))
    except DeclarationError as problem:
        raise _bad(f"declaration: {problem}") from None
    if declaration.function != function:
        raise _bad(f"the declaration is of {declaration.function!r}, and function is {function!r}")
    return declaration


def normalised(tests: Any) -> dict[str, Any]:
    """`tests` converted to our form, contents not validated. Raises RewardError."""
    if isinstance(tests, str):
        tests = _json(tests, "tests")
    if isinstance(tests, dict) and "kind" not in tests and {"inputs", "outputs"} <= tests.keys():
        return from_apps({"input_output": tests})
    if isinstance(tests, list) and tests and all(isinstance(t, dict) and "testtype" in t for t in tests):
        return from_livecodebench({"public_test_cases": tests})
    if not isinstance(tests, dict):
        raise _bad(f"they are {_short(tests)}, not an object with a kind")
    return tests


def _kind(tests: Mapping[str, Any]) -> tuple[Kind, Language]:
    """Validated kind and language."""
    kind = tests.get("kind")
    if not isinstance(kind, str) or kind not in LANGUAGES:
        hint = nearest(kind, LANGUAGES) if isinstance(kind, str) else ""
        raise _bad(f"kind is {_short(kind)}{hint}; kinds: {', '.join(LANGUAGES)}")
    language = tests.get("language", LANGUAGES[kind][0])
    if language not in LANGUAGES[kind]:
        raise _bad(f"kind {kind!r} needs language {' or '.join(LANGUAGES[kind])}, not {_short(language)}")
    return kind, language  # type: ignore[return-value]  # both are keys of LANGUAGES


def _tolerance(fields: Mapping[str, Any], where: str, default: float | None) -> float | None:
    """The validated tolerance of all tests or of a case. where: prefix of the error message."""
    value = fields.get("tolerance", default)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf):
        return value
    raise _bad(f"{where}tolerance is {_short(value)}, not a number of at least 0")


def _item(case: Any, kind: Kind, number: int, declaration: Declaration | None, tolerance: float | None) -> Item:
    """A validated case. number: its index, for error messages. tolerance: the default."""
    where = f"case {number}"
    names = ("input", "output") if kind == "stdio" else ("args", "expected")
    if declaration is not None and isinstance(case, dict) and not case.keys().isdisjoint({"raises", "expected_args"}):
        case = {"expected": None, **case}
    if not isinstance(case, dict) or any(name not in case for name in names):
        raise _bad(f"{where} is {_short(case)}, not an object with {names[0]} and {names[1]}")
    weight = case.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
        raise _bad(f"{where}: weight is {_short(weight)}, not a number above 0")
    if kind == "stdio":
        return Item(input=_text(case, "input", where), output=_text(case, "output", where), weight=float(weight))
    if not isinstance(case["args"], list):
        raise _bad(f"{where}: args are {_short(case['args'])}, not a list of the function's arguments")
    tolerance = _tolerance(case, f"{where}: ", tolerance)
    item = Item(args=tuple(case["args"]), expected=case["expected"], weight=float(weight), tolerance=tolerance)
    if declaration is None:
        return item
    try:
        return _typed(item, case, declaration)
    except ValueProblem as problem:
        raise _bad(f"{where}: {problem}") from None


def _typed(item: Item, case: Mapping[str, Any], declaration: Declaration) -> Item:
    """The item of a C++ call's case, with values converted to the declared types. Raises ValueProblem."""
    if len(item.args) != len(declaration.params):
        raise ValueProblem(f"{len(item.args)} args, and {declaration.function} takes {len(declaration.params)}")
    pairs = zip(item.args, declaration.params, strict=True)
    item = replace(item, packed=packed([fitted(value, param.type, param.name) for value, param in pairs]))
    if "raises" in case:
        if case["raises"] not in RAISES:
            raise ValueProblem(f"raises is {_short(case['raises'])}; give one of {', '.join(RAISES)}")
        return replace(item, raises=case["raises"])
    changed = None
    if "expected_args" in case:
        values, kinds = case["expected_args"], declaration.changed
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueProblem(f"expected_args must be a list with a value for each of {len(kinds)} mutable references")
        changed = tuple(fitted(value, kind, "expected_args") for value, kind in zip(values, kinds, strict=True))
    if declaration.result.kind == "void" and changed is not None and case["expected"] is None:
        return replace(item, changed=changed)
    kind = declaration.changed[0] if declaration.result.kind == "void" else declaration.result
    return replace(item, expected=fitted(case["expected"], kind, "expected"), changed=changed)


def _text(values: Mapping[str, Any], name: str, where: str = "") -> str:
    """The string `values[name]`; it may be blank only in a case (`where`, for the error message)."""
    value = values.get(name)
    if not isinstance(value, str) or (not value.strip() and not where):
        raise _bad(f"{where + ': ' if where else ''}{name} is {_short(value)}, not a text")
    return value


def _bad(problem: str) -> RewardError:
    return RewardError(f"the row's tests: {problem}")


def _short(value: Any) -> str:
    """A scalar's repr, truncated, or the type of any other value, for error messages."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise _bad(f"{what} is not JSON: {str(problem)[:100]}") from None


def from_apps(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tests of an APPS or TACO row: `input_output`, an object or JSON text, has inputs, outputs and perhaps fn_name.

    In some rows an expected result is wrapped in a list of one item; as in the benchmarks' own harnesses, both forms
    are accepted. Raises RewardError.
    """
    tests = row.get("input_output")
    tests = _json(tests, "input_output") if isinstance(tests, str) else tests
    if not isinstance(tests, dict):
        raise _bad(f"input_output is {_short(tests)}, not an object with inputs and outputs")
    inputs, outputs, function = tests.get("inputs"), tests.get("outputs"), tests.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise _bad("inputs and outputs are not two lists of the same length")
    if not function:
        cases = [{"input": _lines(i), "output": _lines(o)} for i, o in zip(inputs, outputs, strict=True)]
        return {"kind": "stdio", "cases": cases}
    calls = [{"args": i, "expected": o} for i, o in zip(inputs, outputs, strict=True)]
    return {"kind": "call", "function": function, "wrapped": True, "cases": calls}


def _lines(value: Any) -> Any:
    """`value`, joined if it is a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value


def from_livecodebench(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tests of a LiveCodeBench row: public_test_cases and private_test_cases (see unpack_text).

    metadata.func_name names the function to call; arguments are JSON values, one per line. Raises RewardError.
    """
    names = ("public_test_cases", "private_test_cases")
    cases = [case for name in names for case in _livecodebench_cases(row.get(name) or [])]
    metadata = row.get("metadata") or {}
    metadata = _json(metadata, "metadata") if isinstance(metadata, str) else metadata
    function = metadata.get("func_name") if isinstance(metadata, dict) else None
    kinds = {str(case.get("testtype")) for case in cases}
    if kinds == {"stdin"}:
        return {"kind": "stdio", "cases": [{name: case.get(name) for name in ("input", "output")} for case in cases]}
    if kinds != {"functional"}:
        raise _bad(f"testtype is {' and '.join(sorted(kinds)) or 'missing'}, not stdin or functional")
    if not function:
        raise _bad("functional test cases, but metadata has no func_name")
    return {"kind": "call", "function": function, "cases": [_functional(case) for case in cases]}


def _livecodebench_cases(packed: Any) -> list[dict[str, Any]]:
    """The test cases of one column: a list, or packed text (see unpack_text)."""
    cases = _json(unpack_text(packed), "a list of test cases") if isinstance(packed, str) else packed
    if isinstance(cases, list) and all(isinstance(case, dict) for case in cases):
        return cases
    raise _bad(f"test cases are {_short(cases)}, not a list of objects")


def unpack_text(packed: str, most_bytes: int = MOST_BYTES) -> str:
    """The JSON text in LiveCodeBench's private tests: base64 of zlib of a pickled string; JSON text is returned as is.

    The pickle is parsed, not loaded, because loading could run code. At most `most_bytes` are decompressed. Raises
    RewardError.
    """
    if packed.lstrip()[:1] in ("[", "{"):
        return packed
    try:
        compressed = base64.b64decode(packed, validate=True)
        inflate = zlib.decompressobj()
        data = inflate.decompress(compressed, most_bytes)
    except (binascii.Error, zlib.error, ValueError) as problem:
        raise RewardError(f"packed tests: neither JSON nor base64 of zlib: {problem}") from None
    if inflate.unconsumed_tail or (not inflate.eof and len(data) >= most_bytes):
        raise RewardError(f"packed tests: more than {most_bytes} bytes when unpacked")
    if not inflate.eof or inflate.unused_data:
        raise RewardError("packed tests: the compressed data is cut short, or something follows it")
    return pickled_text(data)


def pickled_text(data: bytes) -> str:
    """The string in a pickle of one string. Raises RewardError for any other pickle, naming the opcode."""
    texts: list[str] = []
    try:
        for opcode, argument, at in pickletools.genops(data):
            if opcode.name in _TEXTS and not texts:
                texts.append(str(argument))
            elif opcode.name == "STOP" and texts and at == len(data) - 1:
                return texts[0]
            elif opcode.name not in _IGNORED:
                name = opcode.name
                raise RewardError(f"packed tests: a pickle that holds more than one text (instruction {name})")
    except (ValueError, UnicodeDecodeError) as problem:
        raise RewardError(f"packed tests: not a valid pickle: {str(problem)[:100]}") from None
    raise RewardError("packed tests: a pickle that is cut short, or followed by something")


def _functional(case: Mapping[str, Any]) -> dict[str, Any]:
    """A LiveCodeBench case of a call, in our form."""
    lines = _text(case, "input", "test case").split("\n")
    args = [_json(line, "an argument") for line in lines if line.strip()]
    return {"args": args, "expected": _json(_text(case, "output", "test case"), "output")}


def from_mbpp(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tests of an MBPP row: test_imports and test_setup_code, if present, then test_list; for MBPP+ `test` instead.

    Raises RewardError.
    """
    asserts = row.get("test_list")
    if not isinstance(asserts, Sequence) or isinstance(asserts, str) or not all(isinstance(a, str) for a in asserts):
        raise _bad(f"test_list is {_short(asserts)}, not a list of texts")
    tests = [row["test"]] if isinstance(row.get("test"), str) else asserts
    parts = [*(row.get("test_imports") or []), row.get("test_setup_code") or "", *tests]
    return {"kind": "asserts", "source": "\n".join(parts).strip()}


def from_humaneval(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tests of a HumanEval or HumanEval+ row: `test` defines check(candidate), entry_point names the candidate, and the
    tests may use the prompt's other definitions. A program that does not define the entry point is appended to the
    prompt. An entry point may also be a method, "Solution().twoSum", as in LeetCodeDataset. Raises RewardError.
    """
    function, prompt, source = _text(row, "entry_point"), row.get("prompt") or "", _text(row, "test")
    tests = {"kind": "asserts", "source": source, "function": function, "prefix": prompt}
    if not function.isidentifier():
        tests = {"kind": "asserts", "source": f"{source}\ncheck({function})\n"}
    try:
        body = ast.parse(prompt).body
    except (SyntaxError, ValueError, TypeError, RecursionError) as problem:
        raise _bad(f"the prompt is not valid Python: {str(problem)[:100]}") from None
    helpers = [node for node in body if not isinstance(node, ast.FunctionDef) or node.name != function]
    return tests | ({"declarations": "\n".join(map(ast.unparse, helpers))} if helpers else {})
