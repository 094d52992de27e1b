"""Our rewards as verl's custom reward function.

    reward.custom_reward_function.path=pkg://rewards.adapters.verl
    reward.custom_reward_function.name=compute_score_async
    +reward.custom_reward_function.reward_kwargs.reward=math
    +reward.custom_reward_function.reward_kwargs.params={fallbacks: [answer_is]}

Or a file (`reward_kwargs.config=reward.json`) or the variable POSTTRAIN_REWARD (that JSON, or such a file) says
reward, params and the other settings. verl's old top-level `custom_reward_function.*` is accepted and ignored.

The row that is scored comes from the sample's `extra_info`: its key `row` (JSON text or a mapping), or else its
columns; `ground_truth` stands in for the gold column the reward needs (answer, tests or references), and the
prompt a reward model reads must be there too, as `prompt`. verl tells a reward neither that a completion was cut
short nor which samples are siblings: for rewards scaled within a group give `group_size` (verl's rollout.n), take
the async function and one worker (`reward.num_workers=1`).

A run ends when the share of outcomes error or timeout among the last `window` passes `max_errors` or
`max_timeouts`; verl's `rate_limited` manager swallows that exception, the others pass it on. Until then such a
sample scores 0 and says so in its metrics. verl decodes completions without special tokens: the marks of a
thinking format must not be such tokens in the policy's tokenizer.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from rewards import FailureLimit, Reward, RewardError, Score, load
from rewards.base import checked_params, group_of, nearest
from rewards.combine import CombineReward
from rewards.watch import Watch

VARIABLE = "POSTTRAIN_REWARD"
GOLDS = ("answer", "tests", "references")
# What verl itself puts into extra_info.
VERLS = frozenset({"num_turns", "rollout_reward_scores", "experiment_name", "tools_kwargs", "need_tools_kwargs"})
VALIDATION = frozenset({"val", "validation", "test", "eval"})
THREADS = 64  # answers graded at once in one process; most wait for a worker process or a server


@dataclass(frozen=True)
class Settings:
    """acc: the part of a combined reward that verl is to report as accuracy. group_size, val_group_size:
    completions of one prompt, in training and where extra_info.split says validation; group_wait: seconds until
    a group that is not whole becomes an error. window: the outcomes that max_errors and max_timeouts look at.
    """

    reward: str = ""
    acc: str = ""
    max_errors: float = field(default=FailureLimit.error, metadata={"low": 0.0, "high": 1.0})
    max_timeouts: float = field(default=FailureLimit.timeout, metadata={"low": 0.0, "high": 1.0})
    window: int = field(default=1000, metadata={"low": 1, "high": 1 << 24})
    group_size: int = field(default=1, metadata={"low": 1, "high": 1 << 16})
    val_group_size: int = field(default=1, metadata={"low": 1, "high": 1 << 16})
    group_wait: float = field(default=1800.0, metadata={"low": 0.01, "high": 86400.0})


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **given: Any
) -> dict[str, Any]:
    """verl's reward function. `score`, `outcome`, and the same numbers for every sample of a reward.

    Raises RewardError for wrong settings, TooManyFailures when the run should end.
    """
    grader = _grader(given)
    if grader.reward_is_grouped:
        raise RewardError(
            f"reward {grader.settings.reward!r} compares the completions of a prompt: "
            "name compute_score_async, with group_size and reward.num_workers=1"
        )
    return grader.told(grader.reward.score(grader.row(data_source, ground_truth, extra_info), solution_str))


async def compute_score_async(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **given: Any
) -> dict[str, Any]:
    """As `compute_score`; grading happens in threads, so that the event loop never waits."""
    loop = asyncio.get_running_loop()
    grader = await loop.run_in_executor(_threads(), _grader, given)  # the first time it may load, or ask a server
    row = grader.row(data_source, ground_truth, extra_info)
    validation = str(row.get("split")) in VALIDATION
    size = grader.settings.val_group_size if validation else grader.settings.group_size
    if grader.reward_is_grouped and grader.settings.group_size == 1:
        raise RewardError(
            f"reward {grader.settings.reward!r} compares the completions of a prompt: set group_size to rollout.n"
        )
    if size > 1:
        return grader.told(await grader.with_siblings(row, solution_str, size))
    return grader.told(await loop.run_in_executor(_threads(), grader.reward.score, row, solution_str))


class Grader:
    """One configured reward of this process, and what has become of its last scores."""

    def __init__(self, settings: Settings, params: Mapping[str, Any]) -> None:
        self.settings = settings
        self.reward: Reward = load(settings.reward, **params)
        self.reward_is_grouped = self.reward.grouped
        self._parts = [part.spec.name for part in self.reward.parts] if isinstance(self.reward, CombineReward) else []
        if settings.acc and settings.acc not in self._parts:
            raise RewardError(f"acc names no part {settings.acc!r}{nearest(settings.acc, self._parts)}")
        self._watch = Watch(FailureLimit(settings.max_errors, settings.max_timeouts), settings.window)
        self._groups: dict[Any, list[_Member]] = {}

    def row(self, data_source: str, ground_truth: Any, extra_info: Any) -> dict[str, Any]:
        """The row to score. One that cannot be read lacks its columns, which makes its outcome "error"."""
        info = plain(extra_info) or {}
        given = info.get("row")
        if isinstance(given, str):
            given = _json_or_none(given)
        row = given if isinstance(given, dict) else {k: v for k, v in info.items() if k not in VERLS and v is not None}
        gold = plain(ground_truth)
        for column in GOLDS:
            if column in self.reward.needs and column not in row and gold is not None:
                parsed = _json_or_none(gold) if column != "answer" and isinstance(gold, str) else gold
                row[column] = parsed if isinstance(parsed, (list, dict)) else gold
        row.setdefault("source", data_source)
        if "split" in info:
            row.setdefault("split", info["split"])
        if "id" not in row and info.get("index") is not None:
            row["id"] = f"{info.get('split', '')}{info['index']}"
        return row

    def told(self, score: Score) -> dict[str, Any]:
        """The score as verl takes it. Raises TooManyFailures."""
        self._watch.saw([score])
        told: dict[str, Any] = {"score": float(score.value), "outcome": score.outcome}
        for outcome in ("error", "timeout", "truncated", "no_answer", "bad_format"):
            told[f"is_{outcome}"] = float(score.outcome == outcome)
        parts = score.details.get("parts", {})
        for name in self._parts:  # every sample has every key: verl reads the first one's and expects them in all
            told[f"part_{name}"] = parts.get(name, {}).get("value")
        if self.settings.acc:
            told["acc"] = float(parts.get(self.settings.acc, {}).get("value") or 0.0)
        elif not self._parts:
            told["acc"] = told["score"]
        return told

    async def with_siblings(self, row: dict[str, Any], text: str, size: int) -> Score:
        """The score of one of `size` completions that are scored together when the last of them is here."""
        loop = asyncio.get_running_loop()
        key = (id(loop), group_of(row))
        members = self._groups.setdefault(key, [])
        members.append(_Member(row, text, loop.create_future()))
        mine = members[-1].future
        if len(members) == size:
            del self._groups[key]
            rows, texts = [one.row for one in members], [one.text for one in members]
            scoring = loop.run_in_executor(_threads(), self.reward.score_many, rows, texts)
            scoring.add_done_callback(lambda done: _hand_out(done, members))
        elif len(members) == 1:
            loop.call_later(self.settings.group_wait, self._give_up, key, members, size)
        return await mine

    def _give_up(self, key: Any, members: list[_Member], size: int) -> None:
        if self._groups.get(key) is not members:
            return
        del self._groups[key]
        problem = (
            f"{len(members)} of {size} completions of a prompt came within {self.settings.group_wait:g} s: "
            "is group_size verl's rollout.n, and reward.num_workers 1?"
        )
        for one in members:
            if not one.future.done():
                one.future.set_result(Score(0.0, "error", {"problem": problem}))


@dataclass(frozen=True)
class _Member:
    row: dict[str, Any]
    text: str
    future: asyncio.Future[Score]


def _hand_out(done: asyncio.Future[list[Score]], members: Sequence[_Member]) -> None:
    failure = done.exception()
    for place, one in enumerate(members):
        if one.future.done():
            continue  # its caller has been cancelled
        if failure is not None:
            one.future.set_exception(failure)
        else:
            one.future.set_result(done.result()[place])


def plain(value: Any) -> Any:
    """Mappings, sequences and arrays of any library (OmegaConf's, numpy's) as JSON's own types."""
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in value}
    if hasattr(value, "tolist"):  # a numpy array or scalar
        return plain(value.tolist())
    return [plain(one) for one in value] if isinstance(value, Sequence) else value


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _grader(given: Mapping[str, Any]) -> Grader:
    """The grader for these keyword arguments, kept for the life of the process."""
    words = {key: plain(value) for key, value in given.items() if not key.startswith("reward_model_tokenizer")}
    router = words.pop("reward_router_address", None)
    return _kept(json.dumps(words, sort_keys=True), os.environ.get(VARIABLE, ""), router or "", os.getpid())


