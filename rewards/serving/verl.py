"""A custom reward function for verl that uses these rewards.

    reward.custom_reward_function.path=pkg://rewards.serving.verl
    reward.custom_reward_function.name=compute_score_async
    +reward.custom_reward_function.reward_kwargs.reward=math
    +reward.custom_reward_function.reward_kwargs.params={fallbacks: [answer_is]}

The settings (`Settings`) can also come from a JSON file: `reward_kwargs.config=reward.json`. With `validation:
{<data_source>: {reward: …, params: {…}}}` samples whose `extra_info.split` is in VALIDATION are graded by the entry of
their data_source, and that score is their `acc`.

The row is `extra_info.row` (JSON text or a mapping), or else the columns of `extra_info`. `ground_truth` fills
the column that the reward needs (answer, tests or references); a reward model needs `prompt`. verl passes neither
finish reasons nor prompt ids of a group: for rewards scaled within a group set `group_size` (verl's rollout.n), and use
the async function with one worker (`reward.num_workers=1`).

An exception or a non-finite value is an `error`; no score within `deadline` seconds, including waiting, is
a `timeout`. Such samples score 0, and the run ends if the share of either among the last `window` outcomes exceeds
its limit (verl's `rate_limited` manager swallows that exception; the other managers raise it).

verl decodes completions without special tokens: a thinking format's tags must not be special tokens of the
policy's tokenizer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards.base import OUTCOMES, FailureLimit, FailureMonitor, Reward, Score, finite, group_of
from rewards.combine import NO_GROUP, CombineReward
from rewards.errors import RewardError, TooManyFailures, nearest
from rewards.forks import once_per_process
from rewards.model.http import SERVICE
from rewards.params import Count, RewardParams, Seconds, Share, checked
from rewards.processes.slots import share_among_siblings
from rewards.registry import ACCURACIES, load

REFERENCES = ("answer", "tests", "references")
# Keys that verl adds to extra_info.
VERL_KEYS = frozenset({"num_turns", "rollout_reward_scores", "experiment_name", "tools_kwargs", "need_tools_kwargs"})
VALIDATION = frozenset({"val", "validation", "test", "eval"})
# Samples graded concurrently per process; the rewards' own limits (`workers`, `concurrency`) apply as well.
THREADS = 64

Scoring = concurrent.futures.Future[list[Score]] | asyncio.Future[list[Score]]


class Validation(RewardParams):
    """A benchmark's reward."""

    reward: str
    params: dict[str, Any] = {}


class Settings(Validation):
    """acc: the part of a combined reward that verl reports as accuracy. group_size: completions per prompt in
    training. group_wait: seconds until an incomplete group is an error. window: number of outcomes over which
    max_errors and max_timeouts (shares) are computed. deadline: seconds, far above the rewards' own limits.
    """

    validation: dict[str, Validation] = {}
    acc: str = ""
    max_errors: Share = FailureLimit.error
    max_timeouts: Share = FailureLimit.timeout
    window: Count = 1000
    group_size: Count = 1
    group_wait: Seconds = 1800.0
    deadline: Seconds = 1800.0


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """verl's reward function: `score`, `outcome`, and a fixed set of metrics per reward.

    Raises RewardError for invalid settings, TooManyFailures if the run should end.
    """
    grader = _grader(kwargs).of(data_source, extra_info)
    if grader.reward.grouped:
        raise RewardError(
            f"reward {grader.settings.reward!r} compares the completions of a prompt: "
            "use compute_score_async with group_size and reward.num_workers=1"
        )
    row = grader.row(data_source, ground_truth, extra_info)
    scoring = _threads().submit(grader.reward.score_many, [row], [solution_str])
    concurrent.futures.wait([scoring], grader.settings.deadline)
    return grader.result(grader.scores_of(scoring)[0], row)


