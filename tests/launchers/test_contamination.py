"""Training on a benchmark's test split is a warning in the plan, the data run and the report, and an error where the
recipe evaluates on the same data; the report shows rows that repeat a question beside that question."""

from __future__ import annotations

import json
import re

import pytest

from data_prep.sources import tasks
from data_prep.steps.load import LoadParams
from launchers.plan import contamination
from tests.conftest import Repo

APPS = "21e74ddf8de1a21436da12e3e653065c5213e9d1"
RECIPE = (
    "extends: [../min_o1/_sft.yaml]\ndata: mine\nhardware: cpu\nnative: {template: qwen, deepspeed: null}\n"
    "train: {global_batch: 4, micro_batch: 4, learning_rate: 1e-5, epochs: 3, max_length: 2048}\n"
)
WARNING = "gsm8k: trained on its test split; do not evaluate on openai/gsm8k afterwards"


def test_tasks_that_benchmarks_test_with_are_known() -> None:
    assert [name for name in tasks.names() if not tasks.read(name).is_test] == [
        "apps_train", "numina_amc_aime", "numina_math", "numina_olympiads", "prm800k", "still_2", "taco"
    ]  # fmt: skip


def _repo(repo: Repo, evaluated: str) -> Repo:
    repo.write("recipes/x/rows.jsonl", '{"prompt": "1+1?", "completion": "so 2", "answer": "2"}\n')
    repo.write("recipes/x/y.yaml", RECIPE + f"eval: {{tasks: [{evaluated}]}}\n")
    repo.write("recipes/x/data.yaml", "mine:\n  - load: {task: gsm8k, paths: {gsm8k: rows.jsonl}}\n")
    return repo


def test_a_warning_is_in_the_plan_the_data_run_and_the_report(repo: Repo) -> None:
    _repo(repo, "math500")
    assert f"warning  {WARNING}" in repo.launch("plan", "x/y").stdout.splitlines()
    made = repo.launch("data", "x/y")
    assert made.returncode == 0, made.stderr
    assert made.stderr.splitlines().count(f"warning: {WARNING}") == 1
    (run,) = repo.path.glob("runs/x/y/*-*")
    assert repo.launch("report", str(run)).returncode == 0
    data = (run / "report.html").read_text().split("<h2>Data</h2>")[1]
    assert data.index(WARNING) < data.index("<h3>mine</h3>")
    repo.write("recipes/x/data.yaml", "mine:\n  - load: {path: rows.jsonl}\n")
    assert WARNING not in json.loads(repo.launch("plan", "x/y", "--json").stdout)["warnings"]


def test_evaluating_on_the_same_data_is_an_error(repo: Repo) -> None:
    done = _repo(repo, "math500, gsm8k").launch("plan", "x/y")
    assert (done.returncode, done.stderr) == (
        2,
        "error: recipes/x/data.yaml:2: mine: step 'load' trains on gsm8k, which is in eval.tasks: "
        "remove one of the two\n",
    )


def test_steps_that_do_not_reach_the_export_are_not_trained_on(repo: Repo) -> None:
    _repo(repo, "gsm8k")
    beside = "mine:\n  - load: {task: gsm8k, paths: {gsm8k: rows.jsonl}}\n  - load: {path: rows.jsonl, name: ours}\n"
    repo.write("recipes/x/data.yaml", beside)
    done = repo.launch("plan", "x/y", "--json")
    assert done.returncode == 0, done.stderr
    assert "trains on gsm8k" not in done.stdout + done.stderr
    repo.write(
        "recipes/x/data.yaml", beside + "  - mix: {inputs: [load, ours], parts: {x: {sources: [gsm8k, rows]}}}\n"
    )
    assert "step 'load' trains on gsm8k" in repo.launch("plan", "x/y").stderr


def test_the_report_shows_flagged_pairs_side_by_side(repo: Repo) -> None:
    question = "In how many ways can the letters of CASCADE be arranged, if both As stand at the ends of the word?"
    copy = f"Hello! {question} Thanks."
    rows = [
        {"id": "a", "prompt": copy, "completion": "60"},
        {"id": "b", "prompt": "What is 12 - 7?", "completion": "5"},
    ]
    repo.write("recipes/x/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    repo.write("recipes/x/bench.jsonl", json.dumps({"id": "q7", "problem": question, "answer": "60"}))
    repo.write("recipes/x/y.yaml", RECIPE + "eval: {tasks: [math500]}\n")
    steps = "  - load: {path: rows.jsonl}\n  - decontaminate: {against: [math500], paths: {math500: bench.jsonl}}\n"
    repo.write("recipes/x/data.yaml", "mine:\n" + steps)
    made = repo.launch("data", "x/y")
    assert made.returncode == 0, made.stderr
    (run,) = repo.path.glob("runs/x/y/*-*")
    assert repo.launch("report", str(run)).returncode == 0
    row, benchmark = re.findall(r"<td><small>(.*?)</td>", (run / "report.html").read_text())[:2]
    assert row.endswith(copy)
    assert benchmark == f"math500/q7, 100% of the question</small><br>{question}"


CLASHES = {
    "a task": ({"task": "apps"}, "apps", True),
    "its data set": ({"hub": "codeparrot/apps", "revision": APPS, "files": ["test.jsonl"]}, "apps", True),
    "by another name": ({"hub": "codeparrot/apps", "revision": APPS, "split": "test"}, "apps", True),
    "its other split": ({"hub": "codeparrot/apps", "revision": APPS, "files": ["train.jsonl"]}, "apps", False),
    "a task of its other split": ({"task": "apps_train"}, "apps", False),
    "a part of it": ({"task": "livecodebench_easy"}, "livecodebench", True),
    "another part of it": ({"task": "livecodebench_easy"}, "livecodebench_hard", False),
    "other years": (
        {"hub": "AI-MO/aimo-validation-aime", "revision": "0" * 40, "filter": {"url": {"contains": "2023"}}},
        "aime24",
        False,
    ),
    "all years": ({"hub": "AI-MO/aimo-validation-aime", "revision": "0" * 40}, "aime24", True),
    "a file": ({"path": "gsm8k.jsonl"}, "gsm8k", False),
    "a sum": ({"task": "arithmetic"}, "arithmetic", True),
}


@pytest.mark.parametrize("case", CLASHES)
def test_which_sources_hold_the_same_rows(case: str) -> None:
    given, evaluated, expected = CLASHES[case]
    why = contamination.clash(LoadParams.model_validate(given), ["math500", "no_such_task", evaluated])
    assert (why is not None) == expected
    assert why is None or evaluated in why
