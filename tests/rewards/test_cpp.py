"""C++ tests as source: GoogleTest suites and asserts, with and without declarations; programs for stdio tests."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.code.cpp.source import grade_source
from rewards.code.cpp.toolchain import compile_program
from rewards.code.results import Graded
from rewards.code.suites import Suite
from rewards.errors import NotGraded
from rewards.sandbox import BUILD_LIMITS, Case, Limits, shared

INCLUDE = '#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n'
ADD = "int add(int a, int b) { return a + b; }"
ADD_TESTS = INCLUDE + "TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }\nTEST(Add, Zero) { EXPECT_EQ(add(0, 0), 0); }\n"


def grade(source: str, tests: str, declarations: str = "", **options: Any) -> Graded:
    suite = Suite(options.pop("kind", "gtest"), "cpp", "", source=tests, declarations=declarations)
    return grade_source(source, suite, **{"run": Limits(), "build": BUILD_LIMITS, "sandbox": shared()} | options)


def statuses(graded: Graded) -> dict[str, str]:
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


def test_gtest_features_are_supported() -> None:
    names = [
        "RootTest.Fixture",
        "RootTest.Near",
        "Throws.Negative",
        "Throws.ByHand",
        *(f"Typed/{i}.One" for i in (0, 1)),
    ]
    names += [f"Small/Squares.Root/{i}" for i in range(3)]
    assert statuses(grade(ROOT, FEATURES)) == dict.fromkeys(names, "passed")


def test_a_wrong_solution_fails_the_right_tests_with_a_message() -> None:
    graded = grade("double root(double x) { return x == 4 ? 2 : x; }", FEATURES)
    passed = {name for name, status in statuses(graded).items() if status == "passed"}
    assert passed == {"RootTest.Fixture", "Small/Squares.Root/0", "Typed/0.One", "Typed/1.One", "Small/Squares.Root/1"}
    near = next(test for test in graded.tests if test.name == "RootTest.Near")
    assert near.status == "failed"
    assert near.message.startswith("line 16: The difference between")
    assert "not near" in near.message


def test_a_nonce_may_begin_like_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: b"F" * size)
    assert set(statuses(grade(ADD, ADD_TESTS)).values()) == {"passed"}


def test_every_test_has_its_own_process() -> None:
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
    graded = grade(code, tests, run=Limits(cpu_s=0.2, memory_mb=256))
    expected = ["runtime_error", "timeout", "memory", "runtime_error", "failed", "passed"]
    assert list(statuses(graded).values()) == expected
    assert graded.run_cpu_s >= 0.2
    assert graded.compile_cpu_s > 0


def test_compiler_failures_are_distinguished() -> None:
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
        graded = grade(code, ADD_TESTS, build=limits)
        assert (graded.compile_status, graded.tests, words in str(graded.compile_error)) == (status, [], True)
    bomb += "S<40, int> s;"
    for status, limits in (
        ("timeout", Limits(cpu_s=1.0, memory_mb=4096)),
        ("memory", Limits(cpu_s=9.0, memory_mb=256)),
    ):
        assert grade(bomb, ADD_TESTS, build=limits).compile_status == status


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


def test_tests_can_use_the_solutions_types() -> None:
    code = SHAPES.replace("using geometry::Shape;", "using Shape = geometry::Shape;")
    assert set(statuses(grade(code, SHAPE_TESTS)).values()) == {"passed"}


def test_the_solutions_types_are_used_unless_declared() -> None:
    code = (
        "struct P { int x; bool operator==(const P& o) const { return x == o.x; } };\nP next(P p) { return {p.x + 1}; }"
    )
    tests = INCLUDE + "TEST(P, Next) { EXPECT_TRUE(next(P{1}) == P{2}); }"
    declarations = code.replace(" { return {p.x + 1}; }", ";")
    assert statuses(grade(code, tests)) == {"P.Next": "passed"}
    assert statuses(grade(code, tests, declarations)) == {"P.Next": "passed"}
    liar = code.replace("return x == o.x", "return true").replace("p.x + 1", "p.x")
    assert statuses(grade(liar, tests, declarations)) == {"P.Next": "failed"}
    assert statuses(grade(liar, tests)) == {"P.Next": "passed"}  # which is why its score says `isolation: shared`


def test_tests_see_only_the_declarations() -> None:
    declared = "int add(int a, int b);"
    assert statuses(grade(ADD, ADD_TESTS, declared)) == {"Add.Small": "passed", "Add.Zero": "passed"}
    for code in (
        ADD.replace("int a", "long a"),
        f"static {ADD}",
        "",
        "#include <bitset>\nstd::bitset<0> add(long, long);",
    ):
        assert "undefined reference to 'add(int, int)'" in str(grade(code, ADD_TESTS, declared).compile_error)


def test_macros_of_the_solution_do_not_reach_the_tests() -> None:
    code = "#define EXPECT_EQ(...) SUCCEED()\n#define TEST(a, b) void a##b()\nint add(int a, int b) { return 0; }"
    assert statuses(grade(code, ADD_TESTS)) == {"Add.Small": "failed", "Add.Zero": "passed"}
    more = "#include <gtest/gtest.h>\nTEST(Mine, One) {}\nTEST(Mine, Two) {}\n" + ADD
    assert statuses(grade(more, ADD_TESTS)) == {"Add.Small": "passed", "Add.Zero": "passed"}


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (INCLUDE + "TEST(A, B) { EXPECT_EQ(add(1, 2), 3) }", "expected"),
        (INCLUDE + "int three = 3;", "there is no test"),
        (INCLUDE + 'TEST(A, B) { EXPECT_DEATH(add(1, 2), ""); }', "death tests are not supported"),
        ('#include "../../solution.cpp"\nTEST(A, B) {}', "outside of their folder"),
    ],
)
def test_unusable_tests_are_grader_errors(tests: str, words: str) -> None:
    with pytest.raises(NotGraded, match=words):
        grade(ADD, tests, "int add(int, int);")


def test_asserts() -> None:
    program = "#include <cassert>\nint main() { assert(add(1, 2) == 3);\n assert((add(2, 2) == 4)); }"
    bare = "assert(add(1, 2) == 3);\nassert(add(2, 2) == 4);"
    for tests in (program, bare):
        assert statuses(grade(ADD, tests, kind="asserts")) == {"Asserts.main": "passed"}
        wrong = grade("int add(int a, int b) { return a * b + 1; }", tests, kind="asserts").tests[0]
        assert (wrong.status, "add(2, 2) == 4" in wrong.message) == ("failed", True)
    leaves = grade("#include <cstdlib>\nint add(int, int) { exit(0); }", program, kind="asserts")
    assert statuses(leaves) == {"Asserts.main": "runtime_error"}
    returns = "int main() { return add(1, 2) == 3 ? 0 : 1; }"
    assert statuses(grade("int add(int, int) { return 0; }", returns, kind="asserts")) == {"Asserts.main": "failed"}


def test_programs_are_compiled_once_and_run_per_case() -> None:
    code = "#include <bits/stdc++.h>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << '\\n'; }"
    binary, built = compile_program(code, build=BUILD_LIMITS, sandbox=shared())
    assert built.compile_error is None
    assert built.compile_cpu_s > 0
    runs = shared().execute(binary, ["solution"], [Case(b"1 2\n"), Case(b"3 4\n")])
    assert [run.stdout for run in runs] == [b"3\n", b"7\n"]
    binary, broken = compile_program("int main() { return x; }", build=BUILD_LIMITS, sandbox=shared())
    assert "'x' was not declared" in str(broken.compile_error)
    assert (broken.compile_status, binary) == ("exit", b"")
    assert "main" in str(
        compile_program("int f() { return 0; }", build=BUILD_LIMITS, sandbox=shared())[1].compile_error
    )
