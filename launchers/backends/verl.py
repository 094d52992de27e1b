"""verl: online RL (GRPO, PPO) with our rewards and policy losses, on GPUs or, through our plugin, on a CPU.

A training's folder contains verl.yaml (the production config), cpu.yaml and native.yaml (merged over it, if present),
reward.json, stop.json, models.json (Hub revisions, for which verl has no keys) and origins.json (verl's key to ours).
plugins/verl/train.py reads them in verl's environment.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.sources import tasks
from launchers import harnesses
from launchers.backends.base import Backend, Command, EnvPython, Job, Progress
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
from launchers.checks import inspection
from launchers.errors import Fault
from launchers.machines.hardware import Hardware
from launchers.plan import service
from launchers.recipe.compose import Resolved
from launchers.recipe.online import benchmark_params, is_online, with_thinking
from launchers.recipe.schema import Critic, Recipe
from launchers.render import template, yaml_value
from rewards.thinking import thinking

AGGREGATION = {
    "ppo_clip": "token-mean", "clip_higher": "token-mean", "sequence_mean": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm", "gspo": "seq-mean-token-mean",
}  # fmt: skip
SERVED = ("model", "endpoint", "label", "max_tokens", "key_env")  # parameters specific to one reward model
CPUS_PER_GPU = 3  # reserved by verl's placement groups (single_controller/ray/base.py: max_colocate_count)


class Verl(Backend):
    """Backend for verl 0.9.1."""

    name = "verl"
    env = "verl"
    format = "verl"
    inspects = "launchers.plugins.verl.tokens"
    methods = ("grpo", "ppo")

    def export(self, recipe: Recipe) -> dict[str, Any]:
        """Prompts with reference answers; a reward model needs no reference answers."""
        golds = {"golds": False} if recipe.reward and recipe.reward.name == "model" else {}
        return {"format": self.format, **golds}

    def check(self, resolved: Resolved, hardware: Hardware) -> list[Fault]:
        """Settings that verl would reject late, ignore, or not support on this hardware."""
        recipe = resolved.recipe
        faults = [
            resolved.fault(f"native.{key}", message)
            for key, value in leaves(recipe.native)
            if (message := _native_fault(key, value))
        ]
        if not is_online(recipe) or recipe.rollout is None:
            return faults
        train, engine, cpu = recipe.train, recipe.rollout.tensor_parallel, hardware.device == "cpu"
        gpus = max(1, hardware.gpus_per_node)
        needed = CPUS_PER_GPU * gpus + 1
        span = f"{engine} does not divide the {gpus} GPUs of a node: an engine cannot span nodes"
        cpus = f"a node has {hardware.cpus} CPUs, but verl's workers on its {gpus} GPUs need {needed}"
        rules = (
            (train.schedule == "linear", "train.schedule", "verl supports constant and cosine"),
            (train.lora and train.lora.dropout, "train.lora.dropout", "verl does not support it: set it to 0"),
            (recipe.rollout.engine != "vllm" and not cpu, "rollout.engine", "is for CPUs only: use vllm on GPUs"),
            (cpu and train.precision == "fp16", "train.precision", "use fp32 (or bf16) on a CPU"),
            (gpus % engine, "rollout.tensor_parallel", span),
            (hardware.nodes > 1 and hardware.cpus < needed, "hardware", cpus),
        )
        return faults + [resolved.fault(key, message) for broken, key, message in rules if broken]

    def render(self, job: Job, run: Path) -> dict[str, str]:
        """The layers of verl's config and the other files described above."""
        resolved, folder = job.resolved, job.output
        recipe, cpu = resolved.recipe, job.hardware.device == "cpu"
        assert recipe.rollout
        assert recipe.reward
        assert recipe.algorithm
        train_file = str(job.dataset / "train.parquet")
        values: dict[str, Any] = {
            **dict(recipe),
            "name": resolved.name,
            "control": Path(job.folder).name,
            "recipe": recipe,
            "critic": (recipe.algorithm.critic or Critic()) if recipe.algorithm.advantages == "gae" else None,
            "reward_model": service.colocated(resolved, job.hardware),
            "stop": thinking(recipe.thinking).stop if recipe.thinking else (),
            "hardware": job.hardware,
            "batch": job.batch,
            "train_file": train_file,
            "validation_file": str(job.validation / "validation.parquet") if job.validation else train_file,
            "aggregation": AGGREGATION[recipe.algorithm.loss],
            "estimator": "gae" if recipe.algorithm.advantages == "gae" else f"adv_{recipe.algorithm.advantages}",
            "precision": {"param_dtype": recipe.train.precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            "loggers": ["console", *dict.fromkeys(["file", *recipe.loggers])],
            "reward_file": str(run / folder / "reward.json"),
            "checkpoints": str(run / folder / "checkpoints"),
            "samples_dir": str(run / folder / "samples"),
            "validation_dir": str(run / folder / "validation"),
        }
        files = {
            **inspection.files(job),
            f"{folder}/verl.yaml": template("verl/verl.yaml.j2").render(values),
            f"{folder}/reward.json": as_json(_reward(resolved)),
            f"{folder}/origins.json": as_json(origins(self.name, resolved)),
        }
        if cpu:
            values |= {"world": job.hardware.world, "precision": recipe.train.precision}
            files[f"{folder}/cpu.yaml"] = template("verl/cpu.yaml.j2").render(values)
        if recipe.native:
            files[f"{folder}/native.yaml"] = yaml_value(_nested(recipe.native)) + "\n"
        if pinned := list(_pinned(recipe)):
            files[f"{folder}/models.json"] = as_json(pinned)
        if recipe.second_judge:
            own = {"url": service.address(resolved, "second_judge")}
            params = {key: value for key, value in benchmark_params(recipe, "model", own).items() if key not in SERVED}
            judged = service.judged_tasks(resolved)
            settings = {"validation": values["validation_file"], "tasks": judged, "params": params}
            files[f"{folder}/judge.json"] = as_json(settings)
        if recipe.stop:
            measured = harnesses.measured(recipe.eval.tasks if recipe.eval else ())
            stop = recipe.stop.model_dump(exclude_none=True) | {"metric": measured.model_dump()}
            files[f"{folder}/stop.json"] = as_json(stop)
        return files

    def commands(self, job: Job) -> tuple[Command, ...]:
        """One process checks, trains (with Ray workers, on all nodes) and merges the checkpoint.

        With a second judge, merging is a separate command after the judge has scored the checkpoints.
        """
        environ = {"VERL_USE_EXTERNAL_MODULES": "launchers.plugins.verl", "RAY_USAGE_STATS_ENABLED": "0"}
        if job.hardware.device == "cpu":
            environ |= {
                "VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda", "RAY_worker_niceness": "0",
                "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            }  # fmt: skip
            if job.resolved.recipe.rollout and job.resolved.recipe.rollout.engine == "transformers":
                environ["POSTTRAIN_ROLLOUT"] = "transformers"
        argv = (EnvPython(self.env), "-m", "launchers.plugins.verl.train", job.output)
        train = Command(argv, "train", job.label, tuple(environ.items()), across=job.hardware.across("ray"))
        if job.resolved.recipe.second_judge is None:
            return (train,)
        judge = Command((EnvPython("core"), "-m", "launchers.run.judge", job.output), "judge", job.label,
                        service="second_judge")  # fmt: skip
        return (train, judge, replace(train, phase="merge", across=()))

    def prepare(self, output: Path) -> None:
        """Remove checkpoints and samples after the last complete checkpoint, which verl records in a file."""
        last = last_checkpoint(output)
        for checkpoint in (output / "checkpoints").glob("global_step_*"):
            step = checkpoint.name.removeprefix("global_step_")
            if not step.isdigit() or int(step) > last:
                shutil.rmtree(checkpoint)
        for samples in (*output.glob("samples/*.jsonl"), *output.glob("validation/*.jsonl")):
            if samples.stem.isdigit() and int(samples.stem) > last:
                samples.unlink()

    def progress(self, output: Path) -> Progress | None:
        """Progress from the newest attempt's metrics; after an early stop, planned equals done."""
        planned, stopped = read_json(output / "planned.json"), read_json(output / "stopped.json")
        if planned is None:
            return None
        attempts = sorted((output / "metrics").glob("*.jsonl"), reverse=True)
        entries = (entry for path in attempts for entry in backwards(path))
        steps = (entry for entry in entries if entry.get("data", {}).get("training/global_step") is not None)
        last = next(steps, None)
        done, data = (int(last["step"]), last["data"]) if last else (0, {})
        facts = {ours: data[key] for ours, key in _PROGRESS.items() if key in data}
        return Progress(done, done if stopped and last else int(planned["steps"]), facts)


_PROGRESS = {
    "reward": "critic/score/mean", "accuracy": "accuracy/train", "tokens": "response_length/mean",
    "zero_variance": "groups/zero_variance", "step_s": "timing_s/step",
}  # fmt: skip


def last_checkpoint(output: Path) -> int:
    """The step of the last complete checkpoint; 0 if there is none."""
    path = output / "checkpoints" / "latest_checkpointed_iteration.txt"
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _pinned(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Models with a pinned revision, which verl has no key for, and the verl keys that name them."""
    if recipe.revision:
        keys = ["actor_rollout_ref.model.path", "critic.model.path"]
        yield {"model": recipe.model, "revision": recipe.revision, "keys": keys}
    given = recipe.reward_model
    if given is not None and given.placement == "colocated" and given.revision:
        keys = ["reward.reward_model.model_path"]
        yield {"model": given.model, "revision": given.revision, "keys": keys}


def _reward(resolved: Resolved) -> dict[str, Any]:
    """Settings of rewards/serving/verl.py: the training reward, and each benchmark's reward for validation."""
    recipe = resolved.recipe
    assert recipe.reward
    assert recipe.rollout
    params = with_thinking(recipe.reward.name, recipe.reward.params, recipe.thinking)
    settings: dict[str, Any] = {
        "reward": recipe.reward.name, "params": service.filled(resolved, params),
        "max_errors": recipe.limits.errors, "max_timeouts": recipe.reward.max_timeouts,
    }  # fmt: skip
    if recipe.reward.acc:
        settings["acc"] = recipe.reward.acc
    import rewards

    if rewards.load(recipe.reward.name, **settings["params"]).grouped:
        settings["group_size"] = recipe.rollout.samples
    if recipe.validation and recipe.eval:
        settings["validation"] = {}
        for name in harnesses.ours(recipe.eval):
            reward = tasks.read(name).reward
            params = service.filled(resolved, benchmark_params(recipe, reward.name, reward.params))
            settings["validation"][name] = {"reward": reward.name, "params": params}
    return settings


def _nested(native: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in leaves(native):
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _native_fault(key: str, value: Any) -> str | None:
    known = known_keys("verl")
    legacy = next((old for old in known["legacy"] if key == old or key.startswith(f"{old}.")), None)
    if legacy:
        return f"verl ignores this legacy key: use reward.name, or {known['legacy'][legacy]}"
    if why := owned_fault("verl", key):
        return why
    if key in known["keys"]:
        return value_fault(value, known["keys"][key], "verl")
    if any(key.startswith(f"{free}.") for free in known.get("free", ())):
        return None
    return unknown("verl", key, known["keys"])


BACKEND = Verl()
