"""torchtune: SFT and DPO, full and LoRA, with its stock recipes, on one device or several.

A training's folder contains torchtune.yaml, native.json (the recipe's `native` keys, merged over it) and origins.json
(torchtune's key to ours), which plugins/torchtune/train.py reads in torchtune's environment. torchtune is no longer
maintained: every recipe should also run with trainer llamafactory.
"""

import shutil
from pathlib import Path
from typing import Any

from launchers.backends.base import Backend, Command, EnvPython, Job, Progress, torchrun
from launchers.backends.shared import (
    as_json,
    backwards,
    known_keys,
    leaves,
    origins,
    owned_fault,
    read_json,
    unknown,
    value_fault,
)  # fmt: skip
from launchers.backends.torchtune_models import Unsupported, adapters, model_of
from launchers.checks import inspection
from launchers.errors import Fault
from launchers.machines.hardware import Hardware
from launchers.recipe.compose import Resolved
from launchers.recipe.schema import Preference, Recipe
from launchers.render import template

_FREE = ("optimizer", "tokenizer")  # components that may come from another library, with other arguments
_NO_LOSS = ("ipo", "simpo", "orpo")


def stock_recipe(recipe: Recipe, world: int) -> str:
    """The torchtune recipe to run. Full DPO exists only as a distributed recipe, also used on one device."""
    size = "lora" if recipe.train.lora else "full"
    task = "dpo" if recipe.method == "dpo" else "finetune"
    many = world > 1 or (size, task) == ("full", "dpo")
    return f"{size}_{task}_{'distributed' if many else 'single_device'}"


