"""C++ solutions under GoogleTest suites and asserts: what is graded how, what is compiled once, what fails alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.code import cpp
from rewards.code.cpp import elf
from rewards.code.cpp.interface import interface, reaching
from rewards.code.cpp.toolchain import SONAMES, toolchain
from rewards.code.results import Graded
from rewards.sandbox import BUILD_LIMITS, Built, Case, Limits, Sandbox

INCLUDE = '#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n'
ADD = "int add(int a, int b) { return a + b; }"
ADD_TESTS = INCLUDE + "TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }\nTEST(Add, Zero) { EXPECT_EQ(add(0, 0), 0); }\n"


class Counting(Sandbox):
    """The real sandbox, which also tells which sources it compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: list[str] = []
        self._counting = threading.Lock()

    def build(
        self,
        files: Mapping[str, bytes],
        argv: Sequence[str],
        limits: Limits = BUILD_LIMITS,
        outputs: Sequence[str] = ("a.out",),
    ) -> Built:
        with self._counting:
            self.compiled += [name for name in files if name.endswith((".cpp", "solution.o"))]
        return super().build(files, argv, limits, outputs)


@pytest.fixture(scope="module")
def box() -> Iterator[Counting]:
    with Counting() as sandbox:
        yield sandbox


def grade(box: Sandbox, source: str, tests: str, declarations: str = "", **options: Any) -> Graded:
    return cpp.grade(source, tests, options.pop("kind", "gtest"), declarations=declarations, sandbox=box, **options)


def statuses(graded: Graded) -> dict[str, str]:
    assert not graded.failure, graded.failure
    assert graded.compile_error is None, graded.compile_error
    return {test.name: test.status for test in graded.tests}


FEATURES = r"""
#include <gtest/gtest.h>
#include <stdexcept>
#include <cmath>
#include "../solution/solution.cpp"

class RootTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ready = true; }
  void SetUp() override { four = 4; }
  double four = 0;
  static bool ready;
};
bool RootTest::ready = false;
TEST_F(RootTest, Fixture) { ASSERT_TRUE(ready); EXPECT_DOUBLE_EQ(root(four), 2.0); }
TEST_F(RootTest, Near) { EXPECT_NEAR(root(2), 1.41421, 1e-4) << "not near"; }
TEST_F(RootTest, DISABLED_Later) { FAIL(); }
TEST(Throws, Negative) { EXPECT_THROW(root(-1), std::invalid_argument); EXPECT_NO_THROW(root(1)); }
TEST(Throws, ByHand) { try { root(-1); FAIL(); } catch (const std::invalid_argument&) {} }
class Squares : public ::testing::TestWithParam<int> {};
TEST_P(Squares, Root) { EXPECT_EQ(root(GetParam() * GetParam()), GetParam()); }
INSTANTIATE_TEST_SUITE_P(Small, Squares, ::testing::Values(1, 2, 3));
template <class T> class Typed : public ::testing::Test {};
using Both = ::testing::Types<int, double>;
TYPED_TEST_SUITE(Typed, Both);
TYPED_TEST(Typed, One) { EXPECT_EQ(TypeParam(root(1)), TypeParam(1)); }
int main(int argc, char** argv) { ::testing::InitGoogleTest(&argc, argv); return RUN_ALL_TESTS(); }
"""
ROOT = """
#include <cmath>
#include <stdexcept>
double root(double x) { if (x < 0) throw std::invalid_argument("negative"); return std::sqrt(x); }
"""


def test_gtests_features_are_supported(box: Sandbox) -> None:
    names = [
        "RootTest.Fixture",
        "RootTest.Near",
        "Throws.Negative",
        "Throws.ByHand",
        *(f"Typed/{i}.One" for i in (0, 1)),
    ]
    names += [f"Small/Squares.Root/{i}" for i in range(3)]
    assert statuses(grade(box, ROOT, FEATURES)) == dict.fromkeys(names, "passed")


