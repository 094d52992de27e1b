"""Checks the model, tokenizer, reward, prompts and reference answers that a verl config refers to."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet
from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig

from data_prep.text.chat_template import no_template
from launchers.plugins import lora
from rewards import Reward, RewardError
from rewards.code.reward import CodeReward
from rewards.combine import CombineReward
from rewards.serving import verl as adapter
from verl.utils import hf_tokenizer

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
KWARGS = "reward.custom_reward_function.reward_kwargs"
SHOWN = 5
UNUSED = "127.0.0.1:9"  # given an address, the adapter does not wait for a server
GOLDS_CHECKED = 2000  # distinct reference answers; algebra takes about 1 ms each
# Rewards whose check of reference answers needs no program, server or model.
CHECKED = ("math", "choice", "exact", "numeric", "bleu", "rouge_l", "bleu_rouge_f1", "chrf", "keywords")


@dataclass(frozen=True)
class NativeFault:
    """One mistake: verl's dotted key, and a message with what is wrong and what to do."""

    key: str
    message: str


Faults = Iterator[NativeFault]
_at = OmegaConf.select


def first_line(problem: BaseException) -> str:
    """The first line of an exception's text, or its name."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


@dataclass(frozen=True)
class Model:
    """A model's config and tokenizer. Weights are not loaded."""

    config: Any
    tokenizer: Any


def model(config: DictConfig, role: str) -> Model | NativeFault:
    """The model of a role, loaded as verl loads it, or its fault."""
    key = f"{role}.model.path"
    names = ("path", "hf_config_path", "tokenizer_path", "trust_remote_code", "custom_chat_template")
    path, config_path, tokenizer_path, trust, template = (_at(config, f"{role}.model.{name}") for name in names)
    try:
        loaded = AutoConfig.from_pretrained(config_path or path, trust_remote_code=trust)
        tokenizer = hf_tokenizer(tokenizer_path or path, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as problem:
        return NativeFault(key, f"{path} cannot be loaded: {first_line(problem)}")
    tokenizer.chat_template = template or tokenizer.chat_template
    if not tokenizer.chat_template:
        return NativeFault(key, no_template(path))
    return Model(loaded, tokenizer)


def of_model(given: DictConfig, config: Any) -> Faults:
    """Settings of the config that the model does not support."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    prompt, response, limit = (_at(given, key) for key in (
        "data.max_prompt_length", "data.max_response_length", f"{ROLLOUT}.max_model_len"
    ))  # fmt: skip
    if longest and prompt + response > longest:
        yield NativeFault(
            "data.max_response_length",
            f"{prompt} prompt + {response} response tokens exceed the model's {longest} positions: "
            f"use at most {max(longest - prompt, 0)}",
        )
    elif longest and (limit or 0) > longest:
        yield NativeFault(f"{ROLLOUT}.max_model_len", f"{limit} exceeds the model's {longest} positions")
    targets, rank = (_at(given, f"actor_rollout_ref.model.{name}") for name in ("target_modules", "lora_rank"))
    if rank and OmegaConf.is_list(targets) and (fault := lora.unmatched(config, targets)):
        yield NativeFault("actor_rollout_ref.model.target_modules", fault)
    heads, tensor = text.num_attention_heads, _at(given, f"{ROLLOUT}.tensor_model_parallel_size")
    if heads % tensor:
        yield NativeFault(
            f"{ROLLOUT}.tensor_model_parallel_size", f"{tensor} does not divide the model's {heads} attention heads"
        )


def reward(config: DictConfig) -> NativeFault | adapter.Grader:
    """The grader of the recipe's rewards, or its fault. No server is contacted."""
    given = adapter.plain(OmegaConf.to_container(_at(config, KWARGS), resolve=True))
    try:
        return adapter._grader({**given, "reward_router_address": UNUSED})
    except RewardError as problem:
        return NativeFault(KWARGS, str(problem))


def prompts(config: DictConfig, policy: Model) -> Faults:
    """A fault if too few prompts remain after verl drops those that are too long."""
    limit, words = _at(config, "data.max_prompt_length"), _at(config, "data.apply_chat_template_kwargs") or {}
    render = policy.tokenizer.apply_chat_template
    for split, key, required in (
        ("train", "data.train_files", _at(config, "data.train_batch_size")),
        ("validation", "data.val_files", 1),
    ):
        try:
            chats = [row[_at(config, "data.prompt_key")] for row in _rows(config, key)]
            texts = [render(chat, add_generation_prompt=True, tokenize=False, **words) for chat in chats]
        except (TemplateError, TypeError, ValueError, KeyError) as problem:
            yield NativeFault(key, f"the model's chat template cannot render the prompts: {first_line(problem)}")
            continue
        counts = [len(ids) for ids in policy.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        over = sum(count > limit for count in counts)
        print(f"{split} prompts over the limit: {over} of {len(texts)}", flush=True)
        if len(texts) - over < required:
            named = "data.max_prompt_length" if over else key if required == 1 else "data.train_batch_size"
            remedy = f"use {max(counts)}, or other rows" if over else "add rows, or use a smaller batch"
            why = f"{len(texts) - over} of {len(texts)} prompts remain ({over} have more than {limit} tokens)"
            yield NativeFault(named, f"{why}, but {required} are needed: {remedy}")


def _rows(config: DictConfig, key: str) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(str(_at(config, key))).to_pylist()


def golds(config: DictConfig, grader: adapter.Grader) -> Faults:
    """Rows that the reward cannot grade: a fault in training data, only printed for benchmarks."""
    for key in ("data.train_files", "data.val_files"):
        problems: dict[str, str] = {}  # by distinct reference answer
        for number, given in enumerate(_rows(config, key)):
            source, info = given[_at(config, "data.reward_fn_key")], given.get("extra_info")
            gold = given["reward_model"]["ground_truth"]
            try:
                judge = grader.of(source, info)
            except RewardError as problem:
                yield NativeFault(KWARGS, str(problem))
                return
            row = judge.row(source, gold, info)
            once = json.dumps([source, gold, row.get("references")], default=str)
            if once not in problems and len(problems) < GOLDS_CHECKED:
                why = _gold_problem(judge.reward, row)
                problems[once] = why and f"{row.get('id', f'row {number}')} ({str(gold)[:60]!r}: {why[:200]})"
        if bad := [problem for problem in problems.values() if problem]:
            count = f"{len(bad)} of {len(problems)} reference answers cannot be used by the reward: "
            message = count + "; ".join(bad[:SHOWN])
            if key == "data.train_files":
                yield NativeFault(key, f"{message}: drop these rows (the load step's check_gold does)")
            else:
                print(f"validation: {message}", flush=True)


def _gold_problem(reward: Reward, row: dict[str, Any]) -> str:
    """Why a reward cannot grade a row; "" if it can."""
    if isinstance(reward, CombineReward):
        return next((problem for part in reward.parts if (problem := _gold_problem(part.made, row))), "")
    missing = [name for name in reward.needs if row.get(name) is None]
    if missing:
        return f"no {', '.join(missing)}"
    if isinstance(reward, CodeReward):
        return reward.online_problem(row)
    return reward.gold_problem(row) if reward.name in CHECKED else ""
