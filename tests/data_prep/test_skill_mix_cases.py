"""Signatures, test cases as data, and suites built from them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.families.skill_mix.cases import Case, read_case, suite
from data_prep.families.skill_mix.signatures import Language, SignatureError, read
from rewards.code.grade import Terms, grade_program
from rewards.code.results import Graded
from rewards.code.suites import read as read_suite
from rewards.sandbox import shared


def graded(code: str, tests: dict[str, Any]) -> Graded:
    return grade_program(code, read_suite(tests), Terms(cpu_s=2.0), shared())


def statuses(code: str, tests: dict[str, Any]) -> list[str]:
    found = graded(code, tests)
    assert found.compile_error is None, found.compile_error
    return [test.status for test in found.tests]


def suite_of(text: str, language: Language, *given: Case) -> dict[str, Any]:
    signature = read(text, language)
    return suite("f", text, [read_case(one, signature) for one in given], language)


@pytest.mark.parametrize(
    ("language", "text", "shown"),
    [
        ("python", "def f(xs: list[int], k: int = 2) -> dict[str, int]:", "list[int], int -> map[str, int]"),
        ("python", "f(a: 'Optional[str]') -> tuple[int, float]", "optional[str] -> tuple[int, float]"),
        ("python", "def f(a: typing.List[Tuple[int, ...]]) -> int | None", "list[list[int]] -> optional[int]"),
        ("python", "def f() -> set[str]", " -> set[str]"),
        ("cpp", "int f(const std::vector<std::string>& words, char c)", "list[str], char -> int"),
        ("cpp", "vector<vector<int>> f(map<string, vector<int>> &m)", "map[str, list[int]] -> list[list[int]]"),
        ("cpp", "unsigned long long f(size_t n, long double_it = 3)", "int, int -> int"),
        ("cpp", "std::optional<std::pair<int,double>> f();", " -> optional[tuple[int, float]]"),
        ("cpp", "static inline bool f(std::tuple<int, char, bool> t) noexcept {", "tuple[int, char, bool] -> bool"),
        ("cpp", "std::string f(const std::string& /* the text */, int)", "str, int -> str"),
    ],
)
def test_signatures(language: Language, text: str, shown: str) -> None:
    found = read(text, language)
    assert found.function == "f"
    assert f"{', '.join(str(param.type) for param in found.params)} -> {found.result}" == shown


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("python", "def f(x) -> int", "x has no type; annotate it"),
        ("python", "def f(x: int)", "the result has no type"),
        ("python", "def f(x: Node) -> int", "type 'Node' cannot be tested by values"),
        ("python", "def f(*xs: int) -> int", "only positional parameters"),
        ("python", "def f(x: dict[tuple[int, int], int]) -> int", "keys and members of sets must be"),
        ("python", "int f(int x)", "not a Python function signature"),
        ("cpp", "void f(const std::vector<int>& xs)", "the result: type 'void' cannot be tested by values"),
        ("cpp", "int f(const PathResult& r)", "type 'const PathResult' cannot be tested"),
        ("cpp", "int f(int* xs, int n)", "type 'int *' cannot be tested"),
        ("cpp", "std::vector<int, int> f(int x)", "cannot be tested"),
        ("cpp", "int f(std::vector<int> xs", "')' must follow, not 'the end'"),
        ("cpp", "def f(x: int) -> int", "type 'def' cannot be tested by values"),
    ],
)
def test_signatures_that_no_case_fits(language: Language, text: str, said: str) -> None:
    with pytest.raises(SignatureError) as caught:
        read(text, language)
    assert said in str(caught.value)


@given(st.text(max_size=80), st.sampled_from(["python", "cpp"]))
def test_any_text_is_a_signature_or_a_signature_error(text: str, language: Language) -> None:
    try:
        read(text, language)
    except SignatureError:
        return


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"args": [1], "expected": 1}, "1 arguments, but f takes 2 (xs, n)"),
        ({"args": [[1], True], "expected": 1.0}, "n: true is not a value of type int"),
        ({"args": [[1, "a"], 1], "expected": 1.0}, 'xs[1]: "a" is not a value of type int'),
        ({"args": [[2**31], 1], "expected": 1.0}, "xs[0]: 2147483648 does not fit into int"),
        ({"args": [[1], 1], "expected": float("inf")}, "Out of range float"),
        ({"args": [[1], 1]}, 'give either "expected" or "raises"'),
        ({"args": [[1], 1], "raises": "Oops"}, "raises 'Oops': must be one of invalid_argument"),
        ({"args": "no"}, 'not an object with a list "args"'),
        ("no", 'not an object with a list "args"'),
    ],
)
def test_cases_that_do_not_fit(case: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_case(case, read("double f(const std::vector<int>& xs, int n)", "cpp"))


def test_values_are_canonical_for_their_type() -> None:
    signature = read("def f(m: dict[int, float], s: set[str]) -> float", "python")
    case = read_case({"args": [{"2": 1, "-1": 2.5}, ["b", "a"]], "expected": 3}, signature)
    assert case["args"] == [[[-1, 2.5], [2, 1.0]], ["a", "b"]]
    assert repr(case["expected"]) == "3.0"
    assert read_case({"args": [[], []], "raises": "std::out_of_range"}, signature)["raises"] == "out_of_range"


def test_plain_python_cases_become_calls() -> None:
    text = "def f(m: dict[str, list[int]], k: int) -> Optional[int]"
    cases = ({"args": [{"a": [1, 2]}, 1], "expected": 2}, {"args": [[["b", [7]]], 5], "expected": None})
    tests = suite_of(text, "python", *cases)
    assert tests["kind"] == "call"
    assert tests["cases"][1] == {"args": [{"b": [7]}, 5], "expected": None}
    code = "def f(m, k):\n    xs = next(iter(m.values()))\n    return xs[k] if k < len(xs) else None\n"
    assert statuses(code, tests) == ["passed", "passed"]


MIXED = "def f(pairs: list[tuple[int, str]], scale: float) -> dict[int, tuple[float, str]]"
MIXED_CASES = (
    {"args": [[[1, "a"], [3, "ü\n"]], 0.1], "expected": {"1": [0.1, "a"], "3": [0.3, "ü\n"]}},
    {"args": [[], 1], "expected": {}},
    {"args": [[[1, "a"]], 0], "raises": "invalid_argument"},
    {"args": [[[1, "a"], [1, "b"]], 1], "raises": "out_of_range"},
)
MIXED_CODE = """
def f(pairs, scale):
    if scale == 0 and pairs:
        raise ValueError("scale")
    found = {}
    for number, name in pairs:
        if number in found:
            raise KeyError(number)
        found[number] = (number * scale, name)
    return found
