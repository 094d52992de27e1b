"""Providers of OpenAI-compatible endpoints in their manner: what each refuses, in its own words, and how it answers.

with OpenAIServer(providers.anthropic) as server: ...

Words and bodies are those of the providers' documentation and of public bug reports.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.openai_server import COMPLETION_TOKENS, PROMPT_TOKENS, Fault, Raw, Request, Status

PLAIN = {"model", "messages", "n", "temperature", "top_p", "max_tokens", "seed", "stop"}


def answer(request: Request, *messages: dict[str, Any], finish: str = "stop", **more: Any) -> Raw:
    """A completion of these messages, one choice each."""
    choices = [
        {"index": at, "finish_reason": finish, "message": {"role": "assistant", **message}, **more}
        for at, message in enumerate(messages)
    ]
    spent = COMPLETION_TOKENS * len(messages)
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": spent, "total_tokens": PROMPT_TOKENS + spent}
    return Raw(json.dumps({"id": "x", "model": request.body["model"], "choices": choices, "usage": usage}).encode())


def openai_reasoning(request: Request) -> Fault | None:
    """o-series and GPT-5 (github.com/FoundationAgents/OpenManus/issues/555, decolua/9router/issues/560)."""
    if "max_tokens" in request.body:
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return _openai(words, "max_tokens", "unsupported_parameter")
    for name in ("temperature", "top_p"):
        if request.body.get(name, 1) != 1:
            words = (
                f"Unsupported value: '{name}' does not support {request.body[name]} with this model. Only the default"
            )
            return _openai(f"{words} (1) value is supported.", name, "unsupported_value")
    return _unknown_to_openai(request, PLAIN | {"max_completion_tokens", "reasoning_effort"})


def azure(request: Request) -> Fault | None:
    """A deployment with a content filter (github.com/tatsu-lab/alpaca_eval/issues/227)."""
    if "spice" in request.prompt:
        words = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"sexual": {"filtered": True}}}
        error = {"message": words, "type": None, "param": "prompt", "code": "content_filter", "innererror": inner}
        return Status(400, error={**error, "status": 400})
    if request.headers.get("api-key") != request.key:
        return Status(401, error={"code": "401", "message": "Access denied due to invalid subscription key."})
    return _unknown_to_openai(request, PLAIN)


def gemini(request: Request) -> Fault | None:
    """Its OpenAI endpoint (github.com/Vali-98/ChatterUI/issues/227); errors come in a list."""
    for name in request.body:
        if name in ("seed", "top_k"):
            words = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
            return Status(400, body=[{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}])
    return None


def anthropic(request: Request) -> Fault | None:
    """Its OpenAI SDK compatibility: one sample a request, no two kinds of truncated sampling."""
    body = request.body
    words = None
    if body.get("n", 1) != 1:
        words = "n: Input should be 1"
    elif "temperature" in body and "top_p" in body:
        words = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    if words:
        return Status(400, body={"type": "error", "error": {"type": "invalid_request_error", "message": words}})
    return answer(request, {"content": f"{request.prompt} number {request.number}"})


def openrouter(request: Request) -> Fault | None:
    """Moderated prompts, providers that fail behind a 200, and reasoning (openrouter.ai/docs/api-reference/errors)."""
    if "steal" in request.prompt:
        metadata = {"reasons": ["illicit"], "flagged_input": "how to steal", "provider_name": "OpenAI"}
        words = "Your chosen model requires moderation and your input was flagged"
        return Status(403, error={"message": words, "code": 403, "metadata": metadata})
    if "busy" in request.prompt and request.number < 3:
        metadata = {"raw": "Too Many Requests", "provider_name": "Hyperbolic"}
        error = {"message": "Provider returned error", "code": 429, "metadata": metadata}
        return Raw(json.dumps({"choices": None, "usage": None, "error": error}).encode())
    return answer(request, {"content": request.prompt.upper(), "reasoning": "It wants capitals."})


def vllm(request: Request) -> Fault | None:
    """A server with a reasoning parser: the thought is in a field of its own, tokens are counted when asked."""
    messages = [{"content": f"sample {at}", "reasoning_content": "Hm."} for at in range(request.body["n"])]
    ids = {"token_ids": [1, 2, 3]} if request.body.get("return_token_ids") else {}
    return answer(request, *messages, **ids)


def _openai(words: str, param: str | None, code: str | None) -> Status:
    return Status(400, error={"message": words, "type": "invalid_request_error", "param": param, "code": code})


def _unknown_to_openai(request: Request, known: set[str]) -> Fault | None:
    for name in request.body:
        if name not in known:
            return _openai(f"Unrecognized request argument supplied: {name}", None, None)
    return None
