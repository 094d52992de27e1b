"""C++ tests as data: accepted programs, comparison of results of every type, valid suites."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import RewardError
from rewards.code.cpp.declaration import DeclarationError, read_declaration
from rewards.code.cpp.toolchain import HERE
from rewards.code.cpp.values import ValueProblem, fitted, packed, read_outcome
from rewards.code.grade import Terms, grade_program
from rewards.code.results import Graded
from rewards.code.suites import read
from rewards.sandbox import shared

ADD = "int add(int a, int b);"
CASES = [{"args": [1, 2], "expected": 3}, {"args": [-5, 2], "expected": -3}]


def suite(declaration: str, cases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    function = read_declaration(declaration).function
    return {
        "kind": "call", "language": "cpp", "declaration": declaration, "function": function, "cases": cases, **more
    }  # fmt: skip


def grade(code: str, tests: dict[str, Any], **limits: Any) -> Graded:
    return grade_program(code, read(tests), Terms(**limits), shared())


def statuses(code: str, tests: dict[str, Any], **limits: Any) -> list[str]:
    graded = grade(code, tests, **limits)
    return ["compile_error"] if graded.compile_error is not None else [test.status for test in graded.tests]


ACCEPTED = {
    "as declared": "int add(int a, int b) { return a + b; }",
    "long long": "long long add(long long a, long long b) { return a + b; }",
    "const references": "int add(const int& a, const int& b) { return a + b; }",
    "mutable references": "int add(int& a, int& b) { a += b; return a; }",
    "output on stdout": '#include <iostream>\n'
                        'int add(int a, int b) { std::cout << "add\\n" << std::flush; return a + b; }',
    "its own main": "int add(int a, int b) { return a + b; }\nint main() { return add(1, 1); }",
    "main with arguments": "int add(int a, int b) { return a + b; }\nint main(int argc, char** argv) { return argc; }",
    "template": "template <class T> T add(T a, T b) { return a + b; }",
    "abbreviated by auto": "auto add(int a, int b) -> int { return a + b; }",
    "static": "static int add(int a, int b) { return a + b; }",
    "inline": "inline int add(int a, int b) { return a + b; }",
    "constexpr": "constexpr int add(int a, int b) noexcept { return a + b; }",
    "nodiscard": "[[nodiscard]] int add(int a, int b) { return a + b; }",
    "lambda": "auto add = [](int a, int b) { return a + b; };",
    "generic lambda": "const auto add = [](auto a, auto b) { return a + b; };",
    "std::function": "#include <functional>\nstd::function<int(int, int)> add = [](int a, int b) { return a + b; };",
    "recursive std::function": "function<int(int, int)> add = "
                               "[](int a, int b) { return b > 0 ? add(a + 1, b - 1) : a + b; };",
    "function pointer": "static int sum(int a, int b) { return a + b; }\nint (*add)(int, int) = sum;",
    "callable object": "struct Add { int operator()(int a, int b) const { return a + b; } } add;",
    "extern C": 'extern "C" { int add(int a, int b) { return a + b; } }',
    "overloads": "double add(double a, double b) { return 9; }\nint add(int a, int b) { return a + b; }",
    "default argument": "int add(int a, int b, int c = 0) { return a + b + c; }",
    "namespace": "namespace solution { int add(int a, int b) { return a + b; } }\nusing namespace solution;",
    "class Solution": "class Solution {\npublic:\n  int add(int a, int b) { return a + b; }\n};",
    "class Solution beside it": "class Solution {\npublic:\n"
                               "  int sum(int a, int b) { return b == '}' ? a + b : b + a; }\n};\n"
                               "int add(int a, int b) { Solution s; return s.sum(a, b); }",
    "rvalue references": "int add(int&& a, int&& b) { return a + b; }",
    "rvalue references of a method": "struct Solution { static int add(int&& a, int&& b) { return a + b; } };",
    "extensions of GNU": "#include <type_traits>\nstatic_assert(std::is_integral_v<__int128>);\n"
                         "int add(int a, int b) { typeof(a) c = a + b; return c; }",
    "no includes": "vector<int> both;\n"
                   "int add(int a, int b) { both = {a, b}; return accumulate(both.begin(), both.end(), 0); }",
    "all of the library": "#include <bits/stdc++.h>\nusing namespace std;\nint add(int a, int b) { return a + b; }",
    "macros": "#define int long long\n#define f first\n#define rep(i, n) for (int i = 0; i < n; i++)\n"
              "using namespace std;\n"
              "int add(int a, int b) { pair<int, int> p{a, b}; return p.f + p.second; }\nint32_t main() { return 0; }",
    "names of the library": "using namespace std;\nint count = 0;\nint max(int a, int b) { return a > b ? a : b; }\n"
                            "int add(int a, int b) { ::count++; return ::max(a, b) + ::min(a, b); }",
    "operators of its own": "struct V { int x; V operator+(V o) const { return {x + o.x}; }\n"
                            "  bool operator==(const V& o) const { return x == o.x; } };\n"
                            "int add(int a, int b) { return (V{a} + V{b}).x; }",
    "ends in a line comment": "int add(int a, int b) { return a + b; } // the end",
    "ends in a backslash": "int add(int a, int b) { return a + b; }\n// the end \\",
    "eight threads": "#include <thread>\n#include <vector>\n#include <atomic>\nint add(int a, int b) {\n"
                     "  std::atomic<int> sum{a - 8};\n  std::vector<std::thread> all;\n"
                     "  for (int i = 0; i < 8; i++) all.emplace_back([&] { sum++; });\n"
                     "  for (auto& t : all) t.join();\n  return sum + b;\n}",
    "eight tasks": "#include <future>\n#include <vector>\nint add(int a, int b) {\n"
                   "  std::vector<std::future<int>> all;\n"
                   "  for (int i = 0; i < 8; i++) all.push_back(std::async(std::launch::async, [=] { return i; }));\n"
                   "  for (auto& f : all) a += f.get();\n  return a + b - 28;\n}",
    "a million calls deep": "int down(int n) { volatile int here = n; return n ? down(n - 1) + (here - n) : 0; }\n"
                            "int add(int a, int b) { return a + b + down(1000000); }",
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_ways_to_write_the_same_function(name: str) -> None:
    code = ACCEPTED[name]
    if name == "no includes" or name == "recursive std::function":
        code = f"using namespace std;\n{code}"
    assert statuses(code, suite(ADD, CASES)) == ["passed", "passed"]


REFUSED = {
    "another name": "int sum(int a, int b) { return a + b; }",
    "the library's function of that name": "#include <numeric>\nusing namespace std;",
    "bitset<0> for int": "#include <bitset>\nstd::bitset<0> add(long, long) { return {}; }",
    "a class for int": "struct Any { template <class T> bool operator==(T) const { return true; } };\n"
    "Any add(int, int) { return {}; }",
    "void": "void add(int, int) {}",
    "a missing bracket": "int add(int a, int b) { return a + b; ",
    "a namespace left open": "namespace n { int add(int a, int b) { return a + b; }",
    "a comment left open": "int add(int a, int b) { return a + b; } /*",
    "a raw string left open": 'int add(int a, int b) { return a + b; } const char* s = R"x(',
    "a condition left open": "int add(int a, int b) { return a + b; }\n#if 0",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_convert_does_not_compile(name: str) -> None:
    assert statuses(REFUSED[name], suite(ADD, CASES)) == ["compile_error"]


GCD = suite("int gcd(int a, int b);", [{"args": [12, 18], "expected": 6}])


def test_the_programs_function_shadows_a_library_function() -> None:
    wrong = "#include <numeric>\nusing namespace std;\nlong long gcd(long long a, long long b) { return 1; }"
    assert statuses(wrong, GCD) == ["failed"]
    assert statuses("#include <numeric>\nusing std::gcd;", GCD) == ["passed"]


# One function that returns all that it is given shows every kind of value in one compilation.
EVERYTHING = """
struct Point { int x = 1, y; };
struct Line { Point from, to; std::vector<std::string> names; };
using Grid = std::vector<std::vector<char>>;
std::tuple<std::tuple<int, long long, unsigned long long, bool, char>, string, vector<vector<int>>, vector<bool>,
      map<string, vector<pair<int, string>>>, unordered_map<char, int>, optional<set<int>>, deque<size_t>, Line, Grid,
      array<double, 3>, map<pair<int, int>, float>, unordered_set<string>, list<uint8_t>>
