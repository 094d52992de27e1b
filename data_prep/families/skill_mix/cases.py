"""Language-independent test cases as data, and their conversion to a row's `tests`.

    {"args": [[3, 1, 2], 2], "expected": [3, 2]}
    {"args": [[], 0], "raises": "invalid_argument"}

Values are JSON, typed by the function's signature: a tuple or pair is a list, a set is a list without duplicates, a map
is an object or a list of [key, value] pairs, an optional may be null, a char is a string of one ASCII character.
Floats in results are compared with a tolerance.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.families.skill_mix.signatures import Language, read
from rewards.code.cpp.declaration import Declaration, Type
from rewards.code.cpp.values import fitted

Case = dict[str, Any]  # args, and either expected or raises: a key of EXCEPTIONS

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


def read_case(given: Any, signature: Declaration) -> Case:
    """A case that fits the signature, with numbers and maps in canonical form. Raises ValueError."""
    if not isinstance(given, dict) or not isinstance(given.get("args"), list):
        raise ValueError('not an object with a list "args"')
    args, params = given["args"], signature.params
    if len(args) != len(params):
        names = ", ".join(param.name for param in params)
        raise ValueError(f"{len(args)} arguments, but {signature.function} takes {len(params)} ({names})")
    if ("expected" in given) == ("raises" in given):
        raise ValueError('give either "expected" or "raises"')
    json.dumps([args, given.get("expected")], allow_nan=False)  # raises ValueError for NaN and infinities
    values = [fitted(value, param.type, param.name) for value, param in zip(args, params, strict=True)]
    if "expected" in given:
        return {"args": values, "expected": fitted(given["expected"], signature.result, "expected")}
    name = _NAMES.get(given["raises"], given["raises"]) if isinstance(given["raises"], str) else ""
    if name not in EXCEPTIONS:
        raise ValueError(f"raises {given['raises']!r}: must be one of {', '.join(EXCEPTIONS)}")
    return {"args": values, "raises": name}


def read_cases(given: Sequence[Any], signature: Declaration) -> tuple[list[Case], list[str]]:
    """The cases that fit the signature, and the problems of the others."""
    cases, problems = [], []
    for number, case in enumerate(given):
        try:
            cases.append(read_case(case, signature))
        except ValueError as error:
            problems.append(f"cases[{number}]: {error}")
    return cases, problems


def suite(function: str, text: str, cases: Sequence[Case], language: Language) -> dict[str, Any]:
    """A row's `tests` (rewards/code/suites.py): calls, or Python asserts. Raises SignatureError."""
    signature = read(text, language)
    calls: dict[str, Any] = {"kind": "call", "function": function}
    if language == "cpp":
        typed = [{**case, "raises": EXCEPTIONS[case["raises"]][1]} if "raises" in case else case for case in cases]
        calls |= {"language": "cpp", "declaration": text, "cases": typed}
    elif _in_json(signature) and not any("raises" in case for case in cases):
        calls["cases"] = [_call(case, signature) for case in cases]
    else:
        return {"kind": "asserts", "source": _asserts(function, signature, cases)}
    return calls | ({"tolerance": TOLERANCE} if signature.result.holds("float") else {})


def _in_json(signature: Declaration) -> bool:
    """Whether JSON can represent the values: no sets, no tuples in arguments, only string keys."""
    kinds = [param.type for param in signature.params]
    sets = signature.result.holds("set") or any(kind.holds("set", "tuple") for kind in kinds)
    return not sets and not any(map(_odd_keys, (*kinds, signature.result)))


def _odd_keys(kind: Type) -> bool:
    return (kind.kind == "map" and kind.args[0].kind not in ("str", "char")) or any(map(_odd_keys, kind.args))


def _call(case: Case, signature: Declaration) -> Case:
    args = [_python(value, param.type) for value, param in zip(case["args"], signature.params, strict=True)]
    call: Case = json.loads(json.dumps({"args": args, "expected": _python(case["expected"], signature.result)}))
    return call  # tuples in a result as lists


class _Set(list[Any]):
    """A set's members in order; its repr is a set's."""

    def __repr__(self) -> str:
        return "{" + super().__repr__()[1:-1] + "}" if self else "set()"


def _python(value: Any, kind: Type) -> Any:
    """A value as a Python object: a map as a dict, a pair as a tuple."""
    if value is None or not kind.args:
        return value
    if kind.kind == "optional":
        return _python(value, kind.args[0])
    if kind.kind == "map":
        return {_python(key, kind.args[0]): _python(item, kind.args[1]) for key, item in value}
    args = kind.args if kind.kind == "tuple" else kind.args * len(value)
    items = [_python(item, arg) for item, arg in zip(value, args, strict=True)]
    return tuple(items) if kind.kind == "tuple" else _Set(items) if kind.kind == "set" else items


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


def _asserts(function: str, signature: Declaration, cases: Sequence[Case]) -> str:
    """Python assert statements, one per case, with the helpers that they use."""
    helpers = _RAISES if any("raises" in case for case in cases) else ""
    helpers += _NEAR if signature.result.holds("float") else ""
    lines = [f"assert {_assertion(function, signature, case)}\n" for case in cases]
    return "".join([helpers and f"{helpers}\n", *lines])


def _assertion(function: str, signature: Declaration, case: Case) -> str:
    args = (_python(value, param.type) for value, param in zip(case["args"], signature.params, strict=True))
    call = f"{function}({', '.join(map(repr, args))})"
    if "raises" in case:
        return f"_raises({EXCEPTIONS[case['raises']][0]}, lambda: {call})"
    expected = _python(case["expected"], signature.result)
    return f"_near({call}, {expected!r})" if signature.result.holds("float") else f"{call} == {expected!r}"
