"""Builds a model that recipes use at mini scale: curriculum, untrained model, training, evaluation, card.

The training is LlamaFactory's SFT from random weights, stopped when sampled answers to held-out questions are right
often enough (worlds.py says which). Everything follows from the seed. `make mini-model` runs

python -m data_prep.families.mini.build --python LLAMAFACTORY_PYTHON --subject arithmetic --out recipes/mini/model
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
from data_prep.families.mini.worlds import ARITHMETIC, WORLDS, World

ROOT = Path(__file__).parents[3]
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


def write_inputs(work: Path, seed: int, world: World = ARITHMETIC) -> None:
    """LlamaFactory's data and configuration, and the held-out questions, into `work`."""
    data = work / "data"
    data.mkdir(parents=True, exist_ok=True)
    chats = [
        {"messages": [*row["prompt"], {"role": "assistant", "content": row["completion"]}]}
        for row in world.training_rows(seed)
    ]
    (data / "curriculum.json").write_text(json.dumps(chats))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {"file_name": "curriculum.json", "formatting": "sharegpt", "columns": {"messages": "messages"}}
    (data / "dataset_info.json").write_text(json.dumps({"curriculum": {**info, "tags": tags}}))
    held_out = world.rows(world.held_out, "test", seed=1)
    (work / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    paths = {
        "model_name_or_path": str(work / "untrained"),
        "dataset_dir": str(data),
        "output_dir": str(work / "trained"),
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    (work / "train.yaml").write_text(json.dumps({**world.train, **paths, "seed": seed}, indent=1))  # JSON is YAML


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


def train(
    work: Path, python: Path, seed: int, world: World = ARITHMETIC, stop_at: int | None = None
) -> list[dict[str, Any]]:
    """Untrained model, then training in `work`; the evaluations made on the way. Raises DataError."""
    log = work / "log"
    made = [
        "data_prep.families.mini.model",
        str(work / "untrained"),
        "--seed",
        str(seed),
        "--subject",
        world.name or world.subject,
    ]
    call(python, made, log)
    stop = [f"--{name}={value}" for name, value in world.stop.items()]
    stop.append(f"--max-tokens={world.max_tokens}")
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


def card(record: Mapping[str, Any], world: World = ARITHMETIC) -> str:
    """The model card of a build's record (`training.json`)."""
    import jinja2

    loader = jinja2.FileSystemLoader(CARD)
    environment = jinja2.Environment(  # noqa: S701 - Markdown, from numbers of our own
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(world.card).render(record)


def evaluated(world: World, model: Path, python: Path, log: Path) -> dict[str, Any]:
    """What goes on the card: `levels` of the first chain, `chains` of others, `also` of another subject, `versions`."""
    levels = ",".join(f"{level}:{count}" for level, count in world.evaluation.items())
    asked = ["data_prep.families.mini.evaluate", str(model), "--subject", world.subject, "--levels", levels]
    asked += ["--samples", str(world.samples), "--max-tokens", str(world.max_tokens)]
    first, *others = (json.loads(call(python, [*asked, "--chain", chain], log)) for chain in world.asked)
    chains = {chain: found["levels"] for chain, found in zip(world.asked[1:], others, strict=True)}
    also = {world.also.subject: evaluated(world.also, model, python, log)["levels"]} if world.also else {}
    return {**first, **({"chains": chains} if chains else {}), **({"also": also} if also else {})}


def build(out: Path, work: Path, python: Path, seed: int = 0, world: World = ARITHMETIC) -> dict[str, Any]:
    """Build the model of `seed` into `out`; the record that is written beside it. Raises DataError."""
    started = cpu_seconds()
    shutil.rmtree(work, ignore_errors=True)
    write_inputs(work, seed, world)
    curve = train(work, python, seed, world)
    seconds = round(cpu_seconds() - started)
    out.mkdir(parents=True, exist_ok=True)
    for name in AS_BUILT:  # LlamaFactory would leave out vocab.json and merges.txt
        shutil.copyfile(work / "untrained" / name, out / name)
    shutil.copyfile(work / "trained" / WEIGHTS, out / WEIGHTS)
    record = {
        "seed": seed,
        "steps": curve[-1]["step"],
        "batch": world.batch,
        "mix": world.mix,
        **({"share": world.share} if world.also else {}),
        "stop": world.stop,
        "train": world.train,
        "cpu_seconds": seconds,
        "losses": losses(work),
        "curve": curve,
        "samples": world.samples,
        **evaluated(world, out, python, work / "log"),
        "sha256": {
            "untrained": digest(work / "untrained" / WEIGHTS),
            "trained": digest(out / WEIGHTS),
        },
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "README.md").write_text(card(json.loads((out / "training.json").read_text()), world))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description="build a mini model: some four minutes on one core")
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint and its card go")
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the llamafactory environment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="scratch (default runs/mini_model/seed-N)")
    parser.add_argument("--subject", choices=list(WORLDS), default="arithmetic")
    options = parser.parse_args()
    world = WORLDS[options.subject]
    work = (options.work or ROOT / f"runs/mini_model/{options.subject}-{options.seed}").resolve()
    try:
        record = build(options.out.resolve(), work, options.python, options.seed, world)
    except DataError as error:
        print(f"mini model: {error}", file=sys.stderr)
        sys.exit(error.status)
    means = ", ".join(f"level {level} {found['mean']:.1f} %" for level, found in record["levels"].items())
    cost = f"{record['steps']} steps, {record['cpu_seconds']} CPU seconds"
    print(f"{options.out}: seed {options.seed}, {cost}; {means}")


if __name__ == "__main__":
    main()
