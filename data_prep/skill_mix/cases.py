"""Test cases as data, the same for every language, and their renderings: a row's `tests`, pytest, GoogleTest.

    {"args": [[3, 1, 2], 2], "expected": [3, 2]}
    {"args": [[], 0], "raises": "invalid_argument"}

Values are JSON, typed by the function's signature: a tuple or pair is a list, a set is a list without repeats, a map
is an object or a list of [key, value] pairs, an optional may be null, a char is a string of one ASCII character.
Floats in results are compared with a tolerance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.skill_mix.signatures import INTEGERS, Language, Signature, Type

Raises = Literal["invalid_argument", "out_of_range", "overflow", "zero_division", "any"]

TOLERANCE = 1e-6  # of floats: absolute for values up to 1, relative above
# What a case may raise: (Python's classes, C++'s class).
EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "invalid_argument": ("ValueError", "std::invalid_argument"),
    "out_of_range": ("LookupError", "std::out_of_range"),  # IndexError and KeyError are its subclasses
    "overflow": ("OverflowError", "std::overflow_error"),
    "zero_division": ("ZeroDivisionError", "std::domain_error"),
    "any": ("Exception", "std::exception"),
}
_NAMES = {
    **{python: name for name, (python, _) in EXCEPTIONS.items()},
    **{cpp: name for name, (_, cpp) in EXCEPTIONS.items()},
    "IndexError": "out_of_range",
    "KeyError": "out_of_range",
}


class CaseError(ValueError):
    """A case that is none; the message says where and what."""


@dataclass(frozen=True)
class TestCase:
    """One call. raises: a key of EXCEPTIONS, "" where the call returns `expected`."""

    __test__ = False  # pytest would collect it

    args: tuple[Any, ...]
    expected: Any = None
    raises: str = ""

    def as_json(self) -> dict[str, Any]:
        outcome = {"raises": self.raises} if self.raises else {"expected": self.expected}
        return {"args": list(self.args), **outcome}


def read_case(given: Any, signature: Signature) -> TestCase:
    """A case of our shape whose values fit the signature, numbers and maps in their one spelling. Raises CaseError."""
    if not isinstance(given, dict) or not isinstance(given.get("args"), list):
        raise CaseError('not an object with a list "args"')
    args, params = given["args"], signature.params
    if len(args) != len(params):
        names = ", ".join(name for name, _ in params)
        raise CaseError(f"{len(args)} arguments, and {signature.name} takes {len(params)} ({names})")
    values = tuple(fitted(value, kind, name) for value, (name, kind) in zip(args, params, strict=True))
    if ("expected" in given) == ("raises" in given):
        raise CaseError('give either "expected" or "raises"')
    if "expected" in given:
        return TestCase(values, fitted(given["expected"], signature.result, "expected"))
    name = _NAMES.get(given["raises"], given["raises"]) if isinstance(given["raises"], str) else ""
    if name not in EXCEPTIONS:
        raise CaseError(f"raises {given['raises']!r}: must be one of {', '.join(EXCEPTIONS)}")
    return TestCase(values, raises=name)


def fitted(value: Any, kind: Type, where: str) -> Any:
    """The value as its type has it: ints among floats as floats, maps as pairs. Raises CaseError."""
    match kind.kind:
        case "optional":
            return None if value is None else fitted(value, kind.args[0], where)
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            low, high = INTEGERS.get(kind.cpp, (-math.inf, math.inf))
            if low <= value <= high:
                return value
            raise CaseError(f"{where}: {value} does not fit into {kind.cpp}")
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return _float(value, where)
        case "bool" if isinstance(value, bool):
            return value
        case "str" if isinstance(value, str):
            return value
        case "char" if isinstance(value, str) and len(value) == 1 and value.isascii():
            return value
        case "list" if isinstance(value, list):
            return [fitted(one, kind.args[0], f"{where}[{at}]") for at, one in enumerate(value)]
        case "set" if isinstance(value, list):
            return _distinct([fitted(one, kind.args[0], f"{where}[{at}]") for at, one in enumerate(value)], where)
        case "tuple" if isinstance(value, list) and len(value) == len(kind.args):
            parts = enumerate(zip(value, kind.args, strict=True))
            return [fitted(one, arg, f"{where}[{at}]") for at, (one, arg) in parts]
        case "map" if isinstance(value, dict | list):
            return _pairs(value, kind, where)
    raise CaseError(f"{where}: {json.dumps(value)[:60]} is no {kind}")


def _float(value: float, where: str) -> float:
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise CaseError(f"{where}: {str(value)[:30]} is no finite number")
    return found


def _pairs(value: Any, kind: Type, where: str) -> list[list[Any]]:
    """A map as sorted pairs; an object's keys are read as the map's key type, for JSON has no others than strings."""
    items = list(value.items()) if isinstance(value, dict) else value
    key_type, value_type = kind.args
    pairs = []
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise CaseError(f"{where}: a map is an object or a list of [key, value] pairs")
        key = item[0]
        if isinstance(value, dict) and key_type.kind in ("int", "bool"):
            try:
                key = json.loads(key)
            except ValueError:
                raise CaseError(f"{where}: key {key!r} is no {key_type}") from None
        at = f"{where}[{str(key)[:20]}]"
        pairs.append([fitted(key, key_type, f"{at} (the key)"), fitted(item[1], value_type, at)])
    keys = [pair[0] for pair in pairs]
    _distinct(keys, where)
    return sorted(pairs, key=lambda pair: pair[0])


def _distinct(values: list[Any], where: str) -> list[Any]:
    if len({json.dumps(one) for one in values}) < len(values):
        raise CaseError(f"{where}: the same member or key twice")
    return sorted(values)


# Renderings


def suite(function: str, signature: Signature, cases: Sequence[TestCase], language: Language) -> dict[str, Any]:
    """A row's `tests` (rewards/code/suites.py), but for the declarations that C++'s need from the gold."""
    if language == "cpp":
        return {"kind": "gtest", "language": "cpp", "source": to_gtest(function, signature, cases)}
    if _plain(signature, cases):
        return {"kind": "call", "function": function, "cases": [_call(case, signature) for case in cases]}
    return {"kind": "asserts", "source": to_asserts(function, signature, cases)}


def _plain(signature: Signature, cases: Sequence[TestCase]) -> bool:
    """Whether JSON calls can hold all of it: exact results, no exceptions, none but JSON's types."""
    kinds = [kind for _, kind in signature.params]
    exact = not signature.result.holds("float", "set", "tuple") and not any(case.raises for case in cases)
    plain = not any(kind.holds("set", "tuple") for kind in kinds)
    keyed = [kind for kind in (*kinds, signature.result) if _odd_keys(kind)]
    return exact and plain and not keyed