class Torchtune(Backend):
    """Backend for torchtune 0.6.1."""

    name = "torchtune"
    env = "torchtune"
    format = "torchtune"
    inspects = "launchers.plugins.torchtune.tokens"
    methods = ("sft", "dpo")
    pure_bf16 = True

    def check(self, resolved: Resolved, hardware: Hardware) -> list[Fault]:
        """Settings that torchtune would reject late, ignore, or interpret differently."""
        recipe, train = resolved.recipe, resolved.recipe.train
        kind = stock_recipe(recipe, hardware.world)
        faults = [
            resolved.fault(f"native.{key}", message)
            for key, value in leaves(recipe.native)
            if (message := _native_fault(kind, key, value))
        ]
        try:
            model = model_of(recipe.model, recipe.revision)
        except Unsupported as problem:
            faults.append(resolved.fault("model", str(problem)))
        else:
            if train.lora and model.tied and "lm_head" in train.lora.targets:
                faults.append(resolved.fault("train.lora.targets", "lm_head is tied to the embedding: remove it"))
        try:
            if train.lora:
                adapters(train.lora)
        except Unsupported as problem:
            faults.append(resolved.fault("train.lora.targets", str(problem)))
        if train.precision == "fp16":
            faults.append(resolved.fault("train.precision", "torchtune trains in bf16 or fp32"))
        if recipe.preference and recipe.preference.loss in _NO_LOSS:
            faults.append(
                resolved.fault("preference.loss", f"torchtune has sigmoid and hinge, not {recipe.preference.loss}: "
                               "use one of them, or trainer llamafactory")
            )  # fmt: skip
        if train.min_learning_rate_ratio and train.schedule != "cosine":
            faults.append(resolved.fault("train.min_learning_rate_ratio", "needs schedule cosine: remove it"))
        native = dict(leaves(recipe.native))
        if native.get("optimizer_in_bwd") and "optimizer_in_bwd" in known_keys("torchtune")["recipes"][kind]:
            if train.max_grad_norm:
                faults.append(
                    resolved.fault("native.optimizer_in_bwd", "cannot clip gradients: set train.max_grad_norm to 0")
                )
            if train.global_batch != train.micro_batch * hardware.world:
                faults.append(
                    resolved.fault(
                        "native.optimizer_in_bwd",
                        f"cannot accumulate gradients: set train.global_batch to train.micro_batch × {hardware.world}",
                    )
                )
        can_offload = hardware.device == "cuda" and train.gradient_checkpointing
        if native.get("enable_activation_offloading") and not can_offload:
            faults.append(
                resolved.fault("native.enable_activation_offloading", "needs CUDA and train.gradient_checkpointing")
            )
        return faults

    def render(self, job: Job, run: Path) -> dict[str, str]:
        """torchtune.yaml and the files described above."""
        resolved, recipe, folder = job.resolved, job.resolved.recipe, job.output
        kind = stock_recipe(recipe, job.hardware.world)
        model, known = model_of(recipe.model, recipe.revision), known_keys("torchtune")["recipes"][kind]
        values = {
            "name": resolved.name, "control": Path(job.folder).name, "recipe": recipe, "train": recipe.train,
            "batch": job.batch, "kind": kind, "cpu": job.hardware.device == "cpu",
            "model": model.with_lora() if recipe.train.lora else model,
            "lora": adapters(recipe.train.lora) if recipe.train.lora else None,
            "preference": (recipe.preference or Preference()) if recipe.method == "dpo" else None,
            "reference": kind == "full_dpo_distributed",
            "clips": "clip_grad_norm" in known, "known": known,
            "output_dir": str(run / folder), "data_file": str(job.dataset / "train.jsonl"),
            "loggers": [name for name in recipe.loggers if name != "file"],
        }  # fmt: skip
        files = {
            **inspection.files(job),
            f"{folder}/torchtune.yaml": template("torchtune/torchtune.yaml.j2").render(values),
            f"{folder}/origins.json": as_json(origins(self.name, resolved)),
        }
        if recipe.native:
            files[f"{folder}/native.json"] = as_json(dict(leaves(recipe.native)))
        return files

    def commands(self, job: Job) -> tuple[Command, ...]:
        """One process, or one per GPU under torchrun."""
        module = "launchers.plugins.torchtune.train"
        argv: tuple[str, ...] = (EnvPython(self.env), "-m", module, job.output)
        if stock_recipe(job.resolved.recipe, job.hardware.world).endswith("_distributed"):
            argv = torchrun(self.env, job, module)
        return (Command(argv, "train", job.label, across=job.hardware.across("torchrun")),)

    def prepare(self, output: Path) -> None:
        """Remove incomplete folders: a folder is renamed to its final name once it is complete."""
        for partial in (*output.glob("checkpoints/*.partial"), *output.glob("merged.partial")):
            shutil.rmtree(partial)

    def progress(self, output: Path) -> Progress | None:
        """Progress from the log, or from the marker of the finished model."""
        done = read_json(output / "merged" / "done.json")
        if done is not None:
            return Progress(done["step"], done["step"])
        last = next(backwards(output / "trainer_log.jsonl"), None)
        if last is None:
            return None
        facts = {ours: last[name] for ours, name in _PROGRESS.items() if name in last}
        return Progress(last["current_steps"], last["total_steps"], facts)


_PROGRESS = {"loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"}


def _native_fault(kind: str, key: str, value: Any) -> str | None:
    known, first = known_keys("torchtune")["recipes"][kind], key.split(".")[0]
    for refused in (key, first):
        if why := owned_fault("torchtune", refused):
            return why
    if first not in known:
        others = [name for name, keys in known_keys("torchtune")["recipes"].items() if first in keys]
        return f"{kind} does not read it; only {', '.join(others)}" if others else unknown("torchtune", key, known)
    if "." in key and first not in _FREE:
        return _argument_fault(first, key)
    return value_fault(value, {"type": known_keys("torchtune")["types"].get(key, "any")}, "torchtune")


def _argument_fault(component: str, key: str) -> str | None:
    """Fault of an argument that no variant of the component accepts; the plugin checks the selected variant itself."""
    taken = known_keys("torchtune")["arguments"].get(component, [])
    name = key.split(".")[1]
    return None if name in taken else unknown(f"torchtune's {component}", name, taken)


BACKEND = Torchtune()
