"""A mini reward model: the mini model trained on generated preferences by LlamaFactory's `rm` stage.

The right sum is preferred to a near miss, another number, or an answer without a box. The training pairs include the
eight conversations that every reward-model server is checked with. Two seeds are shipped: one is the training reward,
the other an independent judge.

python -m data_prep.families.mini.reward_model --python LLAMAFACTORY_PYTHON --seed 0 --out recipes/mini/reward_model
"""

import json
import random
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.core.commands import Options, run
from data_prep.core.fingerprint import REPO
from data_prep.core.progress import Progress
from data_prep.families.mini.arithmetic import Split
from data_prep.families.mini.build import TOKENIZER, ask, call, losses, write_rows, write_training
from data_prep.families.mini.worlds import WORLDS
from data_prep.inference.vllm.reward_check import PAIRS

ARITHMETIC = WORLDS["arithmetic"]
ROWS = {1: 200, 2: 40_000}  # training questions by level, each with its own rejected answer
HELD_OUT = {2: 400}
FIXED = 60  # repetitions of each fixed pair
STEPS = 1500
CHANGES = {"stage": "rm", "learning_rate": 1.0e-3, "lr_scheduler_type": "cosine", "max_steps": STEPS}

Pair = dict[str, Any]


class Request(Options):
    """Train a mini reward model (about three minutes on one core)."""

    out: Path
    python: Path = Field(description="interpreter of the llamafactory environment")
    seed: int = 0


def rejected(answer: int, generator: random.Random) -> str:
    """A worse answer than `\\boxed{answer}`; half are near misses."""
    kind = generator.random()
    if kind < 0.5:
        return f"\\boxed{{{max(0, answer + generator.choice((-20, -10, -2, -1, 1, 2, 10, 20)))}}}"
    if kind < 0.85:
        return f"\\boxed{{{(answer + generator.randint(3, 150)) % 200}}}"
    return generator.choice((str(answer), f"\\boxed{{{answer}", f"\\boxed{{{answer}}}\n\\boxed{{{answer}}}", ""))


def pairs(levels: dict[int, int], split: Split, seed: int) -> list[Pair]:
    """Preference pairs from a split's sums: {prompt, completion, rejected}."""
    generator = random.Random(f"preferences {split} {seed}")  # noqa: S311 - no secret
    rows = [(row["prompt"], int(row["answer"])) for row in ARITHMETIC.rows(levels, split, seed, distinct=False)]
    return [
        {"prompt": prompt, "completion": f"\\boxed{{{answer}}}", "rejected": rejected(answer, generator)}
        for prompt, answer in rows
    ]


def fixed_pairs() -> list[Pair]:
    """The conversations that servers are checked with, as pairs."""
    asked = [([{"role": "user", "content": question}], answers) for question, *answers in PAIRS]
    return [{"prompt": prompt, "completion": good, "rejected": bad} for prompt, (good, bad) in asked]


def write_inputs(work: Path, seed: int) -> None:
    """Write LlamaFactory's data and configuration to `work`."""
    rows = [*pairs(ROWS, "train", seed), *fixed_pairs() * FIXED]
    random.Random(seed).shuffle(rows)  # noqa: S311 - no secret
    settings = {key: value for key, value in ARITHMETIC.train.items() if key != "num_train_epochs"}
    write_training(work, "preferences", rows, True, {**settings, **CHANGES, "seed": seed}, "untied")


def build(request: Request, progress: Progress) -> str:
    """Build the reward model in runs/mini_model; returns its record as JSON. Raises DataError."""
    work, out = REPO / f"runs/mini_model/reward-{request.seed}", request.out.resolve()
    shutil.rmtree(work, ignore_errors=True)
    write_inputs(work, request.seed)

    head = partial(ask, request.python, log=work / "log")
    language = REPO / ARITHMETIC.folder
    head("value_head:untie", model=str(language), out=str(work / "untied"))
    call(request.python, ["llamafactory.cli", "train", str(work / "train.yaml")], work / "log")
    out.mkdir(parents=True, exist_ok=True)
    converted = head("value_head:convert", trained=str(work / "trained"), out=str(out))
    for name in TOKENIZER:  # LlamaFactory saves its own chat template
        shutil.copyfile(language / name, out / name)
    write_rows(work / "held_out.jsonl", pairs(HELD_OUT, "test", 1))
    accuracy = head("value_head:accuracy", model=str(out), pairs=str(work / "held_out.jsonl"))
    record = {"seed": request.seed, "steps": STEPS, "losses": losses(work), **converted, **accuracy}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return json.dumps(record)


if __name__ == "__main__":
    sys.exit(run(__doc__, {"": (Request, build)}))
