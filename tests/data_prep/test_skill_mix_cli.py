"""`python -m data_prep.families.skill_mix`: solutions from a real engine and their scores, also after kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scored_samples import block

REPO = Path(__file__).resolve().parents[2]
GTEST = '#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n'


def question(name: str, signature: str, gold: str, tests: str, language: str) -> dict:
    """A record in the format of the original's questions.json."""
    return {
        "k": 1, "skills": "arithmetic", "function_name": name, "function_signature": signature,
        "function_docstring": f"{name} of a number.", "problem_statement": f"Write {name}.", "language": language,
        "gold_solution": gold, "unit_tests": tests, "verification_status": True,
    }  # fmt: skip


TWICE = question(
    "twice", "int twice(int x)", "int twice(int x) { return 2 * x; }",
    f"{GTEST}TEST(Twice, Some) {{ EXPECT_EQ(twice(3), 6); }}\nTEST(Twice, Zero) {{ EXPECT_EQ(twice(0), 0); }}\n", "c++",
)  # fmt: skip
NEXT = question(
    "after", "def after(x: int) -> int", "def after(x):\n    return x + 1",
    "assert after(1) == 2\nassert after(-1) == 0", "python",
)  # fmt: skip
QUESTIONS = {"q-twice": TWICE, "q-next": NEXT}


def generations(right: int = 1) -> dict:
    """Output in the format of the original's script; chains of thought show a partial program first."""
    thought = f"A part:\n{block('int part();', 'cpp')}\nAll of it:\n{block(TWICE['gold_solution'], 'cpp')}"
    return {
        "q-twice": {
            "system": "Be helpful.",
            "user": "Write twice.",
            "responses": [
                {"raw_output": thought, "code": "int part();"},
                {
                    "raw_output": block("int twice(int x) { return 0; }", "cpp"),
                    "code": "int twice(int x) { return 0; }",
                },
                {"raw_output": "I cannot.", "code": "I cannot."},
                {"raw_output": block("int twice(int x) {", "cpp"), "code": ""},
            ],
        },
        "q-next": {
            "system": "Be helpful.",
            "user": "Write after.",
            "responses": [{"raw_output": block(NEXT["gold_solution"]), "code": ""}] * right
            + [
                {
                    "solution": {"raw_output": block("def after(x):\n    return 2"), "code": ""},
                    "score": 1,
                    "message": "",
                }
            ],
        },
    }


def command(verb: str, folder: Path, *words: object, python: Path | None = None) -> list[str]:
    more = ["--cache", str(folder / "cache"), *map(str, words)]
    return [str(python or sys.executable), "-m", "data_prep.families.skill_mix", verb, *more]


def call(verb: str, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(
        command(verb, folder, *words), cwd=folder, capture_output=True, text=True, timeout=600, env=environ
    )


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def killed_once(argv: list[str], folder: Path, ready: Callable[[], bool]) -> None:
    """Start a command, and `kill -9` it and its children once it has made progress."""
    process = subprocess.Popen(argv, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPO)}, start_new_session=True)
    while not ready():
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(process.pid) == []


