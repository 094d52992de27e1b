"""Reward `model`: a sequence-classification reward model's score of the answer to the row's prompt.

    python -m rewards score --reward model --param url=http://127.0.0.1:8000 --param model=Skywork/… \\
        --input rows.jsonl --output scored.jsonl

The thought is removed first (rewards/thinking.py). The server (vLLM's /classify or /pooling) applies the reward model's
own chat template to the row's `prompt` and the answer. `data_prep.inference.vllm.server.serve(model)`
starts and stops such a server.
"""

import math
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AliasChoices, BaseModel, Field, model_validator

from rewards.base import Reward, Row, Score, error
from rewards.errors import RewardError, nearest
from rewards.extract import cut_short
from rewards.forks import lock
from rewards.model.chat import CONTROL_MARK, Messages, prompt_messages, without_end_token
from rewards.model.http import Client, ServerError, server_url
from rewards.thinking import PRESETS, ThinkingFormat

_lock = lock()
_ON_SERVER = "reward models run on a server: start one (`vllm serve`) and set `url`"
_TEMPLATE = "the server applies the reward model's chat template, one conversation per request"


class ModelReward(Reward):
    """A reward model's score of the answer without the thought; `floor` if there is no answer.

    details: problem, and problems (violations of the thinking format, if they decided the score).

    url, endpoint, model (the served name): the server. label: index of the output that is the reward. max_tokens:
    longer conversations are truncated at the end (0: they are errors). thinking: a format's name or fields. strict: a
    malformed completion gets `floor`, unless the format substitutes a text (think_null). floor: value of completions
    without an answer; choose it below the model's scores. truncated: which completions with meta.finish_reason
    "length" get `floor`: those without an answer ("empty"), all ("always"), none ("never"). control_marks: with
    "refuse" answers that contain a chat control token get `floor`, because they could forge a turn. timeout: seconds
    per try. concurrency: parallel requests in this process. key_env: environment variable with the API key.
    """

    needs = ("prompt",)
    removed = dict.fromkeys(("path", "dtype", "device"), _ON_SERVER) | dict.fromkeys(("tokenizer", "batch"), _TEMPLATE)
    url: str = ""
    endpoint: Literal["classify", "pooling"] = "classify"
    model: str = ""
    label: Annotated[int, Field(ge=-1000, le=1000)] = -1
    max_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    thinking: ThinkingFormat = PRESETS["think"]
    strict: bool = False
    floor: float = -10.0
    truncated: Literal["empty", "always", "never"] = "empty"
    control_marks: Literal["refuse", "keep"] = "refuse"
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 128  # speed-up 4 over sequential requests; with 32 it is 3
    timeout: Annotated[float, Field(ge=0.01, le=3600.0)] = 60.0
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    key_env: str = ""

    @model_validator(mode="after")
    def _has_a_server(self) -> Self:
        if not self.url:
            raise ValueError("set url, the address of the reward-model server")
        server_url(self.url)
        _key(self.key_env)
        return self

    @cached_property
    def _clients(self) -> dict[int, Client]:
        """Clients by process id: connections are not shared with a forked child."""
        return {}

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        prepared = [self._conversation(row, text) for row, text in zip(rows, completions, strict=True)]
        # longest first: concurrent conversations have similar lengths, and no long conversation is left at the end
        lengths = {
            at: sum(len(message["content"]) for message in item)
            for at, item in enumerate(prepared)
            if not isinstance(item, Score)
        }
        order = sorted(lengths, key=lambda at: -lengths[at])
        run = map if len(order) < 2 else self._client().threads.map
        graded = dict(zip(order, run(self._request, [cast(Messages, prepared[at]) for at in order]), strict=True))
        return [graded[at] if at in graded else cast(Score, item) for at, item in enumerate(prepared)]

    def check_ready(self) -> None:
        """Raise RewardError, in one line, unless the server is up and serves the requested model."""
        try:
            self._client().request("/health", len)
            models = self._client().request("/v1/models", _Reply.model_validate_json)
        except ServerError as problem:
            raise RewardError(f"reward {self.name!r}: {self.url} is not ready: {problem}") from None
        served = [model.id for model in models.data]
        if served and self.model and self.model not in served:
            near, names = nearest(self.model, served), ", ".join(served)
            raise RewardError(
                f"reward {self.name!r}: {self.url} does not serve {self.model!r}{near}; it serves {names}"
            )

    def _conversation(self, row: Row, completion: str) -> Messages | Score:
        """The reward model's input, or the score of a completion that is not sent to the server."""
        try:
            messages = prompt_messages(row)
        except RewardError as problem:
            return error(str(problem))
        truncated = cut_short(row)
        if truncated and self.truncated == "always":
            return Score(self.floor, "truncated")
        text = without_end_token(completion, self.thinking.tags)
        answer = self.thinking.answer_of(text)
        if not answer or (self.strict and not self.thinking.strict):
            problems = list(self.thinking.parse(text).problems)
            if not answer and truncated and self.truncated == "empty":
                return Score(self.floor, "truncated", {"problems": problems})
            if problems:
                return Score(self.floor, "bad_format" if answer else "no_answer", {"problems": problems})
        if self.control_marks == "refuse" and (mark := CONTROL_MARK.search(answer)):
            return Score(self.floor, "bad_format", {"problem": f"control token {mark.group()!r} in the answer"})
        return [*messages, {"role": "assistant", "content": answer}]

    def _request(self, conversation: Messages) -> Score:
        """The server's score of a conversation."""
        # use_activation: otherwise vLLM returns the sigmoid or softmax of the reward
        body: dict[str, Any] = {"use_activation": False, "messages": conversation}
        if self.model:
            body["model"] = self.model
        if self.max_tokens:
            body |= {"truncate_prompt_tokens": self.max_tokens, "truncation_side": "right"}
        try:
            value = self._client().request(f"/{self.endpoint}", lambda reply: _value(reply, self.label), body)
        except ServerError as problem:
            return Score(0.0, "timeout" if problem.timed_out else "error", {"problem": str(problem)})
        return Score(value) if math.isfinite(value) else error(f"the reward model's score is {value}")

    def _client(self) -> Client:
        """The client of this process."""
        with _lock:
            if (pid := os.getpid()) not in self._clients:
                self._clients.clear()
                self._clients[pid] = Client(self.url, self.timeout, self.retries, self.concurrency, _key(self.key_env))
            return self._clients[pid]


