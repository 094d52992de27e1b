"""A trainer is one module and a folder of templates: a made-up one runs a recipe, and no other code names a trainer."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.conftest import REPO, Repo

BACKEND = '''
"""A trainer that copies its base model."""

import json
from pathlib import Path

from launchers.backends.base import Backend, Command, EnvPython, InRun, Progress
from launchers.render import template

COPY = "import json, shutil, sys; to = json.load(open(sys.argv[1])); shutil.copytree(to['model'], to['out'])"


class Copier(Backend):
    name, env, methods, format, inspects = "copier", "core", ("sft",), "torchtune", ""

    def check(self, resolved, hardware):
        return []

    def render(self, job, run):
        values = {"model": job.resolved.recipe.model, "out": str(run / job.model)}
        return {f"{job.output}/copier.json": template("copier/copier.json.j2").render(values)}

    def commands(self, job):
        argv = (EnvPython("core"), "-c", COPY, InRun(f"{job.output}/copier.json"))
        return (Command(argv, "train", job.label),)

    def prepare(self, output):
        pass

    def finished(self, output):
        return (output / "merged").exists()

    def progress(self, output):
        return Progress(1, 1) if self.finished(output) else None


BACKEND = Copier()
'''
RECIPE = """# make x/y
trainer: copier
method: sft
model: recipes/mini/model
hardware: cpu
data: rows.jsonl
train: {global_batch: 1, micro_batch: 1, learning_rate: 1.0e-5, steps: 1, max_length: 128}
"""


def test_a_fourth_trainer_is_one_module_and_a_folder_of_templates(repo: Repo) -> None:
    repo.write("launchers/backends/copier.py", BACKEND)
    repo.write("templates/copier/copier.json.j2", '{"model": {{ model | yaml }}, "out": {{ out | yaml }}}\n')
    repo.write("recipes/x/rows.jsonl", '{"prompt": "1+1?", "completion": "\\\\boxed{2}"}\n')
    repo.write("recipes/x/y.yaml", RECIPE)
    done = repo.launch("run", "x/y", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (Path(result["run"]) / "train/merged/config.json").is_file()
    assert result["status"] == "done"
    assert "copier" in Path(result["report"]).read_text()
    faulty = repo.launch("check", "x/y", "--set", "trainer=copyer")
    assert "did you mean 'copier'" in faulty.stderr


def test_nothing_but_a_trainers_own_module_and_plugin_names_it() -> None:
    own = (REPO / "launchers" / "backends", REPO / "launchers" / "plugins")
    named = re.compile(r"llamafactory|torchtune|\bverl\b", re.IGNORECASE)
    others = [path for path in (REPO / "launchers").rglob("*.py") if not any(map(path.is_relative_to, own))]
    assert [str(path.relative_to(REPO)) for path in others if named.search(path.read_text())] == []
