"""Builds a model for recipes at mini scale: curriculum, untrained model, training, evaluation, card.

Training is LlamaFactory's SFT from random weights, stopped at a target accuracy of sampled answers to held-out
questions (set in worlds.yaml). It is deterministic given the seed. `make mini-model` runs

python -m data_prep.families.mini.build --python LLAMAFACTORY_PYTHON --subject arithmetic --out recipes/mini/model
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.core.commands import Options, run
from data_prep.core.fingerprint import REPO, file_hash
from data_prep.core.progress import Progress
from data_prep.errors import DataError, nearest
from data_prep.families.mini.worlds import WORLDS, World
from data_prep.writers import llamafactory
from data_prep.writers.huggingface import card

WEIGHTS = "model.safetensors"
TOKENIZER = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
AS_BUILT = (*TOKENIZER, "config.json", "generation_config.json", "vocab.json", "merges.txt")  # unchanged by training


class Request(Options):
    """Train a mini model (about four minutes on one core)."""

    out: Path = Field(description="folder for the checkpoint and its card")
    python: Path = Field(description="interpreter of the llamafactory environment")
    seed: int = 0
    subject: str = Field("arithmetic", description=f"one of {', '.join(WORLDS)}")


def write_inputs(work: Path, seed: int, world: World) -> None:
    """Write LlamaFactory's data and configuration, and the held-out questions, to `work`."""
    write_training(work, "curriculum", world.training_rows(seed), False, {**world.train, "seed": seed}, "untrained")
    write_rows(work / "held_out.jsonl", world.rows(world.held_out, "test", seed=1))


def write_training(
    work: Path, name: str, rows: Iterable[dict[str, Any]], pairs: bool, settings: Mapping[str, Any], model: str
) -> None:
    """Write a LlamaFactory data set and train.yaml, the configuration that trains `work / model` on it."""
    data = work / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / f"{name}.json").write_text(json.dumps(list(map(llamafactory.records(pairs), rows))))
    (data / "dataset_info.json").write_text(json.dumps({name: llamafactory.entry(f"{name}.json", pairs)}))
    paths = {
        "dataset": name,
        "dataset_dir": str(data),
        "model_name_or_path": str(work / model),
        "output_dir": str(work / "trained"),
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    (work / "train.yaml").write_text(json.dumps({**settings, **paths}, indent=1))  # JSON is YAML


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def call(python: Path, arguments: Sequence[str], log: Path) -> str:
    """Run `python -m …` from the repository's root and return its stdout. Raises DataError with the log's path."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",  # faster at this size, and makes summation deterministic
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [str(python), "-m", *arguments]
    with log.open("a") as errors:
        done = subprocess.run(
            command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    if done.returncode:
        raise DataError(f"{' '.join(arguments[:2])} ended with status {done.returncode}; its log is {log}")
    return done.stdout


def ask(python: Path, function: str, log: Path, **given: Any) -> Any:
    """Call `module:name` of this package in another environment. Raises DataError with the log's path."""
    return json.loads(call(python, ["data_prep.families.mini", function, json.dumps(given)], log))


def train(work: Path, python: Path, seed: int, world: World, stop_at: int | None = None) -> list[dict[str, Any]]:
    """Create and train the model in `work`; returns the evaluations during training. Raises DataError."""
    log = work / "log"
    ask(python, "model:build", log, out=str(work / "untrained"), seed=seed, subject=world.name)
    stop = [f"--{name}={value}" for name, value in world.stop.items()]
    stop += [f"--max-tokens={world.max_tokens}", *([f"--stop-at={stop_at}"] if stop_at is not None else [])]
    plugin = "launchers.plugins.llamafactory.stop_on_accuracy"
    call(python, [plugin, str(work / "train.yaml"), "--rows", str(work / "held_out.jsonl"), *stop], log)
    return [json.loads(line) for line in (work / "trained/accuracy.jsonl").read_text().splitlines()]


def losses(work: Path) -> dict[str, float]:
    """Training loss by step, averaged over `logging_steps`."""
    state = json.loads((work / "trained/trainer_state.json").read_text())
    return {str(entry["step"]): round(entry["loss"], 4) for entry in state["log_history"] if "loss" in entry}


def cpu_seconds() -> float:
    """CPU time of the child processes so far; unlike wall time it does not depend on load."""
    times = os.times()
    return times.children_user + times.children_system


def evaluated(world: World, model: Path, python: Path, log: Path) -> dict[str, Any]:
    """Results for the card: `levels` of the first chain, `chains` of others, `also` of another subject, `versions`."""
    asked = {"levels": world.evaluation, "samples": world.samples, "max_tokens": world.max_tokens}
    asked |= {"model": str(model), "subject": world.subject}
    first, *others = (ask(python, "evaluate:evaluate", log, chain=chain, **asked) for chain in world.asked)
    chains = {chain: other["levels"] for chain, other in zip(world.asked[1:], others, strict=True)}
    also = {world.also.subject: evaluated(world.also, model, python, log)["levels"]} if world.also else {}
    return {**first, **({"chains": chains} if chains else {}), **({"also": also} if also else {})}


def build(out: Path, work: Path, python: Path, seed: int, world: World) -> dict[str, Any]:
    """Build the model with `seed` into `out`; returns the record that is saved with it. Raises DataError."""
    started = cpu_seconds()
    shutil.rmtree(work, ignore_errors=True)
    write_inputs(work, seed, world)
    curve = train(work, python, seed, world)
    seconds = round(cpu_seconds() - started)
    out.mkdir(parents=True, exist_ok=True)
    for name in AS_BUILT:  # LlamaFactory does not save vocab.json and merges.txt
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
        "sha256": {"untrained": file_hash(work / "untrained" / WEIGHTS), "trained": file_hash(out / WEIGHTS)},
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "README.md").write_text(card(world.card, json.loads((out / "training.json").read_text())))
    return record


def built(request: Request, progress: Progress) -> str:
    """Build the requested model in runs/mini_model; returns a one-line summary. Raises DataError."""
    if request.subject not in WORLDS:
        raise DataError(f"--subject: no {request.subject!r}{nearest(request.subject, WORLDS)}")
    work = REPO / f"runs/mini_model/{request.subject}-{request.seed}"
    record = build(request.out.resolve(), work, request.python, request.seed, WORLDS[request.subject])
    means = ", ".join(f"level {level} {result['mean']:.1f} %" for level, result in record["levels"].items())
    cost = f"{record['steps']} steps, {record['cpu_seconds']} CPU seconds"
    return f"{request.out}: seed {request.seed}, {cost}; {means}"


if __name__ == "__main__":
    sys.exit(run(__doc__, {"": (Request, built)}))
