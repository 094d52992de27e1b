"""Batched decoding with the shipped mini model: log-probabilities, limits, stop tokens, seeds, failures.

They need torch: test_verl_environment.py runs them in verl's environment.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from launchers.plugins.verl.decoding import Request, decode, limit, seed_of

MODEL = Path(__file__).resolve().parents[2] / "recipes" / "mini" / "model"
END = 283  # <|im_end|>
QUESTIONS = ("12+35=?", "47+38+21=?", "90+11=?", "3+4=?")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)  # a model this small is slower on two
    return transformers.AutoModelForCausalLM.from_pretrained(MODEL).float().eval()


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    chats = [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS]
    return [tuple(tokenizer(chat)["input_ids"]) for chat in chats]


@pytest.fixture
def requests(prompts: list[tuple[int, ...]]) -> list[Request]:
    return [
        Request(prompt, 60, seed=seed_of(row, sample), stop=frozenset([END]))
        for row, prompt in enumerate(prompts)
        for sample in range(4)
    ]


def _scored_alone(model: Any, request: Request, tokens: Sequence[int]) -> list[float]:
    """Log-probabilities from one forward pass over the whole sequence, no cache and no padding."""
    with torch.no_grad():
        logits = model(torch.tensor([[*request.prompt, *tokens]])).logits[0, len(request.prompt) - 1 : -1]
    scaled = limit(
        logits / request.temperature, *(torch.tensor([x] * len(tokens)) for x in (request.top_k, request.top_p))
    )
    return scaled.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()


def test_log_probs_are_those_of_the_distribution_drawn_from(model: Any, requests: list[Request]) -> None:
    mixed = [replace(r, temperature=(1.0, 0.7, 1.3)[i % 3], top_k=(-1, 5)[i % 2]) for i, r in enumerate(requests)]
    mixed = [replace(r, top_p=(1.0, 0.9)[i % 5 == 0]) for i, r in enumerate(mixed)]
    for request, done in zip(mixed, decode(model, mixed), strict=True):
        assert done.log_probs == pytest.approx(_scored_alone(model, request, done.tokens), abs=2e-4)


def test_greedy_is_the_likeliest_token_each_time(model: Any, prompts: list[tuple[int, ...]]) -> None:
    (done,) = decode(model, [Request(prompts[0], 40, temperature=0.0, stop=frozenset([END]))])
    with torch.no_grad():
        logits = model(torch.tensor([[*prompts[0], *done.tokens]])).logits[0, len(prompts[0]) - 1 : -1]
    assert done.tokens == logits.argmax(-1).tolist()


def test_a_completion_does_not_depend_on_its_batch(model: Any, requests: list[Request]) -> None:
    together = decode(model, requests)
    assert [decode(model, [request])[0].tokens for request in requests] == [done.tokens for done in together]
    assert [done.tokens for done in decode(model, requests[::-1])][::-1] == [done.tokens for done in together]


def test_completions_end_with_the_stop_token_or_at_the_limit(model: Any, requests: list[Request]) -> None:
    limits = [replace(request, max_tokens=(5, 60)[i % 2]) for i, request in enumerate(requests)]
    found = decode(model, limits)
    assert {done.ended for done in found} == {"stop", "length"}
    for request, done in zip(limits, found, strict=True):
        assert (done.ended == "stop") == (done.tokens[-1] == END)
        assert END not in done.tokens[:-1]
        assert len(done.tokens) == request.max_tokens or done.ended == "stop"
        assert len(done.tokens) == len(done.log_probs)


def test_samples_of_a_prompt_differ_and_a_seed_repeats_them(model: Any, prompts: list[tuple[int, ...]]) -> None:
    def sample(seed: int) -> list[list[int]]:
        several = [Request(prompts[1], 50, temperature=1.5, seed=seed_of(seed, i)) for i in range(8)]
        return [done.tokens for done in decode(model, several)]

    assert sample(1) == sample(1)
    assert len({tuple(tokens) for tokens in sample(1)}) > 1
    assert sample(1) != sample(2)


def test_drawn_frequencies_are_the_probabilities(model: Any, prompts: list[tuple[int, ...]]) -> None:
    count = 4000
    drawn = [done.tokens[0] for done in decode(model, [Request(prompts[1], 1, 3.0, seed=i) for i in range(count)])]
    with torch.no_grad():
        expected = (model(torch.tensor([prompts[1]])).logits[0, -1] / 3.0).softmax(-1)
    found = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / count
    assert float((found - expected).abs().sum()) < 2 * (len(expected) / count) ** 0.5
    assert float((found - expected).abs().max()) < 4 * (0.25 / count) ** 0.5


def test_limits_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()

    def kept(top_k: int, top_p: float) -> list[bool]:
        return limit(logits, torch.tensor([top_k]), torch.tensor([top_p]))[0].isfinite().tolist()

    assert kept(-1, 1.0) == [True] * 4
    assert kept(2, 1.0) == [True, True, False, False]
    assert kept(-1, 0.7) == [True, True, False, False]
    assert kept(-1, 0.01) == [True, False, False, False]
    assert kept(3, 0.99) == [True, True, True, False]  # 0.5 and 0.3 are 0.84 of the top three's mass


# The server, in this process


class Setting(types.SimpleNamespace):
    prompt_length, response_length, seed, ignore_eos = 24, 40, 42, False


@pytest.fixture
def server() -> Any:
    from launchers.plugins.verl.cpu_rollout import TransformersServer

    return TransformersServer(Setting(), str(MODEL), 0)


def _generate(server: Any, prompts: Sequence[tuple[int, ...]], **params: Any) -> list[Any]:
    async def all_at_once() -> list[Any]:
        asked = [server.generate(list(prompt), {"logprobs": True, **params}, "id") for prompt in prompts]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)

    return asyncio.run(all_at_once())


def test_the_server_answers_with_the_weights_it_was_sent(
    server: Any, model: Any, prompts: list[tuple[int, ...]]
) -> None:
    (early,) = _generate(server, prompts[:1])
    assert "before the first weights" in str(early)
    asyncio.run(server.update_weights(model.state_dict(), 3))
    found = _generate(server, prompts * 2)
    assert all(output.extra_fields["global_steps"] == 3 and output.stop_reason == "completed" for output in found)
    for prompt, output in zip(prompts * 2, found, strict=True):
        alone = _scored_alone(model, Request(prompt, 40), output.token_ids)
        assert output.log_probs == pytest.approx(alone, abs=2e-4)


def test_a_step_repeats_itself_and_the_next_differs(server: Any, model: Any, prompts: list[tuple[int, ...]]) -> None:
    def step(version: int) -> list[list[int]]:
        asyncio.run(server.update_weights(model.state_dict(), version))
        return [output.token_ids for output in _generate(server, prompts * 4, temperature=1.2)]

    assert step(1) == step(1)
    assert step(1) != step(2)


def test_weights_that_do_not_fit_are_refused(server: Any, model: Any) -> None:
    state = model.state_dict()
    state.pop("model.norm.weight")
    with pytest.raises(RuntimeError, match=r"missing \['model.norm.weight'\]"):
        asyncio.run(server.update_weights(state, 1))


def test_what_would_not_be_honoured_is_refused(server: Any, model: Any, prompts: list[tuple[int, ...]]) -> None:
    asyncio.run(server.update_weights(model.state_dict(), 1))
    (refused,) = _generate(server, prompts[:1], repetition_penalty=1.2)
    assert "repetition_penalty" in str(refused)
    (fine,) = _generate(server, prompts[:1], repetition_penalty=1.0)
    assert fine.token_ids


def test_a_completion_ends_at_a_stop_text(server: Any, model: Any, prompts: list[tuple[int, ...]]) -> None:
    asyncio.run(server.update_weights(model.state_dict(), 1))
    (whole,) = _generate(server, prompts[1:2], temperature=0.0)
    text = server.tokenizer.decode(whole.token_ids)
    stop = text[2:9]  # several tokens, in the middle
    (ended,) = _generate(server, prompts[1:2], temperature=0.0, stop=[stop], include_stop_str_in_output=True)
    assert server.tokenizer.decode(ended.token_ids) == text[:9]
    assert len(ended.log_probs) == len(ended.token_ids)
    (refused,) = _generate(server, prompts[1:2], stop=[stop], include_stop_str_in_output=False)
    assert "include_stop_str_in_output" in str(refused)


def test_verls_agent_loop_passes_the_stop_texts_on() -> None:
    from launchers.plugins.verl import stop_texts

    class Loop:
        rollout_config: dict[str, Any] = {}

        async def run(self, sampling_params: dict[str, Any]) -> dict[str, Any]:
            return sampling_params

    stop_texts.install(types.SimpleNamespace(SingleTurnAgentLoop=Loop))  # type: ignore[arg-type]
    loop = Loop()
    assert asyncio.run(loop.run({"temperature": 1.0})) == {"temperature": 1.0}
    loop.rollout_config = {"custom": {"stop": ["</response>"]}}
    stop = {"stop": ["</response>"], "include_stop_str_in_output": True}
    assert asyncio.run(loop.run({"temperature": 1.0})) == {"temperature": 1.0, **stop}


def test_a_failure_reaches_everyone_who_waits(server: Any, model: Any, prompts: list[tuple[int, ...]]) -> None:
    asyncio.run(server.update_weights(model.state_dict(), 1))
    server.model.forward = None
    found = _generate(server, prompts * 200)  # more than one batch
    assert len(found) == 800
    assert all("sampling failed: TypeError" in str(error) for error in found)