def test_a_wrong_solution_fails_where_it_is_wrong_and_says_how(box: Sandbox) -> None:
    graded = grade(box, "double root(double x) { return x == 4 ? 2 : x; }", FEATURES)
    passed = {name for name, status in statuses(graded).items() if status == "passed"}
    assert passed == {"RootTest.Fixture", "Small/Squares.Root/0", "Typed/0.One", "Typed/1.One", "Small/Squares.Root/1"}
    near = next(test for test in graded.tests if test.name == "RootTest.Near")
    assert near.status == "failed"
    assert near.message.startswith("line 16: The difference between")
    assert "not near" in near.message


def test_every_test_has_a_process_of_its_own(box: Sandbox) -> None:
    tests = INCLUDE + "\n".join(f"TEST(F, {name}) {{ EXPECT_EQ(f({n}), 1); }}" for n, name in enumerate("ABCDEF"))
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
    graded = grade(box, code, tests, run=Limits(cpu_s=0.2, memory_mb=256))
    expected = ["runtime_error", "timeout", "memory", "runtime_error", "failed", "passed"]
    assert list(statuses(graded).values()) == expected
    assert graded.run_cpu_s >= 0.2
    assert graded.compile_cpu_s > 0


def test_ends_of_the_compiler_are_told_apart(box: Sandbox) -> None:
    bomb = "template <int N, class... T> struct S : S<N - 1, T..., T...> {};\n"
    bomb += "template <class... T> struct S<0, T...> {};\n"
    deep = "template <long N> struct S { S<N + 1> next; }; S<0> s;\n" + ADD
    slow = "constexpr long f(long n) { for (long i = 0; i < 200000000; ++i) n += i; return n; }\n"
    cases = {
        "int add(int a, int b) { return": ("exit", "expected"),
        "int sum(int a, int b) { return a + b; }": ("exit", "was not declared"),
        deep: ("exit", "instantiation depth"),
        f"{slow}static_assert(f(1) == 0);\n{ADD}": ("exit", "constexpr"),
        f"#include <bits/stdc++.h>\n{ADD}\nint pad[] = {{{'1,' * 100_000}}};": ("output_limit", ""),
    }
    limits = Limits(cpu_s=5.0, memory_mb=2048, output_kb=256)
    for code, (status, words) in cases.items():
        graded = grade(box, code, ADD_TESTS, build=limits)
        assert (graded.compile_status, graded.tests, words in str(graded.compile_error)) == (status, [], True)
    bomb += "S<40, int> s;"
    for status, limits in (
        ("timeout", Limits(cpu_s=1.0, memory_mb=4096)),
        ("memory", Limits(cpu_s=9.0, memory_mb=256)),
    ):
        assert grade(box, bomb, ADD_TESTS, build=limits).compile_status == status


def test_tests_are_compiled_once_for_a_batch_also_from_threads(box: Counting) -> None:
    tests = ADD_TESTS.replace("Small", "Batch")
    codes = [ADD.replace("a + b", f"a + b + {i}") for i in range(6)]
    box.compiled.clear()
    with ThreadPoolExecutor(3) as threads:
        graded = list(threads.map(lambda code: grade(box, code, tests), codes))
    assert [statuses(one)["Add.Batch"] for one in graded] == ["passed"] + ["failed"] * 5
    assert box.compiled.count("tests/test.cpp") == 1
    assert box.compiled.count("solution.cpp") == 6


