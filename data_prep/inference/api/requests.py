"""Requests to an endpoint: body, name (the cache key), and an upper bound on the tokens."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.core.fingerprint import canonical
from data_prep.inference.api.providers import Form
from data_prep.inference.sampling import Sampling

MESSAGE_TOKENS = 16  # role, control tokens, name: an upper bound for known chat templates


@dataclass(frozen=True)
class Request:
    """One prompt as chat messages, and the seed of its samples. Equal requests are sent, and paid, once."""

    messages: Sequence[Mapping[str, Any]]
    seed: int


@dataclass(frozen=True)
class Call:
    """One HTTP request: its body, its name (a hash of everything that determines the reply, 64 hex digits), and the
    maximum of billed prompt and completion tokens."""

    body: bytes
    name: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def call(model: str, request: Request, sampling: Sampling, done: int = 0, form: Form | None = None) -> Call:
    """The call for the remaining samples of a request after the first `done`."""
    left, seed = sampling.n - done, (request.seed + done) % 2**31
    values: dict[str, Any] = {"n": left, "seed": seed}
    values |= {name: getattr(sampling, name) for name in ("temperature", "top_p", "max_tokens")}
    if sampling.stop:
        values["stop"] = list(sampling.stop)
    if sampling.top_k:
        values["top_k"] = sampling.top_k  # not in OpenAI's API; supported by vLLM and most other servers
    form = form or Form()
    body = {**form.body(values), "model": model, "messages": list(request.messages)}
    sent = canonical(body)
    # Even if no seed is sent, it distinguishes the samples of one prompt.
    name = hashlib.sha256(canonical({**body, "seed": seed}) if "seed" in form.omit else sent).hexdigest()
    samples = 1 if "n" in form.omit else left
    prompt_tokens = most_tokens(request.messages) + (len(canonical(form.extra_body)) if form.extra_body else 0)  # tools
    return Call(sent, name, prompt_tokens, samples * _most_answered(sampling.max_tokens, form.extra_body))


def most_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """An upper bound on a prompt's tokens: a token has at least one byte (in English about four)."""
    texts = (message["content"].encode("utf-8", "surrogatepass") for message in messages)
    return sum(len(text) + MESSAGE_TOKENS for text in texts) + MESSAGE_TOKENS


def _most_answered(max_tokens: int, extra: Mapping[str, Any]) -> int:
    """An upper bound on a completion's tokens: the largest limit in the request, plus thinking budgets."""
    limits, budget = [max_tokens], 0
    objects = [extra]
    for fields in objects:
        for name, value in ((name.casefold(), value) for name, value in fields.items()):
            if isinstance(value, Mapping):
                objects.append(value)
            elif isinstance(value, int | float) and value > 0 and "max" in name and "token" in name:
                limits.append(math.ceil(value))
            elif isinstance(value, int | float) and value > 0 and "budget" in name:
                budget += math.ceil(value)
    return max(limits) + budget