async def compute_score_async(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Like `compute_score`, with grading in threads, so that the event loop is not blocked."""
    loop = asyncio.get_running_loop()
    # the first call may load a model or contact a server
    grader = (await loop.run_in_executor(_threads(), _grader, kwargs)).of(data_source, extra_info)
    row = grader.row(data_source, ground_truth, extra_info)
    size = 1 if is_validation(extra_info) else grader.settings.group_size
    if grader.reward.grouped and grader.settings.group_size == 1:
        raise RewardError(
            f"reward {grader.settings.reward!r} compares the completions of a prompt: set group_size to rollout.n"
        )
    if size > 1:
        return grader.result(await grader.in_group(row, solution_str, size), row)
    scoring = loop.run_in_executor(_threads(), grader.reward.score_many, [row], [solution_str])
    await asyncio.wait([scoring], timeout=grader.settings.deadline)
    return grader.result(grader.scores_of(scoring)[0], row)


def is_validation(extra_info: Any) -> bool:
    """Whether this is a validation sample."""
    return str((plain(extra_info) or {}).get("split")) in VALIDATION


@dataclass
class _Group:
    """scoring: set to the running scoring when the group is complete, or to None if it is not complete in time."""

    scoring: asyncio.Future[asyncio.Future[list[Score]] | None]
    rows: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@dataclass
class Grader:
    """One configured reward of this process.

    parts: keys of a combined reward's parts, which verl logs as metrics. accuracy: whether the score is also reported
    as `acc`. tasks: graders of validation samples by data_source; without any, this one grades all samples.
    """

    settings: Settings
    reward: Reward
    monitor: FailureMonitor
    parts: Sequence[str] = ()
    tasks: Mapping[str, Grader] = field(default_factory=dict)
    accuracy: bool = False
    _groups: dict[Any, _Group] = field(default_factory=dict)
    _traceback_printed: bool = False

    def of(self, data_source: str, extra_info: Any) -> Grader:
        """The grader of this sample. Raises RewardError for a benchmark that `validation` does not list."""
        if not self.tasks or not is_validation(extra_info):
            return self
        if data_source not in self.tasks:
            raise RewardError(
                f"validation: no reward for data_source {data_source!r}{nearest(data_source, self.tasks)}; "
                f"available: {', '.join(self.tasks)}"
            )
        return self.tasks[data_source]

    def row(self, data_source: str, ground_truth: Any, extra_info: Any) -> dict[str, Any]:
        """The row to score. An unreadable row has no columns, so that its outcome is "error"."""
        info, reference = plain(extra_info) or {}, plain(ground_truth)
        row = _json_or_none(info["row"]) if isinstance(info.get("row"), str) else info.get("row")
        if not isinstance(row, dict):
            row = {key: value for key, value in info.items() if key not in VERL_KEYS and value is not None}
        for column in REFERENCES:
            if column in self.reward.needs and column not in row and reference is not None:
                parsed = _json_or_none(reference) if column != "answer" and isinstance(reference, str) else None
                row[column] = parsed if isinstance(parsed, (list, dict)) else reference
        origin = {"source": data_source, "split": info.get("split"), "id": info.get("id")}
        if origin["id"] is None and info.get("index") is not None:
            origin["id"] = f"{info.get('split', '')}{info['index']}"
        return {key: value for key, value in origin.items() if value is not None} | row

    def scores_of(self, scoring: Scoring, count: int = 1) -> list[Score]:
        """The scores of `count` completions; errors if grading raised an exception, timeouts if it is not done.

        Raises RewardError and exceptions that are not an Exception (SystemExit) again.
        """
        if not scoring.done() or scoring.cancelled():
            scoring.cancel()  # no effect if it is running: its thread stays occupied
            return [Score(0.0, "timeout", {"problem": f"no score after {self.settings.deadline:g} s"})] * count
        failure = scoring.exception()
        if failure is None:
            return [finite(score) for score in scoring.result()]
        if isinstance(failure, RewardError) or not isinstance(failure, Exception):
            raise failure
        problem = f"reward {self.settings.reward!r} raised {type(failure).__name__}: {failure}"
        if not self._traceback_printed:  # only once: a bug affects every sample
            self._traceback_printed = True
            print(f"{problem}\n{''.join(traceback.format_exception(failure))}", file=sys.stderr, flush=True)
        return [Score(0.0, "error", {"problem": problem})] * count

    def result(self, score: Score, row: Mapping[str, Any]) -> dict[str, Any]:
        """The score in verl's format. Raises TooManyFailures."""
        try:
            self.monitor.add([score])
        except TooManyFailures as failure:
            raise TooManyFailures(f"{failure}; the last: {_problem(score)}") from None
        result: dict[str, Any] = {"score": float(score.value), "outcome": score.outcome, "id": str(row.get("id", ""))}
        result |= {f"is_{outcome}": float(score.outcome == outcome) for outcome in OUTCOMES if outcome != "scored"}
        # verl expects the same keys in all samples of a batch
        values = {name: score.details.get("parts", {}).get(name, {}).get("value") for name in self.parts}
        result |= {f"part_{name}": value for name, value in values.items()}
        if self.settings.acc:
            result["acc"] = float(values[self.settings.acc] or 0.0)
        elif self.accuracy:
            result["acc"] = result["score"]
        return result

    async def in_group(self, row: dict[str, Any], text: str, size: int) -> Score:
        """The score of one of `size` completions, which are scored together when all have arrived."""
        if group_of(row) is None:
            return Score(0.0, "error", {"problem": NO_GROUP})
        loop = asyncio.get_running_loop()
        key = (id(loop), group_of(row))
        group = self._groups.setdefault(key, _Group(loop.create_future()))
        index = len(group.rows)
        group.rows.append(row)
        group.texts.append(text)
        if len(group.rows) == size:
            del self._groups[key]
            group.scoring.set_result(loop.run_in_executor(_threads(), self.reward.score_many, group.rows, group.texts))
        elif index == 0:
            loop.call_later(self.settings.group_wait, self._give_up, key, group)
        scoring = await asyncio.shield(group.scoring)  # shared by the group: a cancelled caller must not cancel it
        if scoring is None:
            problem = (
                f"{len(group.rows)} of {size} completions of a prompt arrived within {self.settings.group_wait:g} s: "
                "set group_size to verl's rollout.n and reward.num_workers to 1"
            )
            return Score(0.0, "error", {"problem": problem})
        await asyncio.wait([scoring], timeout=self.settings.deadline)
        return self.scores_of(scoring, size)[index]

    def _give_up(self, key: Any, group: _Group) -> None:
        """Discard a group that is still incomplete after `group_wait`."""
        if self._groups.get(key) is group:
            del self._groups[key]
            group.scoring.set_result(None)


def _problem(score: Score) -> str:
    """Why a score, or a part of a combined score, failed."""
    parts = [part for part in score.details.get("parts", {}).values() if part["outcome"] == score.outcome]
    details = parts[0]["details"] if parts else score.details
    return " ".join(str(details.get("problem") or details or score.outcome).split())[:300]


def plain(value: Any) -> Any:
    """Converts mappings, sequences and arrays of any library (OmegaConf, numpy) to JSON types."""
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in value}
    if hasattr(value, "tolist"):  # a numpy array or scalar
        return plain(value.tolist())
    return [plain(item) for item in value] if isinstance(value, Sequence) else value