everything(int a, long long b, unsigned long long c, bool d, char e, const string& f, vector<vector<int>> g,
     const vector<bool>& h, map<string, vector<pair<int, string>>> i, unordered_map<char, int>& j,
     optional<set<int>> k, deque<size_t> l, const Line& m, Grid n, array<double, 3> o,
     const map<pair<int, int>, float>& p, unordered_set<string> q, list<uint8_t> r)
"""
VALUES: list[list[Any]] = [
    [-(2**31), -(2**63), 2**64 - 1, True, "\\", 'a "quoted"\\ ??/ text\n\0end é', [[], [1, -2], [3]], [True, False],
     {"": [], "k": [[1, "x"], [2, ""]]}, {"a": 1, "'": 2}, [5, 1], [0, 2**40],
     {"from": {"x": 1, "y": -1}, "to": {"x": 3, "y": 4}, "names": ["p", ""]}, [["#", "."], []], [0.1, 2, 1e300],
     [[[1, 2], 0.1], [[0, 5], 2]], ["b", "a"], [255, 0]],
    [0, 5, 0, False, "\n", "", [], [], {}, {}, None, [],
     {"from": {"x": 0, "y": 0}, "to": {"x": 0, "y": 0}, "names": []}, [], [0, 0, 0], [], [], []],
]  # fmt: skip


def test_every_kind_of_value() -> None:
    body = "{\n  return {{a, b, c, d, e}, f, g, h, i, j, k, l, m, n, o, p, q, r};\n}\n"
    cases = [{"args": v, "expected": [v[:5], *v[5:]]} for v in VALUES]
    head = EVERYTHING[EVERYTHING.index("std::tuple") :]
    code = f"#include <bits/stdc++.h>\nusing namespace std;\n{head}{body}"
    tests = suite(EVERYTHING, cases)
    assert statuses(code, tests) == ["passed", "passed"]
    assert statuses(code.replace("e}, f", "e}, string()"), tests) == ["failed", "passed"]
    own = "struct Point { long x, y; Point(long a, long b) : x(a), y(b) {} bool operator<(const Point&) const; };\n"
    own += "struct Line { Point from; Point to; vector<string> names; };\n"
    assert statuses(code.replace(head, own + head), tests) == ["passed", "passed"]


@pytest.mark.parametrize(
    "own",
    [
        "typedef struct { int x; int y; } P;",
        "typedef struct point\n{\n  int x, y;\n} P, *Ptr;",
        "// struct P { int x, y; };",
        "#define T int\n#define v vector\n#define in cin\n",
    ],
)
def test_the_declared_struct_or_the_programs_own(own: str) -> None:
    tests = suite("struct P { int x, y; }; P swapped(const P& p);", [{"args": [[1, 2]], "expected": [2, 1]}])
    assert statuses(f"{own}\nP swapped(const P& p) {{ return {{p.y, p.x}}; }}", tests) == ["passed"]


SHIM = sorted(set(re.findall(r"[A-Za-z_]\w+", (HERE / "shim.j2").read_text())) & {
    "put", "get", "read", "item", "text", "skip", "call", "In", "Out", "Codec", "put_item", "put_result", "forward",
})  # fmt: skip


@pytest.mark.parametrize("name", SHIM)
def test_names_of_ours_as_macros_and_structs(name: str) -> None:
    cases = [{"args": [[1, 2]], "expected": [2, 1]}]
    tests = suite("struct P { int x, y; }; P swapped(P p);", cases)
    body = "struct P { int x, y; }; P swapped(P p) { return {p.y, p.x}; }"
    assert statuses(f"#define {name} 1\n{body}", tests) == ["passed"]
    assert statuses(f"#define {name}(x) (x)\n{body}", tests) == ["passed"]
    own = suite(f"struct {name} {{ int x, {name}_y; }}; {name} swapped({name} p);", cases)
    assert statuses(
        f"struct {name} {{ int x, {name}_y; }}; {name} swapped({name} p) {{ return {{p.{name}_y, p.x}}; }}", own
    ) == ["passed"]


NEWER = {
    "ranges": "int add(int a, int b) { std::vector v{a, b}; std::ranges::sort(v); return v[0] + v[1]; }",
    "concepts": "#include <concepts>\ntemplate <std::integral T> T add(T a, T b) { return a + b; }",
    "comparison": "#include <compare>\nstruct N { int n; auto operator<=>(const N&) const = default; };\n"
    "int add(int a, int b) { return N{a} == N{b} ? 2 * a : a + b; }",
    "members": "int add(int a, int b) { return std::set<int>{a}.contains(a) ? a + b : 0; }",
    "requires": "template <class T> requires (sizeof(T) > 1) T add(T a, T b) { return a + b; }",
    "own names of C++20": "using namespace std;\nint span(int a, int b) { return a + b; }\n"
    "int add(int a, int b) { return span(a, b); }",
}


@pytest.mark.parametrize("name", NEWER)
def test_programs_of_c_plus_plus_20(name: str) -> None:
    assert statuses(f"#include <bits/stdc++.h>\n{NEWER[name]}", suite(ADD, CASES)) == ["passed", "passed"]


def test_an_error_in_both_standards_is_that_of_c_plus_plus_17() -> None:
    wrong = "#include <bits/stdc++.h>\nint add(int a, int b) { std::ranges::sort(v) return a; }"
    assert "std::ranges" in (grade(wrong, suite(ADD, CASES)).compile_error or "")


def test_floats_are_compared_exactly_by_default() -> None:
    declaration = "std::vector<double> thirds(double x);"
    code = "#include <vector>\nstd::vector<double> thirds(double x) { return {x / 3, x * (2.0 / 3), NAN, INFINITY}; }"
    cases = [{"args": [1], "expected": [0.333333, 0.666667, float("nan"), float("inf")]}]
    assert statuses(code, suite(declaration, cases)) == ["failed"]
    assert statuses(code, suite(declaration, cases, tolerance=1e-5)) == ["passed"]
    assert statuses(code, suite(declaration, [{**cases[0], "tolerance": 1e-7}], tolerance=1e-5)) == ["failed"]
    half = suite("float half(float x);", [{"args": [0.1], "expected": 0.05}])
    assert statuses("float half(float x) { return x / 2; }", half) == ["passed"]  # as floats, not as doubles


IN_PLACE = [{"args": [[3, 1, 2]], "expected": [1, 2, 3]}]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("long long next(long long x) { return x + 1; }", "passed"),
        ("long long next(long long x) { return x + 1 + (1LL << 32); }", "failed"),
        ("double next(int x) { return x + 1; }", "passed"),
        ("double next(int x) { return x + 1.5; }", "failed"),
        ("#include <cstddef>\nsize_t next(int x) { return x + 1; }", "passed"),
    ],
)
def test_a_wider_result_is_compared_unconverted(code: str, result: str) -> None:
    assert statuses(code, suite("int next(int x);", [{"args": [-4], "expected": -3}])) == [result]


def test_changes_to_arguments() -> None:
    sort = suite("void order(std::vector<int>& v);", IN_PLACE)
    assert statuses(
        "#include <algorithm>\nvoid order(std::vector<int>& v) { std::sort(v.begin(), v.end()); }", sort
    ) == ["passed"]
    assert statuses("void order(std::vector<int> v) {}", sort) == ["failed"]
    unique = suite(
        "int dedupe(std::vector<int>& v, const std::string& how, int& left);",
        [{"args": [[1, 1, 2], "all", 0], "expected": 2, "expected_args": [[1, 2], 1]}],
    )
    code = """
    int dedupe(vector<int>& v, const string& how, int& left) {
      auto end = unique(v.begin(), v.end());
      left = v.end() - end;
      v.erase(end, v.end());
      return v.size();
    }"""
    assert statuses(f"using namespace std;\n{code}", unique) == ["passed"]
    assert statuses(f"using namespace std;\n{code.replace('left = ', '')}", unique) == ["failed"]


def test_exceptions() -> None:
    cases = [
        {"args": [-1], "raises": "std::invalid_argument"}, {"args": [-1], "raises": "std::logic_error"},
        {"args": [-1], "raises": "any"}, {"args": [4], "expected": 2}, {"args": [-1], "expected": 2},
        {"args": [4], "raises": "any"}, {"args": [-1], "raises": "std::out_of_range"},
    ]  # fmt: skip
    tests = suite("int root(int x);", cases)
    code = '#include <stdexcept>\nint root(int x) { if (x < 0) throw std::invalid_argument("below 0"); return 2; }'
    assert statuses(code, tests) == ["passed"] * 4 + ["runtime_error", "failed", "failed"]
    assert grade(code, tests).tests[4].message == "threw std::invalid_argument: below 0"


def test_every_case_has_its_own_process() -> None:
    code = """
    #include <cstdlib>
    #include <vector>
    static int calls;
    int f(int n) {
      if (n == 0) abort();
      if (n == 1) for (;;);
      if (n == 2) { std::vector<char> big(1 << 30, 1); return big[5]; }
      if (n == 3) exit(0);
      if (n == 4) return 2;
      return ++calls;
    }"""
    tests = suite("int f(int n);", [{"args": [n], "expected": 1} for n in range(7)])
    expected = ["runtime_error", "timeout", "memory", "runtime_error", "failed", "passed", "passed"]
    assert statuses(code, tests, cpu_s=0.2, memory_mb=256) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"declaration": None}, "declaration is None, not a text"),
        ({"declaration": "int sub(int a);"}, "the declaration is of 'sub', and function is 'add'"),
        ({"declaration": "Node* add(int a, int b);"}, "type 'Node *' cannot be tested by values"),
        ({"declaration": "struct P { int x; };"}, "it declares no function"),
        ({"declaration": "void add(int a, int b);"}, "the result: type 'void'"),
        ({"cases": [{"args": [1], "expected": 3}]}, "case 0: 1 args, and add takes 2"),
        ({"cases": [{"args": [1, "2"], "expected": 3}]}, 'case 0: b: "2" is not a value of type int'),
        ({"cases": [{"args": [1, 2**31], "expected": 3}]}, "case 0: b: 2147483648 does not fit into int"),
        ({"cases": [{"args": [1, 2], "expected": 3.0}]}, "case 0: expected: 3.0 is not a value of type int"),
        ({"cases": [{"args": [1, 2], "raises": "Oops"}]}, "case 0: raises is 'Oops'; give one of any"),
        ({"cases": [{"args": [1, 2], "expected": 3, "expected_args": [1]}]}, "for each of 0 mutable references"),
        ({"cases": [{"args": [1, 2], "expected": 3, "tolerance": -1}]}, "case 0: tolerance is -1"),
        ({"tolerance": "small"}, "tolerance is 'small', not a number of at least 0"),
    ],
)
def test_unusable_suites(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match="the row's tests: ") as caught:
        read({**suite(ADD, CASES), **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("declaration", "shown"),
    [
        ("int f(const std::vector<std::string>& words, char c)", "list[str], char -> int"),
        ("vector<vector<int>> f(map<string, vector<int>> &m)", "map[str, list[int]] -> list[list[int]]"),
        ("unsigned long long f(size_t n, long double_it = 3)", "int, int -> int"),
        (
            "#include <vector>\nusing namespace std;\n[[nodiscard]] static bool f(long double) noexcept {",
            "float -> bool",
        ),
        ("typedef long long ll; struct P { ll a, b; }; std::optional<P> f(P*);", ""),
        (
            "typedef long long ll; struct P { ll a, b{3}; }; std::optional<P> f(P p, P const & q);",
            "P, P -> optional[P]",
        ),
    ],
)
def test_declarations(declaration: str, shown: str) -> None:
    if not shown:
        with pytest.raises(DeclarationError, match=r"P \*"):
            read_declaration(declaration)
        return
    read_as = read_declaration(declaration)
    assert f"{', '.join(str(param.type) for param in read_as.params)} -> {read_as.result}" == shown


@given(st.text("struct{};<>,()&*int vectorusing=:P \n", max_size=60) | st.text(max_size=40))
def test_any_text_is_a_declaration_or_a_declaration_error(text: str) -> None:
    try:
        read_declaration(text)
    except DeclarationError:
        return


WIDE = read_declaration(EVERYTHING)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_result_or_a_value_problem(data: bytes) -> None:
    for declaration in (WIDE, read_declaration(ADD), read_declaration("vector<vector<string>> f(map<char, bool>& m)")):
        for tag in (b"[", b"{", b""):
            try:
                read_outcome(tag + data, declaration)
            except ValueProblem:
                continue


def test_values_round_trip_through_packing() -> None:
    for value in VALUES:
        values = [value[:5], *value[5:]]
        expected = fitted(values, WIDE.result, "expected")
        outcome = read_outcome(packed([expected, [["a", 1]]]), WIDE)
        assert (outcome.value, outcome.changed) == (expected, ([["a", 1]],))
    with pytest.raises(ValueProblem, match="occurs twice"):
        fitted([1, 1], read_declaration("int f(std::set<int> s)").params[0].type, "s")


def test_too_large_programs_and_results_are_rejected_at_once() -> None:
    assert statuses("/* " * 80_000, suite(ADD, CASES)) == ["compile_error"]
    assert "longer than 262144 characters" in str(grade("/* " * 90_000, suite(ADD, CASES)).compile_error)
    structs = suite("struct P { int x; }; int f(P p);", [{"args": [[1]], "expected": 1}])
    began = time.process_time()
    for piece in ("typedef ", "struct P ", "class Solution f ", '"\\', "'\\"):
        assert statuses(piece * (200_000 // len(piece)), structs) == ["compile_error"]
    assert time.process_time() - began < 5
    tests = suite("std::vector<int> f(int n);", [{"args": [10**6], "expected": [1]}])
    graded = grade("#include <vector>\nstd::vector<int> f(int n) { return std::vector<int>(n, 1); }", tests)
    assert (graded.tests[0].status, graded.tests[0].message) == ("failed", "a result much larger than the expected one")


def test_the_programs_overloads_take_no_part_in_comparisons() -> None:
    traits = (
        "#include <string>\nstruct T : std::char_traits<char> {\n"
        "  static int compare(const char*, const char*, size_t) { return 0; }\n"
        "  static size_t length(const char*) { return 0; }\n};\n"
        "std::basic_string<char, T> shout(const std::string&) { return {}; }"
    )
    shout = suite("std::string shout(const std::string& text);", [{"args": ["a"], "expected": "A"}])
    assert statuses(traits, shout) == ["compile_error"]
    half = suite("double half(int x);", [{"args": [3], "expected": 1.5}], tolerance=1e-9)
    assert statuses("inline bool close_to(float, double) { return true; }\nfloat half(long) { return 0; }", half) == [
        "failed"
    ]
    rows = (
        "#include <bitset>\n#include <vector>\n"
        "struct R : std::vector<std::bitset<0>> { std::bitset<0> size() const { return {}; } };\n"
        "R rows(int) { return {}; }"
    )
    assert statuses(rows, suite("std::vector<int> rows(int n);", [{"args": [1], "expected": [1]}])) == ["compile_error"]
