"""What a step says of the endpoint that it asks, and the client that it gets for that.

class LabelParams(EndpointParams): ...
class Label(Step):
    unkeyed = (*UNKEYED, *SERVED_UNKEYED)
    def open(self, ctx):
        with endpoint(self.params, ctx) as asker:
            yield lambda rows, shard: ...  # asker.ask(requests, sampling)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_prep.core.fingerprint import canonical
from data_prep.core.step import Context, Drop, Params
from data_prep.core.totals import journal_path
from data_prep.errors import LimitPassed
from data_prep.inference.api.keys import key_source, read_keys
from data_prep.inference.api.prices import find_price, need_price
from data_prep.inference.models import find_model
from data_prep.inference.vllm.settings import EngineOptions, locked_version

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient, Watch

# Parameters that change no row, for `Step.unkeyed`.
UNKEYED = (
    "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "spend_cap", "batch",
    "max_error_share",
)  # fmt: skip
SERVED_UNKEYED = ("tensor_parallel", "gpu_memory_utilization")  # and of a server here

GIVE_UP = 256  # requests in a row without an answer: a large shard's end need not be waited for
# Of an API step's shard, wherever its model is: shards run one after another and each ends in a wait for its slowest
# reply; the journal keeps every reply, so that a kill costs none of them. A batch is at most a shard.
SHARD_SAMPLES = 4096


class CallParams(Params):
    """A model behind an endpoint, and how it may be asked. Limits are those of one key."""

    model: str = Field(min_length=1)
    api_key_env: str | None = None  # name of an environment variable, or a path (with a /) to a key per line
    concurrency: int = Field(64, ge=1)  # requests on their way at one time
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)  # of prompts and completions
    timeout: float = Field(600.0, gt=0)  # seconds for one attempt, all of it
    spend_cap: float | None = Field(
        None, gt=0
    )  # dollars this step may cost in all its runs; needs a price of the model
    batch: bool = False  # by the endpoint's Batch API: cheaper, and done within a day
    max_error_share: float = Field(0.02, ge=0, le=1)  # of a shard's rows that may fail after all retries

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if self.spend_cap is not None:
            need_price(self.model)
        return self

    @field_validator("api_key_env")
    @classmethod
    def _names_a_place(cls, value: str | None) -> str | None:
        return value if value is None else key_source(value)


class EndpointParams(CallParams):
    """Where the model is asked: at `base_url`; without one, at a `vllm serve` that runs here during the step."""

    base_url: str | None = Field(None, pattern=r"^https?://")
    # of a server here
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int | None = Field(None, ge=1)  # tokens, prompt and completion together
    tensor_parallel: int = Field(1, ge=1)  # GPUs per engine
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        for name in ("api_key_env", "spend_cap", "batch"):
            if self.base_url is None and getattr(self, name):
                raise ValueError(f"{name} is for an endpoint elsewhere: give its base_url, or leave {name} out")
        return self

    @property
    def options(self) -> EngineOptions:
        return EngineOptions(self.dtype, self.max_model_len, self.tensor_parallel, self.gpu_memory_utilization)

    @property
    def env(self) -> str:
        """The environment that a step needs which asks this endpoint."""
        return "core" if self.base_url else "vllm"

    def identity(self, base: Path) -> dict[str, Any]:
        """What of the model goes into a step's key: an endpoint's is known by its name only. Raises DataError."""
        if self.base_url:
            return {}
        return {"model": find_model(self.model, self.revision, base).identity(), "vllm": locked_version()}


@contextmanager
def endpoint(params: EndpointParams, ctx: Context, extra: Mapping[str, Any] | None = None) -> Iterator[ChatClient]:
    """The client that a step asks while the block runs; `extra` are further fields of each request's body."""
    if params.base_url is not None:
        with _client(params.base_url, params.base_url.rstrip("/"), params, ctx, extra or {}) as client:
            yield client
        return
    from data_prep.inference.vllm.server import serve  # costs imports that a launcher need not pay

    log = ctx.dir / "vllm.log"
    with serve(params.model, revision=params.revision, base=ctx.base, options=params.options, log=log) as server:
        told = {**(extra or {}), "return_token_ids": True}  # the protocol counts no tokens when n > 1
        name = canonical([params.identity(ctx.base), params.dtype, params.max_model_len]).decode()
        with _client(server.base_url, name, params, ctx, told, server.watch) as client:
            yield client


def _client(
    base_url: str,
    endpoint_name: str,
    params: CallParams,
    ctx: Context,
    extra: Mapping[str, Any],
    watch: Watch | None = None,
) -> ChatClient:
    """endpoint_name: what its answers are kept under, the same from run to run (a server here has another port)."""
    from data_prep.inference.api.client import ChatClient

    return ChatClient(
        base_url,
        params.model,
        read_keys(params.api_key_env, ctx.base),
        concurrency=params.concurrency,
        timeout=params.timeout,
        extra=extra,
        requests_per_minute=params.requests_per_minute,
        tokens_per_minute=params.tokens_per_minute,
        give_up=GIVE_UP if params.max_error_share < 1 else None,
        journal=journal_path(ctx.dir, endpoint_name),
        price=find_price(params.model),
        spend_cap=params.spend_cap,
        batch=params.batch,
        name=ctx.dir.name,
        rows=ctx.rows,
        watch=watch,
    )


def refuse_failures(outputs: Sequence[Any], total: int, base_url: str | None, params: CallParams, what: str) -> None:
    """Raise LimitPassed for a shard of which too much failed: it is then asked again by the next run.

    `outputs` are what the shard came to, with its Drops; `total` counts what was asked; `what` are they and their
    failure in words, `prompts failed`.
    """
    drops = [one for one in outputs if isinstance(one, Drop) and one.reason.startswith("api_error")]
    if len(drops) > params.max_error_share * total:
        raise LimitPassed(
            f"{base_url or params.model}: {len(drops):,} of {total:,} {what} after all retries, more than "
            f"max_error_share {params.max_error_share:g} allows; the last: {drops[-1].reason} ({drops[-1].detail})"
        )
