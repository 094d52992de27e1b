"""What comes back from an endpoint: samples, or why there are none; and what it is billed as.

Nothing that failed is ever returned as text. `PASSING` failures may pass and are tried again; the others are the
request's own. HTTP and its errors are the SDK's; the SDK does not validate a body, so that is done here.
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
    "forbidden",  # this prompt, by a key that is in order
    "content_filter",
    "refusal",
    "too_long",
]
PASSING: frozenset[Failure] = frozenset({"rate_limited", "server_error", "timeout", "connection", "malformed"})

LONGEST_RETRY_AFTER_S = 300.0
VERSION = re.compile(r"[-@:](\d{3,}[\d-]*|latest|free)$")  # gpt-4o-2024-08-06, gpt-4-0613, claude-3-opus-latest

# Providers have no common codes for these; each alternative stands in a provider's documentation or a public report.
# Words of all three kinds, the names of other limits left out, say that a prompt is too long.
TOO_LONG = tuple(re.compile(words, re.IGNORECASE) for words in (
    r"\b(prompts?|inputs?|messages?|request|conversation|sequence|text|content|query)\b|context|\b(input|prompt)_(tokens"
    r"|length)|number of tokens|tokens? (in|limit|count|exceed)|total[ _]tokens|too many tokens|string_above"
    r"|输入|提示|上下文|消息|文本|入力",
    r"too (long|large|many|big)|exceed|surpass|longer|larger|greater|bigger|more than|less than|fewer|short|reduce"
    r"|at most|up to|no more|not be|<=|>|limit|range|max|over|above|beyond|only [\d,]+|fit|超|[过過太]长|長すぎ|最大",
    r"tokens?\b|length|\blong|short|size|char|context|window|words|large|limit of this model|长|長|字",
))  # fmt: skip
OTHER_LIMIT = re.compile(
    r"max[_ ](new_|completion_|output_)?tokens|budget_tokens|(output|completion) (length|tokens)|stop sequences?"
    r"|extra inputs?|invalid request|input (should|validation)|truncate_prompt_tokens|prompt_cache\w*",
    re.IGNORECASE,
)
NO_ROOM = re.compile(r"at least 1, got (0|-\d)")  # for an answer, beside the prompt
MODERATED = re.compile(
    r"content[ _-]?(filter|management|policy|exists risk)|moderation|flagged|safety|inappropriate content"
    r"|data_inspection|usage polic|invalid_prompt|sensitive",
    re.IGNORECASE,
)
ABOUT_THE_FORM = re.compile(
    r"unsupported|support|unrecognized|unknown|unexpected|extra|permitted|allowed|invalid|not valid|must be|should be"
    r"|greater than|less than|at most|too large|max_tokens|model|required|missing|deserialize|api key|deployment",
    re.IGNORECASE,
)
OF_A_PROMPT = re.compile(r"\b(prompts?|inputs?|conversation)\b", re.IGNORECASE)  # it may be at fault
FINISH = {
    "max_tokens": "length",
    "model_length": "length",
    "max_output_tokens": "length",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "sensitive": "content_filter",
}


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


@dataclass(frozen=True)
class Answer:
    """A body of status 200, read. `model`: the name that the endpoint calls its model."""

    reply: Reply
    usage: Usage | None = None
    model: str | None = None


def is_too_long(words: str) -> bool:
    """Whether a provider's words say that a prompt leaves no room for an answer."""
    others_left_out = OTHER_LIMIT.sub("", words)
    return bool(NO_ROOM.search(words)) or all(kind.search(others_left_out) for kind in TOO_LONG)


@dataclass(frozen=True)
class Refusal:
    """An error, in the provider's own words. `param`: the parameter that it names as the cause."""

    status: int
    words: str
    code: str = ""
    param: str = ""

    def failed(self, headers: Mapping[str, str] | None = None) -> Failed:
        """What it means for the request."""
        if self.status == 429:
            return Failed("rate_limited", self.words, retry_after(headers or {}))
        if self.status in (408, 409) or self.status >= 500:
            return Failed("server_error", f"{self.status} {self.words}", retry_after(headers or {}))
        text = f"{self.code} {self.words}"
        if self.status == 413 or is_too_long(text):
            return Failed("too_long", self.words)
        if MODERATED.search(text):
            return Failed("content_filter", self.words)
        return Failed("forbidden" if self.status == 403 else "bad_request", f"{self.status} {self.words}")

    @property
    def is_about_the_key(self) -> bool:
        """Whether no request with this key can succeed; a status of 403 may also be about one prompt."""
        return self.status in (401, 402) or self.code == "insufficient_quota"

    @property
    def is_about_the_form(self) -> bool:
        """Whether the request's parameters or model are named as the cause: no request of the same form can succeed."""
        if self.status == 404 or (self.param and not self.param.startswith(("messages", "prompt", "input"))):
            return True
        if OF_A_PROMPT.search(OTHER_LIMIT.sub("", self.words)):
            return False
        return bool(ABOUT_THE_FORM.search(f"{self.code} {self.words}"))


