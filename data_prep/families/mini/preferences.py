"""The mini world's reward models: LlamaFactory's `rm` stage on preferences between a sum and a near miss.

python -m data_prep.families.mini.preferences build --python LLAMAFACTORY_PYTHON --seed 0 --out recipes/mini/preferences

A pair has one question, the right result as chosen and a wrong one as rejected, both as answers without their chain.
The scalar head that LlamaFactory trains beside the model becomes the `score` layer of a sequence classifier, which vLLM
serves. The head's bias stays out: it cancels in the loss, and shifts every reward by the same constant.
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
from data_prep.families.mini import curriculum
from data_prep.families.mini.build import ROOT, call
from data_prep.families.mini.curriculum import Problem, Split

BASE = ROOT / "recipes/mini/model"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "merges.txt")
LEVELS = {1: 3_000, 2: 30_000}  # level: training pairs
HELD_OUT = {1: 100, 2: 400}
FIXED = 40  # times that each pair of the conversations stands in training with which every server is checked
TRAIN: dict[str, Any] = {
    "stage": "rm",
    "do_train": True,
    "do_eval": True,
    "finetuning_type": "full",
    "dataset": "train",
    "eval_dataset": "test",
    "template": "chatml",
    "cutoff_len": 160,
    "preprocessing_num_workers": 1,
    "dataloader_num_workers": 0,
    "disable_gradient_checkpointing": True,
    "flash_attn": "sdpa",
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 64,
    "max_steps": 500,
    "learning_rate": 1.0e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 20,
    "weight_decay": 0.0,
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 20,
    "save_strategy": "no",
    "report_to": "none",
    "overwrite_cache": True,
}


def answer(result: int | str) -> str:
    """An answer without its chain, as `curriculum.solve` ends one."""
    return f"\\boxed{{{result}}}"


def near_miss(problem: Problem, rng: random.Random) -> int:
    """A wrong result: a slip by one or ten, another digit, or any number of the same length."""
    right = int(problem.answer)
    while True:
        kind = rng.randrange(3)
        if kind == 0:
            result = right + rng.choice((-11, -10, -9, -2, -1, 1, 2, 9, 10, 11))
        elif kind == 1:
            digits = list(problem.answer)
            digits[rng.randrange(len(digits))] = rng.choice("0123456789")
            result = int("".join(digits))
        else:
            result = rng.randrange(10 ** (len(problem.answer) - 1), 10 ** len(problem.answer))
        if result != right and result >= 0:
            return result


def pairs(levels: dict[int, int], split: Split, seed: int) -> list[dict[str, Any]]:
    """Preference pairs in LlamaFactory's ranking format; the same arguments give the same pairs."""
    rng = random.Random(f"preferences {split} {seed}")  # noqa: S311 - reproducible, not secret
    rows = [
        {
            "conversations": [{"role": "user", "content": problem.question}],
            "chosen": {"role": "assistant", "content": answer(problem.answer)},
            "rejected": {"role": "assistant", "content": answer(near_miss(problem, rng))},
        }
        for level, count in levels.items()
        for problem in curriculum.draw(level, split, count, rng, distinct=False)
    ]
    if split == "train":
        from data_prep.inference.vllm.reward_check import conversations  # its packages are not in LlamaFactory's

        chats = conversations()
        rows += FIXED * [
            {"conversations": good[:-1], "chosen": good[-1], "rejected": bad[-1]}
            for good, bad in zip(chats[::2], chats[1::2], strict=True)
        ]
    rng.shuffle(rows)
    return rows


def build(out: Path, work: Path, python: Path, seed: int = 0) -> float:
    """Train the reward model of `seed` into `out`; its accuracy on held-out pairs, 0 to 1. Raises DataError."""
    shutil.rmtree(work, ignore_errors=True)
    data = work / "data"
    data.mkdir(parents=True)
    for name, rows in (("train", pairs(LEVELS, "train", seed)), ("test", pairs(HELD_OUT, "test", 0))):
        (data / f"{name}.json").write_text(json.dumps(rows))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    about = {"formatting": "sharegpt", "ranking": True, "columns": columns, "tags": tags}
    info = {name: {"file_name": f"{name}.json", **about} for name in ("train", "test")}
    (data / "dataset_info.json").write_text(json.dumps(info))
    log = work / "log"
    call(python, ["data_prep.families.mini.preferences", "untie", "--out", str(work / "untied")], log)
    paths = {"model_name_or_path": str(work / "untied"), "dataset_dir": str(data), "output_dir": str(work / "trained")}
    (work / "train.yaml").write_text(json.dumps({**TRAIN, **paths, "seed": seed}, indent=1))  # JSON is YAML
    call(python, ["llamafactory.launcher", str(work / "train.yaml")], log)
    convert = ["data_prep.families.mini.preferences", "convert", "--trained", str(work / "trained"), "--out", str(out)]
    call(python, convert, log)
    return float(json.loads((work / "trained" / "eval_results.json").read_text())["eval_accuracy"])


def untie(out: Path) -> None:
    """The base model with an output layer of its own: LlamaFactory's `rm` stage cannot save a tied one."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(out)
    for name in TOKENIZER:
        shutil.copyfile(BASE / name, out / name)


def convert(trained: Path, out: Path) -> None:
    """LlamaFactory's model and value head as a sequence classifier with one label, in `out`."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(trained, num_labels=1, dtype=torch.float32)
    head = load_file(trained / "value_head.safetensors")
    model.score.weight.data.copy_(head["v_head.summary.weight"])
    model.config.pad_token_id = json.loads((BASE / "config.json").read_text())["pad_token_id"]
    model.save_pretrained(out)
    for name in TOKENIZER:
        shutil.copyfile(BASE / name, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="data_prep.families.mini.preferences", description=str(__doc__).split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="train one: some four minutes on one core")
    make.add_argument("--python", type=Path, required=True, help="interpreter of the llamafactory environment")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--out", type=Path, required=True)
    turn = commands.add_parser("convert", help="a trained value head into a sequence classifier")
    turn.add_argument("--trained", type=Path, required=True)
    turn.add_argument("--out", type=Path, required=True)
    copy = commands.add_parser("untie", help="the base model with an output layer of its own")
    copy.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "untie":
        untie(options.out)
        return
    if options.command == "convert":
        convert(options.trained, options.out)
        return
    work = ROOT / f"runs/mini_model/preferences-{options.seed}"
    try:
        accuracy = build(options.out.resolve(), work, options.python, options.seed)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    print(f"{options.out}: seed {options.seed}, {100 * accuracy:.1f} % of held-out pairs in the right order")


if __name__ == "__main__":
    main()
