"""Parameters of steps that query a model, and the client built from them.

class LabelParams(EndpointParams): ...
class Label(EndpointStep):
    def open(self, ctx):
        with endpoint(self.params, ctx) as client:
            yield lambda rows, shard: ...  # client.ask(requests, sampling)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator
from typing_extensions import TypeVar

from data_prep.core.fingerprint import canonical, file_hash
from data_prep.core.step import Apply, Context, Drop, Output, Row, Step
from data_prep.core.totals import journal_path
from data_prep.core.validation import checked
from data_prep.errors import DataError, LimitExceeded
from data_prep.inference.api.keys import KeySource, read_keys
from data_prep.inference.api.prices import find_price, need_price
from data_prep.inference.api.providers import PARAMETERS, Form, find_form
from data_prep.inference.api.requests import Request
from data_prep.inference.models import find_model, needs_template
from data_prep.inference.prompts import content_hash
from data_prep.inference.sampling import Sample, Sampling, prompt_seed
from data_prep.inference.vllm.settings import EngineOptions, check_names, locked_version, template_file

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient
    from data_prep.inference.vllm.server import Endpoint


def _is_root(url: str) -> None:
    if url.partition("?")[0].rstrip("/").endswith("/chat/completions"):
        raise ValueError("omit /chat/completions: the address usually ends in /v1")


Url = Annotated[str, Field(pattern=r"^https?://"), checked(_is_root)]
Key = TypeVar("Key")
Value = TypeVar("Value")

# Parameters that do not change rows, for `Step.unkeyed`.
UNKEYED = (
    "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "spend_cap",
    "max_error_share", "model_name",
)  # fmt: skip
SERVED_UNKEYED = ("tensor_parallel", "gpu_memory_utilization", "replicas")  # additional ones for local servers

# Parameters that apply only to an endpoint, or only to local servers.
ELSEWHERE = ("api_key_env", "spend_cap", "provider", "rename", "omit", "extra_body")
SERVED = ("replicas", "engine", "sampling", "chat_template", "revision", "max_model_len", "gpu_memory_utilization")

SERVED_TIMEOUT_S = 86_400.0  # a local server is monitored, and requests wait in its queue
GIVE_UP = 256  # consecutive requests without a reply after which a step stops
# Samples per shard of an API step; several shards run at once, so that the endpoint stays busy while one waits for its
# slowest reply. The journal keeps every reply, so that a kill loses none.
SHARD_SAMPLES = 4096
SHARDS_AT_ONCE = 4


class EndpointParams(EngineOptions):
    """Where the model runs: at `base_url` (with several replicas, the least busy one), or, without it, on local vLLM
    servers started for the step. Rate limits are per key."""

    model: str = Field(min_length=1)
    api_key_env: KeySource = None  # name of an environment variable, or path (with a /) of a file with one key per line
    provider: str | None = None  # preset in configs/providers.yaml; default: chosen by base_url's host
    rename: dict[str, str] = Field(default_factory=dict)  # request parameters: {max_tokens: max_completion_tokens}
    omit: tuple[str, ...] = ()  # request parameters that are not sent: [seed]
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)  # further fields of each request
    model_name: Literal["any", "exact"] = "any"  # if a reply names another model: warn, or fail
    concurrency: int = Field(64, ge=1)  # requests in flight
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)  # prompt and completion tokens
    timeout: float = Field(600.0, gt=0)  # seconds per attempt in total
    spend_cap: float | None = Field(None, gt=0)  # dollars over all runs of this step; the model must have a price
    max_error_share: float = Field(0.02, ge=0, le=1)  # share of a shard's rows that may fail after all retries
    base_url: Url | Annotated[tuple[Url, ...], Field(min_length=1)] | None = None
    revision: str | None = None  # of a locally served model
    replicas: int | None = Field(None, ge=1)  # number of local servers; default: as many as the GPUs allow
    sampling: dict[str, JsonValue] = Field(default_factory=dict)  # extra request fields for local servers: {min_p: 0.1}

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if self.spend_cap is not None:
            need_price(self.model)
            if "max_tokens" in self.omit:
                raise ValueError("spend_cap needs max_tokens in each request: remove it from omit")
        return self

    @field_validator("rename", "omit")
    @classmethod
    def _known_parameters(cls, value: Any) -> Any:
        if unknown := [name for name in value if name not in PARAMETERS]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(PARAMETERS)}")
        return value

    @field_validator("extra_body")
    @classmethod
    def _no_own_field(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if own := [name for name in (*PARAMETERS, "model", "messages", "stream") if name in value]:
            raise ValueError(f"{own[0]} is set by the step itself; use the step's parameter, if it has one")
        return value

    def form(self, base_url: str) -> Form:
        """The request format for an address. Raises ValueError for an unknown preset."""
        own = Form(rename=self.rename, omit=self.omit, extra_body=self.extra_body)
        return find_form(self.provider, base_url, self.model).merged(own)

    @field_validator("engine", mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(
                "must be a mapping of vLLM arguments, such as {quantization: fp8}; omit it otherwise: without base_url "
                "vLLM serves the model locally"
            )
        return value

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        which = "local servers: remove base_url" if self.base_url else "endpoints: set base_url"
        for name in ELSEWHERE if self.base_url is None else SERVED:
            if getattr(self, name):
                other = {"extra_body": ", use sampling", "sampling": ", use extra_body"}.get(name, "")
                raise ValueError(f"{name} applies to {which}{other}, or remove {name}")
        for url in addresses(self.base_url):
            self.form(url)
        for name in ("engine", "sampling"):
            check_names(name, getattr(self, name), PARAMETERS if name == "sampling" else ())
        return self

    @property
    def env(self) -> str:
        """The environment that a step with this endpoint needs."""
        return "core" if self.base_url else "vllm"

    def identity(self, base: Path) -> dict[str, Any]:
        """The model's identity for a step's key; for an endpoint only its name is known. Raises DataError."""
        if self.base_url:
            preset = find_form(self.provider, addresses(self.base_url)[0], self.model)
            return {"provider": preset.model_dump(exclude_defaults=True)} if preset != Form() else {}
        template = {"chat_template": file_hash(template_file(self.chat_template, base))} if self.chat_template else {}
        return {"model": find_model(self.model, self.revision, base).identity(), "vllm": locked_version(), **template}


def addresses(base_url: str | Sequence[str] | None) -> Sequence[str]:
    """The addresses of an endpoint: one, or one per replica."""
    return () if base_url is None else (base_url,) if isinstance(base_url, str) else base_url


class RepeatedParams(EndpointParams):
    """Parameters of a step that repeats requests with unusable replies."""

    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(1024, ge=1)
    tries: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)

    def ask(
        self,
        client: ChatClient,
        ids: Mapping[Key, str],
        messages: Callable[[Key], str],
        read: Callable[[Key, Sample], Value | None],
    ) -> tuple[dict[Key, Value], dict[Key, Drop]]:
        """The reply to each key's message, parsed by `read`, and the failures.

        If `read` returns None, the request is repeated with another seed, derived from the row's id in `ids`.
        """
        from data_prep.inference.api.replies import Failed, as_drop  # not needed to parse a pipeline

        values: dict[Key, Value] = {}
        failed: dict[Key, Drop] = {}
        for attempt in range(self.tries):
            left = [key for key in ids if key not in values and key not in failed]
            # A repeated greedy reply would be the same.
            sampling = Sampling(1, max(self.temperature, 0.7 if attempt else 0.0), max_tokens=self.max_tokens)
            requests = [
                Request([{"role": "user", "content": messages(key)}], prompt_seed(self.seed, f"{ids[key]}\0{attempt}"))
                for key in left
            ]
            for key, reply in zip(left, client.ask(requests, sampling), strict=True):
                if isinstance(reply, Failed):
                    failed[key] = as_drop(reply, ids[key])
                elif (value := read(key, reply[0])) is not None:
                    values[key] = value
        return values, failed


E = TypeVar("E", bound=EndpointParams, default=EndpointParams)


class EndpointStep(Step[E]):
    """Base of steps that query a model."""

    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    unkeyed: ClassVar[tuple[str, ...]] = (*UNKEYED, *SERVED_UNKEYED)
    shard_rows = SHARD_SAMPLES
    shards_at_once = SHARDS_AT_ONCE
    prompts: ClassVar[str] = ""  # a folder of templates/prompts, part of the step's key

    def env(self) -> str:
        return self.params.env

    def fingerprint(self, base: Path) -> dict[str, Any]:
        prompts = {"prompts": content_hash(self.prompts)} if self.prompts else {}
        return {**prompts, **self.params.identity(base)}

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        with endpoint(self.params, ctx) as client:
            yield lambda rows, shard: self.answered(rows, client)

    def answered(self, rows: Sequence[Row], client: ChatClient) -> Output:
        """Maps the rows of one shard to rows and drops."""
        raise TypeError(f"step {self.kind!r} implements neither answered nor open")


@contextmanager
def endpoint(
    params: EndpointParams, ctx: Context, samples: int = 1, fields: Mapping[str, Any] | None = None
) -> Iterator[ChatClient]:
    """A step's client. samples: per request. fields: added to each request body."""
    from data_prep.inference.api.client import ChatClient

    with ExitStack() as stack:
        if urls := addresses(params.base_url):
            name, form = urls[0].rstrip("/"), params.form(urls[0])
            how: dict[str, Any] = {"timeout": params.timeout, "concurrency": params.concurrency}
        else:
            server = stack.enter_context(_served(params, ctx))
            urls, form = server.base_urls, find_form("vllm", "", params.model)
            settings = [params.dtype, params.max_model_len, *([params.engine] if params.engine else [])]
            # The name under which replies are stored must not change between runs, unlike the server's port.
            name = canonical([params.identity(ctx.base), *settings]).decode()
            most = -(-server.sequences * 9 // 8) // samples  # some requests wait in the server's queue and keep it busy
            how = {"timeout": SERVED_TIMEOUT_S, "concurrency": max(params.concurrency, most)}
            how |= {"longest": server.max_model_len, "watch": server.watch}
        yield stack.enter_context(
            ChatClient(
                urls,
                params.model,
                read_keys(params.api_key_env, ctx.base),
                form=form.merged(Form(extra_body={**(fields or {}), **params.sampling})),
                exact_model=params.model_name == "exact",
                requests_per_minute=params.requests_per_minute,
                tokens_per_minute=params.tokens_per_minute,
                give_up=GIVE_UP if params.max_error_share < 1 else None,
                journal=journal_path(ctx.dir, name),
                price=find_price(params.model),
                spend_cap=params.spend_cap,
                name=ctx.dir.name,
                rows=ctx.rows,
                **how,
            )
        )


def _served(params: EndpointParams, ctx: Context) -> AbstractContextManager[Endpoint]:
    """Local servers. Raises DataError for a model without a chat template."""
    from data_prep.inference.vllm.server import serve  # imported here: the launcher does not need it

    if params.chat_template is None and needs_template(find_model(params.model, params.revision, ctx.base)):
        raise DataError(
            f"model {params.model!r}: its tokenizer has no chat template: set chat_template to a Jinja file"
        )
    return serve(params.model, revision=params.revision, base=ctx.base, options=params, log=ctx.dir / "vllm.log")


def refuse_failures(outputs: Sequence[Any], total: int, params: EndpointParams, what: str) -> None:
    """Raise LimitExceeded if too many of a shard's `outputs` are failed requests; the next run retries the shard.

    total: number of requests. what: text for the message, such as `prompts failed`.
    """
    drops = [output for output in outputs if isinstance(output, Drop) and output.reason.startswith("api_error")]
    if len(drops) > params.max_error_share * total:
        raise LimitExceeded(
            f"{params.base_url or params.model}: {len(drops):,} of {total:,} {what} after all retries, more than "
            f"max_error_share {params.max_error_share:g} allows; the last: {drops[-1].reason} ({drops[-1].detail})"
        )
