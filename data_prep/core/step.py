"""The unit of data work: rows in, rows out, keyed by content.

A step is a class with typed parameters, registered by kind. It never decides where it runs: `engine`
gives it shards of rows and writes what comes back, so the same step runs in-process or on a pool with the
same bytes. `pipeline` chains steps; `python -m data_prep run SPEC.json` runs a chain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Row = dict[str, Any]
Scope = Literal["source", "shard", "whole"]


@dataclass(frozen=True)
class Drop:
    """A row that goes no further, and why. `reason` is a short constant that the manifest counts by.

    `bad` marks a row that is itself at fault (not JSON, a field missing), unlike one that was merely not
    chosen; a pipeline aborts when the share of bad rows passes its `max_drop_share`.
    """

    reason: str
    row_id: str = ""
    detail: str = ""
    bad: bool = False


Output = Iterable[Row | Drop]
Apply = Callable[[Sequence[Row], int], Output]


class Params(BaseModel):
    """Base of every step's parameters: unknown keys, and numbers that JSON does not have, are refused."""

    # A refused value may be a secret in the wrong place: errors do not repeat it.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


@dataclass(frozen=True)
class Context:
    """What a step may know of its surroundings; none of it may change the rows that come out."""

    dir: Path  # the step's own directory: scratch files below it survive a kill
    base: Path  # the folder that relative paths in parameters start from
    workers: int = 1
    rows: int | None = None  # that the step is still to get, where that is known before

    @property
    def downloads(self) -> Path:
        """Where fetched files are kept, beside the steps' directories."""
        return self.dir.parent / "downloads"


class Step:
    """One kind of step. Subclasses set the class variables and implement `apply` or `open`.

    scope: "source" makes rows from nothing (called once, with no rows), "shard" maps each shard by itself,
    "whole" needs all rows at once. Only "shard" steps resume shard by shard; the others are quick and start
    over. `needs` names the fields a row must have at the door: rows that lack one are dropped as bad before
    `apply` sees them. `unkeyed` names the parameters that cannot change the output (how many processes, where a file
    lies).
    """

    kind: ClassVar[str]
    scope: Scope = "shard"
    shard_rows: int = 1000
    needs: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()  # whose versions the manifest records, where they are installed
    present: ClassVar[tuple[str, ...]] = ()  # fields that must be there and may be empty
    passes: ClassVar[bool] = False  # it changes no row in place: one that comes out as it came in is written as it was
    tells_inputs_apart: ClassVar[bool] = False  # it copes with rows of one id in several inputs
    unkeyed: ClassVar[tuple[str, ...]] = ()
    growth: ClassVar[float] = 1.5  # bytes out per byte in, for the check of free disk space
    Params: ClassVar[type[Params]]

    def __init__(self, params: Any) -> None:
        self.params = params

    def env(self) -> str:
        """Name of the environment this step needs (configs/envs)."""
        return "core"

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """What changes the output besides parameters and code: hashes of files, of a model, of a prompt."""
        return {}

    def modules(self) -> tuple[str, ...]:
        """Modules that the step loads by name, whose code counts beside what its own module imports."""
        return ()

    def processes(self) -> int:
        """How many processes may work on shards at once; each of them opens the step for itself."""
        return 1

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


# kind -> "module:Class". Modules are imported when a pipeline names them, so that the launcher stays light.
KINDS: dict[str, str] = {
    "load": "data_prep.steps.load:Load",
    "curriculum": "data_prep.families.mini.step:Curriculum",
    "generate": "data_prep.steps.generate:Generate",
    "generations": "data_prep.families.skill_mix.steps.generations:Generations",
    "score": "data_prep.steps.score:ScoreStep",
    "select": "data_prep.steps.select:Select",
    "lim": "data_prep.families.min_o1.lim:Lim",
    "dedup": "data_prep.steps.dedup:Dedup",
    "label": "data_prep.steps.label:Label",
    "difficulty": "data_prep.steps.difficulty:Difficulty",
    "rewrite": "data_prep.steps.rewrite:Rewrite",
    "mix": "data_prep.steps.mix:Mix",
    "decontaminate": "data_prep.steps.decontaminate:Decontaminate",
    "best_of_n": "data_prep.steps.best_of_n:BestOfN",
    "pairs": "data_prep.steps.pairs:Pairs",
    "length_pairs": "data_prep.steps.length_pairs:LengthPairs",
    "groups": "data_prep.steps.groups:Groups",
    "gold": "data_prep.steps.gold:Gold",
    "export": "data_prep.steps.export:Export",
    "skill_tuples": "data_prep.families.skill_mix.steps.skill_tuples:SkillTuples",
    "synthesize": "data_prep.families.skill_mix.steps.synthesize:Synthesize",
    "verify_questions": "data_prep.families.skill_mix.steps.verify_questions:VerifyQuestions",
    "questions": "data_prep.families.skill_mix.steps.questions:Questions",
}


def step_class(kind: str) -> type[Step]:
    """The class registered as `kind`, or named by it as `package.module:Class`. Raises KeyError for an unknown kind."""
    return load_class(place_of(kind))


def place_of(kind: str) -> str:
    """`module:Class` of a kind. Raises KeyError."""
    return kind if ":" in kind else KINDS[kind]


def is_known(kind: str) -> bool:
    """Whether a kind is registered, or names a class that can be imported and is a step."""
    if ":" not in kind:
        return kind in KINDS
    try:
        load_class(kind)
    except (ImportError, AttributeError, AssertionError, ValueError):
        return False
    return True


def load_class(place: str) -> type[Step]:
    """The step at `module:Class`."""
    module, name = place.split(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type)
    assert issubclass(found, Step)
    return found
