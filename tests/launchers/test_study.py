"""Studies as their user starts them: files with mistakes, runs that fail, and what a second start does."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launchers.errors import UserError
from launchers.recipe import compose
from launchers.recipe.compose import SCALES
from launchers.study import spec as study_file
from tests.launchers.test_report import Outline

STUDY = """\
seeds: [0, 1]
set: {eval: {limit: 12, n: 2}}
cells:
  good: {recipe: min_o1/sft_short, set: {data: few, train.steps: 4}, trained_levels: [2]}
  bad: {recipe: min_o1/sft_short, set: {data: none}, trained_levels: [2]}
  onward: {recipe: min_o1/sft_short, set: {data: few, train.steps: 4}, model_of: good, trained_levels: [2]}
  stuck: {recipe: min_o1/sft_short, set: {data: few}, model_of: bad}
questions:
  - {ask: Which is best?, compare: [good, bad, onward, stuck]}
  - {ask: Does it carry over?, compare: [good, onward], measure: untrained}
"""
# No sum of the curriculum has nine numbers: the export of nothing fails, within seconds and for real.
DATA = """
few:
  - curriculum: {split: train, levels: {2: 64}, seed: 1}
none:
  - curriculum: {split: train, levels: {2: 64}, seed: 1}
  - select: {level: [9, 9]}
