"""LlamaFactory: SFT and DPO (full and LoRA), one process on a laptop, torchrun with DeepSpeed or FSDP on GPUs.

The trainer is started by plugins/llamafactory/train.py (under torchrun on several GPUs), because LlamaFactory's own
command line splits paths at spaces.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from data_prep.writers.llamafactory import entry
from launchers.backends import shared
from launchers.backends.base import Backend, Command, EnvPython, InRun, Job, Progress, torchrun
from launchers.backends.shared import backwards, known_keys, owned_fault, read_json, unknown, value_fault
from launchers.checks import inspection
from launchers.envs import REPO
from launchers.errors import Fault, did_you_mean
from launchers.machines.hardware import Hardware
from launchers.recipe import models
from launchers.recipe.compose import Resolved
from launchers.recipe.schema import Preference, Recipe
from launchers.render import template

_SHORT_NAMES = {"deepspeed": REPO / "configs" / "deepspeed", "fsdp_config": REPO / "configs" / "fsdp"}
_BITSANDBYTES = re.compile(r"bnb|8bit|paged|lion|ademamix")  # optimizers of transformers that need bitsandbytes
_SECRET = re.compile(r"(_token|_api_key|_secret|_webhook_url)$")


class LlamaFactory(Backend):
    """Backend for LlamaFactory 0.9.5."""

    name = "llamafactory"
    env = "llamafactory"
    format = "sharegpt"
    inspects = "launchers.plugins.llamafactory.tokens"
    methods = ("sft", "dpo")
    reference_beside = True
    pair_logits_fp32 = True
    held_out_loss = True
    dequantises = ("fp8", "mxfp4")
    template_key = "native.template"

    def in_place(self, recipe: Recipe) -> bool:
        """True unless adapters have to be merged."""
        return not recipe.train.lora

    def check(self, resolved: Resolved, hardware: Hardware) -> list[Fault]:
        """Check `native` keys, and errors that LlamaFactory would raise only after loading the model."""
        faults = []
        for key, value in resolved.recipe.native.items():
            if message := _native_fault(key, value):
                faults.append(resolved.fault(f"native.{key}", message))
        native = {key: value for key, value in resolved.recipe.native.items() if value is not None}
        faults += _template_faults(resolved)
        if hardware.device == "cpu" and "deepspeed" in native:
            faults.append(resolved.fault("native.deepspeed", "the CPU environment has no DeepSpeed: set it to null"))
        if hardware.device == "cpu" and native.get("enable_liger_kernel"):
            faults.append(resolved.fault("native.enable_liger_kernel", "Liger's kernels need a GPU: set it to null"))
        if "deepspeed" in native and ("fsdp" in native or "fsdp_config" in native):
            faults.append(resolved.fault("native.deepspeed", "DeepSpeed and FSDP exclude each other: set one to null"))
        if _BITSANDBYTES.search(str(native.get("optim"))):
            faults.append(resolved.fault("native.optim", "the environment has no bitsandbytes: use adamw_torch"))
        if native.get("flash_attn") in ("fa2", "fa3"):
            faults.append(
                resolved.fault("native.flash_attn", "the environment has no flash-attn package: use sdpa or auto")
            )
        return faults

    def render(self, job: Job, run: Path) -> dict[str, str]:
        """train/llamafactory.yaml, and the DeepSpeed or FSDP file that it names."""
        recipe, files = job.resolved.recipe, inspection.files(job)
        native = {key: value for key, value in recipe.native.items() if value is not None}
        native.setdefault("template", known_template(recipe.model, recipe.revision))
        if "fsdp_config" in native:
            native.setdefault("fsdp", "full_shard auto_wrap")  # otherwise fsdp_config is ignored
        for key, folder in _SHORT_NAMES.items():
            if isinstance(native.get(key), str):
                source = folder / f"{native[key]}.json"
                name = f"{job.output}/{source.name}"
                files[name] = source.read_text()
                native[key] = str(run / name)
        data = job.dataset
        if job.validation:  # LlamaFactory reads all data sets from one folder
            parts = {"train": job.dataset, "validation": job.validation}
            pairs = recipe.method == "dpo"
            info = {part: entry(str(folder / f"{part}.jsonl"), pairs) for part, folder in parts.items()}
            files[f"{job.output}/dataset_info.json"], data = shared.as_json(info), run / job.output
        files[f"{job.output}/llamafactory.yaml"] = template("llamafactory/train.yaml.j2").render(
            name=job.resolved.name, control=Path(job.folder).name, recipe=recipe, train=recipe.train, batch=job.batch,
            preference=recipe.preference or Preference(),
            loggers=[name for name in recipe.loggers if name != "file"], native=native,
            cpu=job.hardware.device == "cpu", dataset_dir=str(data), validation=job.validation,
            output_dir=str(run / job.output),
        )  # fmt: skip
        if recipe.train.lora:
            files[f"{job.output}/merge.yaml"] = template("llamafactory/merge.yaml.j2").render(
                recipe=recipe, template=native["template"], adapter=str(run / job.output), out=str(run / job.model)
            )
        return files

    def commands(self, job: Job) -> tuple[Command, ...]:
        """One process, or one per GPU under torchrun (DeepSpeed needs torchrun even on one GPU)."""
        python, module = EnvPython(self.env), "launchers.plugins.llamafactory.train"
        argv: tuple[str, ...] = (python, "-m", module, job.output)
        if job.hardware.world > 1 or job.resolved.recipe.native.get("deepspeed"):
            argv = torchrun(self.env, job, module)
        trained = Command(argv, "train", job.label, _environ(job), across=job.hardware.across("torchrun"))
        if not job.resolved.recipe.train.lora:
            return (trained,)
        merging = (python, "-m", "llamafactory.cli", "export", InRun(f"{job.output}/merge.yaml"))
        return (trained, Command(merging, "merge", job.label))

    def prepare(self, output: Path) -> None:
        """Remove incomplete files, so that LlamaFactory resumes from the last complete checkpoint.

        A checkpoint is complete if its trainer_state.json parses: the trainer writes that file last.
        """
        merged = False
        for checkpoint in output.glob("checkpoint-*"):
            if read_json(checkpoint / "trainer_state.json") is not None:
                merged = True
            else:
                shutil.rmtree(checkpoint)
        if not merged:  # no checkpoint: LlamaFactory does not start if the folder itself contains weights
            for pattern in ("*.safetensors", "*.bin", "*.index.json", "trainer_*", "adapter_*"):
                for path in output.glob(pattern):
                    path.unlink()

    def finished(self, output: Path) -> bool:
        """Whether the trainer has written its last file."""
        return (output / "train_results.json").exists()

    def progress(self, output: Path) -> Progress | None:
        """Progress from trainer_state.json after training, else from the log."""
        if (state := read_json(output / "trainer_state.json")) is not None:
            return Progress(state["global_step"], state["max_steps"])
        last = next(backwards(output / "trainer_log.jsonl"), None)
        return Progress(last["current_steps"], last["total_steps"]) if last else None

    def reason(self, log: str) -> str:
        """As in the base class, with a hint for a missing column."""
        line = shared.reason(log)
        return f"{line} (a column that the data does not have)" if line.startswith("KeyError: ") else line


def _environ(job: Job) -> tuple[tuple[str, str], ...]:
    """The memory settings of llamafactory-cli, and for FSDP the setting that makes transformers save the full model.

    transformers does not pass state_dict_type to accelerate, whose FSDP2 default is sharded; Trainer.save_model then
    writes nothing.
    """
    if job.hardware.device == "cpu":
        return ()
    memory = (("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"), ("TORCH_NCCL_AVOID_RECORD_STREAMS", "1"))
    native = job.resolved.recipe.native
    if native.get("fsdp") or native.get("fsdp_config"):
        return (*memory, ("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT"))
    return memory


def known_template(model: str, revision: str | None = None) -> str | None:
    """LlamaFactory's name of a model's chat template: from its table of Hub ids, else from the model, else that of
    another owner's model with the same name (unsloth/phi-4)."""
    named: dict[str, str] = known_keys("llamafactory")["template"]["models"]
    if own := named.get(model) or models.template(model, revision):
        return own
    copies = {known.partition("/")[2].lower(): template for known, template in named.items()}
    return None if Path(model).is_dir() else copies.get(model.partition("/")[2].lower())


