"""Mutants and stubs, and `verify_questions`: drops with reasons and kept rows, on our questions and real ones."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from killing import kill_when

from data_prep.core import pipeline
from data_prep.core.manifest import Manifest
from data_prep.core.step import Row
from data_prep.families.skill_mix.mutants import mutants, stub

REPO = Path(__file__).resolve().parents[2]
SAMPLE = REPO / "recipes" / "skill_mix" / "sample" / "questions.jsonl"
REAL = Path(os.environ.get("SKILL_MIX_QUESTIONS") or REPO.parent / "shared" / "data" / "skill_mix" / "questions.json")
WRONG_GOLDS = ("81", "243", "257")  # of the real ones: two of them also never end

PYTHON = '''
def top(xs: list[int], n: int) -> list[int]:
    """The n largest, largest first."""
    # not a place: 1 < 2
    if n < 0:
        raise ValueError("n is %d" % (n + 0))
    return sorted(xs, reverse=True)[:n]
'''
CPP = r"""
#include <vector>  // a < b
#define LIMIT 10
/* 1 + 1 */
template <class T> static bool less(const T& a, const T& b) { return a < b; }
std::vector<int> upto(int n, const char* why = "1 < 2") {
  std::vector<int> found;
  for (int i = 0; i < n; ++i) found.push_back(i + 1);
  if (n > LIMIT && less(1, n)) throw n + 1;
  return found;
}
"""


SURVIVORS = "def f(x):\n    far = 101\n    big = 7 + 1\n    if x > far:\n        return big\n    return abs(x)\n"


def question(name: str, gold: str, tests: Any, language: str = "python", **meta: Any) -> Row:
    if isinstance(tests, list):
        tests = {"kind": "call", "function": "f", "cases": [{"args": a, "expected": e} for a, e in tests]}
    asked = [{"role": "user", "content": f"question {name}"}]
    about = {"k": 1, "skills": ["a"], "language": language, "function": "f", "signature": "f", "split": "train", **meta}
    return {"id": name, "prompt": asked, "references": [gold], "tests": tests, "source": "skill_mix", "meta": about}


def cpp(name: str, gold: str, tests: str, **meta: Any) -> Row:
    source = f'#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n{tests}'
    return question(name, gold, {"kind": "gtest", "source": source}, "cpp", **meta)


def make_spec(folder: Path, rows: list[Row], **params: Any) -> pipeline.Spec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    load = {"name": "load", "kind": "load", "params": {"path": "rows.jsonl", "columns": columns()}}
    check = {"name": "verify", "kind": "verify_questions", "params": params, "inputs": ["load"]}
    spec = {
        "name": "test",
        "base": str(folder),
        "cache": str(folder / "cache"),
        "steps": [load, check],
        "max_drop_share": 0.2,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    return pipeline.Spec.read(folder / "spec.json")


def columns() -> dict[str, str]:
    meta = {f"meta.{name}": f"meta.{name}" for name in ("k", "skills", "language", "function", "signature", "split")}
    return {name: name for name in ("id", "prompt", "references", "tests", "source")} | meta


def run(folder: Path, rows: list[Row], **params: Any) -> tuple[Manifest, dict[str, Row], dict[str, dict[str, str]]]:
    """The step's manifest, its rows and its drops, by id."""
    spec = make_spec(folder, rows, **params)
    manifest = pipeline.run(spec)[-1]
    return manifest, *found(spec)


def found(spec: pipeline.Spec) -> tuple[dict[str, Row], dict[str, dict[str, str]]]:
    directory = pipeline.find(spec)
    lines = [line for path in sorted(directory.glob("shards/*.drops.jsonl")) for line in path.read_text().splitlines()]
    drops = {drop["row_id"]: drop for drop in map(json.loads, lines)}
    return {row["id"]: row for row in pipeline.read_rows(directory)}, drops


# Mutants