"""


def test_python_cases_with_floats_tuples_and_exceptions_become_asserts() -> None:
    tests = suite_of(MIXED, "python", *MIXED_CASES)
    assert tests["kind"] == "asserts"
    assert statuses(MIXED_CODE, tests) == ["passed"] * 4  # 3 * 0.1 is not 0.3
    assert set(statuses("def f(pairs, scale):\n    return {}\n", tests)) == {"passed", "failed"}
    wrong = MIXED_CODE.replace("number * scale", "number * scale + 1e-3")
    assert statuses(wrong, tests)[0] == "failed"


def test_python_cases_with_floats_become_calls_with_a_tolerance() -> None:
    text = "def f(x: float, names: list[str]) -> tuple[float, dict[str, float]]"
    tests = suite_of(text, "python", {"args": [0.1, ["a"]], "expected": [0.3, {"a": 1}]})
    assert (tests["kind"], tests["tolerance"]) == ("call", 1e-6)
    assert statuses("def f(x, names):\n    return x * 3, {name: 1 for name in names}\n", tests) == ["passed"]
    assert statuses("def f(x, names):\n    return x * 3.001, {name: 1 for name in names}\n", tests) == ["failed"]


def test_cpp_cases_become_calls_of_the_declared_types() -> None:
    text = "std::map<std::string, std::vector<std::pair<int, double>>> f(double x, std::optional<float> y)"
    gold = (
        "#include <map>\n#include <optional>\n#include <stdexcept>\n#include <string>\n#include <vector>\n"
        f'{text} {{\n  if (x < 0) throw std::invalid_argument("x");\n'
        '  return {{"a", {{1, x * 3}, {2, y.value_or(0.5f)}}}};\n}\n'
    )
    tests = suite_of(
        text,
        "cpp",
        {"args": [0.1, None], "expected": {"a": [[1, 0.3], [2, 0.5]]}},
        {"args": [1e12, 0.25], "expected": {"a": [[1, 3e12], [2, 0.25]]}},
        {"args": [-1, None], "raises": "ValueError"},
    )
    assert (tests["kind"], tests["declaration"], tests["tolerance"]) == ("call", text, 1e-6)
    assert tests["cases"][2] == {"args": [-1.0, None], "raises": "std::invalid_argument"}
    assert statuses(gold, tests) == ["passed"] * 3
    assert statuses(gold.replace("x * 3", "x * 3.001"), tests) == ["failed", "failed", "passed"]
    assert statuses(gold.replace("std::invalid_argument", "std::out_of_range"), tests) == ["passed", "passed", "failed"]


def test_a_void_function_is_tested_by_what_it_changes() -> None:
    tests = suite_of("void f(std::vector<int>& xs)", "cpp", {"args": [[2, 1]], "expected": [1, 2]})
    assert statuses(
        "#include <algorithm>\nvoid f(std::vector<int>& xs) { std::sort(xs.begin(), xs.end()); }", tests
    ) == ["passed"]
