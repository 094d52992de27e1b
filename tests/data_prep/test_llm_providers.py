"""Providers: presets and what each provider rejects, reply formats from public reports, proxies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from data_prep.core.step import Drop
from data_prep.core.totals import read_totals
from data_prep.errors import DataError
from data_prep.inference.api.client import ChatClient, http_client
from data_prep.inference.api.prices import Price
from data_prep.inference.api.providers import Form, find_form
from data_prep.inference.api.replies import Failed, Reply, read_answer, read_refusal
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sample, Sampling
from data_prep.steps.generate import sample_rows
from rewards.thinking import thinking
from tests.fakes import openai_server, providers
from tests.fakes.openai_server import Fault, Finish, Model, OpenAIServer, Raw, Status

ONCE = Sampling(n=1, max_tokens=8, seed=7)
WITH_TEMPERATURE = Sampling(n=2, temperature=0.7, top_p=0.9, max_tokens=8, seed=7)
SAME = Sampling(n=2, temperature=0.7, max_tokens=8, seed=7)
PRICE = Price.model_validate({"input": 1000, "output": 100_000, "date": "2026-01-01", "source": "a test"})


def ask(server: OpenAIServer, *prompts: str, sampling: Sampling = ONCE, **settings: Any) -> list[Reply]:
    client = ChatClient(server.url, "m", **{"first_wait": 0.01, "timeout": 5.0, **settings})
    return client.ask([Request([{"role": "user", "content": one}], at) for at, one in enumerate(prompts)], sampling)


def preset(name: str) -> Form:
    return find_form(name, "", "m")


@pytest.mark.parametrize(
    ("name", "manner", "sampling", "settings"),
    [
        ("openai_reasoning", providers.openai_reasoning, WITH_TEMPERATURE, {}),
        ("azure", providers.azure, WITH_TEMPERATURE, {"api_keys": ["sk-azure"]}),
        ("gemini", providers.gemini, WITH_TEMPERATURE, {}),
        ("anthropic", providers.anthropic, SAME, {}),
        ("openrouter", providers.openrouter, WITH_TEMPERATURE, {}),
        ("vllm", providers.vllm, Sampling(n=2, top_k=5, max_tokens=8), {}),
    ],
)
def test_presets_are_accepted_where_the_default_form_is_not(
    name: str, manner: Callable[[openai_server.Request], Fault | None], sampling: Sampling, settings: dict[str, Any]
) -> None:
    with OpenAIServer(manner) as server:
        replies = ask(server, "a", "b", sampling=sampling, form=preset(name), **settings)
        assert all(isinstance(reply, tuple) and len(reply) == 2 for reply in replies)
        first = len(server.requests)
        assert first == (4 if "n" in preset(name).omit else 2)
        if name not in ("openrouter", "vllm"):  # they ignore what they do not know
            with pytest.raises(DataError, match=r"rejects the requests: |the API key was rejected") as caught:
                ask(server, "a", "b", "c", sampling=sampling, **settings)
            assert len(server.requests) == first + 1, "the second request is not sent"
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "model", "name"),
    [
        ("https://api.openai.com/v1", "o4-mini", "openai_reasoning"),
        ("https://api.openai.com/v1/", "gpt-5.4-mini", "openai_reasoning"),
        ("https://api.openai.com/v1", "gpt-4o-mini", None),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-3.6-flash", "gemini"),
        ("https://api.anthropic.com/v1", "claude-sonnet-4-0", "anthropic"),
        ("https://openrouter.ai/api/v1", "openai/o4-mini", "openrouter"),
        ("https://us.openai.azure.com/openai/v1", "gpt-5-mini", "azure_reasoning"),
        ("https://us.openai.azure.com/openai/v1", "my-deployment", "azure"),
        ("http://localhost:8000/v1", "o4-mini", None),
        ("https://api.openai.com.example.org/v1", "o4-mini", None),
    ],
)
def test_an_address_and_a_model_choose_the_preset(base_url: str, model: str, name: str | None) -> None:
    assert find_form(None, base_url, model) == (preset(name) if name else Form())


def test_samples_without_n_and_seed_stay_distinct_and_are_paid_once(tmp_path: Path) -> None:
    settings = {"form": preset("anthropic"), "journal": tmp_path / "replies" / "x" / "step.jsonl"}
    with OpenAIServer(providers.anthropic) as server:
        first = ask(server, "a", "b", sampling=SAME, **settings)
        assert all(isinstance(reply, tuple) and reply[0] != reply[1] for reply in first)
        assert ask(server, "a", "b", sampling=SAME, **settings) == first
        assert len(server.requests) == 4


@pytest.mark.parametrize("omit", [(), ("n",)], ids=["n in one request", "a request a sample"])
def test_unfiltered_samples_are_kept_and_paid_once(omit: tuple[str, ...], tmp_path: Path) -> None:
    def script(request: openai_server.Request) -> Fault:
        n = request.body.get("n", 1)
        filtered = n == 1 and (not omit or request.body["seed"] % 4 == 3)
        choices = [{"finish_reason": "stop", "message": {"content": f"s{k}"}} for k in range(n)]
        choices[-1] = {"finish_reason": "content_filter", "message": {}} if n > 1 or filtered else choices[-1]
        return Raw(json.dumps({"choices": choices}).encode())

    settings: dict[str, Any] = {"form": Form(omit=omit), "journal": tmp_path / "replies" / "x" / "step.jsonl"}
    with OpenAIServer(script) as server:
        first = ask(server, "a", sampling=Sampling(n=4, max_tokens=8), **settings)
        assert [len(reply) for reply in first if isinstance(reply, tuple)] == [3]
        before = len(server.requests)
        assert ask(server, "a", sampling=Sampling(n=4, max_tokens=8), **settings) == first
        assert len(server.requests) == before


def test_omitted_sampling_parameters_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer(providers.openai_reasoning) as server:
        ask(server, "a", sampling=WITH_TEMPERATURE, form=preset("openai_reasoning"))
    assert "temperature, top_p: not sent: the provider does not support it" in capsys.readouterr().err


# The first request is refused in these words: status, body.
REFUSED_FORMS: list[tuple[int, Any]] = [
    (400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed')}]", "code": 400}),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
    (422, {"error": {"message": "Failed to deserialize the JSON body into the target type: n: invalid type"}}),
    (400, {"error": {"message": "xyz/abc is not a valid model ID", "code": 400}, "user_id": "u"}),
    (400, {"error": {"message": "Model Not Exist", "type": "invalid_request_error", "param": None}}),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}),
    (404, {"error": {"message": 'model "llama9" not found, try pulling it first', "type": "api_error"}}),
    (404, {"error": {"message": "No endpoints found for mistralai/x.", "code": 404}}),
    (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]),
    (401, {"error": {"message": "Incorrect API key provided: sk-pr***********key1.", "code": "invalid_api_key"}}),
    (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}),
    (400, {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: stop"}),
    (
        400,
        {"error": {"message": "max_tokens=100000 cannot be greater than max_model_len=4096.", "param": "max_tokens"}},
    ),
    (400, {"error": {"message": "temperature: range: 0..1", "type": "invalid_request_error", "param": "temperature"}}),
    *((400, {"error": {"message": words}}) for words in (
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
        "max_tokens: Input should be less than or equal to 8192",
        "Input validation error: `max_new_tokens` must be <= 512. Given: 1000",
        "max_tokens exceeds the limit of this model: must be less than 8193",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), REFUSED_FORMS, ids=lambda value: json.dumps(value)[:60])
def test_a_rejected_form_stops_after_the_first_request(status: int, body: Any) -> None:
    with OpenAIServer(lambda request: Status(status, body=body)) as server:
        with pytest.raises(DataError) as caught:
            ask(server, *map(str, range(50)), api_keys=["sk-private-key1"])
        assert len(server.requests) == 1
    words = read_refusal(status, body).words
    assert len(words) > 10
    assert words.replace("sk-pr***********key1.", "***")[:60] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "sk-pr" not in str(caught.value)


@pytest.mark.parametrize("words", ["scripted", "This prompt is not supported"])
def test_an_unexplained_rejection_is_decided_by_a_second_prompt(words: str) -> None:
    refused = Status(400, error={"message": words})
    with OpenAIServer(lambda request: refused) as server:
        with pytest.raises(DataError, match="rejects the requests"):
            ask(server, *"abcdef")
        assert len(server.requests) == 2
    with OpenAIServer(lambda request: refused if request.prompt == "a" else None) as server:
        replies = ask(server, *"abcdef")
        assert [isinstance(reply, Failed) for reply in replies] == [True, *[False] * 5]


# A prompt's own failures are its row's outcome, the first row's too.
OF_THE_PROMPT: list[tuple[int, Any, str]] = [
    (403, {"error": {"message": "moderation", "code": 403, "metadata": {"reasons": ["violence"]}}}, "content_filter"),
    (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}, "content_filter"),
    (400, {"error": {"code": "data_inspection_failed", "message": "Output data may contain x"}}, "content_filter"),
    (
        400,
        {"error": {"code": "invalid_prompt", "message": "Invalid prompt: your prompt was flagged"}},
        "content_filter",
    ),
    (400, {"error": {"message": "This model's maximum context length is 4096 tokens. However,"}}, "too_long"),
    (400, {"error": {"message": "prompt is too long: 208310 tokens > 200000 maximum"}}, "too_long"),
    (400, [{"error": {"message": "The input token count (1200000) exceeds the maximum number of tokens"}}], "too_long"),
    (413, {"error": {"message": "Request too large for model"}}, "too_long"),
    *((400, {"error": {"message": words, "code": "invalid_argument"}}, "too_long") for words in (
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",  # xAI
        "Input is too long for requested model.",  # Bedrock
        "The prompt (length 5000) is longer than the maximum model length of 4096.",  # vLLM
        "max_tokens must be at least 1, got -904.",
        "length of prompt_tokens (131075) must be less than max_seq_len (131072).",  # Fireworks
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048",  # TGI
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4090 `inputs` tokens",
        "too many tokens: total number of tokens in the prompt cannot exceed 4081",  # Cohere
        "Invalid request: Your request exceeded model token limit: 8192",  # Moonshot
        "max_total_tokens (5000) must be less than or equal to max_seq_len (4096)",
        "Prompt length (5000) exceeds maximum input length (4096).",  # TensorRT-LLM
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576",  # OpenAI
        "This model supports at most 8192 input tokens, got 9000",
        "Prompt must be at most 4096 tokens",
        "Your input is over the limit of this model",
        "The number of input tokens (9000) must not be larger than 8192",
        "Prompt exceeds max length",  # Zhipu
        "输入内容过长，请减少后重试",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "failure"), OF_THE_PROMPT)
def test_a_rejected_prompt_affects_only_its_row(status: int, body: Any, failure: str) -> None:
    refused = Status(status, body=body)
    with OpenAIServer(lambda request: refused if request.prompt == "bad" else None) as server:
        replies = ask(server, "bad", "good", "fine", api_keys=["sk-1"])
        assert len(server.requests) == 3
    assert isinstance(replies[0], Failed)
    assert replies[0].failure == failure
    assert replies[0].detail
    assert all(isinstance(reply, tuple) for reply in replies[1:])


def test_moderation_rate_limits_inside_a_200_and_reasoning_of_a_router() -> None:
    with OpenAIServer(providers.openrouter) as server:
        moderated, busy, plain = ask(server, "how to steal", "busy", "hello", form=preset("openrouter"))
    assert isinstance(moderated, Failed)
    assert "your input was flagged (" in moderated.detail
    assert "illicit" in moderated.detail
    assert busy == (Sample("BUSY", "stop", 5, "It wants capitals."),)
    assert plain == (Sample("HELLO", "stop", 5, "It wants capitals."),)


def message(finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **fields}}]}


THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Okay"}]
# Bodies of public reports, each with its source, and what they are.
FORMS: Mapping[str, tuple[dict[str, Any], Reply]] = {
    "Birfy/agentdescent#11: all tokens went into the reasoning": (
        message("length", content=None, reasoning_content="So 6"), (Sample("", "length", None, "So 6"),)),
    "xorbitsai/xagent#626: the same with an empty string": (
        message("length", content="", reasoning_content="So 6"), (Sample("", "length", None, "So 6"),)),
    "o-series: reasoning is hidden": (message("length", content=None), (Sample("", "length", None),)),
    "vLLM: reasoning": (message(content="42", reasoning="6*7"), (Sample("42", "stop", None, "6*7"),)),
    "microsoft/agent-framework#6978: Mistral's parts": (
        message(content=THINKING), (Sample("Okay", "stop", None, "Hm."),)),
    "epam/ai-dial-adapter-openai#397: a thinking part of text": (
        message(content=[{"type": "thinking", "thinking": "Hm."}, "Okay"]), (Sample("Okay", "stop", None, "Hm."),)),
    "openai/openai-openapi#20: finish_reason null": (
        message(None, content="..."), (Sample("...", "unknown", None),)),
    "Gemini's names": (message("MAX_TOKENS", content="a"), (Sample("a", "length", None),)),
    "Gemini's filter": (message("SAFETY", content=None), Failed("content_filter")),
    "OpenAI's refusal": (message(content=None, refusal="I can't help."), Failed("refusal", "I can't help.")),
    "a tool where none was offered": (
        message("tool_calls", content=None, tool_calls=[{"id": "x"}]),
        Failed("refusal", "a tool call instead of an answer")),
    "the same in the old form, with an empty string": (
        message("function_call", content="", function_call={"name": "f"}),
        Failed("refusal", "a tool call instead of an answer")),
    "a refusal beside an empty string": (message(content="", refusal="I can't."), Failed("refusal", "I can't.")),
    "a refusal as a part": (
        message(content=[{"type": "refusal", "refusal": "I can't."}]), Failed("refusal", "I can't.")),
    "Anthropic's refusal after some words": (message("refusal", content="Sure, "), Failed("refusal")),
    "a refusal by its finish_reason": (message("refusal", content=None), Failed("refusal")),
    "Gemini's filter of personal data": (message("SPII", content=None), Failed("content_filter")),
    "SGLang: aborted before the first word": (
        message("abort", content=None), Failed("refusal", "a choice without text, finish_reason abort")),
    "a reason of its own without text": (
        message("guardrail_intervened", content=""),
        Failed("refusal", "a choice without text, finish_reason guardrail_intervened")),
    **{f"interrupted: {reason}": (
        message(reason, content="half an ans"),
        Failed("server_error", f"the completion was interrupted: finish_reason {reason}"))
       for reason in ("insufficient_system_resource", "error", "abort", "network_error", "cancelled")},
    "an error before the first word": (
        message("error", content=None), Failed("server_error", "the completion was interrupted: finish_reason error")),
    "UKGovernmentBEIS/inspect_ai#1534: choices null beside an error": (
        {"choices": None, "error": {"message": "Provider returned error", "code": 429,
                                    "metadata": {"raw": "Too Many Requests"}}},
        Failed("rate_limited", "Provider returned error (Too Many Requests)")),
    "nodetool-ai/nodetool#5755: an error inside the choice": (
        {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "upstream"}}]},
        Failed("server_error", "status 200 with an error: 502 upstream")),
    "an error as words": (
        {"error": "Internal Server Error"},
        Failed("server_error", "status 200 with an error: 500 Internal Server Error")),
    "langchainjs#11417: no choices": ({"id": "x", "usage": None}, Failed("malformed", "no choices")),
    **{f"an error without the word: {words}": (body, Failed("server_error", f"status 200 with an error: 500 {words}"))
       for words, body in {
           "Requests throttled": {"code": "Throttling", "message": "Requests throttled", "request_id": "x"},
           "rate limit": {"id": "x", "choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
           "Not authenticated": {"detail": "Not authenticated"},
           "Open api qps limit": {"error_code": 18, "error_msg": "Open api qps limit"},
           "No such plan": {"object": "error", "error": None, "Message": "No such plan", "choices": []},
       }.items()},
    "lmdeploy: a prompt too long": (
        {"object": "error", "message": "This model maximum context length is 4096 tokens", "code": 40303},
        Failed("too_long", "This model maximum context length is 4096 tokens")),
    **{f"a thought in {name}": (message(content="42", **{name: thought}), (Sample("42", "stop", None, "6*7"),))
       for name, thought in {
           "reasoning_content": [{"type": "text", "text": "6*7"}],
           "reasoning_details": [{"type": "reasoning.text", "text": "6*7", "format": "x", "index": 0}],
           "thinking": "6*7",
           "thinking_blocks": [{"type": "thinking", "thinking": "6*7", "signature": "x"}],
           "reasoning": {"summary": [{"type": "summary_text", "text": "6*7"}]},
       }.items()},
    "a thought in a part's text": (
        message(content=[{"type": "reasoning", "text": "6*7"}, {"type": "text", "text": "42"}]),
        (Sample("42", "stop", None, "6*7"),)),
    "an encrypted thought": (
        message(content="42", reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
        (Sample("42", "stop", None),)),
    "PowerShell/AIShell#350: no finish_reason": (
        {"choices": [{"message": {"content": "hi"}}]}, (Sample("hi", "unknown", None),)),
}  # fmt: skip


@pytest.mark.parametrize("report", FORMS)
def test_reply_forms_of_public_reports(report: str) -> None:
    body, expected = FORMS[report]
    assert read_answer(json.dumps(body).encode()).reply == expected


OKAY = {**message(content="Okay"), "model": "m"}
PAID = {"prompt_tokens": 10, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("body", "text", "usage"),
    [
        ({**OKAY, "usage": {**PAID, "prompt_tokens": 10.5}}, "Okay", (11, 5)),
        ({**OKAY, "usage": {**PAID, "prompt_tokens": "n/a"}}, "Okay", None),
        ({**OKAY, "usage": {**PAID, "completion_tokens": float("nan")}}, "Okay", None),
        ({**OKAY, "usage": {**PAID, "completion_tokens": -1}}, "Okay", None),
        ({**OKAY, "usage": []}, "Okay", None),
        ({**OKAY, "usage": "12"}, "Okay", None),
        ({**OKAY, "usage": PAID, "model": 7}, "Okay", (10, 5)),
        (message(1, content="Okay"), "Okay", None),  # type: ignore[arg-type]
        (message("stop", content="Okay", refusal=[], tool_calls="none"), "Okay", None),
        ({"choices": [{"finish_reason": "length", "message": None}], "usage": PAID}, "", (10, 5)),
        (message(content="hi \ud83d"), "hi \ufffd", None),
        (message(content="\U0001f600"), "\U0001f600", None),
    ],
    ids=repr,
)  # fmt: skip
def test_malformed_details_do_not_lose_a_paid_reply(
    body: dict[str, Any], text: str, usage: tuple[int, int] | None
) -> None:
    answer = read_answer(b"\xef\xbb\xbf" + json.dumps(body).encode())  # a byte order mark
    assert isinstance(answer.reply, tuple)
    assert [sample.text for sample in answer.reply] == [text]
    assert answer.usage == usage


def test_invalid_utf_8_and_raw_newlines_do_not_lose_a_paid_reply() -> None:
    reply = read_answer(b'{"choices": [{"finish_reason": "stop", "message": {"content": "a\nb\xff"}}]}').reply
    assert reply == (Sample("a\nb\ufffd", "stop", None),)


@pytest.mark.parametrize(
    "final", [message("length", content=None), message(content=None, refusal="No."), message("SAFETY", content=None)]
)
def test_a_final_outcome_without_content_is_paid_once(final: dict[str, Any], tmp_path: Path) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    settings: dict[str, Any] = {"journal": tmp_path / "replies" / "x" / "step.jsonl", "price": PRICE}
    with OpenAIServer(lambda request: Raw(json.dumps({**final, "usage": usage}).encode())) as server:
        first = ask(server, "a", **settings)
        assert ask(server, "a", **settings) == first
        assert len(server.requests) == 1
    totals = read_totals(tmp_path / "step")
    assert totals is not None
    assert totals.usd == pytest.approx(0.503)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (Sample("42", "stop", 9, "6*7"), "<think>\n6*7\n</think>\n\n42"),
        (Sample("", "length", 9, "So 6"), "<think>\nSo 6"),
    ],
)
def test_a_thought_is_kept_in_meta_or_in_the_completion(sample: Sample, text: str) -> None:
    row = {"id": "p", "prompt": [{"role": "user", "content": "6*7?"}]}
    (beside,) = sample_rows(row, [sample])
    assert isinstance(beside, dict)
    assert (beside["completion"], beside["meta"]["reasoning"]) == (sample.text, sample.thought)
    (inside,) = sample_rows(row, [sample], thinking("think"))
    assert isinstance(inside, dict)
    assert inside["completion"] == text
    assert "reasoning" not in inside["meta"]
    (dropped,) = sample_rows(row, [Sample("42", "stop", 9, "I write </think> here")], thinking("think"))
    assert isinstance(dropped, Drop)


def test_another_models_name_is_a_warning_or_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer(lambda request: Model("claude-sonnet-4-20250514")) as server:
        assert all(isinstance(reply, tuple) for reply in ask(server, *"abc"))
        assert capsys.readouterr().err.count("'claude-sonnet-4-20250514' replies instead of 'm'") == 1
        with pytest.raises(DataError, match="'claude-sonnet-4-20250514' replied instead of 'm'"):
            ask(server, *"abc", exact_model=True)
        assert len(server.requests) == 4


def test_slashes_at_an_addresses_end_and_its_query() -> None:
    with OpenAIServer() as server:
        for ending in ("/", "//", "?api-version=2024-10-21"):
            client = ChatClient(server.url + ending, "m", timeout=5.0)
            assert isinstance(client.ask([Request([{"role": "user", "content": "a"}], 1)], ONCE)[0], tuple)
        assert [one.path for one in server.requests] == [
            "/v1/chat/completions", "/v1/chat/completions", "/v1/chat/completions?api-version=2024-10-21",
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_local_addresses_use_no_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "socks5://user:secret@127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with OpenAIServer(lambda request: Finish(content="direct")) as server:
        assert ask(server, "a")[0][0].text == "direct"  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HTTPS_PROXY", "socks5://user:secret@127.0.0.1:9", "HTTPS_PROXY: a SOCKS proxy needs the package socksio"),
        ("ALL_PROXY", "gopher://secret:70", "ALL_PROXY: not a proxy address"),
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE: cannot read certificates from it"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE: cannot read certificates from it"),
    ],
)
def test_a_bad_proxy_or_certificates_are_a_one_line_error(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=words) as caught:
        http_client(["https://api.openai.com/v1"])
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