def _odd_keys(kind: Type) -> bool:
    return (kind.kind == "map" and kind.args[0].kind not in ("str", "char")) or any(_odd_keys(arg) for arg in kind.args)


def _call(case: TestCase, signature: Signature) -> dict[str, Any]:
    args = [_as_json(value, kind) for value, (_, kind) in zip(case.args, signature.params, strict=True)]
    return {"args": args, "expected": _as_json(case.expected, signature.result)}


def _as_json(value: Any, kind: Type) -> Any:
    """Pairs with text keys as an object."""
    if value is None:
        return None
    if kind.kind == "map":
        return {key: _as_json(one, kind.args[1]) for key, one in value}
    if kind.kind == "list":
        return [_as_json(one, kind.args[0]) for one in value]
    return _as_json(value, kind.args[0]) if kind.kind == "optional" else value


_RAISES = """
def _raises(kind, call):
    try:
        call()
    except kind:
        return True
    return False
"""
_NEAR = f"""
def _near(got, want):
    if isinstance(want, bool) or isinstance(got, bool):
        return got is want
    if isinstance(want, float):
        return isinstance(got, (int, float)) and abs(got - want) <= {TOLERANCE!r} * max(1.0, abs(want))
    if isinstance(want, (list, tuple)):
        alike = isinstance(got, (list, tuple)) and len(got) == len(want)
        return alike and all(_near(a, b) for a, b in zip(got, want))
    if isinstance(want, dict):
        return isinstance(got, dict) and got.keys() == want.keys() and all(_near(got[k], want[k]) for k in want)
    return got == want
"""


def to_asserts(function: str, signature: Signature, cases: Sequence[TestCase]) -> str:
    """Python assert statements, one a case, with the helpers that they need."""
    lines = [_assertion(function, signature, case) for case in cases]
    return _helpers(signature, cases) + "\n".join(f"assert {line}" for line in lines) + "\n"


