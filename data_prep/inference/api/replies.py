"""Parses responses of an endpoint into samples or typed failures, and the billed tokens.

A failure is never returned as text. `PASSING` failures are transient and retried; the others are caused by the
request. HTTP and its errors are handled by the SDK. The SDK does not validate bodies, so that is done here: leniently,
since a reply is paid for even if other fields are malformed.
"""

import json
import math
import re
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

from data_prep.core.step import Drop
from data_prep.inference.api.prices import VERSION
from data_prep.inference.sampling import Sample
from data_prep.sources.messages import Unfit, is_thought, thought_of

Failure = Literal[
    "rate_limited",
    "server_error",
    "timeout",
    "connection",
    "malformed",
    "bad_request",
    "forbidden",  # this prompt; the key is valid
    "content_filter",
    "refusal",
    "too_long",
]
PASSING: frozenset[Failure] = frozenset({"rate_limited", "server_error", "timeout", "connection", "malformed"})

LONGEST_RETRY_AFTER_S = 300.0

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
TOO_LONG = [re.compile("|".join(words), re.IGNORECASE) for words in _TABLES["too_long"].values()]
OTHER_LIMIT, NO_ROOM, MODERATED, ABOUT_THE_FORM, OF_A_PROMPT, INTERRUPTED = (
    re.compile("|".join(_TABLES["patterns"][name]), re.IGNORECASE)
    for name in ("other_limit", "no_room", "moderated", "about_the_form", "of_a_prompt", "interrupted")
)
FINISH = {word: reason for reason, words in _TABLES["finish_reason"].items() for word in words}


@dataclass(frozen=True)
class Failed:
    """Why a request has no samples. wait: seconds that the server asked to wait."""

    failure: Failure
    detail: str = ""
    wait: float | None = None


Reply = tuple[Sample, ...] | Failed


@dataclass(frozen=True)
class Answer:
    """A parsed body of status 200. usage: billed prompt and completion tokens. model: the endpoint's name for it."""

    reply: Reply
    usage: tuple[int, int] | None = None
    model: str | None = None


def is_too_long(words: str) -> bool:
    """Whether a provider's message says that the prompt leaves no room for a completion."""
    others_left_out = OTHER_LIMIT.sub("", words)
    return bool(NO_ROOM.search(words)) or all(kind.search(others_left_out) for kind in TOO_LONG)


@dataclass(frozen=True)
class Refusal:
    """An error response. words: the provider's message. param: the parameter that it names as the cause."""

    status: int
    words: str
    code: str = ""
    param: str = ""

    def failed(self, wait: float | None = None) -> Failed:
        """The request's failure. wait: seconds that the server asked to wait."""
        if self.status == 429:
            return Failed("rate_limited", self.words, wait)
        if self.status in (408, 409) or self.status >= 500:
            return Failed("server_error", f"{self.status} {self.words}", wait)
        text = f"{self.code} {self.words}"
        if self.status == 413 or is_too_long(text):
            return Failed("too_long", self.words)
        if MODERATED.search(text):
            return Failed("content_filter", self.words)
        return Failed("forbidden" if self.status == 403 else "bad_request", f"{self.status} {self.words}")

    @property
    def is_about_the_key(self) -> bool:
        """Whether no request with this key can succeed; status 403 may also concern a single prompt."""
        return self.status in (401, 402) or self.code == "insufficient_quota"

    @property
    def is_about_the_form(self) -> bool:
        """Whether parameters or model are named as the cause, so that no request of this form can succeed."""
        if self.status == 404 or (self.param and not self.param.startswith(("messages", "prompt", "input"))):
            return True
        text = f"{self.code} {self.words}"
        if is_too_long(text) or OF_A_PROMPT.search(OTHER_LIMIT.sub("", self.words)):
            return False
        return bool(ABOUT_THE_FORM.search(text))


def read_answer(content: bytes) -> Answer:
    """The reply in a body of status 200, and its usage if given. Malformed fields count as missing."""
    text = content.decode("utf-8-sig", "replace")
    try:
        body = json.loads(text, strict=False)  # some servers do not escape newlines in strings
        if isinstance(body, dict):
            return _answer(body)
        problem = f"expected an object, got {type(body).__name__}"
    except (ValueError, RecursionError) as error:
        problem = f"not JSON: {error}"
    words = text.strip()[:100].replace("\n", " ")
    return Answer(Failed("malformed", f"{problem}; the body starts with {words!r}"))