def test_python_mutants_change_one_thing_each() -> None:
    made = list(mutants(PYTHON, "python", "seed"))
    assert {one.change for one in made} == {
        "line 5: < to >=", "line 5: 0 to 1", "line 7: sorted to list", "line 7: True to False",
    }  # fmt: skip
    for one in made:
        ast.parse(one.code)
        assert sum(a != b for a, b in zip(one.code.splitlines(), PYTHON.splitlines(), strict=True)) == 1
    assert [one.change for one in mutants(PYTHON, "python", "seed")] == [one.change for one in made]
    assert {one.change.split(":")[0] for one in made[:2]} == {"line 5", "line 7"}  # a line each before a second


def test_cpp_mutants_leave_comments_texts_directives_throws_and_templates_alone() -> None:
    assert {one.change for one in mutants(CPP, "cpp", "seed")} == {
        "line 5: < to >=", "line 8: 0 to 1", "line 8: < to >=", "line 8: + to -", "line 8: 1 to 2",
        "line 9: > to <=", "line 9: && to ||", "line 9: 1 to 2",
    }  # fmt: skip
    for one in mutants(CPP, "cpp", "seed"):
        assert sum(a != b for a, b in zip(one.code.split("\n"), CPP.split("\n"), strict=True)) == 1


@pytest.mark.parametrize("code", ["", "def f(:", "\0", "x" * 10, "(" * 5000, '"', "'", "/*", 'R"x('])
def test_any_code_can_be_mutated(code: str) -> None:
    for language in ("python", "cpp"):
        assert all(one.code != code for one in mutants(code, language, "s"))
        assert stub(code, language, "f", "f()") is None


def test_stubs_answer_with_a_default() -> None:
    assert stub(PYTHON, "python", "top", "def top(xs: list[int], n: int) -> tuple[int, str]") == (
        "def top(xs: list[int], n: int) -> list[int]:\n    return (0, '')"
    )
    assert stub(PYTHON, "python", "top", "no signature") is not None
    made = stub(CPP, "cpp", "upto", "")
    assert made is not None
    assert made.endswith('std::vector<int> upto(int n, const char* why = "1 < 2") { return {}; }\n')
    assert "return a < b" in made
    assert stub("void f(int x) const { g(f(1)); }\nint f() { return 2; }", "cpp", "f", "") == (
        "void f(int x) const { }\nint f() { return {}; }"
    )


# The step

ABS = "def f(x: int) -> int:\n    return x if x > 0 else -x\n"
CASES = [([0], 0), ([3], 3), ([-3], 3), ([10], 10), ([-1], 1)]


def test_python_questions(tmp_path: Path) -> None:
    weak = [([0], 0)] * 5
    flaky = "import os\n\ndef f(x: int) -> int:\n    return x if os.urandom(1)[0] < 128 else -1\n"
    slow = "def f(x: int) -> int:\n    for _ in range(8_000_000):\n        pass\n    return abs(x)\n"
    anything = "def _raises(call):\n    try:\n        call()\n    except Exception:\n        return True\n"
    refuses = anything + "".join(f"assert _raises(lambda: f({n}))\n" for n in range(5))
    rows = [
        question("good", ABS, CASES, signature="def f(x: int) -> int"),
        question("weak", ABS, weak, signature="def f(x: int) -> int"),
        question("wrong", ABS, [*CASES[:4], ([5], -5)]),
        question("few", ABS, CASES[:3]),
        question("flaky", flaky, [([n], n) for n in range(8)]),
        question("slow", slow, CASES),
        question("broken", "def f(x):\n  return (", CASES),
        question("endless", "def f(x):\n    while x:\n        pass\n    return 0\n", CASES),
        question("empty", "def f(x):\n    raise ValueError(x)\n", {"kind": "asserts", "source": refuses}),
        question("survivors", SURVIVORS, CASES),
        question("plain", "def f(x):\n    return abs(x)\n", CASES),
        question("odd", ABS, {"kind": "calls", "cases": []}),
    ]
    manifest, kept, drops = run(tmp_path, rows, test_cpu_s=0.04)
    assert list(kept) == ["good"]
    assert {name: drop["reason"] for name, drop in drops.items()} == {
        "weak": "a stub passes",
        "wrong": "gold fails its tests",
        "few": "too few tests",
        "flaky": "flaky test",
        "slow": "slow test",
        "broken": "gold does not compile",
        "endless": "gold fails its tests",
        "empty": "no mutant to try",
        "survivors": "mutants survive",
        "plain": "no mutant to try",
        "odd": "unusable tests",
    }
    assert drops["wrong"]["detail"] == "1 of 5: test 5: failed"
    assert "test 2: timeout" in drops["endless"]["detail"]
    assert "more than 0.04 s" in drops["slow"]["detail"]
    assert "passed" in drops["flaky"]["detail"]
    assert "line 2: " in drops["survivors"]["detail"]
    assert manifest.drops["flaky test"] == 1
    verified = kept["good"]["meta"]["verified"]
    assert (verified["tests"], verified["stub"]) == (5, "fails")
    assert sum(one["killed"] for one in verified["mutants"]) >= 2


