"""C++ questions of code skill-mix, converted to calls where possible: golds pass, stubs and mutants do not.

Five questions are ours. The real ones are read where SKILL_MIX_QUESTIONS names their file, or where it lies beside
the repository; a seeded sample of them runs always, all of them with `full`.
"""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from data_prep.families.skill_mix.mutants import mutants, stub
from data_prep.families.skill_mix.questions import Question, read_question
from rewards.code.grade import Terms, grade_program
from rewards.code.suites import Suite, read
from rewards.sandbox import shared

Record = dict[str, Any]
REPO = Path(__file__).resolve().parents[2]
FILE = Path(os.environ.get("SKILL_MIX_QUESTIONS") or REPO.parent / "shared" / "data" / "skill_mix" / "questions.json")
# Golds that the authors shipped although they fail: two of them also never end, the third divides by zero.
WRONG_GOLDS = {"81": {"failed", "timeout"}, "243": {"failed", "timeout"}, "257": {"runtime_error"}}
SAMPLE = 6


def question(signature: str, gold: str, tests: str) -> Record:
    return {
        "function_name": signature.partition("(")[0].split()[-1],
        "function_signature": signature,
        "function_docstring": "What the statement says.",
        "problem_statement": "Write it.",
        "skills": "vectors",
        "gold_solution": gold,
        "unit_tests": f'#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n{tests}',
    }