_making, _pooling = threading.Lock(), threading.Lock()


def _kept(words: str, variable: str, router: str, pid: int) -> Grader:
    with _making:  # many samples come at once at the start, and a reward may be costly to make
        return _made(words, variable, router, pid)


@lru_cache(maxsize=16)
def _made(words: str, variable: str, router: str, pid: int) -> Grader:
    given = json.loads(words)
    if "reward" not in given:
        source = given.pop("config", None) or variable
        given = {**_written(source), **given}
    params = given.pop("params", None) or {}
    if not isinstance(params, dict):
        raise RewardError(f"params must be a mapping, not {params!r}")
    for name in given:
        if name not in (known := [*(f.name for f in fields(Settings)), "params", "config"]):
            raise RewardError(f"reward_kwargs: unknown key {name!r}{nearest(name, known)}; keys: {', '.join(known)}")
    settings = checked_params(Settings, given, "reward_kwargs")
    if router:
        params = _routed(settings.reward, params, f"http://{router}")
    grader = Grader(settings, params)
    if not router:  # verl vouches for its own
        grader.reward.check_ready()  # a wrong address ends the run before its first step
    return grader


def _written(source: str) -> dict[str, Any]:
    """Settings from JSON text or from a file. Raises RewardError."""
    if not source:
        raise RewardError(f"no reward: set reward_kwargs.reward or reward_kwargs.config, or the variable {VARIABLE}")
    text = source
    if not source.lstrip().startswith("{"):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as problem:
            raise RewardError(f"{source}: {problem.strerror}") from None
    given = _json_or_none(text)
    if not isinstance(given, dict) or not given.get("reward"):
        raise RewardError(f"{source[:200]!r} is not a JSON object with a reward")
    return given


def _routed(reward: str, params: dict[str, Any], url: str) -> dict[str, Any]:
    """`params` with verl's reward-model router for every `model` part that names no server of its own."""
    if reward == "model" and not params.get("url") and not params.get("path"):
        return {**params, "url": url}
    if reward == "bleu_rm":
        return {**params, "model": _routed("model", params.get("model", {}), url)}
    parts = params.get("parts")
    if reward != "combine" or not isinstance(parts, list):
        return params
    routed = [{**part, "params": _routed(str(part.get("reward")), part.get("params", {}), url)} for part in parts]
    return {**params, "parts": routed}


_pools: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork


def _threads() -> ThreadPoolExecutor:
    with _pooling:  # not the lock above: the event loop would wait while a reward is made
        if os.getpid() not in _pools:
            _pools[os.getpid()] = ThreadPoolExecutor(THREADS, thread_name_prefix="rewards")
        return _pools[os.getpid()]


def _fresh_locks() -> None:
    global _making, _pooling
    _making, _pooling = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_fresh_locks)