class _Message(BaseModel):
    content: str | list[Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(BaseModel):
    message: _Message = _Message()
    finish_reason: str | None = None
    token_ids: list[int] | None = None  # vLLM sends them when asked
    error: Any = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


def read_answer(content: bytes) -> Answer:
    """The reply in a body of status 200, and its usage where the body says it."""
    try:
        body = _Completion.model_validate_json(content)
    except ValidationError as error:
        words = content.decode("utf-8", "replace").strip()[:100].replace("\n", " ")
        message = error.errors(include_url=False, include_input=False)[0]["msg"]
        return Answer(Failed("malformed", f"{message}; the body begins {words!r}"))
    usage = body.usage
    billed = usage and usage.prompt_tokens is not None and usage.completion_tokens is not None
    if usage is None or not billed or usage.prompt_tokens < 0 or usage.completion_tokens < 0:  # type: ignore[operator]
        return Answer(_reply(body), None, body.model)
    return Answer(_reply(body), Usage(usage.prompt_tokens, usage.completion_tokens), body.model)  # type: ignore[arg-type]


def _reply(body: _Completion) -> Reply:
    """Samples. Choices that were filtered or refused are left out where others are usable."""
    if problem := body.error or next((choice.error for choice in body.choices or () if choice.error), None):
        return _error_in_body(problem)
    if not body.choices:
        return Failed("malformed", "no choices in it")
    single = body.usage.completion_tokens if body.usage and len(body.choices) == 1 else None
    results = [_sample(choice, single) for choice in body.choices]
    samples = tuple(result for result in results if isinstance(result, Sample))
    failures = [result for result in results if isinstance(result, Failed)]
    passing = [result for result in failures if result.failure in PASSING]
    return passing[0] if passing else samples or failures[0]


def _sample(choice: _Choice, completion_tokens: int | None) -> Sample | Failed:
    """A choice as a sample. One without text is final where a thought or the limit of tokens explains it."""
    message = choice.message
    reason = (choice.finish_reason or "unknown").casefold()
    reason = FINISH.get(reason, reason)
    if reason == "content_filter":
        return Failed("content_filter", _refused(message))
    text, thought = _parts(message.content)
    thought = thought or next(
        (candidate for candidate in (message.reasoning_content, message.reasoning) if _is_text(candidate)), ""
    )
    if message.content is None:
        if message.refusal:
            return Failed("refusal", _refused(message))
        if message.tool_calls:
            return Failed("refusal", "it called a tool instead of answering")
        if reason != "length" and not thought:
            return Failed("malformed", f"a choice without content, finish_reason {choice.finish_reason}")
    tokens = completion_tokens if choice.token_ids is None else len(choice.token_ids)
    return Sample(text, reason, tokens, thought)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _refused(message: _Message) -> str:
    return _one_line(message.refusal) if _is_text(message.refusal) else ""


def _parts(content: str | list[Any] | None) -> tuple[str, str]:
    """Text and thought of a message's content, which may be a list of parts."""
    if not isinstance(content, list):
        return content or "", ""
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            inner = part.get("thinking", part.get("reasoning"))
            thoughts.append("".join(_parts(inner if isinstance(inner, (str, list)) else None)))
            texts.append(part["text"] if isinstance(part.get("text"), str) else "")
    return "".join(texts), "".join(thoughts)


def _error_in_body(problem: Any) -> Failed:
    """An error that came with status 200: its code stands for the status, where it has one."""
    code = str(problem.get("code")) if isinstance(problem, dict) else ""
    status = int(code) if code.isdigit() and 400 <= int(code) <= 599 else 500
    failed = read_refusal(status, {"error": problem}).failed()
    return (
        failed
        if failed.failure != "server_error"
        else Failed("server_error", f"status 200 with an error: {failed.detail}")
    )


def read_refusal(status: int, body: Any) -> Refusal:
    """An error's status and body (parsed JSON, or text), whoever wrote it."""
    error = body[0] if isinstance(body, list) and body else body
    error = error.get("error", error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        return Refusal(status, _one_line(error))
    words = next((error[name] for name in ("message", "detail", "msg", "error") if error.get(name)), error)
    metadata = error.get("metadata")
    if isinstance(metadata, dict):  # OpenRouter: what the provider behind it answered, or why a prompt was flagged
        words = f"{words} ({metadata.get('raw') or metadata.get('reasons') or json.dumps(metadata)})"
    code, param = error.get("code") or error.get("type"), error.get("param")
    return Refusal(status, _one_line(words), str(code or ""), param if isinstance(param, str) else "")


def _one_line(words: Any) -> str:
    text = words if isinstance(words, str) else "" if words is None else json.dumps(words, ensure_ascii=False)
    return " ".join(text.split())[:300]


def is_same_model(asked: str, answered: str) -> bool:
    """Whether an endpoint that calls itself `answered` is the one asked for: it may add or leave off owner and date."""
    (name, version), (other, others) = _name_and_version(asked), _name_and_version(answered)
    return name == other and (version == others or version in ("", "latest") or not others)


def _name_and_version(model: str) -> tuple[str, str]:
    name = model.casefold().rpartition("/")[2]
    version = VERSION.search(name)
    return (name[: version.start()], version[1]) if version else (name, "")


def is_final(reply: Reply) -> bool:
    """Whether an answer is kept and not asked for again: samples, or that the content was refused."""
    return not isinstance(reply, Failed) or reply.failure in ("content_filter", "refusal")


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
    """A failed request as a dropped row."""
    reason = "prompt_too_long" if failed.failure == "too_long" else f"api_error: {failed.failure}"
    return Drop(reason, row_id, failed.detail, bad=True)
