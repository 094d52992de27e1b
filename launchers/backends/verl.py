"""verl: online RL (GRPO, PPO) with our rewards and our policy losses, on GPUs or, through our plugin, on a CPU.

A training's folder holds verl.yaml (the production config), cpu.yaml and native.yaml (layers over it, where there is
something to say), reward.json, stop.json, model.json (the Hub revision, for which verl has no key) and origins.json
(verl's key to ours). plugins/verl/train.py takes it from there, in verl's environment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.sources import tasks
from launchers.backends import shared
from launchers.backends.base import Command, EnvPython, Job, Progress
from launchers.backends.shared import as_json, backwards, known_keys, leaves, origins, read_json, value_fault
from launchers.checks import inspection
from launchers.errors import Fault, nearest
from launchers.machines.hardware import Hardware
from launchers.plan import service
from launchers.recipe.compose import Resolved
from launchers.recipe.online import is_online, with_thinking
from launchers.recipe.schema import Recipe, our_name
from launchers.render import template, yaml_value

AGGREGATION = {
    "ppo_clip": "token-mean", "clip_higher": "token-mean", "sequence_mean": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm", "gspo": "seq-mean-token-mean",
}  # fmt: skip
# verl's keys to ours: what the template writes from them. In `native` they are refused with our name; a fault that
# verl finds is told with it.
OWNED = {
    "data.train_files": "data", "data.val_files": "eval.tasks", "data.seed": "train.seed",
    "data.max_prompt_length": "rollout.max_prompt_length", "data.max_response_length": "rollout.max_response_length",
    "data.train_batch_size": "rollout.prompts",
    "actor_rollout_ref.model.path": "model",
    "actor_rollout_ref.model.enable_gradient_checkpointing": "train.gradient_checkpointing",
    "actor_rollout_ref.model.lora_rank": "train.lora.rank", "actor_rollout_ref.model.lora_alpha": "train.lora.alpha",
    "actor_rollout_ref.model.target_modules": "train.lora.targets",
    "actor_rollout_ref.actor.ppo_mini_batch_size": "train.global_batch",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": "train.micro_batch",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": "train.micro_batch",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": "train.micro_batch",
    "actor_rollout_ref.actor.policy_loss.loss_mode": "algorithm.loss",
    "actor_rollout_ref.actor.loss_agg_mode": "algorithm.loss",
    "actor_rollout_ref.actor.loss_scale_factor": "algorithm.loss",
    "actor_rollout_ref.actor.clip_ratio": "algorithm.clip_low",
    "actor_rollout_ref.actor.clip_ratio_low": "algorithm.clip_low",
    "actor_rollout_ref.actor.clip_ratio_high": "algorithm.clip_high",
    "actor_rollout_ref.actor.entropy_coeff": "algorithm.entropy_coef",
    "actor_rollout_ref.actor.use_kl_loss": "algorithm.kl", "actor_rollout_ref.actor.kl_loss_type": "algorithm.kl",
    "actor_rollout_ref.actor.kl_loss_coef": "algorithm.kl_coef",
    "actor_rollout_ref.actor.grad_clip": "train.max_grad_norm",
    "actor_rollout_ref.actor.optim.clip_grad": "train.max_grad_norm", "critic.optim.clip_grad": "train.max_grad_norm",
    "actor_rollout_ref.actor.optim.lr": "train.learning_rate",
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "train.schedule",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": "train.warmup_ratio",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": "train.warmup_ratio",
    "actor_rollout_ref.actor.optim.min_lr_ratio": "train.min_learning_rate_ratio",
    "actor_rollout_ref.actor.optim.weight_decay": "train.weight_decay",
    "actor_rollout_ref.actor.optim.betas": "train.adam_beta2",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision": "train.precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision": "train.precision",
    "actor_rollout_ref.rollout.name": "rollout.engine", "actor_rollout_ref.rollout.dtype": "train.precision",
    "actor_rollout_ref.rollout.n": "rollout.samples",
    "actor_rollout_ref.rollout.temperature": "rollout.temperature",
    "actor_rollout_ref.rollout.top_p": "rollout.top_p", "actor_rollout_ref.rollout.top_k": "rollout.top_k",
    "actor_rollout_ref.rollout.seed": "train.seed",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": "rollout.tensor_parallel",
    "actor_rollout_ref.rollout.gpu_memory_utilization": "rollout.memory_share",
    "actor_rollout_ref.rollout.val_kwargs.n": "validation.samples",
    "actor_rollout_ref.rollout.val_kwargs.temperature": "validation.temperature",
    "actor_rollout_ref.rollout.val_kwargs.top_p": "validation.top_p",
    "algorithm.adv_estimator": "algorithm.advantages", "algorithm.gamma": "algorithm.gamma",
    "algorithm.lam": "algorithm.lam", "algorithm.use_kl_in_reward": "algorithm.kl",
    "algorithm.kl_penalty": "algorithm.kl", "algorithm.kl_ctrl.kl_coef": "algorithm.kl_coef",
    "algorithm.truncated": "algorithm.truncated", "algorithm.truncated_penalty": "algorithm.truncated_penalty",
    "algorithm.rollout_correction.rollout_is": "algorithm.correction",
    "algorithm.rollout_correction.rollout_is_threshold": "algorithm.correction_limit",
    "critic.optim.lr": "algorithm.critic.learning_rate", "critic.model.path": "model",
    "critic.ppo_micro_batch_size_per_gpu": "train.micro_batch",
    "reward.custom_reward_function.path": "reward.name", "reward.custom_reward_function.name": "reward.name",
    "reward.custom_reward_function.reward_kwargs": "reward.params", "reward.num_workers": "reward.workers",
    "trainer.total_epochs": "train.epochs", "trainer.total_training_steps": "train.steps",
    "trainer.critic_warmup": "algorithm.critic.warmup_steps", "trainer.logger": "loggers",
    "trainer.test_freq": "validation.every", "trainer.save_freq": "train.save_every",
    "trainer.max_actor_ckpt_to_keep": "train.keep_checkpoints",
    "trainer.n_gpus_per_node": "hardware", "trainer.nnodes": "hardware", "trainer.device": "hardware",
}  # fmt: skip
# What the launcher relies on: changing it would break resuming, reports or the plugin.
FIXED = {
    "trainer.default_local_dir": "every run has a directory of its own",
    "trainer.resume_mode": "a run resumes by itself from its last whole checkpoint",
    "trainer.resume_from_path": "a run resumes by itself from its last whole checkpoint",
    "trainer.rollout_data_dir": "the run directory keeps the samples",
    "trainer.validation_data_dir": "the run directory keeps the samples",
    "trainer.use_v1": "the synchronous trainer is the one that the losses and the tests know",
    "actor_rollout_ref.actor.checkpoint.save_contents": "a run must be able to resume",
    "data.filter_overlong_prompts": "a prompt that is cut from the left is another question",
    "data.truncation": "a prompt that is cut is another question",
    "data.gen_batch_size": "a step takes rollout.prompts",
    "actor_rollout_ref.hybrid_engine": "verl has no other in this trainer",
    "actor_rollout_ref.actor.checkpoint.async_save": "verl would never name a last checkpoint, so nothing would resume",
    "actor_rollout_ref.actor.fsdp_config.dtype": "FSDP does not read it: set train.precision",
    "actor_rollout_ref.rollout.do_sample": "verl does not read it: completions are sampled at rollout.temperature",
    "actor_rollout_ref.rollout.repetition_penalty": "verl's agent loop always takes 1.0",
    "actor_rollout_ref.rollout.prompt_length": "it follows rollout.max_prompt_length",
    "actor_rollout_ref.rollout.response_length": "it follows rollout.max_response_length",
    "actor_rollout_ref.rollout.val_kwargs.do_sample": "verl does not read it: set validation.temperature",
    "algorithm.filter_groups.enable": "only the v1 trainer reads it",
    "algorithm.norm_adv_by_std_in_grpo": "our advantages do not read it: set algorithm.advantages",
    "critic.enable": "it follows algorithm.advantages",
    "reward.reward_manager.name": "naive is the one that ends a run with too many errors",
    "reward.reward_manager.source": "naive is the one that ends a run with too many errors",
    "trainer.default_hdfs_dir": "verl saves there and cannot resume from it",
    "trainer.v1.trainer_mode": "only the v1 trainer reads it",
}
CPUS_PER_GPU = 3  # that verl's placement groups reserve (single_controller/ray/base.py: max_colocate_count)


class Verl:
    """Backend for verl 0.9.1."""

    name = "verl"
    env = "verl"
    inspects = "launchers.plugins.verl.tokens"
    methods: tuple[str, ...] = ("grpo", "ppo")
    pure_bf16 = False
    reference_beside = False
    pair_logits_fp32 = False

    def in_place(self, recipe: Recipe) -> bool:
        """Its checkpoints are merged into the Hub format."""
        return False

    def export(self, recipe: Recipe) -> dict[str, Any]:
        """Prompts with their golds, which only a reward model does without."""
        golds = {"golds": False} if recipe.reward and recipe.reward.name == "model" else {}
        return {"format": "verl", **golds}

    def check(self, resolved: Resolved, hardware: Hardware) -> list[Fault]:
        """What verl would refuse late, accept and ignore, or not do on these machines."""
        recipe = resolved.recipe
        faults = [
            resolved.fault(f"native.{key}", message)
            for key, value in leaves(recipe.native)
            if (message := _native_fault(key, value))
        ]
        if not is_online(recipe) or recipe.rollout is None:
            return faults
        if recipe.train.schedule == "linear":
            faults.append(resolved.fault("train.schedule", "verl has constant and cosine"))
        if recipe.train.lora and recipe.train.lora.dropout:
            faults.append(resolved.fault("train.lora.dropout", "verl's adapters have none: set it to 0"))
        if recipe.rollout.engine != "vllm" and hardware.device != "cpu":
            faults.append(resolved.fault("rollout.engine", "is for CPUs: GPUs roll out with vllm"))
        if hardware.device == "cpu" and recipe.train.precision == "fp16":
            faults.append(resolved.fault("train.precision", "a CPU trains in fp32 (or bf16)"))
        gpus, engine = max(1, hardware.gpus_per_node), recipe.rollout.tensor_parallel
        if gpus % engine:
            told = f"{engine} does not divide {gpus} GPUs, those of a node: an engine does not span nodes"
            faults.append(resolved.fault("rollout.tensor_parallel", told))
        if hardware.nodes > 1 and hardware.cpus < (needed := CPUS_PER_GPU * gpus + 1):
            told = f"a node has {hardware.cpus} CPUs, and verl's workers on its {gpus} GPUs take {needed}"
            faults.append(resolved.fault("hardware", told))
        return faults

    def render(self, job: Job, run: Path) -> dict[str, str]:
        """The layers of verl's config, and the files that go with them."""
        resolved, folder = job.resolved, job.output
        recipe, cpu = resolved.recipe, job.hardware.device == "cpu"
        assert recipe.rollout
        assert recipe.reward
        assert recipe.algorithm
        half = {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}[recipe.train.precision]
        train_file = str(job.dataset / "train.parquet")
        values: dict[str, Any] = {
            "name": resolved.name,
            "control": Path(job.folder).name,
            "recipe": recipe,
            "train": recipe.train,
            "rollout": recipe.rollout,
            "reward": recipe.reward,
            "algorithm": recipe.algorithm,
            "critic": _critic(recipe),
            "validation": recipe.validation,
            "hardware": job.hardware,
            "batch": job.batch,
            "model": recipe.model,
            "train_file": train_file,
            "validation_file": str(job.validation / "validation.parquet") if job.validation else train_file,
            "aggregation": AGGREGATION[recipe.algorithm.loss],
            "estimator": "gae" if recipe.algorithm.advantages == "gae" else f"adv_{recipe.algorithm.advantages}",
            "precision": {"param_dtype": half, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
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
            f"{folder}/origins.json": as_json(origins(OWNED, resolved)),
        }
        if cpu:
            values |= {"world": job.hardware.world, "precision": recipe.train.precision}
            files[f"{folder}/cpu.yaml"] = template("verl/cpu.yaml.j2").render(values)
        if recipe.native:
            files[f"{folder}/native.yaml"] = yaml_value(_nested(recipe.native)) + "\n"
        if recipe.revision:
            files[f"{folder}/model.json"] = as_json({"model": recipe.model, "revision": recipe.revision})
        if recipe.second_judge:
            params = with_thinking("model", {"url": service.address(resolved, "second_judge")}, recipe.thinking)
            judged = service.judged_tasks(resolved)
            settings = {"validation": values["validation_file"], "tasks": judged, "params": params}
            files[f"{folder}/judge.json"] = as_json(settings)
        if recipe.stop:
            measured = tasks.read(recipe.eval.tasks[0]).measured if recipe.eval else tasks.Metric()
            said = recipe.stop.model_dump(exclude_none=True) | {"metric": measured.model_dump()}
            files[f"{folder}/stop.json"] = as_json(said)
        return files

    def commands(self, job: Job) -> tuple[Command, ...]:
        """One process checks, trains (Ray's below it, or on all nodes) and merges the checkpoint.

        With a second judge it merges in a second run, once the checkpoints have been compared.
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
        """Drop checkpoints that a kill left half-written: verl names the last whole one in a file of its own.

        And the samples of steps that will be done again, or with an early stop never.
        """
        last = last_checkpoint(output)
        for checkpoint in (output / "checkpoints").glob("global_step_*"):
            step = checkpoint.name.removeprefix("global_step_")
            if not step.isdigit() or int(step) > last:
                shutil.rmtree(checkpoint)
        for samples in (*output.glob("samples/*.jsonl"), *output.glob("validation/*.jsonl")):
            if samples.stem.isdigit() and int(samples.stem) > last:
                samples.unlink()

    def finished(self, output: Path) -> bool:
        """Whether the model that comes out is there, whole."""
        return (output / "merged" / "done.json").exists()

    def progress(self, output: Path) -> Progress | None:
        """From the newest attempt's metrics; a training that stopped early has done all that it planned."""
        planned, stopped = read_json(output / "planned.json"), read_json(output / "stopped.json")
        if planned is None:
            return None
        last = next((entry for path in _attempts(output) for entry in _backwards(path)), None)
        done = int(last["step"]) if last else 0
        facts = {} if last is None else {ours: last["data"][key] for ours, key in _TOLD.items() if key in last["data"]}
        return Progress(done, done if stopped and last else int(planned["steps"]), facts)

    def reason(self, log: str) -> str:
        """Our own line if there is one, else the last exception that is not Ray's report about a worker."""
        return shared.reason(log)


_TOLD = {
    "reward": "critic/score/mean", "accuracy": "accuracy/train", "tokens": "response_length/mean",
    "zero_variance": "groups/zero_variance", "step_s": "timing_s/step",
}  # fmt: skip


def last_checkpoint(output: Path) -> int:
    """The step of the last whole checkpoint, 0 without one."""
    path = output / "checkpoints" / "latest_checkpointed_iteration.txt"
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _attempts(output: Path) -> list[Path]:
    return sorted((output / "metrics").glob("*.jsonl"), reverse=True)


def _backwards(path: Path) -> Iterator[dict[str, Any]]:
    return (read for read in backwards(path) if read.get("data", {}).get("training/global_step") is not None)


def _critic(recipe: Any) -> Any:
    from launchers.recipe.schema import Critic

    return (recipe.algorithm.critic or Critic()) if recipe.algorithm.advantages == "gae" else None


def _reward(resolved: Resolved) -> dict[str, Any]:
    """Settings of rewards/serving/verl.py: the reward of training, and each benchmark's own for validation."""
    recipe = resolved.recipe
    assert recipe.reward
    assert recipe.rollout
    params = with_thinking(recipe.reward.name, recipe.reward.params, recipe.thinking)
    said: dict[str, Any] = {
        "reward": recipe.reward.name, "params": service.filled(resolved, params),
        "max_errors": recipe.limits.errors, "max_timeouts": recipe.reward.max_timeouts,
    }  # fmt: skip
    if recipe.reward.acc:
        said["acc"] = recipe.reward.acc
    import rewards

    if rewards.load(recipe.reward.name, **said["params"]).grouped:
        said["group_size"] = recipe.rollout.samples
    if recipe.validation and recipe.eval:
        graded = {name: tasks.read(name).reward for name in recipe.eval.tasks}
        said["validation"] = {
            name: {
                "reward": one.name,
                "params": service.filled(resolved, {**one.params, **with_thinking(one.name, {}, recipe.thinking)}),
            }
            for name, one in graded.items()
        }
    return said


def _nested(native: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in leaves(native):
        *path, last = key.split(".")
        here = tree
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return tree


def _native_fault(key: str, value: Any) -> str | None:
    known = known_keys("verl")
    legacy = next((old for old in known["legacy"] if key == old or key.startswith(f"{old}.")), None)
    if legacy:
        return (
            f"verl accepts this old key and ignores it: rewards are named by reward.name, or {known['legacy'][legacy]}"
        )
    if key in OWNED:
        return f"set {OWNED[key]} instead"
    if why := FIXED.get(key):
        return f"cannot be set: {why}"
    if key in known["keys"]:
        return value_fault(value, known["keys"][key], "verl")
    if any(key.startswith(f"{free}.") for free in known.get("free", ())):
        return None
    if ours := our_name(key):
        return f"verl has no such key; here it is {ours}"
    near = nearest(key, known["keys"])
    return f"verl has no such key; did you mean {near!r}?" if near else "verl has no such key"


BACKEND = Verl()