def _key(variable: str) -> str:
    """The API key in this environment variable, "" without a variable. Error messages never contain the key."""
    key = os.environ.get(variable, "").strip()
    if variable and not re.fullmatch("[!-~]+", key):
        raise RewardError(f"key_env: the variable {variable!r} is not set to a key in printable ASCII")
    return key


class _Result(BaseModel, strict=True):
    """A served model's id, or the outputs for a conversation (one list) or for each of its tokens (nested lists)."""

    id: str = ""
    index: int = 0
    outputs: list[float] | list[list[float]] = Field([], validation_alias=AliasChoices("probs", "data"))


class _Reply(BaseModel, strict=True):
    """The reply of /v1/models, /classify or /pooling."""

    data: list[_Result] = []


def _value(reply: bytes, label: int) -> float:
    """Output `label` of the conversation, or of its last token if there are outputs per token. Raises ValueError."""
    results = _Reply.model_validate_json(reply).data
    if [result.index for result in results] != [0]:
        raise ValueError(f"expected one result, got results {[result.index for result in results]!s:.80}")
    outputs: list[Any] = results[0].outputs
    if outputs and isinstance(outputs[-1], list):
        outputs = outputs[-1]
    if not -len(outputs) <= label < len(outputs):
        raise ValueError(f"no output {label} among {len(outputs)}")
    return float(outputs[label])
