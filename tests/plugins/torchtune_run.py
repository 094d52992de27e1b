"""Tiny trainings for the tests of the torchtune plugin: rendered by the backend, run by its own command."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers import envs
from launchers.backends.base import EnvPython, InRun, Job
from launchers.backends.torchtune import Torchtune
from launchers.machines import hardware
from launchers.plan import pipelines as sources
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import Overrides, Resolved
from tests.conftest import REPO

QUIET = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO),
    "PYTHONDONTWRITEBYTECODE": "",
}  # fmt: skip
BASE = """
extends: [{repo}/recipes/_base/{base}_torchtune.yaml]
model: {repo}/recipes/mini/model
hardware: cpu
data: rows.jsonl
train: {{global_batch: 8, micro_batch: 2, learning_rate: 1.0e-3, epochs: 2, max_length: 64, precision: fp32,
         gradient_checkpointing: false, warmup_ratio: 0.2}}
"""


@dataclass(frozen=True)
class Training:
    """A rendered training and where it runs."""

    run: Path
    job: Job

    @property
    def folder(self) -> Path:
        return self.run / self.job.output

    @property
    def command(self) -> list[str]:
        (command,) = Torchtune().commands(self.job)
        words = []
        for word in command.argv:
            if isinstance(word, EnvPython):
                words.append(str(envs.ensure(word, "cpu")))
            else:
                words.append(str(self.run / word) if isinstance(word, InRun) else word)
        return words

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, **QUIET, "RUN": str(self.run)}

    def start(self) -> subprocess.Popen[bytes]:
        """The training's process, its output in a file."""
        log = (self.folder / "log.txt").open("ab")
        return subprocess.Popen(self.command, cwd=REPO, env=self.environ, stdout=log, stderr=log)

    def do(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command,
            cwd=REPO,
            env=self.environ,
            capture_output=True,
            text=True,
        )

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "trainer_log.jsonl").read_text().splitlines()]

    def curve(self, key: str = "loss") -> list[float]:
        return [line[key] for line in self.log()]


def resolved(folder: Path, method: str, extra: str = "") -> Resolved:
    """A recipe of one file, with more keys laid over it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(BASE.format(repo=REPO, base=method))
    tree = compose._load_layer(path)
    if extra:
        tree = yaml_tree.merge(tree, yaml_tree.parse(extra, "extra"))
    tree = compose._for_trainer(tree)
    return sources.with_local_model(Resolved(f"x/{method}", None, compose.validate(tree), tree, Overrides()))


def conversations(count: int) -> list[dict[str, Any]]:
    """Sums, in torchtune's chat shape."""
    return [
        {"messages": [{"role": "user", "content": f"{n}+{n + 3}=?"}, {"role": "assistant", "content": _box(2 * n + 3)}]}
        for n in range(10, 10 + count)
    ]


def pairs(count: int) -> list[dict[str, Any]]:
    """Sums and wrong sums, in torchtune's shape of pairs."""
    found = []
    for row in conversations(count):
        question, answer = row["messages"]
        wrong = {"role": "assistant", "content": answer["content"].replace("}", "7}")}
        found.append({"chosen_conversations": [question, answer], "rejected_conversations": [question, wrong]})
    return found


def _box(number: int) -> str:
    return f"\\boxed{{{number}}}"


def render(folder: Path, method: str, rows: int = 20, processes: int = 1, extra: str = "") -> Training:
    """A training of `rows` rows, rendered into a folder."""
    made = resolved(folder, method, extra)
    machines = hardware.load("cpu").model_copy(update={"gpus_per_node": processes if processes > 1 else 0})
    assert Torchtune().check(made, machines) == []
    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = pairs(rows) if method == "dpo" else conversations(rows)
    (data / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Job(made, machines, plan.derive_batch(made, machines), "", data)
    for name, text in Torchtune().render(job, folder).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Training(folder, job)