def _json_or_none(text: str) -> Any:
    """The value of a JSON text, None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _grader(kwargs: Mapping[str, Any]) -> Grader:
    """The cached grader for verl's keyword arguments. Raises RewardError."""
    unused = "reward_model_tokenizer"
    settings = {key: plain(value) for key, value in kwargs.items() if value is not None and key != unused}
    return _built_grader(json.dumps(settings, sort_keys=True))


@once_per_process  # many samples arrive at once, and building a reward may be expensive
def _built_grader(kwargs_json: str) -> Grader:
    """A new grader. kwargs_json: verl's keyword arguments as JSON. Raises RewardError."""
    share_among_siblings()  # verl runs several reward workers per node, each a Ray process
    kwargs = json.loads(kwargs_json)
    router = kwargs.pop("reward_router_address", None)
    if path := kwargs.pop("config", None):
        kwargs = {**_settings_file(path), **kwargs}
    settings = checked(Settings, kwargs, "reward_kwargs")
    monitor = FailureMonitor(FailureLimit(settings.max_errors, settings.max_timeouts), settings.window)
    loaded: dict[str, Reward] = {}  # equal rewards are shared, with one set of worker processes

    def reward_of(entry: Validation) -> Reward:
        key = json.dumps([entry.reward, entry.params], sort_keys=True)
        if key not in loaded:
            params = _routed(entry.reward, entry.params, f"http://{router}") if router else entry.params
            loaded[key] = load(entry.reward, **params)
            if not router:  # verl checks its own server
                loaded[key].check_ready()  # fail before the first step if the address is wrong
        return loaded[key]

    tasks = {}
    # if one task reports `acc`, all do: all samples of a batch have the same keys
    accuracy = any(entry.reward in ACCURACIES for entry in settings.validation.values())
    for task, entry in settings.validation.items():
        if (reward := reward_of(entry)).grouped:
            raise RewardError(f"validation: {task}: reward {entry.reward!r} compares completions: not an accuracy")
        update = {"reward": entry.reward, "acc": "", "group_size": 1}
        tasks[task] = Grader(settings.model_copy(update=update), reward, monitor, accuracy=accuracy)
    reward = reward_of(settings)
    parts = [part.key for part in reward.parts] if isinstance(reward, CombineReward) else []
    if settings.acc and settings.acc not in parts:
        raise RewardError(f"acc: no part {settings.acc!r}{nearest(settings.acc, parts)}")
    return Grader(settings, reward, monitor, parts, tasks, settings.reward in ACCURACIES)


def _settings_file(path: str) -> dict[str, Any]:
    """Settings from a JSON file. Raises RewardError."""
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else f"not JSON: {problem}"
        raise RewardError(f"reward_kwargs.config: {path}: {reason}") from None
    if not isinstance(settings, dict):
        raise RewardError(f"reward_kwargs.config: {path}: not a JSON object")
    return settings


def _routed(reward: str, params: dict[str, Any], url: str) -> dict[str, Any]:
    """`params` with verl's reward-model router as the server of every `model` part without a url."""
    if reward == "model":
        return {**params, "url": url} if str(params.get("url", "")).startswith(SERVICE) else {"url": url, **params}
    if reward == "bleu_rm":
        return {**params, "model": _routed("model", params.get("model", {}), url)}
    parts = params.get("parts")
    if reward != "combine" or not isinstance(parts, list):
        return params
    routed = [{**part, "params": _routed(str(part.get("reward")), part.get("params", {}), url)} for part in parts]
    return {**params, "parts": routed}


@once_per_process
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="rewards")
