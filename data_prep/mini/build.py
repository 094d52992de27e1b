"""Builds the model that recipes use at mini scale: curriculum, untrained model, training, evaluation, card.

The training is LlamaFactory's SFT from random weights, stopped when sampled answers to held-out level-3
questions are right often enough. Everything follows from the seed. `make mini-model` runs

python -m data_prep.mini.build --python LLAMAFACTORY_PYTHON --out recipes/mini/model
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.mini import curriculum

ROOT = Path(__file__).parents[2]
CARD = ROOT / "templates/cards"
WEIGHTS = "model.safetensors"
AS_BUILT = (  # files that training does not change
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)

# What a search over seeds found: recipes/mini/README.md has its table.
MIX = {1: 1, 2: 3, 3: 3, 4: 2}  # shares of the training rows; level 5 stays unseen, hence near 0
STEPS, BATCH = 600, 64  # at most; the stopping rule ends the training long before
HELD_OUT = {2: 32, 3: 256, 4: 32}  # asked at every evaluation during training
EVALUATION = {1: 8, 2: 150, 3: 300, 4: 150, 5: 150}
SAMPLES = 4
STOP = {"level": 3, "settle-at": 12, "settle-steps": 20, "target": 40, "every": 10, "start": 120}
TRAIN: dict[str, Any] = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "full",
    "dataset": "curriculum",
    "template": "chatml",
    "cutoff_len": 160,
    "preprocessing_num_workers": 1,
    "dataloader_num_workers": 0,
    "disable_gradient_checkpointing": True,
    "flash_attn": "sdpa",
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1.0,
    "learning_rate": 3.0e-3,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 20,
    "adam_beta2": 0.98,
    "weight_decay": 0.0,
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 10,
    "save_strategy": "no",
    "report_to": "none",
}


def training_rows(seed: int) -> list[dict[str, Any]]:
    """One epoch of short chains: STEPS × BATCH rows in the shares of MIX. Easy questions come again."""
    share = STEPS * BATCH // sum(MIX.values())
    levels = {level: share * weight for level, weight in MIX.items()}
    levels[max(MIX)] += STEPS * BATCH - sum(levels.values())
    return curriculum.rows(levels, "train", seed=seed, distinct=False)


def write_inputs(work: Path, seed: int) -> None:
    """LlamaFactory's data and configuration, and the held-out questions, into `work`."""
    data = work / "data"
    data.mkdir(parents=True, exist_ok=True)
    chats = [
        {"messages": [*row["prompt"], {"role": "assistant", "content": row["completion"]}]}
        for row in training_rows(seed)
    ]
    (data / "curriculum.json").write_text(json.dumps(chats))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {"file_name": "curriculum.json", "formatting": "sharegpt", "columns": {"messages": "messages"}}
    (data / "dataset_info.json").write_text(json.dumps({"curriculum": {**info, "tags": tags}}))
    held_out = curriculum.rows(HELD_OUT, "test", seed=1)
    (work / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    paths = {
        "model_name_or_path": str(work / "untrained"),
        "dataset_dir": str(data),
        "output_dir": str(work / "trained"),
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    (work / "train.yaml").write_text(json.dumps({**TRAIN, **paths, "seed": seed}, indent=1))  # JSON is YAML


def call(python: Path, arguments: Sequence[str], log: Path) -> str:
    """Run `python -m …` from the repository's root; its standard output. Raises DataError naming the log."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",  # faster at this size, and the order of sums is fixed
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with log.open("a") as errors:
        done = subprocess.run(
            [str(python), "-m", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    if done.returncode:
        raise DataError(f"{arguments[0]} ended with status {done.returncode}; its log is {log}")
    return done.stdout


def train(work: Path, python: Path, seed: int, stop_at: int | None = None) -> list[dict[str, Any]]:
    """Untrained model, then training in `work`; the evaluations made on the way. Raises DataError."""
    log = work / "log"
    call(python, ["data_prep.mini.model", str(work / "untrained"), "--seed", str(seed)], log)
    stop = [f"--{name}={value}" for name, value in STOP.items()]
    if stop_at is not None:
        stop.append(f"--stop-at={stop_at}")
    rows = ["--rows", str(work / "held_out.jsonl")]
    plugin = "launchers.plugins.llamafactory.stop_on_accuracy"
    call(python, [plugin, str(work / "train.yaml"), *rows, *stop], log)
    curve = work / "trained/accuracy.jsonl"
    return [json.loads(line) for line in curve.read_text().splitlines()]


def losses(work: Path) -> dict[str, float]:
    """Training loss by step, each the mean over `logging_steps`."""
    state = json.loads((work / "trained/trainer_state.json").read_text())
    return {str(entry["step"]): round(entry["loss"], 4) for entry in state["log_history"] if "loss" in entry}


def cpu_seconds() -> float:
    """CPU time of the parts run so far: unlike wall time, the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card(record: Mapping[str, Any]) -> str:
    """The model card of a build's record (`training.json`)."""
    import jinja2

    loader = jinja2.FileSystemLoader(CARD)
    environment = jinja2.Environment(  # noqa: S701 - Markdown, from numbers of our own
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("mini_model.md.j2").render(record)


def build(out: Path, work: Path, python: Path, seed: int = 0) -> dict[str, Any]:
    """Build the model of `seed` into `out`; the record that is written beside it. Raises DataError."""
    started = cpu_seconds()
    shutil.rmtree(work, ignore_errors=True)
    write_inputs(work, seed)
    curve = train(work, python, seed)
    seconds = round(cpu_seconds() - started)
    out.mkdir(parents=True, exist_ok=True)
    for name in AS_BUILT:  # LlamaFactory would leave out vocab.json and merges.txt
        shutil.copyfile(work / "untrained" / name, out / name)
    shutil.copyfile(work / "trained" / WEIGHTS, out / WEIGHTS)
    levels = ",".join(f"{level}:{count}" for level, count in EVALUATION.items())
    asked = ["data_prep.mini.evaluate", str(out), "--levels", levels, "--samples", str(SAMPLES)]
    record = {
        "seed": seed,
        "steps": curve[-1]["step"],
        "batch": BATCH,
        "mix": MIX,
        "stop": STOP,
        "train": TRAIN,
        "cpu_seconds": seconds,
        "losses": losses(work),
        "curve": curve,
        "samples": SAMPLES,
        **json.loads(call(python, asked, work / "log")),
        "sha256": {
            "untrained": digest(work / "untrained" / WEIGHTS),
            "trained": digest(out / WEIGHTS),
        },
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "README.md").write_text(card(json.loads((out / "training.json").read_text())))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description="build the mini model: some four minutes on one core")
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint and its card go")
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the llamafactory environment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="scratch (default runs/mini_model/seed-N)")
    options = parser.parse_args()
    work = (options.work or ROOT / f"runs/mini_model/seed-{options.seed}").resolve()
    try:
        record = build(options.out.resolve(), work, options.python, options.seed)
    except DataError as error:
        print(f"mini model: {error}", file=sys.stderr)
        sys.exit(error.status)
    means = ", ".join(f"level {level} {found['mean']:.1f} %" for level, found in record["levels"].items())
    cost = f"{record['steps']} steps, {record['cpu_seconds']} CPU seconds"
    print(f"{options.out}: seed {options.seed}, {cost}; {means}")


if __name__ == "__main__":
    main()
