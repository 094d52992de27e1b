"""Looks at what a verl config names: the model and its tokenizer, the reward, the prompts and golds of its data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from huggingface_hub import try_to_load_from_cache
from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig

from rewards import Reward, RewardError
from rewards.code.reward import CodeReward
from rewards.combine import CombineReward
from rewards.serving import verl as adapter
from verl.utils import hf_tokenizer

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
KWARGS = "reward.custom_reward_function.reward_kwargs"
HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # sizes that vLLM's CPU attention knows
SHOWN = 5
UNUSED = "127.0.0.1:9"  # with an address, the adapter does not wait for a server
GOLDS_CHECKED = 2000  # different ones; algebra takes about 1 ms each
EXACT = ("math", "choice", "exact", "numeric")  # rewards whose check of a reference answer needs no program or server


@dataclass(frozen=True)
class NativeFault:
    """One mistake: verl's dotted key, and what is wrong, the nearest valid value, what to do."""

    key: str
    message: str


Faults = Iterator[NativeFault]


def _at(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)


def first_line(problem: BaseException) -> str:
    """The first line of an exception's text, or its name."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


@dataclass(frozen=True)
class Model:
    """What is needed of a policy here: its config and tokenizer. Weights are not read."""

    config: Any
    tokenizer: Any


def model(config: DictConfig, role: str, say: Callable[[str], None]) -> Model | NativeFault | None:
    """The model of a role, loaded as verl loads it, or what is wrong with it.

    None, and `say` is told, for one of the Hub's that this machine does not hold: nothing is downloaded for a check.
    """
    key = f"{role}.model.path"
    names = ("path", "hf_config_path", "tokenizer_path", "trust_remote_code", "custom_chat_template")
    path, config_path, tokenizer_path, trust, template = (_at(config, f"{role}.model.{name}") for name in names)
    local = os.path.expanduser(path or "")
    if not path or (local.startswith(("/", ".")) and not os.path.isdir(local)):
        return NativeFault(key, f"no folder {path}: name a model's folder or a Hub id (owner/name)")
    try:
        if not os.path.isdir(local) and not isinstance(try_to_load_from_cache(path, "config.json"), str):
            say(f"{path} is not on this machine: its chat template, its positions and the prompts were not looked at")
            return None
        loaded = AutoConfig.from_pretrained(config_path or local, trust_remote_code=trust, local_files_only=True)
        tokenizer = hf_tokenizer(tokenizer_path or local, trust_remote_code=trust, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as problem:
        return NativeFault(key, f"{path} cannot be loaded: {first_line(problem)}")
    if template:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        return NativeFault(key, f"{path} has no chat template: set {role}.model.custom_chat_template, or take another")
    return Model(loaded, tokenizer)


def of_model(given: DictConfig, config: Any) -> Faults:
    """What a model cannot do that the config asks of it."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    prompt, response, limit = (_at(given, key) for key in (
        "data.max_prompt_length", "data.max_response_length", f"{ROLLOUT}.max_model_len"
    ))  # fmt: skip
    if longest and prompt + response > longest:
        yield NativeFault(
            "data.max_response_length",
            f"{prompt} prompt + {response} response tokens are more than the model's {longest} positions: "
            f"take at most {max(longest - prompt, 0)}",
        )
    elif longest and (limit or 0) > longest:
        yield NativeFault(f"{ROLLOUT}.max_model_len", f"{limit} is more than the model's {longest} positions")
    heads, tensor = text.num_attention_heads, _at(given, f"{ROLLOUT}.tensor_model_parallel_size")
    if heads % tensor:
        yield NativeFault(
            f"{ROLLOUT}.tensor_model_parallel_size", f"{tensor} does not divide the model's {heads} attention heads"
        )
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    engine = os.environ.get("POSTTRAIN_ROLLOUT", _at(given, f"{ROLLOUT}.name"))
    if _at(given, "trainer.device") == "cpu" and engine == "vllm" and size not in HEADS:
        yield NativeFault(
            f"{ROLLOUT}.name", f"vLLM on a CPU cannot serve heads of {size}, this model's: roll out with transformers"
        )


def reward(config: DictConfig) -> NativeFault | adapter.Grader:
    """The grader of the recipe's rewards, or why it cannot be made. A server is not asked."""
    given = adapter.plain(OmegaConf.to_container(_at(config, KWARGS), resolve=True))
    try:
        return adapter._grader({**given, "reward_router_address": UNUSED})
    except RewardError as problem:
        return NativeFault(KWARGS, str(problem))