def to_pytest(function: str, signature: Signature, cases: Sequence[TestCase], module: str = "solution") -> str:
    """A pytest file, one function a case, that imports the solution from `module`."""
    tests = [
        f"\n\ndef test_case_{number}():\n    assert {_assertion(function, signature, case)}\n"
        for number, case in enumerate(cases, 1)
    ]
    return f"from {module} import {function}\n{_helpers(signature, cases)}" + "".join(tests)


def _helpers(signature: Signature, cases: Sequence[TestCase]) -> str:
    raises = _RAISES if any(case.raises for case in cases) else ""
    near = _NEAR if signature.result.holds("float") else ""
    return f"{raises}{near}\n" if raises or near else ""


def _assertion(function: str, signature: Signature, case: TestCase) -> str:
    args = (python_literal(value, kind) for value, (_, kind) in zip(case.args, signature.params, strict=True))
    call = f"{function}({', '.join(args)})"
    if case.raises:
        return f"_raises({EXCEPTIONS[case.raises][0]}, lambda: {call})"
    wanted = python_literal(case.expected, signature.result)
    return f"_near({call}, {wanted})" if signature.result.holds("float") else f"{call} == {wanted}"


def python_literal(value: Any, kind: Type) -> str:
    """A value as Python source."""
    if value is None or not kind.args:
        return repr(value)
    if kind.kind == "optional":
        return python_literal(value, kind.args[0])
    if kind.kind == "map":
        pairs = (f"{python_literal(key, kind.args[0])}: {python_literal(one, kind.args[1])}" for key, one in value)
        return "{" + ", ".join(pairs) + "}"
    args = kind.args if kind.kind == "tuple" else kind.args * len(value)
    parts = [python_literal(one, arg) for one, arg in zip(value, args, strict=True)]
    inside = ", ".join(parts)
    if kind.kind == "set":
        return "{" + inside + "}" if parts else "set()"
    if kind.kind == "tuple":
        return f"({inside},)" if len(parts) == 1 else f"({inside})"
    return f"[{inside}]"


_SAME = f"""
namespace case_data {{
template <class T> struct Same {{ static bool of(const T& a, const T& b) {{ return a == b; }} }};
template <> struct Same<double> {{
  static bool of(double a, double b) {{
    double scale = b < 0 ? -b : b, gap = a < b ? b - a : a - b;
    return gap <= {TOLERANCE!r} * (scale > 1 ? scale : 1);
  }}
}};
template <> struct Same<float> {{ static bool of(float a, float b) {{ return Same<double>::of(a, b); }} }};
template <class T> bool same_items(const T& a, const T& b) {{
  if (a.size() != b.size()) return false;
  auto other = b.begin();
  for (const auto& one : a) if (!Same<typename T::value_type>::of(one, *other++)) return false;
  return true;
}}
template <class T> struct Same<std::vector<T>> {{
  static bool of(const std::vector<T>& a, const std::vector<T>& b) {{ return same_items(a, b); }}
}};
template <class T> struct Same<std::list<T>> {{
  static bool of(const std::list<T>& a, const std::list<T>& b) {{ return same_items(a, b); }}
}};
template <class T> struct Same<std::deque<T>> {{
  static bool of(const std::deque<T>& a, const std::deque<T>& b) {{ return same_items(a, b); }}
}};
template <class A, class B> struct Same<std::pair<A, B>> {{
  static bool of(const std::pair<A, B>& a, const std::pair<A, B>& b) {{
    return Same<std::remove_const_t<A>>::of(a.first, b.first) && Same<B>::of(a.second, b.second);
  }}
}};
template <class... T> struct Same<std::tuple<T...>> {{
  template <std::size_t... I>
  static bool each(const std::tuple<T...>& a, const std::tuple<T...>& b, std::index_sequence<I...>) {{
    return (Same<T>::of(std::get<I>(a), std::get<I>(b)) && ...);
  }}
  static bool of(const std::tuple<T...>& a, const std::tuple<T...>& b) {{
    return each(a, b, std::index_sequence_for<T...>());
  }}
}};
template <class K, class V> struct Same<std::map<K, V>> {{
  static bool of(const std::map<K, V>& a, const std::map<K, V>& b) {{ return same_items(a, b); }}
}};
template <class K, class V> struct Same<std::unordered_map<K, V>> {{
  static bool of(const std::unordered_map<K, V>& a, const std::unordered_map<K, V>& b) {{
    if (a.size() != b.size()) return false;
    for (const auto& one : a) {{
      auto other = b.find(one.first);
      if (other == b.end() || !Same<V>::of(one.second, other->second)) return false;
    }}
    return true;
  }}
}};
template <class T> struct Same<std::optional<T>> {{
  static bool of(const std::optional<T>& a, const std::optional<T>& b) {{
    return a.has_value() == b.has_value() && (!a || Same<T>::of(*a, *b));
  }}
}};
template <class T> bool same(const T& got, const T& wanted) {{ return Same<T>::of(got, wanted); }}
}}
"""
_INCLUDES = ("deque", "list", "map", "optional", "set", "stdexcept", "string", "tuple", "unordered_map",
             "unordered_set", "utility", "vector")  # fmt: skip


