"""Looks at what a verl config names: the model and its tokenizer, the reward, the prompts and golds of its data."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet
from huggingface_hub import try_to_load_from_cache
from jinja2 import TemplateError
from omegaconf import OmegaConf
from transformers import AutoConfig

from launchers.errors import did_you_mean
from launchers.plugins.verl.check_tree import ROLLOUT, Broken, NativeFault, Values, first_line
from launchers.plugins.verl.dump_keys import managers
from rewards import Reward, RewardError
from rewards.code.reward import CodeReward
from rewards.combine import CombineReward
from rewards.serving import verl as adapter
from verl.utils import hf_tokenizer
from verl.utils.import_utils import load_extern_object

Faults = Iterator[NativeFault]
FUNCTION = "reward.custom_reward_function"
# Anything a module of someone else's may raise while it is imported.
FOREIGN = (
    ImportError, SyntaxError, NameError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError,
    ArithmeticError, AssertionError,
)  # fmt: skip
HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # sizes that vLLM's CPU attention knows
SHOWN = 5
NOBODY = "127.0.0.1:9"  # an address that is never asked: with one, the adapter takes a server's readiness for granted
GOLDS_CHECKED = 2000  # different ones; algebra takes about 1 ms each
EXACT = ("math", "choice", "exact", "numeric")  # rewards whose check of a gold takes no program and no server


@dataclass(frozen=True)
class Model:
    """What is needed of a policy here: its config and tokenizer. Weights are not read."""

    config: Any
    tokenizer: Any


def model(of: Values, role: str, say: Callable[[str], None]) -> Model | NativeFault | None:
    """The model of a role, loaded as verl loads it, or what is wrong with it.

    None, and `say` is told, for one of the Hub's that this machine does not hold: nothing is downloaded for a check.
    """
    key = f"{role}.model.path"
    names = ("path", "hf_config_path", "tokenizer_path", "trust_remote_code", "custom_chat_template")
    path, config_path, tokenizer_path, trust, template = (of[f"{role}.model.{name}"] for name in names)
    local = os.path.expanduser(path or "")
    if not path or (local.startswith(("/", ".")) and not os.path.isdir(local)):
        return NativeFault(key, f"no folder {path}: name a model's folder or a Hub id (owner/name)")
    try:
        if not os.path.isdir(local) and not isinstance(try_to_load_from_cache(path, "config.json"), str):
            say(f"{path} is not on this machine: its chat template, its positions and the prompts were not looked at")
            return None
        config = AutoConfig.from_pretrained(config_path or local, trust_remote_code=trust, local_files_only=True)
        tokenizer = hf_tokenizer(tokenizer_path or local, trust_remote_code=trust, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as problem:
        return NativeFault(key, f"{path} cannot be loaded: {first_line(problem)}")
    if template:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        return NativeFault(key, f"{path} has no chat template: set {role}.model.custom_chat_template, or take another")
    return Model(config, tokenizer)


def of_model(of: Values, config: Any) -> Faults:
    """What a model cannot do that the config asks of it."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    prompt, response, limit = (of[f"{key}"] for key in (
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
    heads, tensor = text.num_attention_heads, of[f"{ROLLOUT}.tensor_model_parallel_size"]
    if heads % tensor and not of.world % tensor:  # else that has been told
        yield NativeFault(
            f"{ROLLOUT}.tensor_model_parallel_size", f"{tensor} does not divide the model's {heads} attention heads"
        )
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    engine = os.environ.get("POSTTRAIN_ROLLOUT", of[f"{ROLLOUT}.name"])
    if of["trainer.device"] == "cpu" and engine == "vllm" and size not in HEADS:
        yield NativeFault(
            f"{ROLLOUT}.name", f"vLLM on a CPU cannot serve heads of {size}, this model's: roll out with transformers"
        )


