"""Reward `model`: what a sequence-classification reward model says of the answer to the row's prompt.

    python -m rewards score --reward model --param url=http://127.0.0.1:8000 --param model=Skywork/… \\
        --input rows.jsonl --output scored.jsonl

The thought is removed first (rewards/thinking.py), and the reward model reads the row's `prompt` and the answer
in its own chat template. It is asked over HTTP: vLLM's /classify or /pooling (vLLM then applies the template, or
we do and send batches, where `tokenizer` names the reward model's folder), or the plain `POST /get_reward`. Or
it runs in this process with transformers, where `path` names its folder. `data_prep.serve.serve(model)` starts
and stops such a vLLM server.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from rewards.base import Outcome, Reward, Row, Score
from rewards.errors import RewardError, nearest
from rewards.extract import with_format
from rewards.model.chat import CONTROL_MARK, Messages, chat_template, prompt_messages, without_end_token
from rewards.model.http import Client, Refused, Unanswered, Unusable
from rewards.params import RewardParams
from rewards.thinking import thinking


class ModelParams(RewardParams):
    """url, endpoint, model (the served name): a server. path: instead of it, a folder or Hub id to load here.

    tokenizer: the reward model's folder; its chat template is then applied here, and `batch` texts are sent at
    once. label: which output is the reward. max_tokens: longer conversations lose their end (0: they are errors).
    thinking: a format's name or fields. strict: a malformed completion gets `floor`. floor: for completions
    without an answer; choose it below your model's values. truncated: which completions with
    meta.finish_reason "length" get `floor`: those without an answer ("empty"), all, or none. control_marks:
    "refuse" gives `floor` to an answer that holds a chat control mark, with which it could forge a turn.
    timeout: seconds for one try. concurrency: requests at once. key_env: the variable that holds the API key.
    dtype, device: in process.
    """

    url: str = ""
    endpoint: Literal["classify", "pooling", "get_reward"] = "classify"
    model: str = ""
    path: str = ""
    tokenizer: str = ""
    label: Annotated[int, Field(ge=-1000, le=1000)] = -1
    max_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    thinking: str = "think"
    strict: bool = False
    floor: float = -10.0
    truncated: Literal["empty", "always", "never"] = "empty"
    control_marks: Literal["refuse", "keep"] = "refuse"
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    timeout: Annotated[float, Field(ge=0.01, le=3600.0)] = 60.0
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    key_env: str = ""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "cpu"


class _Job(NamedTuple):
    place: int
    messages: Messages


class ModelReward(Reward):
    """A reward model's value of the answer part, thought removed; `floor` where there is no answer.

    details: problem, and problems (departures from the thinking format, when they decided).
    """

    Params = ModelParams
    needs = ("prompt",)
    params: ModelParams

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: ModelParams) -> None:
        super().__init__(name, params)
        _check(name, params)
        self._format = thinking(params.thinking)
        self._clients: dict[int, Client] = {}  # by process: connections are not shared with a forked child

    def grade(self, row: Row, completion: str) -> Score:
        return self.grade_many([row], [completion])[0]

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        scores: list[Any] = [
            self._prepared(i, row, text) for i, (row, text) in enumerate(zip(rows, completions, strict=True))
        ]
        jobs = [job for job in scores if isinstance(job, _Job)]
        for job, score in zip(jobs, self._asked(jobs, workers or self.params.concurrency), strict=True):
            scores[job.place] = score
        return scores

    def check_ready(self) -> None:
        """Raise RewardError, in one line, unless the server is up and serves the model that is asked for."""
        if not self.params.url:
            return
        plain = self.params.endpoint == "get_reward"
        try:
            self._client().ping("/health", missing_ok=plain)
            served = [] if plain else self._client().get("/v1/models", _names)
        except (Refused, Unanswered) as problem:
            raise RewardError(f"reward {self.name!r}: {self.params.url} is not ready: {problem}") from None
        if served and self.params.model and self.params.model not in served:
            near = nearest(self.params.model, served)
            raise RewardError(
                f"reward {self.name!r}: {self.params.url} does not serve {self.params.model!r}{near}; "
                f"it serves {', '.join(served)}"
            )

    def _prepared(self, index: int, row: Row, completion: str) -> _Job | Score:
        """What the reward model is to read, or the score of a completion that it is not asked about."""
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        try:
            messages = prompt_messages(row.get("prompt"))
        except RewardError as problem:
            return Score(0.0, "error", {"problem": str(problem)})
        text, cut = without_end_token(completion), _cut_short(row)
        if cut and self.params.truncated == "always":
            return Score(self.params.floor, "truncated")
        answer = self._format.answer_of(text)
        if self.params.strict or not answer:
            problems = list(self._format.parse(text).problems)
            if not answer and cut and self.params.truncated == "empty":
                return Score(self.params.floor, "truncated", {"problems": problems})
            if problems:
                return Score(self.params.floor, "bad_format" if answer else "no_answer", {"problems": problems})
        if self.params.control_marks == "refuse" and (mark := CONTROL_MARK.search(answer)):
            details = {"problem": f"the answer holds the control mark {mark.group()!r}"}
            return Score(self.params.floor, "bad_format", details)
        return _Job(index, [*messages, {"role": "assistant", "content": answer}])

    def _asked(self, jobs: Sequence[_Job], most: int) -> list[Score]:
        if not jobs:
            return []
        if self.params.path:
            from rewards.model.local import local_model

            p = self.params
            model = local_model(p.path, p.dtype, p.device)
            return [
                _scored(value) for value in model.values([job.messages for job in jobs], p.batch, p.max_tokens, p.label)
            ]
        size = self.params.batch if self.params.tokenizer else 1  # a chat request holds one conversation
        units = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        if len(units) == 1:
            return self._unit(units[0])
        with ThreadPoolExecutor(min(most, len(units))) as threads:
            return [score for scores in threads.map(self._unit, units) for score in scores]

    def _unit(self, jobs: Sequence[_Job]) -> list[Score]:
        """One request's worth; where the server refuses a batch, each of it alone, so that one costs only itself."""
        try:
            values = self._request([job.messages for job in jobs])
        except Unanswered as problem:
            outcome: Outcome = "timeout" if problem.timed_out else "error"
            return [Score(0.0, outcome, {"problem": str(problem)}) for _ in jobs]
        except (Refused, RewardError) as problem:
            if len(jobs) > 1:
                return [score for job in jobs for score in self._unit([job])]
            return [Score(0.0, "error", {"problem": str(problem)})]
        return [_scored(value) for value in values]

    def _request(self, conversations: Sequence[Messages]) -> list[float]:
        p, count = self.params, len(conversations)
        texts = [chat_template(p.tokenizer).render(one) for one in conversations] if p.tokenizer else []
        if p.endpoint == "get_reward":
            return self._client().post("/get_reward", {"query": texts}, lambda reply: _rewards(reply, count))
        # use_activation: vLLM would else answer with the sigmoid or softmax of the reward
        body: dict[str, Any] = {"use_activation": False}
        body |= {"input": texts, "add_special_tokens": False} if p.tokenizer else {"messages": conversations[0]}
        if p.model:
            body["model"] = p.model
        if p.max_tokens:
            body |= {"truncate_prompt_tokens": p.max_tokens, "truncation_side": "right"}
        return self._client().post(f"/{p.endpoint}", body, lambda reply: _data(reply, count, p.label))

    def _client(self) -> Client:
        p = self.params
        with self._lock:
            if os.getpid() not in self._clients:
                key = os.environ.get(p.key_env, "") if p.key_env else ""
                self._clients = {
                    os.getpid(): Client(p.url, timeout=p.timeout, retries=p.retries, most=p.concurrency, key=key)
                }
            return self._clients[os.getpid()]