OURS = {
    "runs": question(
        "vector<pair<char, int>> runs(const string& text)",
        "#include <string>\n#include <utility>\n#include <vector>\nusing namespace std;\n"
        "vector<pair<char, int>> runs(const string& text) {\n  vector<pair<char, int>> found;\n"
        "  for (char c : text) {\n    if (found.empty() || found.back().first != c) found.push_back({c, 0});\n"
        "    found.back().second++;\n  }\n  return found;\n}\n",
        'TEST(Runs, Several) { vector<pair<char, int>> e{{\'a\', 2}, {\'b\', 1}}; EXPECT_EQ(runs("aab"), e); }\n'
        'TEST(Runs, Back) { auto r = runs("aba"); ASSERT_EQ(r.size(), 3u); EXPECT_EQ(r[2].second, 1); }\n'
        'TEST(Runs, None) { EXPECT_TRUE(runs("").empty()); }\n',
    ),
    "median": question(
        "double median(std::vector<double> values)",
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
    "streaks": question(
        "vector<pair<char, int>> streaks(const string& text)",
        "#include <stdexcept>\n#include <string>\n#include <utility>\n#include <vector>\nusing namespace std;\n"
        "vector<pair<char, int>> streaks(const string& text) {\n"
        '  if (text == "!") throw std::invalid_argument("no text");\n  vector<pair<char, int>> all;\n'
        "  for (char c : text) {\n    if (all.empty() || all.back().first != c) all.push_back({c, 0});\n"
        "    all.back().second += 1;\n  }\n  return all;\n}\n",
        "class StreaksTest : public ::testing::Test { protected: void SetUp() override {} };\n"
        "TEST_F(StreaksTest, Several) { vector<pair<char, int>> e{{'a', 2}, {'b', 1}};\n"
        '  EXPECT_EQ(streaks("aab"), e); }\n'
        'TEST_F(StreaksTest, Back) { auto r = streaks("aba"); ASSERT_EQ(r.size(), 3u);\n'
        "  for (int i = 0; i < 3; i++) { EXPECT_EQ(r[i].second, 1); }\n"
        "  EXPECT_EQ(r[0].first, 'a'); EXPECT_EQ(r[1].first, 'b'); EXPECT_EQ(r[2].first, 'a'); }\n"
        'TEST_F(StreaksTest, None) { EXPECT_TRUE(streaks("").empty());\n'
        '  EXPECT_THROW(streaks("!"), std::invalid_argument); }\n',
    ),
    "box": question(
        "Box around(const std::vector<Box>& boxes)",
        "#include <algorithm>\n#include <vector>\nstruct Box { int left, right; };\n"
        "static Box joined(Box a, Box b) { return {std::min(a.left, b.left), std::max(a.right, b.right)}; }\n"
        "Box around(const std::vector<Box>& boxes) {\n  Box all = boxes.at(0);\n"
        "  for (const Box& box : boxes) all = joined(all, box);\n  return all;\n}\n",
        "TEST(Around, Two) { Box b = around({{1, 2}, {5, 9}}); EXPECT_EQ(b.left, 1); EXPECT_EQ(b.right, 9); }\n"
        "TEST(Around, One) { Box b = around({{-4, -2}}); EXPECT_EQ(b.right, -2); EXPECT_EQ(b.left, -4); }\n",
    ),
    "paths": question(
        "int count_paths(const std::vector<std::vector<int>>& grid, int row, int column)",
        "#include <vector>\nint count_paths(const std::vector<std::vector<int>>& grid, int row, int column) {\n"
        "  if (row >= (int)grid.size() || column >= (int)grid[0].size() || grid[row][column]) return 0;\n"
        "  if (row + 1 == (int)grid.size() && column + 1 == (int)grid[0].size()) return 1;\n"
        "  return count_paths(grid, row + 1, column) + count_paths(grid, row, column + 1);\n}\n",
        "TEST(Paths, Open) { EXPECT_EQ(count_paths({{0, 0, 0}, {0, 0, 0}}, 0, 0), 3); }\n"
        "TEST(Paths, Wall) { EXPECT_EQ(count_paths({{0, 1}, {0, 0}}, 0, 0), 1); }\n",
    ),
}  # fmt: skip


def real() -> dict[str, Record]:
    return json.loads(FILE.read_text()) if FILE.is_file() else {}


def sample() -> dict[str, Record]:
    every = real()
    return {key: every[key] for key in random.Random(3).sample(sorted(every), min(SAMPLE, len(every)))}


def as_question(name: str, record: Record) -> Question:
    question = read_question(record, name)
    assert isinstance(question, Question), question
    return question


def programs(name: str, one: Question) -> list[str]:
    """The gold, a stub, an empty program and a mutant."""
    made = stub(one.gold, "cpp", one.function, one.signature)
    return [one.gold, made or "", "", *(mutant.code for mutant in islice(mutants(one.gold, "cpp", name), 1))]


def ends(code: str, suite: Suite) -> set[str]:
    """The tests' statuses, or {"compile_error"}."""
    graded = grade_program(code, suite, Terms(cpu_s=2.0, most_timeouts=2), shared())
    return {"compile_error"} if graded.compile_error is not None else {test.status for test in graded.tests}


def check(name: str, record: Record) -> tuple[str, str]:
    """(name, problem), "" if there is none."""
    one = as_question(name, record)
    source = read({"kind": "gtest", "source": record["unit_tests"]})
    suites = [source] if one.tests["kind"] == "gtest" else [source, read(one.tests)]
    for number, code in enumerate(programs(name, one)):
        ended = [ends(code, suite) for suite in suites]
        if len({each == {"passed"} for each in ended}) > 1:
            return name, f"as source {ended[0]}, as calls {ended[1]}: {code}"
        if number == 0 and name in WRONG_GOLDS:
            return name, "" if ended[0] - {"passed"} <= WRONG_GOLDS[name] else f"the gold ended with {ended[0]}"
        if (ended[0] == {"passed"}) != (number == 0) and number < 3:
            return name, f"the {('gold', 'stub', 'empty program')[number]} ends with {ended[0]}"
    return name, ""


def problems(records: dict[str, Record]) -> dict[str, str]:
    with ThreadPoolExecutor(2) as threads:
        return {name: wrong for name, wrong in threads.map(lambda pair: check(*pair), records.items()) if wrong}


def test_our_questions() -> None:
    assert problems(OURS) == {}
    kinds = {name: as_question(name, record).tests["kind"] for name, record in OURS.items()}
    assert kinds == {"runs": "gtest", "median": "gtest", "streaks": "call", "box": "call", "paths": "call"}


def test_a_weak_suite_is_found() -> None:
    weak = {**OURS["box"], "unit_tests": '#include "../solution/solution.cpp"\nTEST(A, B) { around({{0, 0}}); }'}
    assert "the stub ends with {'passed'}" in problems({"weak": weak})["weak"]


@pytest.mark.skipif(not FILE.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_a_sample_of_the_real_questions() -> None:
    assert problems(sample()) == {}


@pytest.mark.full
@pytest.mark.skipif(not FILE.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_all_real_questions() -> None:
    assert problems(real()) == {}
