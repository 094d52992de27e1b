"""A recipe that begins with the model of another one: done first, found again, and its mistakes told."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Repo

ROWS = "".join(f'{{"prompt": "{i}+1?", "completion": "\\\\boxed{{{i + 1}}}"}}\n' for i in range(8))
FIRST = """
extends: [../min_o1/_sft.yaml, ../min_o1/sft_short.mini.yaml]
model: recipes/mini/model
revision: null
hardware: cpu
system_prompt: null
data: rows.jsonl
train: {global_batch: 4, micro_batch: 4, steps: 2, save_every: null}
controls: null
eval: null
"""


@pytest.fixture
def family(repo: Repo) -> Repo:
    repo.write("recipes/x/rows.jsonl", ROWS)
    repo.write("recipes/x/first.yaml", FIRST)
    repo.write("recipes/x/second.yaml", "extends: [first.yaml]\nmodel_of: x/first\n")
    return repo


@pytest.mark.full
def test_what_comes_first_is_done_first_and_once(family: Repo) -> None:
    planned = family.launch("plan", "x/second")
    assert "begins   with the model of x/first, which is not trained yet" in planned.stdout, planned.stderr
    refused = family.launch("train", "x/second")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: x/second: model_of: starts from the model of x/first, which is not trained yet: run "
        "`make x/first` first\n"
    )
    ran = family.launch("run", "x/second")
    assert ran.returncode == 0, ran.stderr
    (first,), (second,) = ([*(family.path / f"runs/x/{name}").iterdir()] for name in ("first", "second"))
    model = json.loads((second / "resolved.json").read_text())["model"]
    assert model.startswith(str(first))
    assert f"x/second starts from the model of x/first, which runs first: {first}" in ran.stderr

    again = family.launch("run", "x/second")
    assert again.returncode == 0
    assert "already finished" in again.stderr
    assert "begins" not in family.launch("plan", "x/second").stdout
    own = family.launch("plan", "x/second", "--set", "model=recipes/mini/coder", "--json")
    assert json.loads(own.stdout)["model"].endswith("recipes/mini/coder")


@pytest.mark.full
def test_a_study_begins_each_seed_with_the_recipe_that_comes_first(family: Repo) -> None:
    family.write("recipes/x/first.yaml", FIRST.replace("eval: null", "eval: {tasks: [arithmetic], limit: 8, n: 1}"))
    family.write(
        "recipes/x/study.yaml",
        "seeds: [0, 1]\ncells: {only: {recipe: x/second, trained_levels: [2]}}\n"
        "questions: [{ask: Which is best?, compare: [only]}]\n",
    )
    ran = family.launch("study", "x", "--json")
    assert ran.returncode == 0, ran.stderr
    (first,) = (family.path / "runs/x/first").iterdir()
    models = {json.loads((run / "resolved.json").read_text())["model"] for run in family.path.glob("runs/x/second/*")}
    assert models == {str(first / "train")}


def test_mistakes_in_what_comes_first(family: Repo) -> None:
    family.write("recipes/x/second.yaml", "extends: [first.yaml]\nmodel_of: x/frist\n")
    (line,) = family.launch("check", "x/second").stderr.splitlines()
    assert line.startswith("error: recipes/x/second.yaml:2: model_of: no recipe 'x/frist'; did you mean 'x/first'?")
    family.write("recipes/x/second.yaml", "extends: [first.yaml]\nmodel_of: x/third\n")
    family.write("recipes/x/third.yaml", "extends: [first.yaml]\nmodel_of: x/second\n")
    (line,) = family.launch("check", "x/second").stderr.splitlines()
    assert line == ("error: recipes/x/third.yaml:2: model_of: circular: x/second -> x/third -> x/second")
