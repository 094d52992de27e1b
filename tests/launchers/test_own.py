"""A benchmark, a reward and a metric of a family's own, a model evaluated as it is, and the list of runs."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from data_prep.evaluation import metrics
from data_prep.evaluation.intervals import paired
from launchers.report import page
from launchers.run import events
from tests.conftest import Repo

REWARD = '''"""A reward for short answers."""

from rewards.base import Reward, Score


class Brevity(Reward):
    """Minus one point for each hundred characters."""

    def grade(self, row, completion):
        return Score(-len(completion) / 100)
'''
TASK = """about: Word problems of a shop.
path: shop.jsonl
split: test
reward: {name: "recipes.x.brevity:Brevity"}
metric: {name: brevity, unit: points}
"""
# In lm-evaluation-harness's format.
SUMS = """task: sums500
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{problem}}}}"
doc_to_target: answer
generation_kwargs: {{until: []}}
filter_list:
  - name: last
    filter: [{{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
RECIPE = """# make x/y
extends: [../min_o1/sft_long.yaml, ../min_o1/mini.yaml]
data: tasks/shop.jsonl
native: {deepspeed: null}
eval: {tasks: [shop], n: 1, temperature: 0.0, max_tokens: 16}
comparable: true
expect: {shop: -10.6}
"""
SHOP = '{"prompt": "A pen costs 2 dollars. What do 3 cost?", "answer": "6"}\n'


def _own(repo: Repo) -> None:
    repo.write("recipes/x/brevity.py", REWARD)
    repo.write("recipes/x/tasks/shop.yaml", TASK)
    repo.write("recipes/x/tasks/shop.jsonl", SHOP)
    repo.write("recipes/x/y.yaml", RECIPE)


def test_a_model_is_evaluated_as_it_is_on_benchmarks_of_ones_own_and_of_a_harness(repo: Repo, mini_model: Path) -> None:
    """The mini model, on a benchmark with a reward and a metric of its own, on sums of ours and on a harness's task."""
    _own(repo)
    sums = [{"problem": f"{a}+{b}=?", "answer": str(a + b)} for a, b in [(14, 52), (22, 30), (83, 53), (27, 22)]]
    data = repo.write("recipes/x/sums.jsonl", "".join(json.dumps(row) + "\n" for row in sums))
    file = repo.write("recipes/x/sums500.yaml", SUMS.format(file=data))
    tasks = f"tasks: [shop, arithmetic, sums500], harness: lm_eval, limit: 4, paths: {{sums500: {file}}}"
    repo.write("recipes/x/y.yaml", RECIPE.replace("tasks: [shop]", tasks).replace("max_tokens: 16", "max_tokens: 64"))
    done = repo.launch("eval", "x/y", "--model", str(mini_model), "--json")
    assert done.returncode == 0, done.stderr
    run = Path(json.loads(done.stdout)["run"])
    result = json.loads((run / "eval/after.json").read_text())
    assert {task: made["prompts"] for task, made in result["tasks"].items()} == {
        "shop": 1,
        "arithmetic": 4,
        "sums500": 4,
    }
    shop, harness = (result["tasks"][task] for task in ("shop", "sums500"))
    assert shop["metric"] == {"name": "brevity", "unit": "points", "higher_is_better": True}
    assert result["versions"]
    rows = [json.loads(line) for line in (run / "eval/after.rows.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["source"] == "shop"]
    assert row["prompt"][-1]["content"] == "A pen costs 2 dollars. What do 3 cost?"
    assert row["meta"]["tokens"] <= 64
    assert shop["mean"] == pytest.approx(-len(row["completion"]) / 100, abs=0.01)  # points, not hundredths
    answers = [row["completion"] for row in rows if row["source"] == "sums500"]
    right = sum(text.endswith(f"boxed{{{one['answer']}}}") for text, one in zip(answers, sums, strict=True))
    assert right >= 2  # of 4: the mini model adds two numbers
    assert (harness["metric"]["name"], harness["mean"]) == ("exact_match", 100 * right / 4)
    assert harness["ci95"][0] < harness["mean"] <= harness["ci95"][1]
    assert harness["mean_tokens"] > 0
    text = (run / "report.html").read_text()
    assert "shop: the published −10.6 points is below the 95 % interval of this run" in text
    assert "sums500" in text
    assert "exact_match" in text
    (line,) = repo.launch("status").stdout.splitlines()
    assert line.startswith("done       x/y")


def test_a_reward_of_ones_own_that_cannot_be_imported_is_one_line(repo: Repo) -> None:
    _own(repo)
    repo.write("recipes/x/tasks/shop.yaml", TASK.replace("brevity:Brevity", "brevity:Brevty"))
    done = repo.launch("check", "x/y")
    assert done.returncode == 2
    assert "reward 'recipes.x.brevity:Brevty': module 'recipes.x.brevity' has no attribute 'Brevty'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("rows", "said"),
    [("", "shop.jsonl holds no records"), ('{"frage": "1+1?"}\n', "cannot tell the prompt among the columns frage")],
)
def test_a_benchmarks_own_rows_are_looked_at_before_anything_starts(repo: Repo, rows: str, said: str) -> None:
    _own(repo)
    repo.write("recipes/x/y.yaml", RECIPE.replace("tasks/shop.jsonl", "rows.jsonl"))
    repo.write("recipes/x/rows.jsonl", SHOP)
    repo.write("recipes/x/tasks/shop.jsonl", rows)
    done = repo.launch("check", "x/y")
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipes/x/y.yaml:5: eval.tasks.0: ")
    assert said in done.stderr


def test_status_says_what_each_run_is_doing(repo: Repo) -> None:
    run = Path(repo.launch("render", "min_o1/sft_long", "--scale", "mini").stdout.strip())

    def state() -> dict[str, object]:
        (found,) = json.loads(repo.launch("status", "--json").stdout)
        return dict(found)

    assert (state()["state"], state()["recipe"]) == ("new", "min_o1/sft_long")
    events.append(run, "train_step", label="after", step=40, total=130)
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = state()
        refused = repo.launch("submit", "min_o1/sft_long", "--scale", "mini")
    assert (running["state"], running["step"], running["steps"]) == ("running", 40, 130)
    assert "another process is working on this" in refused.stderr
    assert state()["state"] == "stopped"
    events.append(run, "phase_end", phase="train", label="after", status=1, error="killed by signal 9")
    assert state()["state"] == "failed"


@pytest.mark.parametrize(
    ("words", "said"),
    [(("min_o1/sft_shrt",), "did you mean 'min_o1/sft_short'?"), (("--out", "Makefile"), "'Makefile' is not a folder")],
)
def test_the_status_of_what_is_not_there_is_refused(repo: Repo, words: tuple[str, ...], said: str) -> None:
    done = repo.launch("status", *words)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_a_named_metric_has_its_unit_in_results_differences_and_report(tmp_path: Path) -> None:
    shares = metrics.in_unit({"mean": 62.5, "stderr": 1.0, "ci95": [60.0, 65.0]}, metrics.metric_of("gsm8k"))
    assert (shares["mean"], shares["metric"]["name"]) == (62.5, "accuracy")
    bleu = {"name": "BLEU", "unit": "", "higher_is_better": True}
    for label, mean in (("before", 14.2), ("after", 21.4)):
        found = metrics.in_unit({"mean": mean, "stderr": 0.5, "ci95": [mean - 1, mean + 1], "pass_at": {"1": 0}}, bleu)
        assert found["pass_at"] == {}
        (tmp_path / "eval").mkdir(exist_ok=True)
        task = {**found, "prompts": 100, "samples": 1, "outcomes": {}, "truncated": 0.0, "mean_tokens": None}
        (tmp_path / f"eval/{label}.json").write_text(json.dumps({"label": label, "tasks": {"tulu": task}}))
    difference = metrics._scaled(paired({"p": 21.4, "q": 21.4}, {"p": 14.1, "q": 14.3}), bleu, "difference")
    assert difference["difference"] == pytest.approx(0.072)
    (tmp_path / "compare.json").write_text(json.dumps([{"a": "after", "b": "before", "task": "tulu", **difference}]))
    text = page.build(tmp_path).read_text()
    assert "BLEU on tulu" in text
    assert "from 0.142 to 0.214" in text
    assert "Accuracy" not in text


def test_an_estimate_says_what_does_not_fit_what_is_unknown_and_how_often_rows_are_seen(repo: Repo) -> None:
    repo.write("recipes/x/rows.jsonl", SHOP.replace('"answer"', '"completion"'))
    words = ("min_o1/sft_long", "--set", "train.micro_batch=64", "--set", "train.max_length=16384", "--set",
             f"data={repo.path}/recipes/x/rows.jsonl")  # fmt: skip
    refused = repo.launch("run", *words)
    assert (refused.returncode, "does not fit: about" in refused.stderr) == (2, True)
    assert "ALLOW=oom" in refused.stderr
    dry = repo.launch("submit", *words, "--dry-run")
    assert (dry.returncode, "warning: does not fit" in dry.stderr) == (0, True)
    unknown = repo.launch("plan", "min_o1/sft_long", "--set", "model=someone/new-1b", "--set", "native.template=qwen")
    assert "the sizes of someone/new-1b are unknown; add it to configs/models.yaml" in unknown.stdout


def test_few_rows_for_many_steps_bring_a_warning(repo: Repo) -> None:
    repo.write("recipes/x/rows.jsonl", SHOP.replace('"answer"', '"completion"'))
    words = ("min_o1/sft_long", "--scale", "mini", "--set", f"data={repo.path}/recipes/x/rows.jsonl")
    assert json.loads(repo.launch("plan", *words, "--json").stdout)["passes"] is None
    assert repo.launch("data", *words).returncode == 0
    found = json.loads(repo.launch("plan", *words, "--json").stdout)
    assert found["passes"] == found["steps"]["planned"] * 32
    assert any("training rows is seen" in warning for warning in found["warnings"])