def to_gtest(function: str, signature: Signature, cases: Sequence[TestCase]) -> str:
    """A GoogleTest file, one TEST a case, for a solution in ../solution/solution.cpp."""
    headers = "".join(f"#include <{name}>\n" for name in ("gtest/gtest.h", "cstdint", *_INCLUDES))
    helper = _SAME if signature.result.holds("float") else ""
    suite_name = "".join(part.capitalize() for part in function.split("_")) or "Case"
    tests = "".join(
        f"\nTEST({suite_name}Test, Case{number}) {{\n{_body(function, signature, case)}}}\n"
        for number, case in enumerate(cases, 1)
    )
    return f'{headers}#include "../solution/solution.cpp"\n{helper}{tests}'


def _body(function: str, signature: Signature, case: TestCase) -> str:
    """Arguments as variables, for a parameter may be a reference."""
    lines = [
        f"  {kind.cpp} arg{at} = {cpp_literal(value, kind)};\n"
        for at, (value, (_, kind)) in enumerate(zip(case.args, signature.params, strict=True))
    ]
    call = f"{function}({', '.join(f'arg{at}' for at in range(len(case.args)))})"
    if case.raises:
        check = f"EXPECT_THROW({call}, {EXCEPTIONS[case.raises][1]})"
    else:
        kind = signature.result
        lines.append(f"  {kind.cpp} expected = {cpp_literal(case.expected, kind)};\n")
        near = f"EXPECT_TRUE(case_data::same({call}, expected))"
        check = near if kind.holds("float") else f"EXPECT_EQ({call}, expected)"
    return "".join(lines) + f"  {check};\n"


def cpp_literal(value: Any, kind: Type) -> str:
    """A value as C++ source, every part with its type, so that no brace is read in another way."""
    match kind.kind:
        case "bool":
            return "true" if value else "false"
        case "int":
            return _cpp_integer(value)
        case "float":
            return f"{kind.cpp}({value!r})" if kind.cpp == "float" else repr(value)
        case "str":
            size = len(value.encode("utf-8", "surrogatepass"))
            return f"std::string({_quoted(value)}, {size})" if "\0" in value else f"std::string({_quoted(value)})"
        case "char":
            return f"static_cast<char>({ord(value)})"
        case "optional":
            return f"{kind.cpp}()" if value is None else f"{kind.cpp}({cpp_literal(value, kind.args[0])})"
        case "map":
            pairs = (f"{{{cpp_literal(key, kind.args[0])}, {cpp_literal(one, kind.args[1])}}}" for key, one in value)
            return f"{kind.cpp}{{{', '.join(pairs)}}}"
    args = kind.args if kind.kind == "tuple" else kind.args * len(value)
    inside = ", ".join(cpp_literal(one, arg) for one, arg in zip(value, args, strict=True))
    return f"{kind.cpp}({inside})" if kind.kind == "tuple" else f"{kind.cpp}{{{inside}}}"


def _cpp_integer(value: int) -> str:
    if value == -(2**63):
        return "(-9223372036854775807LL - 1)"
    if value > 2**63 - 1:
        return f"{value}ULL"
    return str(value) if -(2**31) < value < 2**31 else f"{value}LL"


def _quoted(text: str) -> str:
    """A C++ string literal: other than printable ASCII as octal escapes of three digits, which end by themselves."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "?": "\\?"}
    bytes_ = text.encode("utf-8", "surrogatepass")
    return '"' + "".join(escapes.get(chr(b)) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in bytes_) + '"'
