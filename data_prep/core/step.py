"""A step, the unit of data work: it maps rows to rows and is cached by content.

A step is a class with typed parameters, registered by kind (`core/registry.py`). It does not decide where it runs:
`engine` passes it shards of rows and writes its output, so that a step produces the same bytes on any executor.
`pipeline` chains steps; `python -m data_prep run SPEC.json` runs a chain.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, get_args

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar  # typing's has no default before Python 3.13

Row = dict[str, Any]
Scope = Literal["source", "shard", "split", "whole"]


@dataclass(frozen=True)
class Drop:
    """A dropped row and why. The manifest counts drops by `reason`, a short constant.

    `bad` marks a defective row (not JSON, a field missing), as opposed to one that was merely not
    selected; a pipeline stops if the share of bad rows exceeds its `max_drop_share`.
    """

    reason: str
    row_id: str = ""
    detail: str = ""
    bad: bool = False


Output = Iterable[Row | Drop]
Apply = Callable[[Sequence[Row], int], Output]
Spread = Callable[[str, Any], Iterator[Any]]  # (method name, argument) to the method's results per shard, in order


class Params(BaseModel):
    """Base of every step's parameters: unknown keys, NaN and infinities are rejected."""

    # A rejected value may be a misplaced secret: errors do not repeat it.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


P = TypeVar("P", bound=Params, default=Params)


@dataclass(frozen=True)
class Context:
    """A step's environment; it must not change the output rows."""

    dir: Path  # the step's own directory: scratch files below it survive a kill
    base: Path  # relative paths in parameters start here
    workers: int = 1
    rows: int | None = None  # that the step will still receive, if known in advance


class Step(Generic[P]):
    """One kind of step, `Step[its parameters]`. Subclasses set the class variables and implement `apply` or `open`.

    scope: "source" creates rows (called once, without rows), "shard" maps each shard independently, "split"
    decides on each row after reading all of them, "whole" needs all rows at once. Only "shard" steps resume shard by
    shard; the others are quick and start over. `needs` names required fields: rows without them are dropped
    as bad before `apply` sees them. `unkeyed` names the parameters that cannot change the output (number of processes,
    location of a file).
    """

    kind: ClassVar[str]
    scope: Scope = "shard"
    shard_rows: int = 1000
    shards_at_once: int = 1  # in one process: a step that mostly waits can process several in threads
    needs: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()  # the manifest records their versions, if they are installed
    present: ClassVar[tuple[str, ...]] = ()  # fields that must be present but may be empty
    passes: ClassVar[bool] = False  # rows are not changed in place: an unchanged row is written as its original line
    allows_repeated_ids: ClassVar[bool] = False  # rows of several inputs may have the same id
    unkeyed: ClassVar[tuple[str, ...]] = ()
    growth: ClassVar[float] = 1.5  # bytes out per byte in, for the check of free disk space
    Params: ClassVar[type[Params]] = Params  # by default the type argument of Step[…]

    def __init_subclass__(cls) -> None:
        given = [params for base in cls.__dict__.get("__orig_bases__", ()) for params in get_args(base)]
        if given and isinstance(given[0], type):
            cls.Params = given[0]

    def __init__(self, params: P) -> None:
        self.params: P = params

    def env(self) -> str:
        """Name of the environment that this step needs (configs/envs)."""
        return "core"

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """What determines the output besides parameters and code: hashes of files, models, prompts."""
        return {}

    def modules(self) -> tuple[str, ...]:
        """Modules that the step loads by name; their code is part of the key, like the imports of its own module."""
        return ()

    def processes(self) -> int | None:
        """How many processes may work on shards at once (None: any number); each opens the step itself."""
        return 1

    def resources(self) -> tuple[float, float]:
        """CPUs and GPUs that each process needs."""
        return 1, 0

    def reads(self, base: Path) -> str:
        """What a source step reads, for messages; empty if nothing."""
        return ""

    def source_bytes(self, base: Path) -> int:
        """Size of what a source step reads, in bytes, for the check of free disk space; 0 if unknown."""
        return 0

    def tally(self, row: Row) -> str | None:
        """A label by which the manifest counts output rows (such as the outcome), or None."""
        return None

    def verdict(self, counts: Mapping[str, int], rows: int) -> str | None:
        """Why the step's result is unusable, given the label counts so far among `rows` rows; or None."""
        return None

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Acquire what all shards share (an engine, a server) and yield the function that is applied to each shard."""
        yield lambda rows, shard: self.apply(rows, ctx)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Maps the rows of one shard to rows and drops."""
        raise TypeError(f"step {self.kind!r} implements neither apply nor open")

    def decide(self, rows: Sequence[Row], spread: Spread) -> Iterable[Any]:
        """For scope "split": a decision for each row, in order.

        `spread(name, argument)` calls the step's method `name(rows, argument)` on each shard, on all cores. Its
        results and the decisions should be small; `rows` are read from disk on access.
        """
        raise TypeError(f"step {self.kind!r} does not implement decide")

    def emit(self, rows: Sequence[Row], decisions: Sequence[Any]) -> Output:
        """For scope "split": maps the rows of one shard and their decisions to rows and drops."""
        raise TypeError(f"step {self.kind!r} does not implement emit")
