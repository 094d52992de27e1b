"""What comes back from an endpoint: samples, or why there are none; and what it is billed as.

Nothing that failed is ever returned as text. `PASSING` failures may pass and are tried again; the others are the
request's own.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from data_prep.core.step import Drop
from data_prep.inference.sampling import Sample

Failure = Literal[
    "rate_limited",
    "server_error",
    "timeout",
    "connection",
    "malformed",
    "bad_request",
    "content_filter",
    "wrong_model",
    "too_long",
]
PASSING: frozenset[Failure] = frozenset({"rate_limited", "server_error", "timeout", "connection", "malformed"})

LONGEST_RETRY_AFTER_S = 300.0
VERSION = re.compile(r"[-@:](\d{3,}[\d-]*|latest|free)$")  # gpt-4o-2024-08-06, gpt-4-0613, claude-3-opus-latest


@dataclass(frozen=True)
class Failed:
    """Why a request has no samples. `wait` is what the server asked for, in seconds."""

    failure: Failure
    detail: str = ""
    wait: float | None = None


Reply = tuple[Sample, ...] | Failed


@dataclass(frozen=True)
class Usage:
    """Tokens that an answer is billed for."""

    prompt: int
    completion: int


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    token_ids: list[int] | None = None  # vLLM sends them when asked


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


def parse(content: bytes, model: str | None = None) -> Reply:
    """Samples of a chat completion's body, or why there are none; of another model than `model` there are none."""
    return read_answer(content, model)[0]


def read_answer(content: bytes, model: str | None = None) -> tuple[Reply, Usage | None]:
    """The reply in a chat completion's body, and its usage where the body says it."""
    try:
        answer = _Completion.model_validate_json(content)
    except ValidationError as error:
        return Failed("malformed", error.errors(include_url=False, include_input=False)[0]["msg"]), None
    return _reply(answer, model), _billed(answer.usage)


def _reply(answer: _Completion, model: str | None) -> Reply:
    if model and answer.model and not is_same_model(model, answer.model):
        return Failed("wrong_model", f"{answer.model[:100]!r} answered, and {model!r} was asked")
    if not answer.choices:
        return Failed("malformed", "no choices")
    usable = [choice for choice in answer.choices if choice.finish_reason != "content_filter"]
    if not usable:
        return Failed("content_filter")
    samples = []
    for choice in usable:
        if choice.message.content is None or choice.finish_reason is None:
            return Failed("malformed", "a choice without content")
        tokens = len(choice.token_ids) if choice.token_ids is not None else None
        if tokens is None and len(answer.choices) == 1 and answer.usage:
            tokens = answer.usage.completion_tokens
        samples.append(Sample(choice.message.content, choice.finish_reason, tokens))
    return tuple(samples)


def _billed(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        return None
    return Usage(usage.prompt_tokens, usage.completion_tokens)


def is_same_model(asked: str, answered: str) -> bool:
    """Whether an endpoint that calls itself `answered` is the one asked for: it may add or leave off owner and date."""
    (name, version), (other, others) = _name_and_version(asked), _name_and_version(answered)
    return name == other and (version == others or version in ("", "latest") or not others)


def _name_and_version(model: str) -> tuple[str, str]:
    name = model.casefold().rpartition("/")[2]
    version = VERSION.search(name)
    return (name[: version.start()], version[1]) if version else (name, "")


def is_final(reply: Reply) -> bool:
    """Whether an answer is kept and not asked for again: samples, or the provider's refusal of the content."""
    return not isinstance(reply, Failed) or reply.failure == "content_filter"


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> tuple[Failed, str | None]:
    """What an error status means for a request, and the provider's code for it, where there is one."""
    message, code = _error(content)
    if status == 429:
        return Failed("rate_limited", message, retry_after(headers)), code
    if status in (408, 409) or status >= 500:
        return Failed("server_error", f"{status} {message}", retry_after(headers)), code
    if "context length" in message or code == "context_length_exceeded":
        return Failed("too_long", message), code
    return Failed("bad_request", f"{status} {message}"), code


def refuses_key(status: int, code: str | None) -> bool:
    """Whether the answer is about the key, and no request that bears it can go through."""
    return status in (401, 403) or code == "insufficient_quota"


def _error(content: bytes) -> tuple[str, str | None]:
    """The message and code of an error's body, whoever wrote it."""
    text = content.decode("utf-8", "replace")
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        text, code = str(error.get("message") or text), error.get("code")
    else:
        code = None
    return text.replace("\n", " ").replace("\r", " ")[:300], code if isinstance(code, str) else None


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a response asks to wait (RFC 9110, 10.2.3: seconds or a date), at most five minutes."""
    text, unit = headers.get("retry-after-ms"), 0.001  # OpenAI's, which is finer
    if text is None:
        text, unit = headers.get("retry-after"), 1.0
    if text is None:
        return None
    try:
        seconds = float(text) * unit
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # NaN is no number


def as_drop(failed: Failed, row_id: str) -> Drop:
    """A failed request as a row that goes no further."""
    reason = "prompt_too_long" if failed.failure == "too_long" else f"api_error: {failed.failure}"
    return Drop(reason, row_id, failed.detail, bad=True)
