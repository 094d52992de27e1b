"""C++ questions as code-mix has them: golds pass, an empty solution and a stub do not.

Four questions are ours. The real ones are read where SKILL_MIX_QUESTIONS names their file, or where it lies beside
the repository; a seeded sample of them runs always, all of them with `full`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rewards.code import cpp
from rewards.code.cpp.interface import interface
from rewards.code.results import Graded
from rewards.sandbox import Limits, Sandbox

Question = dict[str, Any]
REPO = Path(__file__).resolve().parents[2]
FILE = Path(os.environ.get("SKILL_MIX_QUESTIONS") or REPO.parent / "shared" / "data" / "skill_mix" / "questions.json")
# Golds that the authors shipped although they fail: two of them also never end, the third divides by zero.
WRONG_GOLDS = {"81": {"failed", "timeout"}, "243": {"failed", "timeout"}, "257": {"runtime_error"}}
SAMPLE = 8


def question(gold: str, tests: str) -> Question:
    return {
        "gold_solution": gold,
        "unit_tests": f'#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n{tests}',
    }


OURS = {
    "runs": question(
        "#include <string>\n#include <utility>\n#include <vector>\nusing namespace std;\n"
        "vector<pair<char, int>> runs(const string& text) {\n  vector<pair<char, int>> found;\n"
        "  for (char c : text) {\n    if (found.empty() || found.back().first != c) found.push_back({c, 0});\n"
        "    found.back().second++;\n  }\n  return found;\n}\n",
        'TEST(Runs, Several) { vector<pair<char, int>> e{{\'a\', 2}, {\'b\', 1}}; EXPECT_EQ(runs("aab"), e); }\n'
        'TEST(Runs, Back) { auto r = runs("aba"); ASSERT_EQ(r.size(), 3u); EXPECT_EQ(r[2].second, 1); }\n'
        'TEST(Runs, None) { EXPECT_TRUE(runs("").empty()); }\n',
    ),
    "median": question(
        "#include <algorithm>\n#include <stdexcept>\n#include <vector>\n"
        "double median(std::vector<double> values) {\n"
        '  if (values.empty()) throw std::invalid_argument("no values");\n'
        "  std::sort(values.begin(), values.end());\n  auto half = values.size() / 2;\n"
        "  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;\n}\n",
        "class MedianTest : public ::testing::Test { protected: std::vector<double> odd{3, 1, 2}; };\n"
        "TEST_F(MedianTest, Odd) { EXPECT_DOUBLE_EQ(median(odd), 2.0); }\n"
        "TEST_F(MedianTest, Even) { EXPECT_NEAR(median({0.1, 0.2}), 0.15, 1e-9); }\n"
        "TEST_F(MedianTest, Empty) { EXPECT_THROW(median({}), std::invalid_argument); }\n"
        "int main(int argc, char** argv) { ::testing::InitGoogleTest(&argc, argv); return RUN_ALL_TESTS(); }\n",
    ),
    "box": question(
        "#include <algorithm>\n#include <vector>\nstruct Box { int left, right; };\n"
        "static Box joined(Box a, Box b) { return {std::min(a.left, b.left), std::max(a.right, b.right)}; }\n"
        "Box around(const std::vector<Box>& boxes) {\n  Box all = boxes.at(0);\n"
        "  for (const Box& box : boxes) all = joined(all, box);\n  return all;\n}\n",
        "TEST(Around, Two) { Box b = around({{1, 2}, {5, 9}}); EXPECT_EQ(b.left, 1); EXPECT_EQ(b.right, 9); }\n"
        "TEST(Around, One) { EXPECT_EQ(around({{-4, -2}}).right, -2); }\n",
    ),
    "paths": question(
        "#include <vector>\nint count_paths(const std::vector<std::vector<int>>& grid, int row, int column) {\n"
        "  if (row >= (int)grid.size() || column >= (int)grid[0].size() || grid[row][column]) return 0;\n"
        "  if (row + 1 == (int)grid.size() && column + 1 == (int)grid[0].size()) return 1;\n"
        "  return count_paths(grid, row + 1, column) + count_paths(grid, row, column + 1);\n}\n",
        "TEST(Paths, Open) { EXPECT_EQ(count_paths({{0, 0, 0}, {0, 0, 0}}, 0, 0), 3); }\n"
        "TEST(Paths, Wall) { EXPECT_EQ(count_paths({{0, 1}, {0, 0}}, 0, 0), 1); }\n",
    ),
}  # fmt: skip


def real() -> dict[str, Question]:
    return json.loads(FILE.read_text()) if FILE.is_file() else {}


def sample() -> dict[str, Question]:
    found = real()
    return {key: found[key] for key in random.Random(3).sample(sorted(found), min(SAMPLE, len(found)))}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def grade(box: Sandbox, one: Question, solution: str) -> Graded:
    declarations = interface(one["gold_solution"], one["unit_tests"])
    graded = cpp.grade(
        solution, one["unit_tests"], "gtest", declarations=declarations, sandbox=box, run=Limits(cpu_s=2.0)
    )
    assert not graded.failure, graded.failure
    return graded


def stub(one: Question) -> str:
    """Every function with the right signature and a default value for an answer."""
    headers = "".join(f"#include <{name}>\n" for name in ("bits/stdc++.h",))
    lines = interface(one["gold_solution"], one["unit_tests"]).splitlines()
    return headers + "\n".join(_stubbed(line) for line in lines)


def _stubbed(line: str) -> str:
    body = "{ }" if line.startswith("void ") else "{ return {}; }"
    return line.removesuffix(" ;") + body if line.endswith(") ;") else line


def all_passed(graded: Graded) -> bool:
    return bool(graded.tests) and all(test.status == "passed" for test in graded.tests)


def check(box: Sandbox, key: str, one: Question) -> tuple[str, str]:
    """(key, what is wrong), "" if nothing is."""
    gold = grade(box, one, one["gold_solution"])
    if key in WRONG_GOLDS:
        ended = {test.status for test in gold.tests} - {"passed"}
        return key, "" if ended == WRONG_GOLDS[key] else f"the gold ended with {ended}"
    if not all_passed(gold):
        return key, f"the gold: {gold.compile_error or gold.tests}"
    empty = grade(box, one, "")
    if empty.compile_error is None:
        return key, "an empty solution compiles"
    stubbed = grade(box, one, stub(one))
    if stubbed.compile_error is not None:
        return key, f"the stub does not compile: {stubbed.compile_error}"
    return key, "weak tests: a stub passes" if all_passed(stubbed) else ""


def problems(box: Sandbox, questions: dict[str, Question]) -> dict[str, str]:
    with ThreadPoolExecutor(2) as threads:
        return {key: wrong for key, wrong in threads.map(lambda pair: check(box, *pair), questions.items()) if wrong}


def test_our_questions(box: Sandbox) -> None:
    assert problems(box, OURS) == {}


def test_a_weak_suite_is_found(box: Sandbox) -> None:
    weak = {**OURS["box"], "unit_tests": '#include "../solution/solution.cpp"\nTEST(A, B) { around({{0, 0}}); }'}
    assert problems(box, {"weak": weak}) == {"weak": "weak tests: a stub passes"}


@pytest.mark.skipif(not FILE.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_a_sample_of_the_real_questions(box: Sandbox) -> None:
    assert problems(box, sample()) == {}


@pytest.mark.full
@pytest.mark.skipif(not FILE.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_all_real_questions(box: Sandbox) -> None:
    assert problems(box, real()) == {}
