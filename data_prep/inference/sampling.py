"""How completions are drawn, and what one is: the terms that all clients of a model share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Decoding parameters."""

    n: int = 1  # samples per prompt
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 takes all tokens
    max_tokens: int = 2048  # per completion
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One completion. `tokens` is None where an endpoint does not say; `thought` is reasoning in a field of its own."""

    text: str
    finish_reason: str  # "stop", "length" (truncated), or the engine's own word
    tokens: int | None
    thought: str = ""


def prompt_seed(seed: int, row_id: str) -> int:
    """A seed of 31 bits for one prompt, the same wherever and beside whatever it is run."""
    digest = hashlib.sha256(f"{seed}\0{row_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1