GOLD = "int f(int x) {\n  int sign = 1;\n  if (x < 0) sign = -1;\n  return x * sign;\n}\n"
TESTS = "".join(f"TEST(F, T{n}) {{ EXPECT_EQ(f({x}), {y}); }}\n" for n, (((x,)), y) in enumerate(CASES))


def test_cpp_questions(tmp_path: Path) -> None:
    main = "int main(int argc, char** argv) { testing::InitGoogleTest(&argc, argv); return RUN_ALL_TESTS(); }\n"
    rows = [
        cpp("good", GOLD, TESTS),
        cpp("own main", GOLD, TESTS + main),
        cpp("no tests that compile", GOLD, TESTS + "TEST(F, X) { EXPECT_EQ(g(1), 1); }\n"),
        cpp("no gold that compiles", GOLD.replace("return x", "return y"), TESTS),
        cpp("wrong", GOLD.replace("-1", "1"), TESTS),
        cpp("weak", GOLD, "".join(f"TEST(F, T{n}) {{ EXPECT_EQ(f(0), 0); }}\n" for n in range(5))),
    ]
    _, kept, drops = run(tmp_path, rows)
    assert list(kept) == ["good", "own main"]
    assert {name: drop["reason"] for name, drop in drops.items()} == {
        "no tests that compile": "gold does not compile",
        "no gold that compiles": "gold does not compile",
        "wrong": "gold fails its tests",
        "weak": "a stub passes",
    }
    assert "'g' was not declared" in drops["no tests that compile"]["detail"]
    assert "F.T2: failed" in drops["wrong"]["detail"]


def test_output_is_the_same_on_one_process_and_on_two(tmp_path: Path) -> None:
    rows = [question(f"q{n}", ABS, CASES, signature="def f(x: int) -> int") for n in range(9)]
    less: dict[str, Any] = {"runs": 1, "mutants": 1, "killed": 1}
    one, two = run(tmp_path / "one", rows, **less)[0], run(tmp_path / "two", rows, workers=2, **less)[0]
    assert one.sha256 == two.sha256
    assert one.key == two.key


