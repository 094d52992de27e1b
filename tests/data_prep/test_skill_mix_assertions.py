"""GoogleTest assertions as test cases: supported and rejected ones.

That both grade programs alike is shown in tests/rewards/test_skill_mix_questions.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from data_prep.families.skill_mix.assertions import NotConvertible, cases
from rewards.code.cpp.declaration import read_declaration
from rewards.code.suites import read

RUNS = "std::vector<std::pair<char, int>> runs(const std::string& text);"


@pytest.mark.parametrize(
    ("declaration", "body", "expected"),
    [
        ("int add(int a, int b);", "EXPECT_EQ(add(1, -2 * 3), 3);", [{"args": [1, -6], "expected": 3}]),
        ("int add(int a, int b);", 'ASSERT_EQ(0xFF, add(INT_MAX, 2)) << "why" << 1;',
         [{"args": [2**31 - 1, 2], "expected": 255}]),
        ("bool even(long n);", "EXPECT_TRUE(even(2));\nEXPECT_FALSE(even(3)); // odd\n",
         [{"args": [2], "expected": True}, {"args": [3], "expected": False}]),
        ("std::string f(std::string s);", 'std::string in = "a\\nb", out = "é"; auto r = f(in); EXPECT_EQ(r, out);',
         [{"args": ["a\nb"], "expected": "é"}]),
        (RUNS, 'std::vector<std::pair<char, int>> e{{\'a\', 2}, std::make_pair(\'b\', 1)}; EXPECT_EQ(runs("aab"), e);',
         [{"args": ["aab"], "expected": [["a", 2], ["b", 1]]}]),
        (RUNS, 'auto r = runs("a"); ASSERT_EQ(r.size(), 1u); EXPECT_EQ(r[0].first, \'a\'); '
         'EXPECT_EQ(r[0].second, 1);',
         [{"args": ["a"], "expected": [["a", 1]]}]),
        (RUNS, 'EXPECT_TRUE(runs("").empty());', [{"args": [""], "expected": []}]),
        ("std::vector<double> f(std::vector<int> v);",
         "vector<double> e = {0.5, 1.0 / 4}; auto r = f({7, 7, 7}); ASSERT_EQ(r.size(), e.size());\n"
         "for (size_t i = 0; i < e.size(); ++i) { EXPECT_NEAR(r[i], e[i], 1e-3); }",
         [{"args": [[7, 7, 7]], "expected": [0.5, 0.25], "tolerance": 1e-3}]),
        ("double half(double x);", "EXPECT_DOUBLE_EQ(half(3), 1.5);",
         [{"args": [3.0], "expected": 1.5, "tolerance": 4 * 2**-52 / 1.5}]),
        ("double half(double x);", "double x = 3; EXPECT_NEAR(half(x), x / 2, 1e-9);",
         [{"args": [3.0], "expected": 1.5, "tolerance": 1e-9 / 1.5}]),
        ("int f(int x);", "EXPECT_THROW(f(-1), std::invalid_argument);",
         [{"args": [-1], "raises": "std::invalid_argument"}]),
        ("struct P { int x; double y; }; P f(const P& p);",
         "P p{1, 2}; P r = f(p); EXPECT_EQ(r.x, 3); EXPECT_EQ(r.y, 4);",
         [{"args": [{"x": 1, "y": 2.0}], "expected": {"x": 3, "y": 4.0}}]),
        ("std::map<std::string, int> f();", 'auto m = f(); EXPECT_EQ(m.size(), 1); EXPECT_EQ(m["k"], 2);',
         [{"args": [], "expected": [["k", 2]]}]),
    ],
)  # fmt: skip
def test_assertions_as_cases(declaration: str, body: str, expected: list[dict[str, Any]]) -> None:
    weight = 1 / len(expected)
    declared = read_declaration(declaration)
    assert cases(f"TEST(A, B) {{ {body} }}", declared) == [{**case, "weight": weight} for case in expected]
    tests = {"kind": "call", "language": "cpp", "declaration": declaration, "function": declared.function}
    assert len(read({**tests, "cases": expected}).items) == len(expected)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("EXPECT_GT(add(1, 2), 2);", "statement EXPECT_GT"),
        ("EXPECT_EQ(add(1, 2), add(2, 1));", "not a comparison of a result with a value"),
        ("EXPECT_TRUE(close_to(add(1, 2), 3));", "not understood"),
        ("int x = rand(); EXPECT_EQ(add(x, 2), 3);", "not understood"),
        ("if (add(1, 2) == 3) SUCCEED();", "statement if"),
        ("for (int x : {1, 2}) EXPECT_EQ(add(x, 0), x);", "a loop"),
        ("auto r = add(1, 2);", "do not determine result"),
        ("for (int i = 0; i < 2; ++i) EXPECT_EQ(add(i, 0), i);", "a loop"),
        ("EXPECT_EQ(1, 1);", "not a comparison of a result with a value"),
        ("", "no TEST calls the function"),
        ("EXPECT_EQ(add(1), 2);", "not understood"),
        ("EXPECT_EQ(add(1, 2), 3", "a bracket is never closed"),
    ],
)
def test_other_tests_are_rejected(body: str, reason: str) -> None:
    with pytest.raises(NotConvertible, match=reason):
        cases(f"TEST(A, B) {{ {body} }}", read_declaration("int add(int a, int b);"))
