"""Our rewards as verl's custom reward function.

    reward.custom_reward_function.path=pkg://rewards.serving.verl
    reward.custom_reward_function.name=compute_score_async
    +reward.custom_reward_function.reward_kwargs.reward=math
    +reward.custom_reward_function.reward_kwargs.params={fallbacks: [answer_is]}

Or a file (`reward_kwargs.config=reward.json`) or the variable POSTTRAIN_REWARD (that JSON, or such a file) says
reward, params and the other settings. verl's old top-level `custom_reward_function.*` is accepted and ignored.

`validation: {<data_source>: {reward: …, params: {…}}}` grades the samples whose `extra_info.split` says validation by
the entry of their data_source, and their `acc` is that score: evaluation while training is evaluation as it is done
afterwards. Every validation sample has the same keys, as verl wants it, and so none for parts.

The row that is scored comes from the sample's `extra_info`: its key `row` (JSON text or a mapping), or else its
columns; `ground_truth` stands in for the gold column the reward needs (answer, tests or references), and the
prompt a reward model reads must be there too, as `prompt`. verl tells a reward neither that a completion was cut
short nor which samples are siblings: for rewards scaled within a group give `group_size` (verl's rollout.n), take
the async function and one worker (`reward.num_workers=1`).

A run ends when the share of outcomes error or timeout among the last `window` passes `max_errors` or
`max_timeouts`; verl's `rate_limited` manager swallows that exception, the others pass it on. Until then such a
sample scores 0 and says so in its metrics. A reward that raises, or whose value is not finite, is an error; one that
has not answered after `deadline` seconds, waiting for its turn included, is a timeout.

verl decodes completions without special tokens: the marks of a thinking format must not be such tokens in the
policy's tokenizer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import math
import os
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rewards.base import FailureLimit, Reward, Score, group_of
from rewards.combine import CombineReward
from rewards.errors import RewardError, TooManyFailures, nearest
from rewards.params import RewardParams, checked
from rewards.registry import load
from rewards.serving.failure_monitor import Watch

VARIABLE = "POSTTRAIN_REWARD"
GOLDS = ("answer", "tests", "references")
# What verl itself puts into extra_info.
VERLS = frozenset({"num_turns", "rollout_reward_scores", "experiment_name", "tools_kwargs", "need_tools_kwargs"})
VALIDATION = frozenset({"val", "validation", "test", "eval"})
THREADS = 64  # answers graded at once in one process; most wait for a worker process or a server


class Settings(RewardParams):
    """acc: the part of a combined reward that verl is to report as accuracy. group_size, val_group_size:
    completions of one prompt, in training and where extra_info.split says validation; group_wait: seconds until
    a group that is not whole becomes an error. window: the outcomes that max_errors and max_timeouts look at.
    deadline: seconds after which a sample is given up, far beyond what a reward allows itself.
    """

    reward: str = ""
    acc: str = ""
    max_errors: Annotated[float, Field(ge=0.0, le=1.0)] = FailureLimit.error
    max_timeouts: Annotated[float, Field(ge=0.0, le=1.0)] = FailureLimit.timeout
    window: Annotated[int, Field(ge=1, le=1 << 24)] = 1000
    group_size: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    val_group_size: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    group_wait: Annotated[float, Field(ge=0.01, le=86400.0)] = 1800.0
    deadline: Annotated[float, Field(ge=0.01, le=86400.0)] = 1800.0


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **given: Any
) -> dict[str, Any]:
    """verl's reward function. `score`, `outcome`, and the same numbers for every sample of a reward.

    Raises RewardError for wrong settings, TooManyFailures when the run should end.
    """
    grader = _grader(given).of(data_source, extra_info)
    if grader.reward.grouped:
        raise RewardError(
            f"reward {grader.settings.reward!r} compares the completions of a prompt: "
            "name compute_score_async, with group_size and reward.num_workers=1"
        )
    row = grader.row(data_source, ground_truth, extra_info)
    scoring = _threads().submit(grader.score, row, solution_str)
    concurrent.futures.wait([scoring], grader.settings.deadline)
    return grader.told(grader.settled(scoring)[0], row)


async def compute_score_async(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **given: Any
) -> dict[str, Any]:
    """As `compute_score`; grading happens in threads, so that the event loop never waits."""
    loop = asyncio.get_running_loop()
    # the first time it may load, or ask a server
    grader = (await loop.run_in_executor(_threads(), _grader, given)).of(data_source, extra_info)
    row = grader.row(data_source, ground_truth, extra_info)
    size = grader.settings.val_group_size if is_validation(extra_info) else grader.settings.group_size
    if grader.reward.grouped and grader.settings.group_size == 1:
        raise RewardError(
            f"reward {grader.settings.reward!r} compares the completions of a prompt: set group_size to rollout.n"
        )
    if size > 1:
        return grader.told(await grader.with_siblings(row, solution_str, size), row)
    scoring = loop.run_in_executor(_threads(), grader.score, row, solution_str)
    await asyncio.wait([scoring], timeout=grader.settings.deadline)
    return grader.told(grader.settled(scoring)[0], row)


def is_validation(extra_info: Any) -> bool:
    """Whether verl validates with this sample, and does not train on it."""
    return str((plain(extra_info) or {}).get("split")) in VALIDATION


class Grader:
    """One configured reward of this process, and what has become of its last scores.

    tasks: the rewards of validation samples by data_source; without any, all samples are graded by `reward`.
    """

    def __init__(
        self, settings: Settings, reward: Reward, watch: Watch, tasks: Mapping[str, Reward] | None = None
    ) -> None:
        self.settings, self.reward = settings, reward
        self._parts = [part.spec.name for part in reward.parts] if isinstance(reward, CombineReward) else []
        if settings.acc and settings.acc not in self._parts:
            raise RewardError(f"acc names no part {settings.acc!r}{nearest(settings.acc, self._parts)}")
        self._watch = watch
        self._groups: dict[Any, list[_Member]] = {}
        self._explained = False
        self._tasks = {task: _TaskGrader(settings, own, watch) for task, own in (tasks or {}).items()}

    def of(self, data_source: str, extra_info: Any) -> Grader:
        """Who grades this sample. Raises RewardError for one of a benchmark that `validation` does not list."""
        if not self._tasks or not is_validation(extra_info):
            return self
        if data_source not in self._tasks:
            raise RewardError(
                f"validation: no reward for data_source {data_source!r}{nearest(data_source, self._tasks)}; "
                f"there are: {', '.join(self._tasks)}"
            )
        return self._tasks[data_source]

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
        if "id" not in row and info.get("id") is not None:
            row["id"] = info["id"]
        if "id" not in row and info.get("index") is not None:
            row["id"] = f"{info.get('split', '')}{info['index']}"
        return row

    def score(self, row: dict[str, Any], text: str) -> list[Score]:
        """The score of one completion, as `settled` takes it."""
        return [self.reward.score(row, text)]

    def settled(self, scoring: Scoring, count: int = 1) -> list[Score]:
        """What came of scoring `count` completions, done or not. Raises what ends a run: RewardError, and what is no
        Exception.
        """
        if not scoring.done() or scoring.cancelled():
            scoring.cancel()  # one that has begun cannot be: its thread is lost
            return [Score(0.0, "timeout", {"problem": f"no score after {self.settings.deadline:g} s"})] * count
        failure = scoring.exception()
        if failure is None:
            return [_finite(score) for score in scoring.result()]
        if isinstance(failure, RewardError) or not isinstance(failure, Exception):
            raise failure
        problem = f"reward {self.settings.reward!r} raised {type(failure).__name__}: {failure}"
        if not self._explained:  # once: a fault in the code comes with every sample
            self._explained = True
            print(f"{problem}\n{''.join(traceback.format_exception(failure))}", file=sys.stderr, flush=True)
        return [Score(0.0, "error", {"problem": problem})] * count

    def told(self, score: Score, row: Mapping[str, Any]) -> dict[str, Any]:
        """The score as verl takes it. Raises TooManyFailures."""
        try:
            self._watch.saw([score])
        except TooManyFailures as failure:
            raise TooManyFailures(f"{failure}; the last: {_problem(score)}") from None
        told: dict[str, Any] = {"score": float(score.value), "outcome": score.outcome, "id": str(row.get("id", ""))}
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
        place, mine = len(members), _Member(row, text, loop.create_future())
        members.append(mine)
        if len(members) == size:
            del self._groups[key]
            rows, texts = [one.row for one in members], [one.text for one in members]
            scoring = loop.run_in_executor(_threads(), self.reward.score_many, rows, texts)
            _tell(members, scoring)
        elif len(members) == 1:
            loop.call_later(self.settings.group_wait, self._give_up, key, members)
        together = await mine.scoring
        if together is None:
            problem = (
                f"{len(members)} of {size} completions of a prompt came within {self.settings.group_wait:g} s: "
                "is group_size verl's rollout.n, and reward.num_workers 1?"
            )
            return Score(0.0, "error", {"problem": problem})
        await asyncio.wait([together], timeout=self.settings.deadline)
        return self.settled(together, size)[place]

    def _give_up(self, key: Any, members: list[_Member]) -> None:
        if self._groups.get(key) is members:
            del self._groups[key]
            _tell(members, None)


class _TaskGrader(Grader):
    """Of a benchmark: each sample by itself, and its score is its accuracy."""

    def __init__(self, settings: Settings, reward: Reward, watch: Watch) -> None:
        super().__init__(
            settings.model_copy(update={"reward": reward.name, "acc": "", "group_size": 1, "val_group_size": 1}),
            reward,
            watch,
        )
        self._parts = []


Together = asyncio.Future[list[Score]]
Scoring = concurrent.futures.Future[list[Score]] | Together


@dataclass(frozen=True)
class _Member:
    """scoring: the scoring of its group once that is whole; None if that never came about."""

    row: dict[str, Any]
    text: str
    scoring: asyncio.Future[Together | None]


def _tell(members: Sequence[_Member], scoring: Together | None) -> None:
    for one in members:
        if not one.scoring.done():  # it is when its caller has been cancelled
            one.scoring.set_result(scoring)


def _finite(score: Score) -> Score:
    """An error in place of a score that would make the loss or a metric NaN."""
    parts = {name: part.get("value") for name, part in score.details.get("parts", {}).items()}
    for name, value in {"the reward": score.value, **parts}.items():
        if value is not None and not math.isfinite(value):
            return Score(0.0, "error", {"problem": f"the value of {name} is {value}"})
    return score


def _problem(score: Score) -> str:
    """What a failed score says of itself, or the part of a combined reward that failed."""
    parts = [part for part in score.details.get("parts", {}).values() if part["outcome"] == score.outcome]
    details = parts[0]["details"] if parts else score.details
    return " ".join(str(details.get("problem") or details or score.outcome).split())[:300]


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
    params, validation = given.pop("params", None) or {}, given.pop("validation", None) or {}
    if not isinstance(params, dict):
        raise RewardError(f"params must be a mapping, not {params!r}")
    for name in given:
        if name not in (known := [*Settings.model_fields, "params", "validation", "config"]):
            raise RewardError(f"reward_kwargs: unknown key {name!r}{nearest(name, known)}; keys: {', '.join(known)}")
    settings = checked(Settings, given, "reward_kwargs")
    watch = Watch(FailureLimit(settings.max_errors, settings.max_timeouts), settings.window)
    loaded: dict[str, Reward] = {}  # equal rewards are one, with one set of worker processes

    def reward_of(name: str, params: dict[str, Any]) -> Reward:
        key = json.dumps([name, params], sort_keys=True)
        if key not in loaded:
            routed = _routed(name, params, f"http://{router}") if router else params
            loaded[key] = load(name, **routed)
            if not router:  # verl vouches for its own
                loaded[key].check_ready()  # a wrong address ends the run before its first step
        return loaded[key]

    tasks = {}
    for task, (name, own) in _entries(validation).items():
        tasks[task] = reward_of(name, own)
        if tasks[task].grouped:
            raise RewardError(f"validation: {task}: reward {name!r} compares completions, which is no accuracy")
    return Grader(settings, reward_of(settings.reward, params), watch, tasks)


def _entries(validation: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """The reward's name and parameters by data_source. Raises RewardError."""
    if not isinstance(validation, dict):
        raise RewardError(f"validation must be a mapping of data_source to {{reward, params}}, not {validation!r}")
    for task, entry in validation.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("reward"), str):
            raise RewardError(f"validation: {task}: must be a mapping with a reward, not {entry!r}")
        if not isinstance(entry.get("params", {}), dict):
            raise RewardError(f"validation: {task}: params must be a mapping, not {entry['params']!r}")
        for word in entry:
            if word not in ("reward", "params"):
                raise RewardError(
                    f"validation: {task}: unknown key {word!r}{nearest(word, ('reward', 'params'))}; "
                    "keys: reward, params"
                )
    return {task: (entry["reward"], entry.get("params", {})) for task, entry in validation.items()}


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