def test_killed_and_resumed_makes_the_same_bytes(tmp_path: Path) -> None:
    rows = [question(f"q{n}", ABS, CASES, signature="def f(x: int) -> int") for n in range(17)]
    less: dict[str, Any] = {"runs": 1, "mutants": 1, "killed": 1}
    expected = run(tmp_path / "whole", rows, **less)[0].sha256
    spec = make_spec(tmp_path / "killed", rows, **less)
    kill_when(tmp_path / "killed", lambda: any((tmp_path / "killed").glob("cache/verify_*/shards/00000.jsonl")))
    state = pipeline.plan(spec)[-1]
    assert (state.state, 1 <= state.shards_done < 3) == ("partial", True)
    assert pipeline.run(spec)[-1].sha256 == expected


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("g++", "C++ rewards need g++: apt-get install g++ libgtest-dev"),
        ("GoogleTest", "g++ finds no libgtest.a: apt-get install g++ libgtest-dev"),
    ],
)
def test_a_machine_without_compiler_or_googletest_says_what_to_install(tmp_path: Path, missing: str, said: str) -> None:
    make_spec(tmp_path, [cpp("good", GOLD, TESTS)])
    path = str(tmp_path)
    if missing == "GoogleTest":  # g++ repeats the name of a file that it does not find
        asks = 'case "$1" in -print-file-name=libgtest*) echo "${1#*=}";; *) exec '
        (tmp_path / "g++").write_text(f'#!/bin/sh\n{asks}{shutil.which("g++")} "$@";; esac\n')
        (tmp_path / "g++").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "data_prep", "run", str(tmp_path / "spec.json")]
    environ = {**os.environ, "PYTHONPATH": str(REPO), "PATH": path}
    done = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr


def spec_of(folder: Path, path: Path, **params: Any) -> pipeline.Spec:
    steps = (
        pipeline.StepSpec(name="questions", kind="questions", params={"path": str(path)}),
        pipeline.StepSpec(name="verify", kind="verify_questions", params=params, inputs=("questions",)),
        pipeline.StepSpec(name="dedup", kind="dedup", params={"fields": ["prompt"], "near": 0.6}, inputs=("verify",)),
    )
    return pipeline.Spec(name="test", base=folder, cache=folder / "cache", steps=steps)


def test_our_sample_is_valid(tmp_path: Path) -> None:
    """One question per language; with `full` all of them."""
    lines = SAMPLE.read_text().splitlines()
    chosen = [line for line in lines if json.loads(line)["id"] in ("py/badge_digits", "cpp/parcel_split")]
    (tmp_path / "some.jsonl").write_text("\n".join(chosen))
    assert pipeline.run(spec_of(tmp_path, tmp_path / "some.jsonl"))[-1].rows_out == 2


@pytest.mark.full
def test_all_of_our_sample_is_valid(tmp_path: Path) -> None:
    manifest = pipeline.run(spec_of(tmp_path, SAMPLE, workers=2))[-1]
    assert manifest.rows_out == len(SAMPLE.read_text().splitlines())


def real_verdicts(folder: Path, names: list[str] | None, **params: Any) -> tuple[set[str], dict[str, dict[str, str]]]:
    given = json.loads(REAL.read_text())
    (folder / "questions.json").write_text(json.dumps({name: given[name] for name in names or given}))
    spec = spec_of(folder, folder / "questions.json", **params)
    pipeline.run(spec, ["questions", "verify"])
    directory = pipeline.find(spec, "verify")
    lines = [line for path in sorted(directory.glob("shards/*.drops.jsonl")) for line in path.read_text().splitlines()]
    return {row["id"] for row in pipeline.read_rows(directory)}, {one["row_id"]: one for one in map(json.loads, lines)}


@pytest.mark.skipif(not REAL.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_bad_golds_of_the_real_questions_are_named(tmp_path: Path) -> None:
    kept, drops = real_verdicts(tmp_path, ["1", "257"], runs=1, mutants=0, killed=0)
    assert kept == {"1"}
    assert drops["257"]["reason"] == "gold fails its tests"
    assert "runtime_error" in drops["257"]["detail"]


@pytest.mark.full
@pytest.mark.skipif(not REAL.is_file(), reason="the real questions are not here (SKILL_MIX_QUESTIONS)")
def test_all_real_questions(tmp_path: Path) -> None:
    kept, drops = real_verdicts(tmp_path, None, workers=2)
    assert {name for name, drop in drops.items() if drop["reason"] == "gold fails its tests"} == set(WRONG_GOLDS)
    weak = {"mutants survive", "no mutant to try"}
    assert {drop["reason"] for drop in drops.values()} == {"gold fails its tests", *weak}
    assert len(kept) >= 0.7 * (len(kept) + len(drops))
