"""Runs an online RL training in verl's environment: checks the config, trains with verl, merges the checkpoint.

    python -m launchers.plugins.verl.train FOLDER

FOLDER contains the files rendered by launchers/backends/verl.py. The same command resumes from the last complete
checkpoint; after verl's last step it only merges, and after merging it does nothing.
"""

import contextlib
import datetime
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.core.guard import descendants
from launchers.checks.tokens import print_faults
from launchers.plugins import trackers
from launchers.plugins.verl.stopping import FOLDER, read
from launchers.run.judge import JUDGED

RAY_ROOT = Path("/tmp")  # noqa: S108  # Ray's sockets need short paths; mkdtemp creates the folder in it
HANDED_ON = ("RUN", "VERL_FILE_LOGGER_PATH", "TENSORBOARD_DIR", "WANDB_DIR", "TRACKIO_DIR")
ENDING_S = 10
GRACE_S = 60.0
ENGINE = b"VLLM::EngineCore"  # process title of vLLM's engine


def main(argv: Sequence[str]) -> int:
    """Exit status 2 for an invalid config, with one line per fault."""
    folder = Path(argv[0]).resolve()
    os.environ[FOLDER] = str(folder)
    if os.environ.get("VERL_PLATFORM") == "cpu":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # an empty list contradicts Ray's logical GPUs (num_gpus)
    _clean(folder)
    if (folder / "merged" / "done.json").exists():
        return 0
    if not _ended(folder):
        from launchers.plugins.verl import check, tokens

        try:
            config = check.compose(folder)
        except check.CannotCompose as problem:
            return print_faults([str(problem)])
        pin_models(folder, config)
        if problems := check.faults(config):
            return print_faults(check.explain(problems, read(folder / "origins.json")))
        if faults := tokens.inspected(folder, config):
            return print_faults(faults)
        (folder / JUDGED).unlink(missing_ok=True)
        _train(folder, config)
        if not _ended(folder):
            return 0  # stopped on request: the next start resumes from the checkpoint
    if (folder / "judge.json").exists() and not (folder / JUDGED).exists():
        return 0  # launchers.run.judge selects the checkpoint
    _merge(folder)
    return 0


def pin_models(folder: Path, config: Any) -> None:
    """Download Hub models at their revisions: verl itself would download the newest."""
    if not (file := folder / "models.json").exists():
        return
    from huggingface_hub import constants, snapshot_download
    from omegaconf import OmegaConf

    offline = constants.HF_HUB_OFFLINE  # use the cache on a compute node without a network
    for pinned in json.loads(file.read_text()):
        path = snapshot_download(pinned["model"], revision=pinned["revision"], local_files_only=offline)
        for key in pinned["keys"]:
            OmegaConf.update(config, key, path)


def _ended(folder: Path) -> bool:
    """Whether verl has saved its last step; resuming from it would do another step."""
    last = _last_step(folder)
    planned, stopped = read(folder / "planned.json"), read(folder / "stopped.json")
    return last > 0 and (last >= planned.get("steps", last + 1) or last >= stopped.get("step", last + 1))


def _train(folder: Path, config: Any) -> None:
    from omegaconf import open_dict

    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.main_ppo_v0 import TaskRunner

    attempt = os.environ.get("ATTEMPT") or f"{datetime.datetime.now():%Y%m%dT%H%M%S}"
    metrics = folder / "metrics" / f"{attempt}.jsonl"
    metrics.parent.mkdir(exist_ok=True)
    os.environ["VERL_FILE_LOGGER_PATH"] = str(metrics)  # verl truncates it, hence one file per attempt
    trackers.prepare(folder)
    joins = "RAY_ADDRESS" in os.environ  # an existing multi-node cluster, which does not inherit this environment
    with contextlib.nullcontext() if joins else _ray_folder(folder) as temporary:
        with open_dict(config):
            if joins:
                variables = {key: os.environ[key] for key in (FOLDER, *HANDED_ON) if key in os.environ}
                config.ray_kwargs.ray_init.runtime_env = {"env_vars": variables}
            else:
                config.ray_kwargs.ray_init._temp_dir = str(temporary)
        import ray

        try:
            with engines_watched():
                run_ppo(config, task_runner_class=TaskRunner)
        finally:
            ray.shutdown()
    if stopped := read(folder / "stopped.json"):
        print(f"stopped early: {stopped['why']}", flush=True)


