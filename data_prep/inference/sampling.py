"""Sampling parameters and completions, shared by all model clients."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters."""

    n: int = 1  # samples per prompt
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    max_tokens: int = 2048  # per completion
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One completion. tokens: None if the endpoint does not report it. thought: reasoning in a separate field."""

    text: str
    finish_reason: str  # "stop", "length" (truncated), or the engine's own value
    tokens: int | None
    thought: str = ""


def prompt_seed(seed: int, row_id: str) -> int:
    """A 31-bit seed for one prompt, independent of where and with which other prompts it runs."""
    digest = hashlib.sha256(f"{seed}\0{row_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1