BODY = "{ int s = 0; for (auto x : v) s += x << 4 >> 4; return s; }"
INTERFACES = {
    "by value for by reference": (f"int sum(std::vector<int> v) {BODY}", "int sum(const std::vector<int>& v);"),
    "macros": ("#define ll long long\n#define each(x, v) for (auto x : v)\nusing namespace std;\n"
               "ll sum(const vector<int>& v) { ll s = 0; each(x, v) s += x; return s; }", ""),
    "template": (f"template <class T>\nint sum(const std::vector<T>& v) {BODY}", ""),
    "helpers": ("namespace { int plus(int a, int b) { return a + b; } }\nstatic int zero() { return 0; }\n"
                "struct Helper { int s = zero(); bool operator<(const Helper& o) const { return s < o.s; } };\n"
                "int sum(const std::vector<int>& v) { Helper h; for (int x : v) h.s = plus(h.s, x); return h.s; }\n"
                "int main() { return sum({1}); }", ""),
    "static": (f"static int sum(const std::vector<int>& v) {BODY}", ""),
    "trailing": (f"auto sum(const std::vector<int>& v) -> int {BODY}", ""),
    "auto": ("auto sum(const std::vector<int>& v) { return std::accumulate(v.begin(), v.end(), 0); }", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", INTERFACES)
def test_honest_ways_to_write_the_same_function(box: Sandbox, name: str) -> None:
    code, declarations = INTERFACES[name]
    code = f"#include <bits/stdc++.h>\n{code}"
    tests = INCLUDE + "TEST(Sum, Three) { EXPECT_EQ(sum(std::vector<int>{1, 2, 3}), 6); }"
    assert statuses(grade(box, code, tests, declarations)) == {"Sum.Three": "passed"}


SHAPES = """
#include <string>
namespace geometry {
enum class Kind { Round, Square };
struct Shape { Kind kind; double size = limit; static constexpr double limit = 9; };
constexpr int sides = 4;
class Area { public: explicit Area(Shape s) : shape(s) {} double value() const; private: Shape shape; };
double Area::value() const { return shape.kind == Kind::Square ? shape.size * shape.size : 3 * shape.size; }
Shape grown(Shape s) { s.size *= 2; return s; }
}
using geometry::Shape;
"""
SHAPE_TESTS = (
    INCLUDE
    + """
TEST(Shape, Area) { EXPECT_EQ(geometry::Area(Shape{geometry::Kind::Square, 2}).value(), geometry::sides); }
TEST(Shape, Grown) { EXPECT_EQ(geometry::grown(Shape{geometry::Kind::Round, 2}).size, 4); }
"""
)


def test_types_of_the_solution_reach_its_tests(box: Sandbox) -> None:
    code = SHAPES.replace("using geometry::Shape;", "using Shape = geometry::Shape;")
    assert set(statuses(grade(box, code, SHAPE_TESTS)).values()) == {"passed"}


def test_operators_reach_the_tests_only_if_the_row_declares_them(box: Sandbox) -> None:
    code = (
        "struct P { int x; bool operator==(const P& o) const { return x == o.x; } };\nP next(P p) { return {p.x + 1}; }"
    )
    tests = INCLUDE + "TEST(P, Next) { EXPECT_TRUE(next(P{1}) == P{2}); }"
    assert "operator" in str(grade(box, code, tests).compile_error)
    assert statuses(grade(box, code, tests, interface(code, tests))) == {"P.Next": "passed"}
    liar = code.replace("return x == o.x", "return true").replace("p.x + 1", "p.x")
    assert statuses(grade(box, liar, tests, interface(code, tests))) == {"P.Next": "failed"}


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (INCLUDE + "TEST(A, B) { EXPECT_EQ(add(1, 2), 3) }", "expected"),
        (INCLUDE + "int three = 3;", "there is no test"),
        (INCLUDE + 'TEST(A, B) { EXPECT_DEATH(add(1, 2), ""); }', "death tests are not supported"),
        (INCLUDE + "TEST(A, B) {} int early = add(1, 2);", "cannot be listed"),
        ('#include "../../solution.cpp"\nTEST(A, B) {}', "outside of their folder"),
    ],
)
def test_tests_that_cannot_be_used_are_the_graders_failure(box: Sandbox, tests: str, words: str) -> None:
    graded = grade(box, ADD, tests, "int add(int, int);")
    assert words in graded.failure
    assert graded.tests == []