@contextlib.contextmanager
def engines_watched(grace_s: float = GRACE_S, every_s: float = 2.0) -> Iterator[None]:
    """Exit if a vLLM engine below this process has died and verl has not reacted within `grace_s` seconds.

    verl raises an error if it requests completions from a dead engine. If an engine dies during a weight update, the
    sending worker waits forever.
    """
    over = threading.Event()

    def watch() -> None:
        seen: set[int] = set()
        while not over.wait(every_s):
            alive = {pid for pid in descendants(os.getpid()) if _is_engine(pid)}
            if seen - alive and not over.wait(grace_s):
                print("error: a vLLM engine has died, and verl is waiting for it", flush=True)
                os._exit(1)  # the trainer would never return; the guard ends the child processes
            seen |= alive

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _is_engine(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(ENGINE)
    except OSError:
        return False  # the process has just ended


@contextlib.contextmanager
def _ray_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder for Ray's sockets and logs; recorded in ray.json, so that the next start can remove it after a
    kill."""
    made = Path(tempfile.mkdtemp(prefix="ray-", dir=RAY_ROOT))
    (folder / "ray.json").write_text(json.dumps({"folder": str(made)}))
    try:
        yield made
    finally:
        ended = time.monotonic() + ENDING_S
        while descendants(os.getpid()) and time.monotonic() < ended:
            time.sleep(0.1)  # Ray's agents write to the folder until they exit
        _clean(folder)


def _clean(folder: Path) -> None:
    noted = read(folder / "ray.json").get("folder")
    if noted and Path(noted).parent == RAY_ROOT and Path(noted).name.startswith("ray-"):
        shutil.rmtree(noted, ignore_errors=True)
    (folder / "ray.json").unlink(missing_ok=True)


def _merge(folder: Path) -> None:
    """Convert a checkpoint to a Hugging Face folder: the second judge's choice, else after a collapse the best, else
    the last."""
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    step = _chosen(folder)
    actor = folder / "checkpoints" / f"global_step_{step}" / "actor"
    merged, partial = folder / "merged", folder / "merged.partial"
    for old in (merged, partial):
        shutil.rmtree(old, ignore_errors=True)
    _note_adapters(folder, actor)
    merger = FSDPModelMerger(
        ModelMergerConfig(
            operation="merge",
            backend="fsdp",
            local_dir=str(actor),
            target_dir=str(partial),
            hf_model_config_path=str(actor / "huggingface"),
            trust_remote_code=False,
        )
    )
    merger.merge_and_save()
    merger.cleanup()
    if (partial / "lora_adapter").is_dir():
        _merge_adapters(partial)
    (partial / "done.json").write_text(json.dumps({"step": step}))
    partial.rename(merged)
    print(f"merged step {step} into {merged}", flush=True)


def _note_adapters(folder: Path, actor: Path) -> None:
    """Write LoRA rank and alpha, which verl's trainer does not save; without them its merger uses alpha 0."""
    from omegaconf import OmegaConf

    model = OmegaConf.load(folder / "verl.yaml").actor_rollout_ref.model
    if model.lora_rank:
        adapter_config = {"r": model.lora_rank, "lora_alpha": model.lora_alpha, "task_type": "CAUSAL_LM"}
        (actor / "lora_train_meta.json").write_text(json.dumps(adapter_config))


def _merge_adapters(folder: Path) -> None:
    """Merge adapters into the base model, which verl's merger keeps separate."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model = PeftModel.from_pretrained(base, str(folder / "lora_adapter")).merge_and_unload()
    model.save_pretrained(folder)
    shutil.rmtree(folder / "lora_adapter")


def _chosen(folder: Path) -> int:
    best = read(folder / JUDGED).get("best_step") or read(folder / "stopped.json").get("best_step")
    if best and (folder / "checkpoints" / f"global_step_{best}" / "actor").is_dir():
        return int(best)
    return _last_step(folder)


def _last_step(folder: Path) -> int:
    path = folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(path.read_text()) if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