def _template_faults(resolved: Resolved) -> list[Fault]:
    """A chat template that is unknown, or that belongs to another family than the Hub model.

    Differences within a family, and templates of local folders, are found by the comparison of tokens before a run. If
    a local model's own template has no name, such as a zero model's, LlamaFactory parses it.
    """
    given: Any = resolved.recipe.native.get("template")
    model = resolved.recipe.model
    own = known_template(model, resolved.recipe.revision)
    if own is None and given is None and not (Path(model).is_dir() and models.own_template(model)):
        message = f"missing: the chat template of {model!r} is unknown; set LlamaFactory's name for it, e.g. qwen"
        return [resolved.fault("native.template", message)]
    named = known_keys("llamafactory")["template"]["models"].values()  # without generic ones such as chatml
    if own is None or given not in named or Path(model).is_dir() or _is_same_family(given, own):
        return []
    message = f"{given!r} is not the chat template of {model!r}, which is {own!r}: remove native.template"
    return [resolved.fault("native.template", message)]


def _is_same_family(first: str, second: str) -> bool:
    """Whether two template names begin with the same word: qwen3_nothink and qwen, deepseekr1 and deepseek3."""
    words = sorted(re.split(r"[^a-z]", name)[0] for name in (first, second))
    return words[1].startswith(words[0])


def _native_fault(key: str, value: Any) -> str | None:
    known = known_keys("llamafactory")
    if _SECRET.search(key):
        return "secrets must not be in a recipe: set them in the environment (HF_TOKEN, WANDB_API_KEY, …)"
    if why := owned_fault("llamafactory", key):
        ignored = " (LlamaFactory would accept this key and ignore it in training)" if key == "max_length" else ""
        return f"{why}{ignored}"
    if key not in known:
        return unknown("LlamaFactory", key, known)
    if key in _SHORT_NAMES and isinstance(value, str):
        names = sorted(path.stem for path in _SHORT_NAMES[key].glob("*.json"))
        folder = _SHORT_NAMES[key].relative_to(REPO)
        return None if value in names else f"no {value!r} in {folder}; {did_you_mean(Path(value).stem, names)}"
    return value_fault(value, known[key], "LlamaFactory")


BACKEND = LlamaFactory()
