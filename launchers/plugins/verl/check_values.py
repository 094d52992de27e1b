"""What must agree between the keys of a verl config: batches and GPUs, loss and advantages, KL, sampling, checkpoints.

verl finds these out once Ray runs and the model is loaded, or never: then a key is simply not read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

from launchers.plugins.verl.check_tree import ACTOR, REF, ROLLOUT, Broken, NativeFault, Values
from launchers.plugins.verl.registry import AGGREGATION, ESTIMATORS, LOSSES, clip_range
from verl.utils.torch_dtypes import PrecisionType

Faults = Iterator[NativeFault]
# Advantages that compare the completions of one prompt.
GROUPED = {
    *ESTIMATORS, "gdpo", "gpg", "grpo", "grpo_passk", "grpo_vectorized", "opo", "reinforce_plus_plus_baseline",
    "rloo", "rloo_vectorized", "optimal_token_baseline", "tir_optimal_token_baseline",
}  # fmt: skip
RESUMED = ("model", "optimizer", "extra")  # extra: the schedule and the random numbers


def disagreements(of: Values) -> Faults:
    """Faults between keys, each of which has a value that verl can read (check_tree)."""
    for check in (
        _trainer, _resume, _checkpoints, _world, _step, _mini_batches, _log_probs, _lengths, _loss, _advantages,
        _truncation, _kl, _sampling, _unread, _precision,
    ):  # fmt: skip
        with suppress(Broken):
            yield from check(of)


def _trainer(of: Values) -> Faults:
    if of["trainer.use_v1"]:
        yield NativeFault("trainer.use_v1", "must be false: our losses and measures are in the synchronous trainer")
    if of["trainer.v1.trainer_mode"] != "sync":
        yield NativeFault("trainer.v1.trainer_mode", "is read by the v1 trainer only, which we do not use: take sync")
    if not of["actor_rollout_ref.hybrid_engine"]:
        yield NativeFault("actor_rollout_ref.hybrid_engine", "must be true: verl has no other in this trainer")
    for role in of.roles:
        if of["trainer.device"] == "cpu" and of[f"{role}.strategy"] != "fsdp2":
            yield NativeFault(f"{role}.strategy", f"{of[f'{role}.strategy']} needs a GPU: on a CPU take fsdp2")
    if of["trainer.val_only"] and not of["trainer.val_before_train"]:
        yield NativeFault("trainer.val_only", "validates before the first step: set trainer.val_before_train=True too")


def _resume(of: Values) -> Faults:
    if of["trainer.resume_mode"] == "resume_path":
        path, key = of["trainer.resume_from_path"], "trainer.resume_from_path"
        if not path:
            yield NativeFault(key, "is not set, and resume_mode is resume_path: name a folder …/global_step_<n>")
        elif not path.split("global_step_")[-1].isdigit() or "global_step_" not in path:
            yield NativeFault(key, f"{path!r} must end in global_step_<n>: verl reads the step from it")
        elif not os.path.isdir(path):
            yield NativeFault(key, f"no folder {path}")
    if of["trainer.default_hdfs_dir"]:
        yield NativeFault("trainer.default_hdfs_dir", "verl saves there but cannot resume from it: take it away")


def _checkpoints(of: Values) -> Faults:
    for role in of.roles:
        for key in (f"{role}.checkpoint.save_contents", f"{role}.checkpoint.load_contents"):
            lacking = [name for name in RESUMED if name not in of[key]]
            if lacking and of["trainer.resume_mode"] != "disable":
                yield NativeFault(key, f"lacks {', '.join(lacking)}: a run could not resume; take {', '.join(RESUMED)}")
                break
        if of[f"{role}.checkpoint.async_save"]:
            yield NativeFault(
                f"{role}.checkpoint.async_save",
                "must be false: with it verl never names a last checkpoint, so that nothing resumes",
            )


def _world(of: Values) -> Faults:
    nodes, gpus = of["trainer.nnodes"], of["trainer.n_gpus_per_node"]
    sizes = {name: of[f"{ROLLOUT}.{name}_parallel_size"] for name in ("tensor_model", "data", "pipeline_model")}
    key, engine = f"{ROLLOUT}.tensor_model_parallel_size", math.prod(sizes.values())
    tensor = sizes["tensor_model"]
    if of.world % engine:
        yield NativeFault(
            key,
            f"{engine} GPUs per rollout engine (tensor {tensor} × data {sizes['data']} × pipeline "
            f"{sizes['pipeline_model']}) do not divide {nodes} × {gpus} = {of.world} GPUs: take {_divisors(of.world)}",
        )
    elif gpus % tensor and tensor % gpus:
        yield NativeFault(key, f"{tensor} does not divide the {gpus} GPUs of a node: take {_divisors(gpus)}")
    for role, engine_key in ((ACTOR, f"{ACTOR}.fsdp_config"), ("critic", "critic.fsdp")):
        if role == "critic" and not of.critic:
            continue
        size = of[f"{engine_key}.fsdp_size"]
        if size > 0 and of.world % size:
            yield NativeFault(f"{engine_key}.fsdp_size", f"{size} does not divide {of.world} GPUs; -1 takes all")
        if of.world % _sequence(of, role):
            yield NativeFault(
                f"{role}.ulysses_sequence_parallel_size", f"{_sequence(of, role)} does not divide {of.world} GPUs"
            )


def _sequence(of: Values, role: str) -> int:
    engine = f"{ACTOR}.fsdp_config" if role == ACTOR else "critic.fsdp"
    return int(max(of[f"{role}.ulysses_sequence_parallel_size"], of[f"{engine}.ulysses_sequence_parallel_size"]))


def _step(of: Values) -> Faults:
    """Prompts and completions of a step."""
    n, world, prompts = of[f"{ROLLOUT}.n"], of.world, of["data.train_batch_size"]
    if of["data.gen_batch_size"] not in (None, prompts):
        yield NativeFault("data.gen_batch_size", f"must be data.train_batch_size ({prompts}), or null")
    completions = prompts * n
    if completions % world:
        yield NativeFault(
            "data.train_batch_size",
            f"{prompts} prompts × {n} samples = {completions} completions do not divide by {world} GPUs",
        )
    workers = of[f"{ROLLOUT}.agent.num_workers"]
    if completions % workers:
        yield NativeFault(
            f"{ROLLOUT}.agent.num_workers",
            f"{workers} do not divide the {completions} completions of a step: take {_divisors(completions, workers)}",
        )


def _mini_batches(of: Values) -> Faults:
    """Completions of an update: they divide the step's, and by the GPUs, and a GPU's by its micro batch."""
    n, prompts = of[f"{ROLLOUT}.n"], of["data.train_batch_size"]
    if prompts * n % of.world:
        return  # told of the step already
    for role in of.roles:
        mini, parts = of[f"{role}.ppo_mini_batch_size"], max(of.world // _sequence(of, role), 1)
        told = role == "critic" and mini == of[f"{ACTOR}.ppo_mini_batch_size"]  # it follows the actor's
        key = f"{role}.ppo_mini_batch_size"
        if prompts % mini:
            if not told:
                take = _divisors(prompts, mini)
                yield NativeFault(key, f"{mini} does not divide the {prompts} prompts of a step: take {take}")
        elif mini * n % parts:
            if not told:
                count = f"{mini} prompts × {n} samples = {mini * n} completions"
                yield NativeFault(key, f"{count} an update do not divide by {parts} GPUs")
        elif not of[f"{role}.use_dynamic_bsz"]:
            yield from _micro(f"{role}.ppo_micro_batch_size_per_gpu", of, mini * n // parts)


def _log_probs(of: Values) -> Faults:
    """Forward passes alone, of the policy and of the reference."""
    if of[f"{ACTOR}.use_dynamic_bsz"] != of[f"{ROLLOUT}.log_prob_use_dynamic_bsz"]:
        yield NativeFault(f"{ROLLOUT}.log_prob_use_dynamic_bsz", f"must be what {ACTOR}.use_dynamic_bsz is")
    completions = of["data.train_batch_size"] * of[f"{ROLLOUT}.n"]
    if of[f"{ACTOR}.use_dynamic_bsz"] or completions % of.world:
        return
    rows = completions // max(of.world // _sequence(of, ACTOR), 1)
    reference = of["algorithm.use_kl_in_reward"] or of[f"{ACTOR}.use_kl_loss"]
    for name in (ROLLOUT, REF) if reference else (ROLLOUT,):
        yield from _micro(f"{name}.log_prob_micro_batch_size_per_gpu", of, rows)


def _micro(key: str, of: Values, rows: int) -> Faults:
    """A micro batch must divide what a GPU gets of the whole, `rows`."""
    micro, old = of[key], key.removesuffix("_per_gpu")
    if of[old] is not None:
        yield NativeFault(old, f"is no longer used: set {key}")
    elif micro is None:
        yield NativeFault(key, f"must be set: completions per forward pass, one of {_divisors(rows)}")
    elif rows % micro:
        yield NativeFault(
            key, f"{micro} does not divide the {rows} completions that a GPU gets: take {_divisors(rows, micro)}"
        )


def _divisors(number: int, near: int | None = None) -> str:
    """Divisors of a number to choose from: the six nearest to `near`, else the least."""
    every = [one for one in range(1, number + 1) if number % one == 0]
    chosen = sorted(every, key=lambda one: abs(one - near))[:6] if near else every[:8]
    return ", ".join(map(str, sorted(chosen)))


def _lengths(of: Values) -> Faults:
    prompt, response = of["data.max_prompt_length"], of["data.max_response_length"]
    whole, limit = prompt + response, of[f"{ROLLOUT}.max_model_len"]
    if limit is not None and limit < whole:
        yield NativeFault(
            f"{ROLLOUT}.max_model_len",
            f"{limit} is less than {prompt} prompt + {response} response tokens: take {whole}, or shorten them",
        )
    for name, key in (("prompt", "max_prompt_length"), ("response", "max_response_length")):
        if of[f"{ROLLOUT}.{name}_length"] != of[f"data.{key}"]:
            yield NativeFault(f"{ROLLOUT}.{name}_length", f"must be data.{key} ({of[f'data.{key}']}): leave it out")
    for role in of.roles:
        tokens = of[f"{role}.ppo_max_token_len_per_gpu"] * _sequence(of, role)
        if of[f"{role}.use_dynamic_bsz"] and tokens < whole:
            yield NativeFault(
                f"{role}.ppo_max_token_len_per_gpu", f"{tokens} tokens do not hold one completion of {whole}"
            )


def _loss(of: Values) -> Faults:
    name, aggregation = of[f"{ACTOR}.policy_loss.loss_mode"], of[f"{ACTOR}.loss_agg_mode"]
    if name in LOSSES:
        wanted = AGGREGATION[LOSSES[name]]
        if aggregation != wanted:
            yield NativeFault(f"{ACTOR}.loss_agg_mode", f"{aggregation} is not what loss {name} does: take {wanted}")
        if wanted == "seq-mean-token-sum-norm" and not of[f"{ACTOR}.loss_scale_factor"]:
            yield NativeFault(
                f"{ACTOR}.loss_scale_factor",
                f"loss {name} divides by it: take data.max_response_length ({of['data.max_response_length']})",
            )
        limits = {key: of[f"{ACTOR}.{key}"] for key in ("clip_ratio_low", "clip_ratio_high")}
        try:
            clip_range(name, SimpleNamespace(**limits))
        except ValueError as problem:
            other = "ppo_clip" if name == "clip_higher" else "clip_higher"
            yield NativeFault(f"{ACTOR}.clip_ratio_high", f"{problem}; or take loss {other}")
    if name == "dro" and of[f"{ACTOR}.policy_loss.dro_beta"] is None:
        yield NativeFault(f"{ACTOR}.policy_loss.dro_beta", "must be set: loss dro has no default for it")


def _advantages(of: Values) -> Faults:
    name, n = of["algorithm.adv_estimator"], of[f"{ROLLOUT}.n"]
    if n == 1 and name in GROUPED:
        yield NativeFault(
            f"{ROLLOUT}.n", f"with 1 completion a prompt, {name} has nothing to compare: take 2 or more, or gae"
        )
    if of["critic.enable"] is not None and bool(of["critic.enable"]) != (name == "gae"):
        yield NativeFault(
            "critic.enable", f"must be null: {name} {'needs' if name == 'gae' else 'has no use for'} a critic"
        )
    if name in ESTIMATORS and not of["algorithm.norm_adv_by_std_in_grpo"]:
        yield NativeFault("algorithm.norm_adv_by_std_in_grpo", f"is not read by {name}: take adv_none instead")
    if of["algorithm.filter_groups.enable"]:
        yield NativeFault("algorithm.filter_groups.enable", "is read by the v1 trainer only, which we do not use")


def _truncation(of: Values) -> Faults:
    policy, estimator = of["algorithm.truncated"] or "keep", of["algorithm.adv_estimator"]
    if policy == "keep":
        return
    limit, response = of["algorithm.truncated_limit"], of["data.max_response_length"]
    if estimator not in ESTIMATORS:
        yield NativeFault(
            "algorithm.truncated", f"{policy} is read by {', '.join(ESTIMATORS)} only, not by {estimator}: take keep"
        )
    elif limit != response:
        yield NativeFault("algorithm.truncated_limit", f"{limit} must be data.max_response_length ({response})")
    if policy == "penalise" and not of["algorithm.truncated_penalty"]:
        yield NativeFault("algorithm.truncated_penalty", "is added to truncated completions' scores: give one below 0")


def _kl(of: Values) -> Faults:
    in_reward, in_loss = of["algorithm.use_kl_in_reward"], of[f"{ACTOR}.use_kl_loss"]
    if in_reward and in_loss:
        yield NativeFault(
            f"{ACTOR}.use_kl_loss", "KL is charged twice: also algorithm.use_kl_in_reward; set one to false"
        )
    if in_reward and not of["algorithm.kl_ctrl.kl_coef"]:
        yield NativeFault(
            "algorithm.kl_ctrl.kl_coef", "0 charges nothing: give a coefficient, or use_kl_in_reward=False"
        )
    if in_loss and not of[f"{ACTOR}.kl_loss_coef"]:
        yield NativeFault(f"{ACTOR}.kl_loss_coef", "0 charges nothing: give a coefficient, or use_kl_loss=False")
    control = "algorithm.kl_ctrl"
    if in_reward and of[f"{control}.type"] == "adaptive" and of[f"{control}.horizon"] <= 0:
        yield NativeFault(f"{control}.horizon", "must be more than 0 for an adaptive coefficient")


def _sampling(of: Values) -> Faults:
    said = f"{ROLLOUT}.val_kwargs"
    if not of[f"{ROLLOUT}.do_sample"]:
        yield NativeFault(f"{ROLLOUT}.do_sample", "is not read: completions are sampled at rollout.temperature")
    if not of[f"{said}.do_sample"] and of[f"{said}.temperature"]:
        yield NativeFault(
            f"{said}.do_sample",
            f"is not read: validation would sample at temperature {of[f'{said}.temperature']:g}; set that to 0",
        )
    if of[f"{said}.n"] > 1 and not of[f"{said}.temperature"]:
        yield NativeFault(f"{said}.n", f"at temperature 0 all {of[f'{said}.n']} samples are the same: take 1")
    if (of[f"{ROLLOUT}.repetition_penalty"] or 1) != 1:
        yield NativeFault(f"{ROLLOUT}.repetition_penalty", "is not read: verl's agent loop always takes 1.0")
    if of["algorithm.rollout_correction.bypass_mode"] and not of[f"{ROLLOUT}.calculate_log_probs"]:
        yield NativeFault(f"{ROLLOUT}.calculate_log_probs", "must be true: bypass_mode takes these log-probabilities")


def _unread(of: Values) -> Faults:
    """Keys that look as if they did something."""
    for role in of.roles:
        if of[f"{role}.grad_clip"] != of[f"{role}.optim.clip_grad"]:
            yield NativeFault(
                f"{role}.grad_clip", f"is not read by FSDP: set {role}.optim.clip_grad to {of[f'{role}.grad_clip']:g}"
            )
    low, high, both = (of[f"{ACTOR}.clip_ratio{end}"] for end in ("_low", "_high", ""))
    if both not in (low, high, 0.2):
        yield NativeFault(
            f"{ACTOR}.clip_ratio", f"is not read: clip_ratio_low ({low:g}) and clip_ratio_high ({high:g}) are"
        )


def _precision(of: Values) -> Faults:
    for engine in (f"{ACTOR}.fsdp_config", f"{REF}.fsdp_config", *(["critic.fsdp"] if of.critic else [])):
        if of[f"{engine}.dtype"] != "bfloat16":
            yield NativeFault(f"{engine}.dtype", f"is not read by FSDP: set {engine}.mixed_precision.param_dtype")
        for name, dtype in (of[f"{engine}.mixed_precision"] or {}).items():
            if name not in ("param_dtype", "reduce_dtype", "buffer_dtype"):
                yield NativeFault(
                    f"{engine}.mixed_precision.{name}", "is none of param_dtype, reduce_dtype, buffer_dtype"
                )
            elif not any(
                is_it(dtype) for is_it in (PrecisionType.is_fp16, PrecisionType.is_fp32, PrecisionType.is_bf16)
            ):
                yield NativeFault(f"{engine}.mixed_precision.{name}", f"{dtype!r} is none of fp32, bf16, fp16")
