"""What is asked of an endpoint: a request's body, the name it is found by, and the most tokens it may take."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.core.fingerprint import canonical
from data_prep.inference.api.providers import Form
from data_prep.inference.sampling import Sampling

MESSAGE_TOKENS = 16  # a role, its marks, a name: more than any chat template known to us puts around a message


@dataclass(frozen=True)
class Request:
    """One prompt as chat messages, and the seed of its samples. Equal requests are one: asked, and paid, once."""

    messages: Sequence[Mapping[str, Any]]
    seed: int


@dataclass(frozen=True)
class Call:
    """One HTTP request: its body, its name (a hash of all that determines the answer, 64 hex digits), and the most
    tokens of prompt and completions that it may be billed for."""

    body: bytes
    name: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def call(model: str, request: Request, sampling: Sampling, done: int = 0, form: Form | None = None) -> Call:
    """The call for the samples of a request that are left when `done` of them are there."""
    left, seed = sampling.n - done, (request.seed + done) % 2**31
    values: dict[str, Any] = {
        "n": left,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": seed,
    }
    if sampling.stop:
        values["stop"] = list(sampling.stop)
    if sampling.top_k:
        values["top_k"] = sampling.top_k  # not OpenAI's; vLLM and most other servers know it
    form = form or Form()
    body = {**form.body(values), "model": model, "messages": list(request.messages)}
    sent = canonical(body)
    # Where no seed is sent, it still keeps the samples of one prompt apart.
    name = hashlib.sha256(canonical({**body, "seed": seed}) if "seed" in form.omit else sent).hexdigest()
    samples = 1 if "n" in form.omit else left
    return Call(sent, name, most_tokens(request.messages), samples * sampling.max_tokens)


def most_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """A bound on a prompt's tokens: no token is shorter than a byte. (English has about four bytes to a token.)"""
    return sum(_bytes(message["content"]) + MESSAGE_TOKENS for message in messages) + MESSAGE_TOKENS


def _bytes(content: Any) -> int:
    return len(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else canonical(content))
