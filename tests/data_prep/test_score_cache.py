"""The cache of verdicts: graded programs are not run again, and only deterministic verdicts are stored."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import making
import pytest
from scored_samples import TESTS, block, code

from data_prep.core import pipeline
from data_prep.steps.score_cache import ScoreCache, is_decided
from rewards import Score
from rewards.code.reward import CodeReward

BODIES = ["x + 1", "x", "1 + x"]
LOOP = "def f(x):\n    while True: pass"


def row(program: str, tests: dict = TESTS, thought: str = "") -> dict:
    return {"prompt": "f", "completion": f"{thought}{block(program)}", "tests": tests}


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Programs that were actually run."""
    found: list[str] = []
    run = CodeReward._run

    def noted(self, job, **given):
        found.append(job.code)
        return run(self, job, **given)

    monkeypatch.setattr(CodeReward, "_run", noted)
    return found


def score(folder: Path, name: str, rows: list[dict], **params) -> list[dict]:
    making.write_jsonl(folder / f"{name}.jsonl", rows)
    cached = {"reward": "code", "cache": True, **params}
    return making.run(folder, ("load", {"path": f"{name}.jsonl"}), ("score", cached))[1]


def test_the_same_code_under_the_same_tests_is_run_once_across_runs(tmp_path, ran):
    first = score(tmp_path, "a", [row(code(body)) for body in BODIES])
    assert [one["score"] for one in first] == [1, 0, 1]
    assert len(ran) == 3
    again = score(tmp_path, "b", [row(code(body), thought="Let me think. ") for body in [*BODIES, "x + 2 - 1"]])
    assert ran[3:] == [code("x + 2 - 1")]
    assert [one["score"] for one in again] == [1, 0, 1, 1]
    assert [one["meta"]["score_details"] for one in again[:3]] == [one["meta"]["score_details"] for one in first]


def test_other_tests_or_limits_are_other_keys(tmp_path, ran):
    score(tmp_path, "a", [row(code("x + 1"))])
    score(tmp_path, "b", [row(code("x + 1"), {**TESTS, "cases": [{"args": [2], "expected": 3}]})])
    score(tmp_path, "a", [row(code("x + 1"))], params={"cpu_s": 3.0})
    assert len(ran) == 3
    score(tmp_path, "a", [row(code("x + 1"))], params={"cpu_s": 3.0, "workers": 4}, max_error_share=0.5)
    assert len(ran) == 3


def test_timeouts_are_retried(tmp_path, ran):
    for name in ("a", "b"):
        (found,) = score(tmp_path, name, [row(LOOP, thought=name)], params={"cpu_s": 0.1})
        assert found["meta"]["score_details"]["status"] == "timeout"
    assert ran == [LOOP, LOOP]


def test_without_the_parameter_nothing_is_cached(tmp_path):
    score(tmp_path, "a", [row(code("x"))], cache=False)
    assert not (tmp_path / "cache" / "scores").exists()


def test_only_code_is_cached():
    (fault,) = pipeline.parse("p", [{"load": {"path": "x"}}, {"score": {"reward": "math", "cache": True}}])[1]
    assert "applies to reward code only" in fault.message


@pytest.mark.parametrize(
    ("score_", "decided"),
    [
        (Score(1.0, "scored", {"status": "passed", "total": 100, "tests": [{"status": "passed"}] * 32}), True),
        (Score(0.0, "scored", {"status": "failed", "total": 1, "tests": [{"status": "failed"}]}), True),
        (Score(0.0, "scored", {"status": "failed", "total": 40, "tests": [{"status": "failed"}] * 32}), False),
        (Score(0.5, "scored", {"status": "failed", "total": 2,
                               "tests": [{"status": "failed"}, {"status": "timeout"}]}), False),
        (Score(0.0, "scored", {"status": "compile_error"}), True),
        (Score(0.0, "scored", {"status": "compile_error", "compile_status": "timeout"}), False),
        (Score(0.0, "error", {"problem": "the sandbox"}), False),
        (Score(0.0, "truncated"), False),
    ],
)  # fmt: skip
def test_deterministic_verdicts(score_, decided):
    assert is_decided(score_) is decided


def key(n: int) -> str:
    return f"{n % 3:02x}{n:062x}"


def verdict(n: int) -> Score:
    return Score(n / 1000, "scored", {"status": "compile_error", "problem": "é\u2028" + "x" * (n % 700)})


def fill(folder: str, start: int) -> None:
    cache = ScoreCache(Path(folder))
    for n in range(start, start + 100_000):
        cache.put({key(n): verdict(n)})


def test_concurrent_writers_killed_at_any_moment(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=fill, args=(str(tmp_path), start)) for start in (0, 0, 500_000)]
    for one in writers:
        one.start()
    for one in writers:
        time.sleep(0.1)
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    cache, found = ScoreCache(tmp_path), 0
    for n in (*range(30_000), *range(500_000, 530_000)):
        score_ = cache.get(key(n))
        assert score_ is None or score_ == verdict(n)
        found += score_ is not None
    assert found > 50


def test_incomplete_lines_are_ignored(tmp_path):
    cache = ScoreCache(tmp_path)
    cache.put({key(0): verdict(0)})
    whole = (tmp_path / "00.jsonl").read_bytes()
    torn = json.dumps({"key": key(3), "score": verdict(3).as_json()})[:-5].encode()
    (tmp_path / "00.jsonl").write_bytes(whole + b"\n" + torn)
    reader = ScoreCache(tmp_path)
    assert (reader.get(key(0)), reader.get(key(3))) == (verdict(0), None)
    ScoreCache(tmp_path).put({key(6): verdict(6)})
    assert (reader.get(key(6)), reader.get(key(3))) == (verdict(6), None)
