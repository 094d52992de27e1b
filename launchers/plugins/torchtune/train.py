"""Runs a training in torchtune's environment: checks the config, runs the stock recipe, writes the final model folder.

    python -m launchers.plugins.torchtune.train FOLDER                    (under torchrun for the distributed recipes)

FOLDER contains the files rendered by launchers/backends/torchtune.py. The same command resumes from the last complete
checkpoint.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from launchers.checks.tokens import print_faults
from launchers.render import write

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")


def main(argv: Sequence[str]) -> int:
    """Exit status 2 for an invalid config, with one line per fault."""
    folder, first = Path(argv[0]).resolve(), os.environ.get("RANK", "0") == "0"
    if (folder / "merged" / "done.json").exists():
        return 0
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; the log has a line per step
    config = compose(folder)
    from launchers.plugins.torchtune import check

    if problems := check.faults(config):
        return print_faults(check.explain(problems, json.loads((folder / "origins.json").read_text()))) if first else 2
    return _train(folder, config, first)


def compose(folder: Path) -> DictConfig:
    """The rendered config merged with the recipe's `native` keys; null removes a key."""
    config = OmegaConf.load(folder / "torchtune.yaml")
    native = folder / "native.json"
    overrides: dict[str, Any] = json.loads(native.read_text()) if native.exists() else {}
    rendered = config.optimizer._component_
    for key, value in overrides.items():
        if value is None and "." in key:
            path, last = key.rsplit(".", 1)
            OmegaConf.select(config, path).pop(last, None)
        elif value is None:
            config.pop(key, None)
        else:
            OmegaConf.update(config, key, value, force_add=True)
    if config.optimizer._component_ != rendered and "optimizer.fused" not in overrides:
        config.optimizer.pop("fused", None)  # an argument of AdamW that other optimizers may not have
    return config  # type: ignore[return-value]


def _train(folder: Path, config: DictConfig, first: bool) -> int:
    import torch.distributed

    from launchers.plugins import trackers
    from launchers.plugins.torchtune import checkpoints, cpu, metrics, stock, tokens

    trackers.prepare(folder)
    if config.device == "cpu":
        cpu.install()
    place = fetched(config.checkpointer.checkpoint_dir, config.posttrain.revision)
    for key in ("checkpointer.checkpoint_dir", "ref_checkpointer.checkpoint_dir", "tokenizer.path"):
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, place)
    if first and (faults := tokens.inspected(folder, config)):
        return print_faults(faults)
    last = checkpoints.last(folder)
    config.resume_from_checkpoint = last is not None
    step = config.posttrain.step = int(last.name.removeprefix("step_")) if last else 0
    if first:
        metrics.cut(folder, step)
        (folder / "resolved.yaml").write_text(OmegaConf.to_yaml(config))
        print(f"resuming from step {step}" if last else f"starting {config.posttrain.recipe}", flush=True)
    name = config.posttrain.recipe
    if name.endswith("_distributed") and name != "full_finetune_distributed":  # which initialises it itself
        torch.distributed.init_process_group("gloo" if config.device == "cpu" else "cuda:nccl,cpu:gloo")
        if config.get("fsdp_cpu_offload", False):
            from torchtune import training

            training.set_torch_num_threads()
    recipe = stock.adapted(name)(config)
    try:
        recipe.setup(cfg=config)
    except stock.BadRows as problem:
        return print_faults([str(problem)]) if first else 2
    recipe.train()
    recipe.cleanup()
    if first and recipe.loader.stopped:
        print(f"stopped on request, with a checkpoint at step {recipe.loader.step}", flush=True)
    elif first:
        write(folder / "merged" / "done.json", json.dumps({"step": recipe._plan.steps}))
        print(f"trained {recipe._plan.steps} steps: {folder / 'merged'}", flush=True)
    return 0


def fetched(model: str, revision: str | None, weights: bool = True) -> str:
    """The model's local folder; Hub models are downloaded at their revision (torchtune would use the newest)."""
    if Path(model).is_dir():
        return model
    from huggingface_hub import constants, snapshot_download

    offline = constants.HF_HUB_OFFLINE  # use the cache on a compute node without a network
    patterns = PATTERNS if weights else PATTERNS[1:]
    return snapshot_download(model, revision=revision, allow_patterns=list(patterns), local_files_only=offline)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