def data(config: DictConfig, policy: Model | None, grader: adapter.Grader, say: Callable[[str], None]) -> Faults:
    """What is wrong with the rows. `say` is told what was counted."""
    for split, key in (("", "data.train_files"), ("validation ", "data.val_files")):
        try:
            rows = pyarrow.parquet.read_table(str(_at(config, key))).to_pylist()
        except (pa.ArrowException, OSError) as problem:
            yield NativeFault(key, f"{_at(config, key)} cannot be read: {first_line(problem)}")
            continue
        if policy is not None:
            yield from _prompts(config, policy, rows, split, key, say)
        yield from _golds(config, grader, rows, split, key, say)


def _prompts(
    config: DictConfig, policy: Model, rows: list[dict[str, Any]], split: str, key: str, say: Callable[[str], None]
) -> Faults:
    """Counts the prompts that do not fit: verl leaves them out, or cuts them."""
    limit, words = _at(config, "data.max_prompt_length"), _at(config, "data.apply_chat_template_kwargs") or {}
    try:
        texts = [
            policy.tokenizer.apply_chat_template(
                row[_at(config, "data.prompt_key")], add_generation_prompt=True, tokenize=False, **words
            )
            for row in rows
        ]
    except (TemplateError, TypeError, ValueError, KeyError) as problem:
        yield NativeFault(key, f"the model's chat template cannot render the prompts: {first_line(problem)}")
        return
    counts = [len(ids) for ids in policy.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
    over = sum(count > limit for count in counts)
    say(f"{split}prompts over the limit: {over} of {len(rows)}")
    if over and not _at(config, "data.filter_overlong_prompts"):
        yield NativeFault(
            "data.filter_overlong_prompts", f"must be true: {over} of {len(rows)} prompts would be cut from the left"
        )
    cap = "data.val_max_samples" if split else "data.train_max_samples"
    left, most = len(rows) - over, _at(config, cap)
    wanted = 1 if split else _at(config, "data.train_batch_size")
    batch = "the validation needs" if split else f"one batch of {wanted}"
    if left < wanted:
        named = "data.max_prompt_length" if over else key if split else "data.train_batch_size"
        remedy = f"take {max(counts)}, or other rows" if over else "add rows, or take a smaller batch"
        why = f"{left} of {len(rows)} prompts are left ({over} have more than {limit} tokens)"
        yield NativeFault(named, f"{why}, less than {batch}: {remedy}")
    elif 0 < most < wanted:
        yield NativeFault(cap, f"{most} prompts are less than {batch}: take at least {wanted}, or -1 for all")


def _golds(
    config: DictConfig,
    grader: adapter.Grader,
    rows: list[dict[str, Any]],
    split: str,
    key: str,
    say: Callable[[str], None],
) -> Faults:  # fmt: skip
    """Rows that the reward cannot grade: a fault in training data, told of a benchmark (its rows are not ours)."""
    problems: list[str] = []
    seen: set[str] = set()
    for number, given in enumerate(rows):
        source, info = given[_at(config, "data.reward_fn_key")], given.get("extra_info")
        gold = given["reward_model"]["ground_truth"]
        try:
            judge = grader.of(source, info)
        except RewardError as problem:
            yield NativeFault(KWARGS, str(problem))
            return
        row = judge.row(source, gold, info)
        once = json.dumps([source, gold], default=str)
        if once in seen:
            continue
        seen.add(once)
        if len(seen) > GOLDS_CHECKED:
            continue
        if problem := _gold_problem(judge.reward, row):
            problems.append(f"{row.get('id', f'row {number}')} ({str(gold)[:60]!r}: {problem[:200]})")
    checked = min(len(seen), GOLDS_CHECKED)
    if checked < len(seen):
        say(f"{split}golds looked at: {checked} of {len(seen)}")
    if not problems:
        return
    count = f"{len(problems)} of {checked} golds cannot be used by the reward: {'; '.join(problems[:SHOWN])}"
    if split:
        say(f"{split}{count}")
    else:
        yield NativeFault(key, f"{count}: drop these rows (the load step's check_gold does)")


def _gold_problem(reward: Reward, row: dict[str, Any]) -> str:
    """Why a reward cannot grade a row, or nothing."""
    if isinstance(reward, CombineReward):
        return next((problem for part in reward.parts if (problem := _gold_problem(part.reward, row))), "")
    lacking = [name for name in reward.needs if row.get(name) is None]
    if lacking:
        return f"no {', '.join(lacking)}"
    if isinstance(reward, CodeReward):
        return reward.online_problem(row)
    return reward.check_gold(row)[1] if reward.name in EXACT else ""
