"""The task file for SkyPilot: its own schema takes it, its scripts are sound, and its run script does the recipe."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from launchers import envs
from tests.conftest import REPO, Repo

# SkyPilot's own schemas (0.14.1), as sky.utils.schemas gives them out; jsonschema is in the environment `ray`.
SCHEMAS = REPO / "configs" / "native" / "skypilot.json"
VALIDATE = """
import json, sys, jsonschema
schemas, task = json.load(open(sys.argv[1])), json.load(sys.stdin)
jsonschema.validate(task, schemas["task"])
jsonschema.validate(task["resources"], schemas["resources"])
for mount in task["file_mounts"].values():
    jsonschema.validate(mount, schemas["storage"])
"""


def render(repo: Repo, *words: str) -> tuple[dict[str, Any], str]:
    done = repo.launch("render", *words, "--target", "skypilot")
    assert done.returncode == 0, done.stderr
    text = (Path(done.stdout.strip()) / "skypilot.yaml").read_text()
    task = yaml.safe_load(text)
    assert isinstance(task, dict)
    return task, text


@pytest.mark.parametrize("words", [
    ("min_o1/sft_short", "--set", "train.learning_rate=2e-5"),
    ("sky_t1/sft_2x8",),
    ("long_cot/grpo_llama_instruct_think",),
])  # fmt: skip
def test_skypilots_own_schema_takes_the_task(repo: Repo, words: tuple[str, ...], tmp_path: Path) -> None:
    task, text = render(repo, *words)
    python, given = envs.ensure("ray"), json.dumps(task)
    done = subprocess.run([python, "-c", VALIDATE, SCHEMAS], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong = json.dumps({**task, "resources": {**task["resources"], "acelerators": "H100:8"}})
    assert subprocess.run([python, "-c", VALIDATE, SCHEMAS], input=wrong, capture_output=True, text=True).returncode
    names = [
        mount["name"]
        for mount in (task["file_mounts"]["/posttrain"], render(repo, *words)[0]["file_mounts"]["/posttrain"])
    ]
    assert re.fullmatch(r"posttrain-[a-z0-9-]{1,40}-[0-9a-f]{10}", names[0])
    assert names[0] == names[1]  # a second rendering of the run resumes it
    assert " ".join(f"--secret {name}" for name in task["secrets"]) in text.splitlines()[1]
    cache = "/posttrain/cache" if task.get("num_nodes", 1) > 1 else "/home/me/.cache/posttrain"
    show = (
        next(line for line in task["run"].splitlines() if "POSTTRAIN_CACHE" in line) + '; printf %s "$POSTTRAIN_CACHE"'
    )
    assert (
        subprocess.run(["bash", "-c", show], env={"HOME": "/home/me"}, capture_output=True, text=True).stdout == cache
    )
    for part in ("setup", "run"):
        (tmp_path / part).write_text("#!/usr/bin/env bash\n" + task[part])
        checked = subprocess.run(["shellcheck", "--severity=style", tmp_path / part], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_each_node_of_a_task_does_its_share(repo: Repo, tmp_path: Path) -> None:
    task, _ = render(repo, "sky_t1/sft_2x8")
    assert (task["num_nodes"], task["resources"]["accelerators"]) == (2, "H100:8")
    script = task["run"].replace("/posttrain", str(tmp_path))
    stub = 'python3() { echo launcher; }\nlauncher() { echo "$NODE_RANK $MASTER_ADDR: $*"; }\n'
    said = []
    for rank in ("0", "1"):
        environ = {"PATH": "/usr/bin:/bin", "SKYPILOT_NODE_RANK": rank, "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
                   "SKYPILOT_TASK_ID": "t"}  # fmt: skip
        done = subprocess.run(["bash", "-c", stub + script], env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append([line.split(" sky_t1")[0] for line in done.stdout.splitlines()])
    first = [f"0 10.0.0.1: -m launchers {verb}" for verb in ("data", "train", "eval", "run")]
    assert said == [first, ["1 10.0.0.1: -m launchers train"]]


def test_what_skypilot_cannot_start_is_said_before(repo: Repo) -> None:
    done = repo.launch("render", "bleuberi/grpo_2x8", "--target", "skypilot")
    assert (done.returncode, "Ray on several nodes is supported only with Slurm" in done.stderr) == (2, True)