def test_asserts(box: Sandbox) -> None:
    program = "#include <cassert>\nint main() { assert(add(1, 2) == 3);\n assert((add(2, 2) == 4)); }"
    bare = "assert(add(1, 2) == 3);\nassert(add(2, 2) == 4);"
    for tests in (program, bare):
        assert statuses(grade(box, ADD, tests, kind="asserts")) == {"Asserts.main": "passed"}
        wrong = grade(box, "int add(int a, int b) { return a * b + 1; }", tests, kind="asserts").tests[0]
        assert (wrong.status, "add(2, 2) == 4" in wrong.message) == ("failed", True)
    leaves = grade(box, "#include <cstdlib>\nint add(int, int) { exit(0); }", program, kind="asserts")
    assert statuses(leaves) == {"Asserts.main": "runtime_error"}
    returns = "int main() { return add(1, 2) == 3 ? 0 : 1; }"
    assert statuses(grade(box, "int add(int, int) { return 0; }", returns, kind="asserts")) == {
        "Asserts.main": "failed"
    }


def test_programs_are_compiled_once_and_run_per_case(box: Sandbox) -> None:
    code = "#include <bits/stdc++.h>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << '\\n'; }"
    built = cpp.compile_program(code, sandbox=box)
    assert built.compile_error is None
    assert built.cpu_s > 0
    runs = box.execute(built.binary, ["solution"], [Case(b"1 2\n"), Case(b"3 4\n")])
    assert [run.stdout for run in runs] == [b"3\n", b"7\n"]
    broken = cpp.compile_program("int main() { return x; }", sandbox=box)
    assert "'x' was not declared" in str(broken.compile_error)
    assert (broken.compile_status, broken.binary) == ("exit", b"")
    assert "main" in str(cpp.compile_program("int f() { return 0; }", sandbox=box).compile_error)


def _grade_in_child(answers: Any) -> None:
    with Sandbox() as box:
        answers.put(statuses(grade(box, ADD, ADD_TESTS)))


def test_a_forked_process_grades_too(box: Sandbox) -> None:
    grade(box, ADD, ADD_TESTS)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_grade_in_child, args=(answers,))
    child.start()
    assert answers.get(timeout=60) == {"Add.Small": "passed", "Add.Zero": "passed"}
    child.join()


@given(st.text(st.sampled_from("ab<>(){}[];:=,.#\"'\\/*\n R1~") | st.characters(), max_size=200), st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_text_has_an_interface(source: str, tests: str) -> None:
    assert isinstance(reaching(interface(source, tests)), str)


@pytest.mark.parametrize(
    "text",
    ['int f() { return R"x(', 'const char* s = "unclosed', "/* open", "namespace a {", "template <class", "#define f"],
)
def test_a_cut_off_source_has_an_interface(text: str) -> None:
    interface(text * 3, "f a s")


def test_bodies_stay_behind() -> None:
    assert interface("int f(int a) { return secret(a); }\nint g() { return 1; }", "f(1)") == "int f ( int a ) ;"
    assert interface("%:define f g\n#define x y\nint f();", "f") == ""
    assert interface("namespace std { int f() { return 1; } }\nnamespace { int f() { return 1; } }", "f") == ""


def test_a_mutilated_program_is_no_honest_one(box: Sandbox) -> None:
    tools = toolchain()
    program = cpp.compile_program("int main() {}", sandbox=box).binary
    assert elf.runs_early(program, tools.loader, SONAMES) == ""
    assert "loader" in elf.runs_early(program, "/lib/other.so", SONAMES)
    assert "library" in elf.runs_early(program, tools.loader, frozenset({"libc.so.6"}) - {"libc.so.6"})

    @given(st.integers(0, len(program) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(program)))
    @settings(max_examples=200, deadline=None)
    def mutilate(at: int, patch: bytes, end: int) -> None:
        for data in (program[:at] + patch + program[at + len(patch) :], program[:end]):
            assert isinstance(elf.runs_early(data, tools.loader, SONAMES), str)
            with contextlib.suppress(elf.ElfError):
                elf.symbols(data, dynamic=True)

    mutilate()
