"""The unit of data work: rows in, rows out, keyed by content.

A step is a class with typed parameters, registered by kind (`core/registry.py`). It never decides where it runs:
`engine` gives it shards of rows and writes what comes back, so that the same step gives the same bytes on any executor.
`pipeline` chains steps; `python -m data_prep run SPEC.json` runs a chain.
"""

from __future__ import annotations

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
    """A row that is dropped, and why. `reason` is a short constant that the manifest counts by.

    `bad` marks a row that is itself at fault (not JSON, a field missing), unlike one that was merely not
    chosen; a pipeline aborts when the share of bad rows passes its `max_drop_share`.
    """

    reason: str
    row_id: str = ""
    detail: str = ""
    bad: bool = False


Output = Iterable[Row | Drop]
Apply = Callable[[Sequence[Row], int], Output]
Spread = Callable[[str, Any], Iterator[Any]]  # a method's name and argument to its results on each shard, in order


class Params(BaseModel):
    """Base of every step's parameters: unknown keys, and numbers that JSON does not have, are refused."""

    # A refused value may be a secret in the wrong place: errors do not repeat it.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


P = TypeVar("P", bound=Params, default=Params)


@dataclass(frozen=True)
class Context:
    """What a step may know of its surroundings; none of it may change the rows that come out."""

    dir: Path  # the step's own directory: scratch files below it survive a kill
    base: Path  # the folder that relative paths in parameters start from
    workers: int = 1
    rows: int | None = None  # that the step is still to get, where that is known before


class Step(Generic[P]):
    """One kind of step, `Step[its parameters]`. Subclasses set the class variables and implement `apply` or `open`.

    scope: "source" makes rows from nothing (called once, with no rows), "shard" maps each shard by itself, "split"
    decides on each row after a look at all of them, "whole" needs all rows at once. Only "shard" steps resume shard by
    shard; the others are quick and start over. `needs` names the fields a row must have: rows that lack one are dropped
    as bad before `apply` sees them. `unkeyed` names the parameters that cannot change the output (how many processes,
    where a file lies).
    """

    kind: ClassVar[str]
    scope: Scope = "shard"
    shard_rows: int = 1000
    shards_at_once: int = 1  # in one process: a step that mostly waits for others has threads work on several
    needs: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()  # whose versions the manifest records, where they are installed
    present: ClassVar[tuple[str, ...]] = ()  # fields that must be there and may be empty
    passes: ClassVar[bool] = False  # it changes no row in place: one that comes out as it came in is written as it was
    tells_inputs_apart: ClassVar[bool] = False  # it copes with rows of one id in several inputs
    unkeyed: ClassVar[tuple[str, ...]] = ()
    growth: ClassVar[float] = 1.5  # bytes out per byte in, for the check of free disk space
    Params: ClassVar[type[Params]] = Params  # by default what stands in the brackets

    def __init_subclass__(cls) -> None:
        given = [params for base in cls.__dict__.get("__orig_bases__", ()) for params in get_args(base)]
        if given and isinstance(given[0], type):
            cls.Params = given[0]

    def __init__(self, params: P) -> None:
        self.params: P = params

    def env(self) -> str:
        """Name of the environment this step needs (configs/envs)."""
        return "core"

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """What changes the output besides parameters and code: hashes of files, of a model, of a prompt."""
        return {}

    def modules(self) -> tuple[str, ...]:
        """Modules that the step loads by name, whose code counts beside what its own module imports."""
        return ()

    def processes(self) -> int | None:
        """How many processes may work on shards at once, None for any number; each opens the step for itself."""
        return 1

    def resources(self) -> tuple[float, float]:
        """CPUs and GPUs that each of the processes needs."""
        return 1, 0

    def reads(self, base: Path) -> str:
        """What a source step reads, in words for a message; empty if nothing."""
        return ""

    def source_bytes(self, base: Path) -> int:
        """Size of what a source step reads, in bytes, for the check of free disk space; 0 if unknown."""
        return 0

    def tally(self, row: Row) -> str | None:
        """A label that the manifest counts output rows by (an outcome, say), or None."""
        return None

    def verdict(self, counts: Mapping[str, int], rows: int) -> str | None:
        """Why the step must not be used, judged by the labels so far among `rows` rows, or None."""
        return None

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Acquire what all shards share (an engine, a server), and yield the function applied to each."""
        yield lambda rows, shard: self.apply(rows, ctx)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows of one shard to rows and drops."""
        raise TypeError(f"step {self.kind!r} implements neither apply nor open")

    def decide(self, rows: Sequence[Row], spread: Spread) -> Iterable[Any]:
        """Of a step of scope "split": a decision for each row, in order.

        `spread(name, argument)` calls the step's method `name(rows, argument)` on each shard, on all cores. What it
        returns and the decisions should be small; `rows` are read from disk when they are asked for.
        """
        raise TypeError(f"step {self.kind!r} does not implement decide")

    def emit(self, rows: Sequence[Row], decisions: Sequence[Any]) -> Output:
        """Of a step of scope "split": rows of one shard, with their decisions, to rows and drops."""
        raise TypeError(f"step {self.kind!r} does not implement emit")
