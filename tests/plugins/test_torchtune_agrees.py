"""torchtune and LlamaFactory, asked by the same recipe: the same tokens are trained on, and the losses are the same.

Both write chatml, here the model's own chat template, and train on the completion, its end token and the line break
after it. In fp32 with all rows in one batch, losses agree to 1e-5 at the first step and, after an update of AdamW, at
the second; DPO's log-probabilities to 1e-4. Known to differ: the rows' order (each shuffles in its own way), the
initial adapters of LoRA, and in bf16 the weights, of which torchtune keeps no fp32 copy.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from launchers import envs
from tests.conftest import REPO, Repo
from tests.plugins.torchtune_run import QUIET

TOLERANCE = 1e-5
RECIPE = """
extends: [../_base/{method}_torchtune.yaml]
model: recipes/mini/model
hardware: cpu
data: rows.jsonl
train: {{global_batch: 24, micro_batch: 24, learning_rate: 1.0e-3, steps: 2, max_length: 64, precision: fp32,
         gradient_checkpointing: false, schedule: linear}}
trainers:
  llamafactory: {{native: {{template: chatml, preprocessing_num_workers: 1, flash_attn: sdpa}}}}
"""
THEIRS = """
import json, sys
from omegaconf import OmegaConf
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
given = {**OmegaConf.to_container(OmegaConf.load(sys.argv[1])), "overwrite_output_dir": True}
model, data, training, tuning, _ = get_train_args(given)
module = load_tokenizer(model)
template = get_template_and_fix_tokenizer(module["tokenizer"], data)
stage = "rm" if tuning.stage == "dpo" else tuning.stage
rows = get_dataset(template, model, data, training, stage=stage, **module)["train_dataset"]
for row in rows:
    if stage == "rm":
        names = [side + "_" + key for side in ("chosen", "rejected") for key in ("input_ids", "labels")]
        print("ROW", json.dumps([row[name] for name in names]))
    else:
        print("ROW", json.dumps([row["input_ids"], row["labels"]]))
"""
OURS = """
import json, sys
from pathlib import Path
from torchtune import config
from launchers.plugins.torchtune.train import compose
cfg = compose(Path(sys.argv[1]))
rows = config.instantiate(cfg.dataset, config.instantiate(cfg.tokenizer))
names = ["tokens", "labels"]
if len(sys.argv) > 2:
    names = ["chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"]
for row in rows:
    print("ROW", json.dumps([[int(token) for token in row[name]] for name in names]))
"""


def _rows(python: Path, script: str, *words: object) -> list[list[list[int]]]:
    done = subprocess.run(
        [str(python), "-c", script, *map(str, words)],
        cwd=REPO, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line.removeprefix("ROW ")) for line in done.stdout.splitlines() if line.startswith("ROW ")]


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "train" / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.full
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_same_rows_and_the_same_losses(repo: Repo, method: str, llamafactory_python: Path) -> None:
    lines = []
    for n in range(24):
        row = {"id": f"r{n}", "source": "sums", "prompt": [{"role": "user", "content": f"{n + 10}+{2 * n + 10}=?"}]}
        if n % 3 == 0:
            row["prompt"].insert(0, {"role": "system", "content": "12"})
        lines.append({**row, "completion": f"\\boxed{{{3 * n + 20}}}", "rejected": f"\\boxed{{{n}}}"})
    repo.write("recipes/x/rows.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    repo.write("recipes/x/y.yaml", RECIPE.format(method=method))
    runs = {}
    for trainer in ("torchtune", "llamafactory"):
        done = repo.launch("run", "x/y", "--set", f"trainer={trainer}", "--json", OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        runs[trainer] = Path(json.loads(done.stdout)["run"])
        assert "Nothing has been evaluated" in (runs[trainer] / "report.html").read_text()
    ours, theirs = _log(runs["torchtune"]), _log(runs["llamafactory"])[:2]
    for step in (0, 1):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], abs=TOLERANCE)
        assert ours[step]["lr"] == pytest.approx(theirs[step]["lr"])
    assert abs(ours[0]["loss"] - ours[1]["loss"]) > 1e-3, "something is learned between the two"
    if method == "dpo":
        history = json.loads((runs["llamafactory"] / "train" / "trainer_state.json").read_text())["log_history"]
        for step in (0, 1):
            for side in ("chosen", "rejected"):
                assert ours[step][f"log_probs/{side}"] == pytest.approx(history[step][f"logps/{side}"], abs=1e-4)
            assert ours[step]["rewards/margins"] == pytest.approx(history[step]["rewards/margins"], abs=1e-4)
        for run in runs.values():
            assert "Reward margin" in (run / "report.html").read_text()
    words = ["pairs"] if method == "dpo" else []
    tuned = _rows(envs.ensure("torchtune", "cpu"), OURS, runs["torchtune"] / "train", *words)
    known = _rows(llamafactory_python, THEIRS, runs["llamafactory"] / "train" / "llamafactory.yaml")
    assert len(tuned) == 24
    assert tuned == known