def _check(name: str, p: ModelParams) -> None:
    """Raise RewardError for parameters that cannot work together."""
    if bool(p.url) == bool(p.path):
        raise RewardError(f"reward {name!r}: give url (a server) or path (a model to load here), one of them")
    if p.url:
        Client(p.url)
    if p.endpoint == "get_reward" and p.url and not p.tokenizer:
        raise RewardError(
            f"reward {name!r}: endpoint get_reward takes text: name the reward model's folder as tokenizer"
        )
    if p.endpoint == "get_reward" and p.max_tokens:
        raise RewardError(f"reward {name!r}: endpoint get_reward cannot cut at max_tokens")
    if p.tokenizer:
        chat_template(p.tokenizer)
    if p.key_env and p.key_env not in os.environ:
        raise RewardError(f"reward {name!r}: the environment has no variable {p.key_env!r} (key_env)")


def _scored(value: float | str) -> Score:
    if isinstance(value, str):
        return Score(0.0, "error", {"problem": value})
    if not math.isfinite(value):
        return Score(0.0, "error", {"problem": f"the reward model's value is {value}"})
    return Score(value)


def _cut_short(row: Row) -> bool:
    meta = row.get("meta")
    return isinstance(meta, dict) and meta.get("finish_reason") == "length"


def _names(reply: Any) -> list[str]:
    if not isinstance(reply, dict) or not isinstance(reply.get("data"), list):
        raise Unusable("no list of models")
    return [str(one.get("id")) for one in reply["data"] if isinstance(one, dict)]


def _data(reply: Any, count: int, label: int) -> list[float]:
    """Values of a /classify or /pooling reply in the order asked. Raises Unusable."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or len(data) != count or not all(isinstance(one, dict) for one in data):
        raise Unusable(f"{len(data) if isinstance(data, list) else 'no'} results for {count} conversations")
    places = [one.get("index") for one in data]
    if sorted(places, key=str) != sorted(range(count), key=str):
        raise Unusable(f"results numbered {str(places)[:80]}")
    return [_number(one.get("probs", one.get("data")), label) for one in sorted(data, key=lambda one: one["index"])]


def _rewards(reply: Any, count: int) -> list[float]:
    given = reply.get("rewards") if isinstance(reply, dict) else None
    if not isinstance(given, list) or len(given) != count:
        raise Unusable(f"{len(given) if isinstance(given, list) else 'no'} rewards for {count} texts")
    return [_number(one if isinstance(one, list) else [one], -1) for one in given]


def _number(outputs: Any, label: int) -> float:
    """Output `label` of one result; of results per token (lists of lists), those of the last token."""
    if isinstance(outputs, list) and outputs and isinstance(outputs[-1], list):
        outputs = outputs[-1]
    if not isinstance(outputs, list) or not -len(outputs) <= label < len(outputs):
        raise Unusable(f"no output {label} in {str(outputs)[:80]}")
    value = outputs[label]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unusable(f"{str(value)[:80]!r} is not a number")
    return float(value)