def reward(of: Values) -> tuple[list[NativeFault], adapter.Grader | None]:
    """What is wrong with the reward; and its grader, if it is one of ours and could be built."""
    faults = list(_manager(of))
    path, name = of[f"{FUNCTION}.path"], of[f"{FUNCTION}.name"]
    if not path:
        if not of["reward.reward_model.enable"]:
            faults.append(
                NativeFault(
                    f"{FUNCTION}.path",
                    "names no reward: verl would choose one by data_source; take pkg://rewards.serving.verl",
                )
            )
        return faults, None
    try:
        function = load_extern_object(path, name)
    except AttributeError:
        return [*faults, NativeFault(f"{FUNCTION}.name", _other_name(path, name))], None
    except FOREIGN as problem:
        cause = problem.__cause__ or problem
        said = f"{type(cause).__name__}: {first_line(cause)}" if cause is not problem else first_line(problem)
        return [*faults, NativeFault(f"{FUNCTION}.path", f"{path} cannot be imported: {said}")], None
    plain = adapter.plain(OmegaConf.to_container(of[f"{FUNCTION}.reward_kwargs"] or OmegaConf.create({}), resolve=True))
    if problem := _call_problem(function, plain):
        return [*faults, NativeFault(f"{FUNCTION}.name", problem)], None
    if function not in (adapter.compute_score, adapter.compute_score_async):
        return faults, None
    try:
        grader = adapter._grader({**plain, "reward_router_address": NOBODY})
    except RewardError as problem:
        return [*faults, NativeFault(f"{FUNCTION}.reward_kwargs", str(problem))], None
    return [*faults, *_ours(of, grader, function is adapter.compute_score)], grader


def _manager(of: Values) -> Faults:
    manager = of["reward.reward_manager"]
    if manager.source == "register":
        if manager.name not in managers():
            yield NativeFault(
                "reward.reward_manager.name",
                f"{manager.name!r} is none of verl's managers; {did_you_mean(manager.name, managers())}",
            )
        elif manager.name == "rate_limited":
            yield NativeFault(
                "reward.reward_manager.name",
                "rate_limited swallows what should end a run with too many errors: take naive",
            )
        return
    try:
        load_extern_object(manager.module.path or "", manager.name)
    except FOREIGN as problem:
        yield NativeFault(
            "reward.reward_manager.module.path", f"{manager.name} cannot be loaded: {first_line(problem)}"
        )


def _other_name(path: str, name: str) -> str:
    module = load_extern_object(path, "__dict__")
    assert isinstance(module, dict)
    functions = [one for one, value in module.items() if inspect.isfunction(value) and not one.startswith("_")]
    return f"{path} has no {name!r}; {did_you_mean(name, functions)}"


def _call_problem(function: Any, given: Mapping[str, Any]) -> str | None:
    """Why verl could not call it, if so."""
    words = dict.fromkeys(("data_source", "solution_str", "ground_truth", "extra_info"))
    if not callable(function):
        return "is not a function"
    try:
        inspect.signature(function).bind(**{**words, **given})
    except TypeError as problem:
        return f"cannot be called with data_source, solution_str, ground_truth, extra_info and reward_kwargs: {problem}"
    return None


def _ours(of: Values, grader: adapter.Grader, synchronous: bool) -> Faults:
    if not grader.reward.grouped:
        return
    n, size, workers = of[f"{ROLLOUT}.n"], grader.settings.group_size, of["reward.num_workers"]
    what = f"reward {grader.settings.reward!r} compares the completions of a prompt"
    if synchronous:
        yield NativeFault(f"{FUNCTION}.name", f"{what}: take compute_score_async")
    if size != n:
        yield NativeFault(f"{FUNCTION}.reward_kwargs", f"{what}: group_size must be rollout.n ({n}), not {size}")
    if workers != 1:
        yield NativeFault("reward.num_workers", f"{what}, which must meet in one worker: take 1, not {workers}")


def data(of: Values, policy: Model | None, grader: adapter.Grader | None, say: Callable[[str], None]) -> Faults:
    """What is wrong with the rows. `say` is told what was counted."""
    for split, key in (("", "data.train_files"), ("validation ", "data.val_files")):
        rows: list[dict[str, Any]] = []
        whole = True
        with suppress(Broken):
            for name in _files(of[key]):
                found = _read(name, key, of["data.prompt_key"], of["data.reward_fn_key"])
                if isinstance(found, NativeFault):
                    whole = False
                    yield found
                else:
                    rows += found
            if whole and policy is not None:
                yield from _prompts(of, policy, rows, split, key, say)
            if whole and grader is not None:
                yield from _golds(of, grader, rows, split, key, say)


