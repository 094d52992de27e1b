"""One step at a time: `make data/… STEP=…` does a pipeline up to that step and shows what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.core import pipeline
from launchers.run import inspect as between
from tests.conftest import Repo

GOOD = (
    "extends: [../min_o1/_sft.yaml]\ndata: mine\nhardware: cpu\nnative: {template: qwen, deepspeed: null}\n"
    "train: {global_batch: 4, micro_batch: 4, learning_rate: 1e-5, epochs: 3, max_length: 2048}\n"
)
PIPELINE = """
mine:
  - load: {path: rows.jsonl}
  - score: {reward: math}
  - select: {name: right, min_score: 1}
  - load: {name: others, path: others.jsonl}
  - dedup: {inputs: [right, others], fields: [prompt]}
"""


def _repo(repo: Repo) -> Repo:
    # The second answer is wrong; the third tries to reach the terminal.
    texts = ["so \\boxed{2}", "so \\boxed{3}", "\x1b[31m" + "so " * 500 + "\\boxed{2}"]
    rows = [{"prompt": f"1+1? ({n})", "completion": text, "answer": "2"} for n, text in enumerate(texts)]
    repo.write("recipes/x/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    repo.write("recipes/x/others.jsonl", '{"prompt": "2+2?", "completion": "4"}\n')
    repo.write("recipes/x/y.yaml", GOOD)
    repo.write("recipes/x/data.yaml", PIPELINE)
    return repo


def _done(repo: Repo) -> set[str]:
    return {json.loads(path.read_text())["name"] for path in repo.path.glob(".cache/steps/*/manifest.json")}


def test_a_step_is_made_with_what_it_reads_and_its_rows_are_shown(repo: Repo) -> None:
    elsewhere = ("HARDWARE=h100x8", "SET=train.global_batch=32")  # whose GPUs these steps do not need
    done = _repo(repo).make("data/x/y", "STEP=right", *elsewhere)
    assert done.returncode == 0, done.stderr
    assert _done(repo) == {"load", "score", "right"}
    head, rows, manifest, dropped, *_ = lines = done.stdout.splitlines()
    assert head == "right (select): 3 rows in, 2 out"
    assert (repo.path / rows.split()[1].rstrip(":") / "00000.jsonl").is_file()
    assert json.loads((repo.path / manifest.split()[1]).read_text())["rows_out"] == 2
    assert dropped == "dropped   1 score below minimum"
    assert [line for line in lines if line.startswith("row ")] == ["row 1 of 2", "row 2 of 2"]
    assert "            'content': '1+1? (0)'" in lines
    assert any(line.startswith("    'completion': '\\x1b[31mso so") and line.endswith("'+1434,") for line in lines)
    assert max(map(len, lines[4:])) <= 120
    (run,) = repo.path.glob("runs/x/y/*-*")
    assert json.loads((run / "run.json").read_text())["status"] == "partial"


def test_what_stands_is_not_made_again_and_the_last_step_brings_the_export(repo: Repo) -> None:
    _repo(repo).launch("data", "x/y", "--to", "right")
    before = {path: path.stat().st_mtime_ns for path in repo.path.glob(".cache/steps/*/manifest.json")}
    found = json.loads(repo.launch("data", "x/y", "--to", "dedup", "--json").stdout)
    assert (found["kind"], found["rows_in"], found["rows_out"], len(found["first"])) == ("dedup", 3, 3, 2)
    assert Path(found["manifest"]).is_file()
    assert _done(repo) == {"load", "score", "right", "others", "dedup", "export"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (run,) = repo.path.glob("runs/x/y/*-*")
    ran = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event["command"][-1] for event in ran if event["event"] == "phase_start"]
    assert steps == ["load,score,right", "others,dedup,export"]
    again = repo.launch("data", "x/y", "--to", "score")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("score: 3 rows in, 3 out\n")


def test_an_unknown_step_is_one_line_with_all_that_there_are(repo: Repo) -> None:
    repo = _repo(repo)
    hostile = "rigth'; touch pwned; $(touch pwned)"
    for done, option in (
        (repo.make("data/x/y", f"STEP={hostile}"), "STEP="),
        (repo.launch("data", "x/y", "--to", hostile), "--to"),
    ):
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith("make: ***"))
        assert line.startswith(f"error: {option}: pipeline 'mine' has no step ")
        assert line.endswith("Its steps, in order: load, score, right, others, dedup, export")
        assert done.returncode == 2
    assert "did you mean 'right'?" in repo.launch("data", "x/y", "--to", "rigth").stderr
    assert not list(repo.path.rglob("pwned"))
    planned = repo.launch("plan", "x/y").stdout
    assert [line.split()[0] for line in planned.split("data/train.json\n")[1].split("\n\n")[0].splitlines()] == [
        "load", "score", "right", "others", "dedup", "export"
    ]  # fmt: skip


def test_names_and_costs_are_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {"a\nb\x1b[2J": {"x": 1}, **{f"m{n}": n for n in range(20)}}
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c", "meta": hostile}) + "\n")
    load = pipeline.StepSpec(name="load", kind="load", params={"path": "in.jsonl"})
    spec = pipeline.Spec(name="x", base=tmp_path, cache=tmp_path / "cache", steps=(load,), max_drop_share=0.0)
    pipeline.run(spec)
    folder = pipeline.find(spec)
    manifest = json.loads((folder / "manifest.json").read_text())
    paid = {"usd": 1.5, "answers": 2_000_000, "prompt_tokens": 7}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "cost": paid}))
    between.print_facts("load", folder)
    said = capsys.readouterr().out
    assert "cost      1.50 dollars, 2,000,000 answers, 7 prompt tokens" in said.splitlines()
    assert "        'a\\nb\\x1b[2J': {" in said.splitlines()
    assert "        ... +7" in said.splitlines()
    assert "\x1b" not in said
