"""Samples a batch of completions with a transformers model on a CPU, with a KV cache, removing finished rows.

Every request has its own random number stream, so a completion does not depend on the other requests in its batch
(except for rounding in matrix products of different sizes).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

COMPACT_BELOW = 0.75  # finished rows are removed when the fraction of unfinished rows falls below this


@dataclass(frozen=True)
class Request:
    """A completion request. `top_k` below 1 and `top_p` 1 mean no limit; temperature 0 means greedy."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int = 0
    stop: frozenset[int] = field(default_factory=frozenset)  # stop tokens, included in the completion
    ends: Callable[[Sequence[int]], bool] | None = None  # whether the tokens so far complete the completion


@dataclass
class Completion:
    """Sampled tokens, their log-probabilities (nats) when sampled, and `ended`: "stop" or "length"."""

    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    ended: str = "length"

    def add(self, token: int, log_prob: float, request: Request) -> bool:
        """Append a token; returns whether the completion continues."""
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        if token in request.stop or (request.ends and request.ends(self.tokens)):
            self.ended = "stop"
        return self.ended != "stop" and len(self.tokens) < request.max_tokens


def seed_of(*parts: object) -> int:
    """A deterministic 63-bit seed derived from all parts."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class _Sampler:
    """The rows' sampling parameters as tensors, and their random numbers: one uniform per row and step."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.greedy = torch.tensor([request.temperature == 0 for request in requests])
        self.temperature = torch.tensor([request.temperature or 1.0 for request in requests])[:, None]
        self.top_k = torch.tensor([request.top_k for request in requests])
        self.top_p = torch.tensor([request.top_p for request in requests])
        self.limited = bool(((self.top_k > 0) | (self.top_p < 1)).any())
        longest = max(request.max_tokens for request in requests)
        streams = [torch.Generator().manual_seed(request.seed) for request in requests]
        self.uniform = torch.stack([torch.rand(longest, generator=own, dtype=torch.float64) for own in streams])

    def keep(self, rows: Tensor) -> None:
        for name in ("greedy", "temperature", "top_k", "top_p", "uniform"):
            setattr(self, name, getattr(self, name)[rows])

    def draw(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """(rows, vocabulary) logits to each row's token and its log-probability, both (rows,)."""
        scaled = logits.float() / self.temperature
        if self.limited:
            scaled = limit(scaled, self.top_k, self.top_p)
        log_probs = scaled.log_softmax(-1)
        # Inverse transform sampling; tokens of probability 0 are never drawn.
        cumulative = log_probs.double().exp().cumsum(-1)
        total = cumulative[:, -1]
        below_all = torch.nextafter(total, torch.zeros_like(total))
        points = torch.minimum(self.uniform[:, step] * total, below_all)[:, None]
        sampled = torch.searchsorted(cumulative, points, right=True)[:, 0]
        chosen = torch.where(self.greedy, log_probs.argmax(-1), sampled)
        return chosen, log_probs.gather(1, chosen[:, None])[:, 0]


def limit(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Set logits to -inf outside each row's top-k, then outside its top-p set.

    (rows, vocabulary) logits, (rows,) limits; ties are broken by sort order, the most likely token is always kept.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    place = torch.arange(logits.shape[-1])
    ordered = ordered.masked_fill((top_k[:, None] > 0) & (place >= top_k[:, None]), -torch.inf)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    ordered = ordered.masked_fill((top_p[:, None] < 1) & (before >= top_p[:, None]) & (place > 0), -torch.inf)
    return torch.empty_like(logits).scatter_(1, order, ordered)


def _left_padded(requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
    longest = max(len(request.prompt) for request in requests)
    tokens = torch.zeros(len(requests), longest, dtype=torch.long)
    attend = torch.zeros_like(tokens)
    for row, request in enumerate(requests):
        tokens[row, longest - len(request.prompt) :] = torch.tensor(request.prompt)
        attend[row, longest - len(request.prompt) :] = 1
    return tokens, attend


@torch.inference_mode()
def decode(model: Any, requests: Sequence[Request]) -> list[Completion]:
    """One completion per request, in order. `model` is a causal LM of transformers in eval mode."""
    done = [Completion() for _ in requests]
    rows = torch.arange(len(requests))  # the request of each batch row
    sampler = _Sampler(requests)
    tokens, attend = _left_padded(requests)
    positions = (attend.cumsum(-1) - 1).clamp(min=0)
    growing = torch.ones(len(requests), dtype=torch.bool)
    cache = None
    for step in range(max(request.max_tokens for request in requests)):
        out = model(
            input_ids=tokens,
            attention_mask=attend,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        chosen, log_probs = sampler.draw(out.logits[:, -1], step)
        drawn = zip(rows.tolist(), growing.tolist(), chosen.tolist(), log_probs.tolist(), strict=True)
        growing = torch.tensor(
            [grows and done[row].add(token, log_prob, requests[row]) for row, grows, token, log_prob in drawn]
        )
        if not growing.any():
            break
        if growing.float().mean() < COMPACT_BELOW:
            left = growing.nonzero()[:, 0]
            rows, chosen, attend, positions = rows[left], chosen[left], attend[left], positions[left]
            cache.batch_select_indices(left)
            sampler.keep(left)
            growing = growing[left]
        tokens = chosen[:, None]
        positions = positions[:, -1:] + 1
        attend = torch.cat([attend, attend.new_ones(len(rows), 1)], 1)
    return done