def _answer(body: Mapping[str, Any]) -> Answer:
    usage, model = _object(body.get("usage")), body.get("model")
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    used = None
    if prompt is not None and completion is not None:  # xAI and Gemini count reasoning only in the total
        used = prompt, max(completion, (_count(usage.get("total_tokens")) or 0) - prompt)
    return Answer(_reply(body, completion), used, model if isinstance(model, str) else None)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    """A token count, None if it is invalid."""
    try:
        count = math.ceil(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return count if count >= 0 else None


def _reply(body: Mapping[str, Any], completion_tokens: int | None) -> Reply:
    """The samples. Filtered or refused choices are skipped if others are usable."""
    choices = [_object(choice) for choice in body["choices"]] if isinstance(body.get("choices"), list) else []
    if problem := body.get("error") or next((choice["error"] for choice in choices if choice.get("error")), None):
        return _error_in_body(problem)
    if not choices:
        return _error_in_body(body) if _words(body) else Failed("malformed", "no choices")
    return joined([_sample(choice, completion_tokens if len(choices) == 1 else None) for choice in choices])


def joined(parts: Sequence[Reply]) -> Reply:
    """Several replies as one; a failure if one can be retried, or if all were refused or filtered."""
    failures = [part for part in parts if isinstance(part, Failed)]
    samples = tuple(sample for part in parts if not isinstance(part, Failed) for sample in part)
    again = next((failure for failure in failures if not is_final(failure)), None)
    return again or samples or failures[0]


def _sample(choice: Mapping[str, Any], completion_tokens: int | None) -> Reply:
    """A choice as a sample. An empty choice is final unless it was interrupted or is unexplained."""
    message, given = _object(choice.get("message")), choice.get("finish_reason")
    reason = given.casefold() if isinstance(given, str) and given else "unknown"
    reason = FINISH.get(reason, reason)
    text, thought, refusal = _parts(message.get("content"))
    refusal = refusal or _one_line(message.get("refusal") or "")
    if reason in ("content_filter", "refusal"):
        return Failed("content_filter" if reason == "content_filter" else "refusal", refusal)
    if INTERRUPTED.search(reason) and (text or reason != "abort"):  # an abort without text is a refusal
        return Failed("server_error", f"the completion was interrupted: finish_reason {given}")
    thought = thought or _thought(message)
    if not text.strip():
        if refusal:
            return Failed("refusal", refusal)
        if message.get("tool_calls") or message.get("function_call"):
            return Failed("refusal", "a tool call instead of an answer")
        if reason not in ("stop", "length", "unknown") and not thought:
            return Failed("refusal", f"a choice without text, finish_reason {given}")
        if not isinstance(message.get("content"), str | list) and reason != "length" and not thought:
            return Failed("malformed", f"a choice without content, finish_reason {given}")
    tokens = len(choice["token_ids"]) if isinstance(choice.get("token_ids"), list) else completion_tokens  # vLLM's
    return (Sample(_encodable(text), reason, tokens, _encodable(thought)),)


def _encodable(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _thought(fields: Mapping[str, Any]) -> str:
    """The thought in a field of a message or part, under any known name and type; "" if it is encrypted."""
    with suppress(Unfit):
        return thought_of(fields)
    return ""


def _parts(content: Any) -> tuple[str, str, str]:
    """Text, thought and refusal of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content, "", ""
    texts, thoughts, refusals = [], [], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = str(part.get("type")).replace(".", "_")  # thinking, reasoning.text
            thoughts.append(_thought({kind: part, **part}))
            texts.append(part["text"] if isinstance(part.get("text"), str) and not is_thought(kind) else "")
            refusals.append(_one_line(part.get("refusal")))
    return "".join(texts), "".join(thoughts), "".join(refusals)


def _error_in_body(problem: Any) -> Failed:
    """An error with status 200: its code, if any, is used as the status."""
    refusal = read_refusal(500, problem)
    if re.fullmatch("[45][0-9]{2}", refusal.code):
        refusal = replace(refusal, status=int(refusal.code))
    elif is_too_long(refusal.words):
        refusal = replace(refusal, status=413)
    failed = refusal.failed()
    passing = failed.failure == "server_error"
    return replace(failed, detail=f"status 200 with an error: {failed.detail}") if passing else failed


def read_refusal(status: int, body: Any) -> Refusal:
    """Parse an error's status and body (JSON or text) from any provider."""
    error = body[0] if isinstance(body, list) and body else body
    error = (error.get("error") or error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        return Refusal(status, _one_line(error))
    words = _words(error) or error
    metadata = error.get("metadata")
    if isinstance(metadata, dict):  # OpenRouter: the upstream error, or why a prompt was flagged
        words = f"{words} ({metadata.get('raw') or metadata.get('reasons') or json.dumps(metadata)})"
    code, param = error.get("code") or error.get("type"), error.get("param")
    return Refusal(status, _one_line(words), str(code or ""), param if isinstance(param, str) else "")


def _words(error: Mapping[str, Any]) -> Any:
    """The message in an error, at top level or in a nested object; None if there is none."""
    given = {name.casefold().replace("_", ""): value for name, value in error.items() if value}
    for name in ("message", "errormessage", "detail", "details", "msg", "errormsg", "statusmsg", "error", "errors"):
        if name in given:
            return given[name]
    return next(filter(None, (_words(value) for value in error.values() if isinstance(value, dict))), None)


def _one_line(words: Any) -> str:
    text = words if isinstance(words, str) else "" if words is None else json.dumps(words, ensure_ascii=False)
    return " ".join(text.split())[:300]


def is_same_model(asked: str, answered: str) -> bool:
    """Whether the model named in a reply is the requested one; owner and date may be added or omitted."""
    (name, version), (other, others) = _name_and_version(asked), _name_and_version(answered)
    return name == other and (version == others or version in ("", "latest") or not others)


def _name_and_version(model: str) -> tuple[str, str]:
    name = model.casefold().rpartition("/")[2]
    version = VERSION.search(name)
    return (name[: version.start()], version[1]) if version else (name, "")


def is_final(reply: Reply) -> bool:
    """Whether a reply is stored and never requested again: samples, or a refusal of the content."""
    return not isinstance(reply, Failed) or reply.failure in ("content_filter", "refusal")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait by the response's headers (RFC 9110, 10.2.3: seconds or a date), at most five minutes."""
    finer = headers.get("retry-after-ms")  # OpenAI's
    text = headers.get("retry-after", "") if finer is None else finer
    try:
        seconds = float(text) * (1 if finer is None else 0.001)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # not NaN


def as_drop(failed: Failed, row_id: str) -> Drop:
    """A failed request as a dropped row."""
    reason = "prompt_too_long" if failed.failure == "too_long" else f"api_error: {failed.failure}"
    return Drop(reason, row_id, failed.detail, bad=True)
