"""Reward `model`: a sequence-classification reward model's value of the answer to the row's prompt.

    python -m rewards score --reward model --param url=http://127.0.0.1:8000 --param model=Skywork/… \\
        --input rows.jsonl --output scored.jsonl

The thought is removed first (rewards/thinking.py): the reward model reads the row's `prompt` and the answer in its own
chat template. `url` is a server: vLLM's /classify or /pooling (vLLM applies the template; with `tokenizer`, the reward
model's folder, we apply it and send batches), or `POST /get_reward`. `path` is a folder that is loaded in this process
with transformers. `data_prep.serve.serve(model)` starts and stops such a vLLM server.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field

from rewards.base import Reward, Row, Score
from rewards.errors import RewardError, nearest
from rewards.extract import with_format
from rewards.model.chat import CONTROL_MARK, Messages, chat_template, prompt_messages, without_end_token
from rewards.model.http import Client, ServerError, server_url
from rewards.params import RewardParams
from rewards.thinking import thinking


class ModelParams(RewardParams):
    """url, endpoint, model (the served name): a server. path: instead of it, a folder or Hub id to load here.

    tokenizer: the reward model's folder; its chat template is then applied here, and `batch` texts are sent at once.
    label: which output is the reward. max_tokens: longer conversations are truncated at their end (0: they are errors).
    thinking: a format's name or fields. strict: a malformed completion gets `floor`. floor: for completions without an
    answer; choose it below your model's values. truncated: which completions with meta.finish_reason "length" get
    `floor`: those without an answer ("empty"), all, or none. control_marks: "refuse" gives `floor` to an answer that
    holds a chat control mark, with which it could forge a turn. timeout: seconds for one try. concurrency: requests at
    once in this process. key_env: the variable that holds the API key. dtype, device: of `path`.
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