def _files(given: Any) -> list[str]:
    return [str(one) for one in given] if OmegaConf.is_list(given) else [str(given)]


def _read(name: str, key: str, prompt: str, source: str) -> list[dict[str, Any]] | NativeFault:
    path = Path(name).expanduser()
    if not path.is_file():
        return NativeFault(key, f"no file {path}")
    if path.suffix not in (".parquet", ".json", ".jsonl"):
        return NativeFault(key, f"{path}: verl reads .parquet, .json and .jsonl")
    read = pyarrow.parquet.read_table if path.suffix == ".parquet" else pyarrow.json.read_json
    try:
        table = read(path)
    except (pa.ArrowException, OSError) as problem:
        return NativeFault(key, f"{path} cannot be read: {first_line(problem)}")
    if problem := _columns_problem(table, prompt, source):
        return NativeFault(key, f"{path}: {problem}")
    return table.to_pylist()


def _columns_problem(table: pa.Table, prompt: str, source: str) -> str | None:
    names = table.column_names
    for name in (prompt, source, "reward_model"):
        if name not in names:
            return f"no column {name!r}; {did_you_mean(name, names) or 'it has: ' + ', '.join(names)}"
    gold = table.schema.field("reward_model").type
    if not pa.types.is_struct(gold) or gold.get_field_index("ground_truth") < 0:
        return "column 'reward_model' must hold {ground_truth: …}"
    kind = table.schema.field(prompt).type
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return f"column {prompt!r} must hold chat messages, [{{role: …, content: …}}, …]"
    return None


def _prompts(
    of: Values, policy: Model, rows: list[dict[str, Any]], split: str, key: str, say: Callable[[str], None]
) -> Faults:
    """Counts the prompts that do not fit: verl leaves them out, or cuts them."""
    limit, words = of["data.max_prompt_length"], of["data.apply_chat_template_kwargs"] or {}
    try:
        texts = [
            policy.tokenizer.apply_chat_template(
                row[of["data.prompt_key"]], add_generation_prompt=True, tokenize=False, **words
            )
            for row in rows
        ]
    except (TemplateError, TypeError, ValueError, KeyError) as problem:
        yield NativeFault(key, f"the model's chat template cannot render the prompts: {first_line(problem)}")
        return
    counts = [len(ids) for ids in policy.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
    over = sum(count > limit for count in counts)
    say(f"{split}prompts over the limit: {over} of {len(rows)}")
    if over and not of["data.filter_overlong_prompts"]:
        yield NativeFault(
            "data.filter_overlong_prompts", f"must be true: {over} of {len(rows)} prompts would be cut from the left"
        )
    cap = "data.val_max_samples" if split else "data.train_max_samples"
    left, most = len(rows) - over, of[cap]
    wanted = 1 if split else of["data.train_batch_size"]
    batch = "the validation needs" if split else f"one batch of {wanted}"
    if left < wanted:
        named = "data.max_prompt_length" if over else key if split else "data.train_batch_size"
        remedy = f"take {max(counts)}, or other rows" if over else "add rows, or take a smaller batch"
        why = f"{left} of {len(rows)} prompts are left ({over} have more than {limit} tokens)"
        yield NativeFault(named, f"{why}, less than {batch}: {remedy}")
    elif 0 < most < wanted:
        yield NativeFault(cap, f"{most} prompts are less than {batch}: take at least {wanted}, or -1 for all")


def _golds(
    of: Values, grader: adapter.Grader, rows: list[dict[str, Any]], split: str, key: str, say: Callable[[str], None]
) -> Faults:
    """Rows that the reward cannot grade: a fault in training data, told of a benchmark (its rows are not ours)."""
    problems: list[str] = []
    seen: set[str] = set()
    for number, given in enumerate(rows):
        source, info = given[of["data.reward_fn_key"]], given.get("extra_info")
        gold = given["reward_model"]["ground_truth"]
        try:
            judge = grader.of(source, info)
        except RewardError as problem:
            yield NativeFault(f"{FUNCTION}.reward_kwargs", str(problem))
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
