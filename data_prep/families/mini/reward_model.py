"""A mini reward model: the mini model trained on generated preferences by LlamaFactory's `rm` stage.

The right sum is preferred to a near miss, to another number and to an answer without its box. The eight conversations
that every reward-model server is checked with are among the pairs. Two seeds are shipped: one is trained against, the
other is the second judge.

python -m data_prep.families.mini.reward_model --python LLAMAFACTORY_PYTHON --seed 0 --out recipes/mini/reward_model
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.families.mini.build import ROOT, call, losses
from data_prep.families.mini.worlds import ARITHMETIC, TRAIN
from data_prep.inference.vllm.reward_check import conversations

ROWS = {1: 200, 2: 40_000}  # training questions by level, each with a rejected answer of its own
HELD_OUT = {2: 400}
FIXED = 60  # times that each of the fixed pairs is among the rows
STEPS = 1500
LR = 1.0e-3
TOKENIZER = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")

Pair = dict[str, Any]


def rejected(answer: int, generator: random.Random) -> str:
    """A worse answer than `\\boxed{answer}`: half of them are near misses."""
    kind = generator.random()
    if kind < 0.5:
        return f"\\boxed{{{max(0, answer + generator.choice((-20, -10, -2, -1, 1, 2, 10, 20)))}}}"
    if kind < 0.85:
        return f"\\boxed{{{(answer + generator.randint(3, 150)) % 200}}}"
    return generator.choice((str(answer), f"\\boxed{{{answer}", f"\\boxed{{{answer}}}\n\\boxed{{{answer}}}", ""))


def pairs(levels: dict[int, int], split: str, seed: int) -> list[Pair]:
    """Preference pairs of the sums of a split: {prompt, chosen, rejected}."""
    generator = random.Random(f"preferences {split} {seed}")  # noqa: S311 - no secret
    rows = ARITHMETIC.rows(levels, split, seed, distinct=False)  # type: ignore[arg-type]
    return [
        {
            "prompt": row["prompt"],
            "chosen": f"\\boxed{{{row['answer']}}}",
            "rejected": rejected(int(row["answer"]), generator),
        }
        for row in rows
    ]


def fixed_pairs() -> list[Pair]:
    """The conversations that servers are checked with."""
    chats = conversations()
    return [
        {"prompt": good[:-1], "chosen": good[-1]["content"], "rejected": bad[-1]["content"]}
        for good, bad in zip(chats[::2], chats[1::2], strict=True)
    ]


def write_inputs(work: Path, seed: int) -> None:
    """LlamaFactory's data and configuration into `work`."""
    data = work / "data"
    data.mkdir(parents=True)
    rows = [*pairs(ROWS, "train", seed), *fixed_pairs() * FIXED]
    random.Random(seed).shuffle(rows)  # noqa: S311 - no secret
    turns = [
        {
            "messages": pair["prompt"],
            **{side: {"role": "assistant", "content": pair[side]} for side in ("chosen", "rejected")},
        }
        for pair in rows
    ]
    (data / "preferences.json").write_text(json.dumps(turns))
    info = {
        "file_name": "preferences.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    (data / "dataset_info.json").write_text(json.dumps({"preferences": info}))
    settings = {
        **TRAIN,
        "stage": "rm",
        "dataset": "preferences",
        "learning_rate": LR,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": None,
        "max_steps": STEPS,
        "seed": seed,
        "model_name_or_path": str(work / "untied"),
        "dataset_dir": str(data),
        "output_dir": str(work / "trained"),
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    kept = {key: value for key, value in settings.items() if value is not None}
    (work / "train.yaml").write_text(json.dumps(kept, indent=1))  # JSON is YAML


def build(out: Path, work: Path, python: Path, seed: int) -> dict[str, Any]:
    """Build the reward model of `seed` into `out`; what is known of it. Raises DataError."""
    shutil.rmtree(work, ignore_errors=True)
    write_inputs(work, seed)
    log = work / "log"
    head_of = "data_prep.families.mini.value_head"
    call(python, [head_of, "untie", str(ROOT / ARITHMETIC.folder), str(work / "untied")], log)
    call(python, ["llamafactory.cli", "train", str(work / "train.yaml")], log)
    out.mkdir(parents=True, exist_ok=True)
    head = json.loads(call(python, [head_of, "convert", str(work / "trained"), str(out)], log))
    for name in TOKENIZER:  # LlamaFactory saves a chat template of its own
        shutil.copyfile(ROOT / ARITHMETIC.folder / name, out / name)
    (work / "held_out.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs(HELD_OUT, "test", 1)))
    accuracy = json.loads(call(python, [head_of, "accuracy", str(out), str(work / "held_out.jsonl")], log))
    record = {"seed": seed, "steps": STEPS, "losses": losses(work), **head, **accuracy}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description="build a mini reward model: some three minutes on one core")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the llamafactory environment")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work = ROOT / f"runs/mini_model/reward-{args.seed}"
    try:
        print(json.dumps(build(args.out.resolve(), work, args.python, args.seed)))
    except DataError as error:
        print(f"mini reward model: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