def members(session: int) -> list[int]:
    """Live processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(sid) == session and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "made.json").write_text(json.dumps(generations()))
    return tmp_path


def test_the_originals_generations_are_scored(files: Path) -> None:
    before = (files / "made.json").read_bytes(), (files / "questions.json").read_bytes()
    words = ("--generations_path", "made.json", "--questions_path", "questions.json", "--workers", 2)
    done = call("score", files, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    found = {row["id"]: row for row in rows_of(files / "made.scored.jsonl")}
    assert {name: (row["score"], row["outcome"]) for name, row in found.items()} == {
        "q-twice/0": (1.0, "scored"),
        "q-twice/1": (0.5, "scored"),
        "q-twice/2": (0.0, "no_answer"),
        "q-twice/3": (0.0, "scored"),
        "q-next/0": (1.0, "scored"),
        "q-next/1": (pytest.approx(0.5), "scored"),
    }
    assert found["q-twice/0"]["prompt"][-1] == {"role": "user", "content": "Write twice."}
    assert found["q-twice/3"]["meta"]["score_details"]["status"] == "compile_error"
    out = done.stdout
    assert "6 samples of 2 questions" in out
    assert "pass@1: 37.5 %" in out
    assert "no_answer" in out
    assert "compile_error" in out
    assert before == ((files / "made.json").read_bytes(), (files / "questions.json").read_bytes())
    again = call("score", files, *words)
    assert (again.stdout, "cached" in again.stderr) == (out, True)


@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (None, ("made.json",), "add --questions_path"),
        (None, ("absent.json", "--questions_path", "questions.json"), "absent.json"),
        ("[]", ("made.json", "--questions_path", "questions.json"), "expected {question id"),
        ("{", ("made.json", "--questions_path", "questions.json"), "not JSON"),
        ('{"q-twise": {"responses": []}}', ("made.json", "--questions_path", "questions.json"), "mean 'q-twice'?"),
        ('{"q-next": {}}', ("made.json", "--questions_path", "questions.json"), "has no list `responses`"),
        ('{"q-next": {"responses": [3]}}', ("made.json", "--questions_path", "questions.json"), "has no text"),
        (None, ("made.json", "--questions_path", "nowhere.json"), "nowhere.json"),
    ],
)
def test_bad_files_are_a_one_line_error(files: Path, change: str | None, words: tuple[str, ...], told: str) -> None:
    if change is not None:
        (files / "made.json").write_text(change)
    done = call("score", files, "--generations_path", *words)
    assert done.returncode in (2, 3)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(files.glob("*.scored*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task_name", "../up"), "--task_name: String should match pattern"),
        (("--task_name", "core", "-t", "0"), "temperature 0 gives the same completion 50 times"),
        (("--task_name", "core", "-n", "0"), "greater than or equal to 1"),
        (("--task_name", "core", "--model_path", "./nothing"), "neither a local folder nor a Hub id"),
        (("--task_name", "core", "--questions_path", "no.json"), "no.json"),
    ],
)
def test_failed_generation_is_a_one_line_error(files: Path, words: tuple[str, ...], told: str) -> None:
    model = ("--model_path", REPO / "recipes" / "mini" / "model", "--questions_path", "questions.json")
    done = call("generate", files, *model, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (files / "training_data").exists()


def slow_samples(count: int) -> dict:
    """Distinct programs that each take some time."""
    text = "import time\ntime.sleep(0.02)\ndef after(x):\n    return x + {}  # {}"
    answers = [{"raw_output": block(text.format(n % 3, n)), "code": ""} for n in range(count)]
    return {"q-next": {"system": "s", "user": "u", "responses": answers}}


def test_scoring_killed_and_resumed_gives_the_same_scores(files: Path) -> None:
    (files / "made.json").write_text(json.dumps(slow_samples(140)))
    words = ("--generations_path", "made.json", "--questions_path", "questions.json", "--workers", 2)
    killed_once(
        command("score", files, *words), files,
        lambda: bool(list((files / "cache").glob("score-*/shards/0000?.jsonl"))),
    )  # fmt: skip
    assert not (files / "made.scored.jsonl").exists()
    made = len(list((files / "cache").glob("score-*/shards/0000?.jsonl")))
    assert 1 <= made < 3
    assert call("score", files, *words).returncode == 0
    found = rows_of(files / "made.scored.jsonl")
    assert [row["id"] for row in found] == [f"q-next/{n}" for n in range(140)]
    assert [row["score"] for row in found] == [float(n % 3 == 1) for n in range(140)]


@pytest.mark.full  # starts vLLM three times
def test_generation_by_a_real_engine_killed_and_resumed(files: Path, vllm_python: Path) -> None:
    many = {f"q{n}": {**NEXT, "problem_statement": f"Write after, the one of {n}."} for n in range(160)}
    (files / "questions.json").write_text(json.dumps(many))
    model = REPO / "recipes" / "mini" / "model"
    words = ("--model_path", model, "--questions_path", "questions.json", "--task_name", "core",
             "--max_tokens", 24, "-n", 16, "--CoT", "--python", vllm_python)  # fmt: skip
    calm = call("generate", files, *words, "--out", "calm")
    assert calm.returncode == 0, calm.stderr
    output = Path("Llama3.1-8B-Instruct") / "core_N=16_CoT.jsonl"
    assert calm.stdout.strip() == str(Path("calm") / output)
    stormy = files / "stormy"
    stormy.mkdir()
    (stormy / "questions.json").write_text(json.dumps(many))
    killed_once(
        command("generate", stormy, *words), stormy,
        lambda: bool(list((stormy / "cache").glob("generate-*/shards/00000.jsonl"))),
    )  # fmt: skip
    assert not list((stormy / "cache").glob("generate-*/manifest.json"))
    done = call("generate", stormy, *words)
    assert done.returncode == 0, done.stderr
    assert (stormy / "training_data" / output).read_bytes() == (files / "calm" / output).read_bytes()
    rows = rows_of(files / "calm" / output)
    assert [row["id"] for row in rows] == [f"q{n}/{k}" for n in range(160) for k in range(16)]
    by = {row["meta"]["generated_by"] for row in rows}
    (step,) = (files / "cache").glob("generate-*")
    assert by == {step.name}
    scored = call("score", files, "--generations_path", files / "calm" / output, "--workers", 2)
    assert scored.returncode == 0, scored.stderr
    assert "2,560 samples of 160 questions" in scored.stdout
    assert "pass@16: 0.0 %" in scored.stdout
