"""`python -m rewards`: order, resume after a kill, bad rows, usage errors."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import rewards
from rewards import scorer as scoring

ROOT = Path(rewards.__file__).parent.parent


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "rewards", *map(str, args)]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, timeout=900)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kept_rows(part: Path) -> int:
    """How many rows a killed run has stored."""
    with contextlib.closing(sqlite3.connect(part)) as store:
        return int(store.execute("SELECT count(*) FROM rows").fetchone()[0])


def test_scores_are_written_with_their_rows_in_order(tmp_path: Path) -> None:
    rows = [{"id": i, "answer": f"x+{i}", "completions": [rf"\boxed{{{i}+x}}", "?", r"\boxed{0}"]} for i in range(150)]
    rows.append({"id": 150, "answer": "5", "completion": r"\boxed{5}"})
    out = tmp_path / "scored.jsonl"
    done = run(
        "score",
        "--reward",
        "math",
        "--input",
        write(tmp_path / "in.jsonl", rows),
        "--output",
        out,
        "--workers",
        2,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"] == {"scored": 301, "no_answer": 150}
    scored = read(out)
    assert [row["id"] for row in scored] == list(range(151))
    assert all([s["value"] for s in row["scores"]] == [1.0, 0.0, 0.0] for row in scored[:150])
    assert scored[150]["scores"] == [{"value": 1.0, "outcome": "scored", "details": {"answer": "5", "by": "exact"}}]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("scored")] == ["scored.jsonl"]


def test_resuming_after_a_kill_loses_and_repeats_nothing(tmp_path: Path) -> None:
    rows = [{"id": i, "answer": f"\\sqrt{{{i}}}+x", "completion": rf"\boxed{{x+\sqrt{{{i}}}}}"} for i in range(1500)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    part, log = tmp_path / "out.jsonl.part", tmp_path / "out.jsonl.part-wal"
    args = ("score", "--reward", "math", "--input", source, "--output", out)
    kills = 0
    for _ in range(3):
        size = log.stat().st_size if log.exists() else 20_000
        process = subprocess.Popen(command(*args), cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and (not log.exists() or log.stat().st_size <= size):
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert not out.exists()
    assert kills == 3
    assert 1 < kept_rows(part) < 1500
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"] == {"scored": 1500}
    assert [row["id"] for row in read(out)] == list(range(1500))
    assert all(row["scores"][0]["value"] == 1.0 for row in read(out))
    assert not part.exists()


def test_finished_rows_are_stored_and_ctrl_c_prints_one_line(tmp_path: Path) -> None:
    def program(row: int, code: str) -> dict[str, Any]:
        tests = {"kind": "stdio", "cases": [{"input": "", "output": f"{row}\n"}]}
        return {"id": row, "tests": tests, "completion": f"```python\n{code}\n```"}

    rows = [program(0, "import time\ntime.sleep(1000)"), *(program(row, f"print({row})") for row in range(1, 6))]
    source, out, part = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    log = tmp_path / "out.jsonl.part-wal"
    args = ("score", "--reward", "code", "--workers", 2, "--param", "wall_s=600", "--input", source, "--output", out)
    process = subprocess.Popen(  # tests in the background of a shell ignore SIGINT, and so would their children
        command(*args), cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.poll() is None and (not log.exists() or b"print(5)" not in log.read_bytes()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "interrupted; the same command resumes\n"
    assert process.returncode == 130
    first = {"id": 0, "scores": [{"value": 0.0, "outcome": "scored", "details": {}}]}
    with contextlib.closing(sqlite3.connect(part)) as store, store:  # as if the first row had been finished last
        store.execute("INSERT INTO rows VALUES (1, ?, 'scored')", [json.dumps(first)])
    assert run(*args).returncode == 0
    assert [row["id"] for row in read(out)] == list(range(6))
    assert [row["scores"][0]["value"] for row in read(out)] == [0.0, *[1.0] * 5]


def test_a_part_file_of_other_work_is_not_resumed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"answer": "1", "completion": "the answer is 1"}])
    with scoring._store(tmp_path / "out.jsonl.part", "other work") as store:
        store.execute("INSERT INTO rows VALUES (1, '{}', 'scored')")
    done = run(
        "score",
        "--reward",
        "math",
        "--param",
        'fallbacks=["answer_is"]',
        "--input",
        source,
        "--output",
        tmp_path / "out.jsonl",
    )
    assert done.returncode == 0, done.stderr
    assert [row["scores"][0]["value"] for row in read(tmp_path / "out.jsonl")] == [1.0]


def test_bad_rows_are_errors_with_their_line_and_too_many_abort(tmp_path: Path) -> None:
    good = [{"answer": "1", "completion": r"\boxed{1}"}] * 6
    source = write(tmp_path / "in.jsonl", good)
    with source.open("ab") as file:
        file.write(
            b'\n{"answer": \n[1]\n\xff\xfe\n{"answer": null, "completion": "x"}\n{"answer": "1", "completion": 5}\n'
        )
    args = ("score", "--reward", "math", "--input", source, "--output", tmp_path / "out.jsonl")
    aborted = run(*args)
    assert aborted.returncode == 3
    assert "5 of 11 scores are 'error' (45.5%; the limit is 2.0%)" in aborted.stderr
    assert run(*args, "--max-errors", 0.5).returncode == 0
    scores = [row["scores"][0] for row in read(tmp_path / "out.jsonl")]
    assert [s["outcome"] for s in scores] == ["scored"] * 6 + ["error"] * 5
    assert "line 8: not a row: not JSON" in scores[6]["details"]["problem"]


def test_finish_reasons_match_their_completions(tmp_path: Path) -> None:
    row = {"answer": "1", "completions": ["so", "so"], "meta": {"finish_reason": ["length", "stop"]}}
    assert (
        run("score", "--reward", "math", "--input", write(tmp_path / "i", [row]), "--output", tmp_path / "o").returncode
        == 0
    )
    assert [s["outcome"] for s in read(tmp_path / "o")[0]["scores"]] == ["truncated", "no_answer"]


def test_usage_errors_are_one_line_and_status_2(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"anser": "1", "completion": "1"}])
    out = ("--output", tmp_path / "out.jsonl")
    for args, says in (
        (("score", "--reward", "mth", "--input", source, *out), "unknown reward 'mth', did you mean 'math'?"),
        (("score", "--reward", "math", "--input", tmp_path / "no", *out), "No such file"),
        (("score", "--reward", "math", "--input", source, *out), "no column 'answer', did you mean 'anser'?"),
        (("score", "--reward", "math", "--param", "x", "--input", source, *out), "write it as name=value"),
        (
            ("score", "--reward", "math", "--param", "dedline=1", "--input", source, *out),
            "did you mean 'deadline'?",
        ),
        (("selfcheck", "--input", tmp_path), "Is a directory"),
        (("score", "--reward", "length", "--input", source, "--output", tmp_path), "a directory"),
        (("score", "--reward", "length", "--input", source, "--output", source), "are the same file"),
    ):
        done = run(*args)
        assert done.returncode == 2, done
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [source]
    assert not tmp_path.with_name(tmp_path.name + ".part").exists()


def test_selfcheck_names_the_golds_that_fail(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"answer": "5"}, {"answer": r"\frac{x}{2}"}, {"answer": "even"}])
    fine = run("selfcheck", "--input", source)
    assert (fine.returncode, fine.stdout) == (
        0,
        "3 of 3 reference answers grade as correct\n",
    )
    with source.open("a") as file:
        file.write('{"answer": null}\n{"answer": "{5"}\n')
    broken = run("selfcheck", "--input", source)
    assert broken.returncode == 1
    assert f"{source}:4: the row's answer is None" in broken.stdout
    assert f"{source}:5: reference answer '{{5'" in broken.stdout


def test_list_into_a_closed_pipe() -> None:
    shell = ["bash", "-o", "pipefail", "-c", f"{sys.executable} -u -m rewards list | head -1"]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("bertscore: ")


def test_list_names_columns_and_parameters() -> None:
    shown = run("list").stdout
    assert "math: " in shown
    assert "columns: answer" in shown
    assert "deadline=2.0" in shown


def test_a_part_file_is_locked_and_validated(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", [{"answer": "1", "completion": "1"}]), tmp_path / "out.jsonl"
    with scoring._store(tmp_path / "out.jsonl.part", "work"):
        done = run("score", "--reward", "math", "--input", source, "--output", out)
    assert (done.returncode, done.stderr) == (2, f"error: {out}.part: another process is scoring into it\n")
    (tmp_path / "out.jsonl.part").write_text('1 {"scores": []}\n')
    done = run("score", "--reward", "math", "--input", source, "--output", out)
    assert (done.returncode, done.stderr) == (2, f"error: {out}.part: file is not a database\n")


def test_selfcheck_of_the_machine_shows_level_and_attacks() -> None:
    done = run("selfcheck")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^isolation level: (namespaces|landlock)$", done.stdout, re.M)
    stopped, total = re.search(r"^(\d+) of (\d+) attacks stopped$", done.stdout, re.M).groups()
    assert int(stopped) == int(total) > 20


def test_selfcheck_fails_if_attacks_succeed() -> None:
    code = (
        "import sys\nfrom rewards.sandbox import probe\n"
        "probe.attack = lambda *_, build=False: [('read a file', not build)]\n"
        "from rewards.cli import main; sys.exit(main(['selfcheck']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SUCCEEDED: read a file" in done.stdout