"""


@pytest.fixture
def lab(repo):
    """A repo whose min_o1 has a small study with a cell that fails and one that needs it."""
    repo.write("recipes/min_o1/study.yaml", STUDY)
    repo.write("recipes/min_o1/study.mini.yaml", "by: level\n")
    data = repo.path / "recipes/min_o1/data.yaml"
    data.write_text(data.read_text() + DATA)
    return repo


def refused(lab, *words):
    """The lines of a study that is refused before anything starts."""
    done = lab.launch("study", "min_o1", "--scale", "mini", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (lab.path / "runs").exists()
    return [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_every_study_of_the_tree_is_whole(tmp_path):
    assert study_file.study_names()
    for family in study_file.study_names():
        for scale in (None, *SCALES):
            study = study_file.load(family, scale)
            assert set(study_file.check(study, tmp_path)) == set(study.file.cells)
            assert len(study.file.seeds) >= 3


def test_what_a_study_sets_itself_is_refused_from_the_command_line():
    with pytest.raises(UserError, match=r"^--set train.seed: train.seed: cannot be set: use the study's `seeds`$"):
        study_file.load("min_o1", extra=[("train.seed", "3", "--set train.seed")])


def test_a_study_is_no_recipe(lab):
    assert not [name for name in compose.recipe_names() if "study" in name]
    recipes = re.search(r"Recipes: +(.*)", lab.make("help").stdout)
    assert recipes
    assert "study" not in recipes[1]


# What is checked in one go is tried in one go: (old text, new text, line, what is said).
MISTAKES = {
    "syntax": [("cells:", "cells: [", 5, "not valid YAML")],
    "schema": [
        ("seeds: [0, 1]", "seeds: []", 1, "seeds: "),
        ("trained_levels: [2]}", "trained_level: [2]}", 4, "unknown key; did you mean 'trained_levels'?"),
        ("compare: [good, bad", "compar: [good, bad", 9, "unknown key; did you mean 'compare'?"),
        ("measure: untrained", "measure: untrain", 10, "did you mean 'untrained'?"),
    ],
    "names": [
        ("seeds: [0, 1]", "seeds: [0, 0]", 1, "seeds[1]: 0 is listed twice"),
        ("train.steps: 4", "train.seed: 4", 4, "cells.good.set.train.seed: cannot be set: use the study's `seeds`"),
        ("recipe: min_o1/sft_short, set: {data: none",
         "recipe: min_o1/sft_shrt, set: {data: none", 5, "no such recipe; did you mean 'min_o1/sft_short'?"),
        ("model_of: good", "model_of: god", 6, "cells.onward.model_of: no cell 'god'; did you mean 'good'?"),
        ("data: few}, model_of", "model: x}, model_of", 7,
         "cells.stuck.set.model: cannot be set: follows from `model_of`"),
        ("compare: [good, bad", "compare: [good, bda", 9,
         "questions[0].compare[1]: no cell 'bda'; did you mean 'bad'?"),
        ("compare: [good, onward]", "compare: [stuck]", 10, "cell 'stuck' needs `trained_levels`"),
    ],
    "cycle": [
        ("trained_levels: [2]}", "model_of: onward, trained_levels: [2]}", 4,
         "cells.good.model_of: circular: this cell depends on itself"),
        ("model_of: good", "from_run: good", 6, "cells.onward.from_run: circular: this cell depends on itself"),
    ],
    "recipes": [
        ("train.steps: 4", "train.step: 4", 4, "cells.good: train.step: unknown key; did you mean 'train.steps'?"),
        ("data: none", "data: fwe", 5, "cells.bad: data: no pipeline 'fwe'"),
        ("set: {data: few, train.steps: 4}, model_of", "set: {train.steps: four}, model_of", 6,
         "cells.onward: train.steps: must be an integer"),
    ],
    "for_all": [("{eval: {limit: 12, n: 2}}", "{eval: {limt: 12, n: 2}}", 2, "did you mean 'eval.limit'?")],
    "metrics": [("n: 2}}", "n: 2, tasks: [arithmetic, sums_bleu]}}", 2,
                 "cells.good: eval.tasks: sums_bleu measures bleu, arithmetic accuracy: a study compares one metric")],
    "twins": [("data: none", "data: few, train.steps: 4", 5, "cells.bad: the same run as cell 'good'")],
    "judged": [("data: none", "data: none, eval.n: 4", 5, "cells.bad: eval.n: 4, but 2 for cell 'good'")],
}  # fmt: skip


OPTIONS = [
    (["--seeds", "0,x"], "--seeds: '0,x' is not a list of integers, e.g. 0,1,2"),
    (["--only", "god"], "--only: no cell 'god'; did you mean 'good'?"),
    (["--set", "train.stps=4"], "--set train.stps: cells.good: train.stps: unknown key; did you mean 'train.steps'?"),
]


def test_mistakes_are_named_with_their_line_and_bad_options(lab):
    for kind, mistakes in MISTAKES.items():
        text = STUDY
        for old, new, _, _ in mistakes:
            assert old in text
            text = text.replace(old, new, 1)
        lab.write(f"recipes/{kind}/study.yaml", text)
        lab.write(f"recipes/{kind}/study.mini.yaml", "by: level\n")
    commands = [*([kind] for kind in MISTAKES), *(["min_o1", *words] for words, _ in OPTIONS)]
    ends = lab.launch_each(*(["study", *words, "--scale", "mini"] for words in commands))
    assert {status for status, _ in ends} == {2}
    assert not (lab.path / "runs").exists()
    for (kind, mistakes), (_, lines) in zip(MISTAKES.items(), ends, strict=False):
        for _, _, line, said in mistakes:
            begin = f"error: recipes/{kind}/study.yaml:{line}: "
            assert any(one.startswith(begin) and said in one for one in lines), (said, lines)
    for (_, said), (_, lines) in zip(OPTIONS, ends[len(MISTAKES) :], strict=True):
        assert f"error: {said}" in lines


def test_names_of_families_and_scales(lab):
    done = lab.launch("study", "min_o2")
    assert (done.returncode, done.stderr) == (2, "error: min_o2: no such study; did you mean 'min_o1'?\n")
    (lab.path / "recipes/min_o1/study.mini.yaml").unlink()
    assert "the study of 'min_o1' has no study.mini.yaml" in lab.launch("study", "min_o1", "--scale", "mini").stderr


def test_a_cell_follows_those_that_it_needs():
    study = study_file.load("min_o1", "mini", only=["lim", "sft_grpo"])
    assert study.order() == ["sft_short", "grpo", "sft_grpo", "lim"]
    given = {key: text for key, text, _ in study.overrides("sft_grpo", 2, Path("/m")).settings}
    assert (given["model"], given["revision"], given["train.seed"], given["eval.before"]) == (
        "/m",
        "null",
        "2",
        "false",
    )
    assert {key: text for key, text, _ in study.overrides("lim", 0, run=Path("/r")).settings}["from_run"] == "/r"


def test_a_number_written_as_text_stays_text():
    """Settings of a study reach the recipe with the types that they were written with."""
    values = [1e-5, 3, True, None, "1e-5", "no", "null", "a: b", "{a}", "", "#x", ["1", 2], "ä\n'\""]
    for value in values:
        parsed = compose._parse_value(study_file._text(value), "--set x").plain()
        assert (parsed, type(parsed)) == (value, type(value))


def test_a_later_null_takes_a_cell_away(lab):
    lab.write("recipes/min_o1/study.mini.yaml", "cells: {stuck: null}\n")
    assert "no cell 'stuck'" in refused(lab)[0]


def _records(lab):
    return [json.loads(path.read_text()) for path in lab.path.glob("runs/studies/min_o1/*-*/study.json")]


def submit_lines(repo, *words):
    """Of a study's dry run: the jobs that each job waits for."""
    done = repo.launch("study", "min_o1", "--scale", "mini", "--dry-run", *words, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    options = [dict(word.partition("=")[::2] for word in shlex.split(line)) for line in done.stdout.splitlines()]
    return {option["--job-name"]: option.get("--dependency", "") for option in options}


def test_a_study_on_slurm_submits_each_cell_after_those_that_it_needs(lab):
    waits = submit_lines(lab)
    parts = [
        f"min_o1-{cell}-{seed}-{part}"
        for seed in (0, 1)
        for cell in ("good", "bad", "onward", "stuck")
        for part in ("data", "train", "eval", "report")
    ]
    assert list(waits) == [*parts, "min_o1-page"]
    assert (waits["min_o1-good-1-data"], waits["min_o1-bad-1-data"]) == ("", "")
    assert waits["min_o1-good-1-train"] == "afterok:min_o1-good-1-data"
    assert waits["min_o1-onward-1-data"] == "afterok:min_o1-good-1-report"
    assert waits["min_o1-stuck-0-data"] == "afterok:min_o1-bad-0-report"
    assert waits["min_o1-page"].startswith("afterany:min_o1-good-0-report:")
    scripts = sorted(str(path) for path in lab.path.glob("runs/studies/min_o1/*/*.sbatch"))
    assert [Path(path).name for path in scripts] == ["bad.sbatch", "good.sbatch", "onward.sbatch", "stuck.sbatch"]
    assert subprocess.run(["shellcheck", *scripts], capture_output=True, text=True).stdout == ""


def test_jobs_without_a_dependency_are_held_until_all_are_submitted(lab, tool, tmp_path):
    """A job that has ended before those that wait for it are submitted makes Slurm refuse them."""
    log = tmp_path / "asked"
    tool("sbatch", f'echo "sbatch $*" >> {log}; grep -c ^sbatch {log}')
    tool("scontrol", f'echo "scontrol $*" >> {log}')
    tool("squeue", "true")
    done = lab.launch("study", "min_o1", "--scale", "mini", "--seeds", "0", "--only", "onward", "--slurm", "--json")
    assert done.returncode == 0, done.stderr
    *submitted, released = log.read_text().splitlines()
    waits = [re.findall(r"--hold|(?<=--dependency=)\S+", line) for line in submitted]
    assert waits == [["--hold"], *([f"afterok:{job}"] for job in range(1, 8)), ["afterany:4:8"]]
    assert (json.loads(done.stdout)["jobs"], released) == ([str(job) for job in range(1, 10)], "scontrol release 1")
    tool("sbatch", "[[ $* != *onward* ]] || exit 1; echo 7")
    tool("scancel", f'echo "scancel $*" >> {log}')
    assert (
        lab.launch("study", "min_o1", "--scale", "mini", "--seeds", "0", "--only", "onward", "--slurm").returncode == 1
    )
    assert log.read_text().splitlines()[-1] == "scancel 7 7 7 7"


def test_a_second_submission_of_a_study_or_a_sweep_is_refused(lab, tool, tmp_path):
    """Its jobs are known by their comment: the runs of those that wait for another cell have no directory yet."""
    tool("sbatch", "echo 7")
    tool("scontrol", "true")
    tool("squeue", f'for path in {lab.path}/runs/studies/*/*/; do echo "7|Dependency|$(basename $path)"; done')
    study = ("study", "min_o1", "--scale", "mini", "--seeds", "0", "--only", "onward", "--slurm")
    sweep = ("sweep", "min_o1/sft_short", "seed=1,2", "train.steps=3,4", "--scale", "mini", "--slurm")
    tool("scancel", f"echo $* > {tmp_path / 'cancelled'}")
    for words in (study, sweep):
        again = lab.launch(*words)
        assert again.returncode == 1
        assert re.search(r"^error: \S+ is already submitted \(1 job \(7\)\): wait, or make", again.stderr)
    found = [run for run in json.loads(lab.launch("status", "--json").stdout) if run["recipe"] == "studies/min_o1"]
    assert [(run["state"], run["jobs"]) for run in found] == [("queued", ["7"])] * 2
    assert lab.launch("cancel", found[0]["run"]).stdout == "cancelled 7\n"
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_a_cell_that_reads_another_ones_samples_waits_for_them(repo):
    waits = submit_lines(repo, "--only", "lim", "--seeds", "3")
    assert waits["min_o1-lim-3-data"] == "afterok:min_o1-grpo-3-report"


def test_a_failed_cell_is_named_and_blocks_only_those_that_need_it(lab):
    """Nothing is trained here: the one run there is fails with its data."""
    words = ("study", "min_o1", "--scale", "mini", "--only", "stuck", "--seeds", "3", "--json")
    done = lab.launch(*words)
    assert done.returncode == 1, done.stderr
    assert "warning: 1 seed: with fewer than 3" in done.stderr
    assert re.search(r"^error: bad seed 3 failed: .*\(log: ", done.stderr, re.MULTILINE), done.stderr
    assert re.search(r"^error: stuck seed 3 blocked: it needs bad of seed 3", done.stderr, re.MULTILINE)
    found = json.loads(done.stdout)
    assert [(one["cell"], one["status"]) for one in found["runs"]] == [("bad", "failed"), ("stuck", "blocked")]
    assert found["runs"][0]["run"].startswith("../../../min_o1/sft_short/")
    words_of_page = Outline(Path(found["report"]).read_text()).words
    assert "bad, seed 3: failed." in words_of_page
    assert lab.launch(*words).returncode == 1
    [record] = _records(lab)  # the same command goes on with the same folder
    assert record["status"] == "failed"


@pytest.mark.full
def test_a_study_for_real(lab):
    """kill -9 on the way; then what is left; then nothing to do. One cell fails, the others are compared."""
    words = ["study", "min_o1", "--scale", "mini"]
    command = [str(lab.python), "-m", "launchers", *words]
    started = subprocess.Popen(command, cwd=lab.path, env=lab.environ(), stderr=subprocess.DEVNULL)
    while not list(lab.path.glob("runs/min_o1/sft_short/*/train/train_results.json")):
        assert started.poll() is None
        time.sleep(0.2)
    started.send_signal(signal.SIGKILL)
    started.wait()
    first = {
        path: path.stat().st_mtime_ns for path in lab.path.glob("runs/min_o1/sft_short/*/train/train_results.json")
    }

    done = lab.launch(*words, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    stand = {(one["cell"], one["seed"]): one["status"] for one in found["runs"]}
    whole = {"good": "done", "bad": "failed", "onward": "done", "stuck": "blocked"}
    assert stand == {(name, seed): status for name, status in whole.items() for seed in (0, 1)}
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what had been trained was not trained again"
    trained = sorted(lab.path.glob("runs/min_o1/sft_short/*/train/train_results.json"))
    assert len(trained) == 4
    assert len(_records(lab)) == 1

    times = [path.stat().st_mtime_ns for path in trained]
    again = lab.launch(*words, "--json")
    assert again.returncode == 1
    assert [path.stat().st_mtime_ns for path in trained] == times
    assert json.loads(again.stdout)["runs"][0]["seconds"] == found["runs"][0]["seconds"], "nothing was waited for"

    page = Outline(Path(found["report"]).read_text()).words
    assert "4 of 8 runs done" in page
    assert "is the most accurate" in page
    assert "bad, seed 0: failed." in page
    assert "12 questions, the same for every cell and seed, 2 samples each" in page
    assert "Not included, because no run finished: bad and stuck." in page