class ModelReward(Reward):
    """A reward model's value of the answer, thought removed; `floor` where there is no answer.

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
        prepared = [self._conversation(row, text) for row, text in zip(rows, completions, strict=True)]
        graded = iter(self._graded([item for item in prepared if not isinstance(item, Score)]))
        return [item if isinstance(item, Score) else next(graded) for item in prepared]

    def check_ready(self) -> None:
        """Raise RewardError, in one line, unless the server is up and serves the model that is asked for."""
        p, served = self.params, list[str]()
        if not p.url:
            return
        try:
            self._client().request("/health", len)
            served = self._client().request("/v1/models", _names) if p.endpoint != "get_reward" else []
        except ServerError as problem:
            if not (p.endpoint == "get_reward" and problem.status == 404):  # such a server need not have /health
                raise RewardError(f"reward {self.name!r}: {p.url} is not ready: {problem}") from None
        if served and p.model and p.model not in served:
            near, names = nearest(p.model, served), ", ".join(served)
            raise RewardError(f"reward {self.name!r}: {p.url} does not serve {p.model!r}{near}; it serves {names}")

    def _conversation(self, row: Row, completion: str) -> Messages | Score:
        """What the reward model reads, or the score of a completion that is not sent to it."""
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        try:
            messages = prompt_messages(row.get("prompt"))
        except RewardError as problem:
            return Score(0.0, "error", {"problem": str(problem)})
        meta = row.get("meta")
        truncated = isinstance(meta, dict) and meta.get("finish_reason") == "length"
        if truncated and self.params.truncated == "always":
            return Score(self.params.floor, "truncated")
        text = without_end_token(completion)
        answer = self._format.answer_of(text)
        if self.params.strict or not answer:
            problems = list(self._format.parse(text).problems)
            if not answer and truncated and self.params.truncated == "empty":
                return Score(self.params.floor, "truncated", {"problems": problems})
            if problems:
                return Score(self.params.floor, "bad_format" if answer else "no_answer", {"problems": problems})
        if self.params.control_marks == "refuse" and (mark := CONTROL_MARK.search(answer)):
            details = {"problem": f"the answer holds the control mark {mark.group()!r}"}
            return Score(self.params.floor, "bad_format", details)
        return [*messages, {"role": "assistant", "content": answer}]

    def _graded(self, conversations: Sequence[Messages]) -> list[Score]:
        p = self.params
        if not conversations:
            return []
        if p.path:
            from rewards.model.local import local_model

            model = local_model(p.path, p.dtype, p.device)
            return [_scored(value) for value in model.values(conversations, p.batch, p.max_tokens, p.label)]
        size = p.batch if p.tokenizer else 1  # a chat request holds one conversation
        batches = [conversations[i : i + size] for i in range(0, len(conversations), size)]
        if len(batches) == 1:
            return self._batch(batches[0])
        return [score for scores in self._client().threads.map(self._batch, batches) for score in scores]

    def _batch(self, conversations: Sequence[Messages]) -> list[Score]:
        """One request; where the server refuses it, each conversation alone, so that only the bad one is an error."""
        try:
            return [_scored(value) for value in self._request(conversations)]
        except (ServerError, RewardError) as problem:
            refused = isinstance(problem, RewardError) or problem.status
            if refused and len(conversations) > 1:
                return [self._batch([conversation])[0] for conversation in conversations]
            timed_out = isinstance(problem, ServerError) and problem.timed_out
            score = Score(0.0, "timeout" if timed_out else "error", {"problem": str(problem)})
            return [score] * len(conversations)

    def _request(self, conversations: Sequence[Messages]) -> list[float]:
        p, count = self.params, len(conversations)
        texts = [chat_template(p.tokenizer).render(messages) for messages in conversations] if p.tokenizer else []
        if p.endpoint == "get_reward":
            return self._client().request("/get_reward", lambda reply: _values(reply, count, -1), {"query": texts})
        # use_activation: vLLM would otherwise answer with the sigmoid or softmax of the reward
        body: dict[str, Any] = {"use_activation": False}
        body |= {"input": texts, "add_special_tokens": False} if p.tokenizer else {"messages": conversations[0]}
        if p.model:
            body["model"] = p.model
        if p.max_tokens:
            body |= {"truncate_prompt_tokens": p.max_tokens, "truncation_side": "right"}
        return self._client().request(f"/{p.endpoint}", lambda reply: _values(reply, count, p.label), body)

    def _client(self) -> Client:
        p = self.params
        with self._lock:
            if os.getpid() not in self._clients:
                self._clients = {os.getpid(): Client(p.url, p.timeout, p.retries, p.concurrency, _key(p.key_env))}
            return self._clients[os.getpid()]


def _check(name: str, p: ModelParams) -> None:
    """Raise RewardError for parameters that cannot work together."""
    if bool(p.url) == bool(p.path):
        raise RewardError(f"reward {name!r}: give url (a server) or path (a model to load here), one of them")
    if p.url:
        server_url(p.url)
    if p.url and p.endpoint == "get_reward" and (p.max_tokens or not p.tokenizer):
        raise RewardError(
            f"reward {name!r}: endpoint get_reward takes whole texts: name the reward model's folder as tokenizer, "
            "and leave max_tokens out"
        )
    if p.tokenizer:
        chat_template(p.tokenizer)
    _key(p.key_env)


def _key(variable: str) -> str:
    """The API key in this variable. It is in no message."""
    key = os.environ.get(variable, "").strip()
    if variable and not re.fullmatch("[!-~]+", key):
        raise RewardError(f"key_env: the environment has no variable {variable!r} with a key in printable ASCII")
    return key


def _scored(value: float | str) -> Score:
    if isinstance(value, str):
        return Score(0.0, "error", {"problem": value})
    if not math.isfinite(value):
        return Score(0.0, "error", {"problem": f"the reward model's value is {value}"})
    return Score(value)


class _Result(BaseModel, strict=True):
    """Outputs of one conversation, or those of each of its tokens."""

    index: int = 0
    id: str = ""
    outputs: list[float] | list[list[float]] = Field([], validation_alias=AliasChoices("probs", "data"))


class _Reply(BaseModel, strict=True):
    """What the servers answer: /v1/models, /classify and /pooling with `data`, /get_reward with `rewards`."""

    data: list[_Result] = []
    rewards: list[float | list[float]] = []


def _names(reply: bytes) -> list[str]:
    return [model.id for model in _Reply.model_validate_json(reply).data]


def _values(reply: bytes, count: int, label: int) -> list[float]:
    """Output `label` of each conversation in the order asked; of outputs per token, the last token's.

    Raises ValueError for a reply without them.
    """
    parsed = _Reply.model_validate_json(reply)
    by_place = {result.index: result.outputs for result in parsed.data}
    by_place |= {i: given if isinstance(given, list) else [given] for i, given in enumerate(parsed.rewards)}
    if sorted(by_place) != list(range(count)):
        raise ValueError(f"results numbered {sorted(by_place)!s:.80} for {count} conversations")
    values = []
    for place in range(count):
        outputs: list[Any] = by_place[place]
        if outputs and isinstance(outputs[-1], list):
            outputs = outputs[-1]
        if not -len(outputs) <= label < len(outputs):
            raise ValueError(f"no output {label} among {len(outputs)}")
        values.append(float(outputs[label]))
    return values
