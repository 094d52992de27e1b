"""Run, inspect or plan a pipeline.

    python -m data_prep run  SPEC.json [--steps load,score]   runs all steps or these, resuming unfinished work
                             [--engine serial|processes|ray] [--workers 8]    overrides the spec's execution
    python -m data_prep rows SPEC.json [--step score]         prints a finished step's rows as JSON lines
    python -m data_prep plan SPEC.json                        prints each step's state as JSON
    python -m data_prep drops SPEC.json [--step load] [--reason "not JSON"]   prints dropped rows as JSON lines
    python -m data_prep steps [NAME]                          prints all steps, or one with parameters and examples
    python -m data_prep schema                                prints the JSON schema of data.yaml
    python -m data_prep size  [.cache/steps]                  prints the size of the cache by kind of step
    python -m data_prep prune [.cache/steps] --unused-days 30 [--dry-run]     removes steps unused for 30 days

Exit status: 0 done, 2 user error, 3 a limit was exceeded (too many unusable rows), 130 interrupted.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_prep.core import cache, commands, pipeline, reference
from data_prep.core.commands import POSITIONAL, Options
from data_prep.core.progress import Progress
from data_prep.core.rows import encoded


class OfSpec(Options):
    spec: Path = Field(json_schema_extra=POSITIONAL)


class Run(OfSpec):
    steps: str | None = Field(None, description="comma-separated names; by default all")
    engine: Literal["serial", "processes", "ray"] | None = None
    workers: int | None = Field(None, description="shards processed in parallel")


class Rows(OfSpec):
    step: str | None = Field(None, description="name of a step; by default the last")


class Drops(OfSpec):
    step: str | None = Field(None, description="name of a step; by default all")
    reason: str | None = Field(None, description="only rows dropped for this reason")


class Steps(Options):
    name: str | None = Field(None, json_schema_extra=POSITIONAL, description="a kind of step; by default all")


class Cache(Options):
    cache: Path = Field(Path(".cache/steps"), json_schema_extra=POSITIONAL)


class Prune(Cache):
    unused_days: float = Field(30.0, description="days since a run last created or read the step")
    dry_run: bool = Field(False, description="only print what would be removed")


def _run(args: Run, progress: Progress) -> str:
    spec = pipeline.Spec.read(args.spec)
    given = {name: value for name in ("engine", "workers") if (value := getattr(args, name)) is not None}
    spec = spec.model_copy(update={"execution": spec.execution.model_copy(update=given)})
    pipeline.run(spec, args.steps.split(",") if args.steps else None, progress)
    return ""


def _rows(args: Rows, progress: Progress) -> str:
    spec = pipeline.Spec.read(args.spec)
    sys.stdout.buffer.writelines(encoded(pipeline.read_rows(pipeline.find(spec, args.step))))
    sys.stdout.flush()
    return ""


def _plan(args: OfSpec, progress: Progress) -> str:
    plans = pipeline.plan(pipeline.Spec.read(args.spec))
    return json.dumps([{**vars(plan), "dir": str(plan.dir)} for plan in plans], indent=1)


def _drops(args: Drops, progress: Progress) -> str:
    """Dropped rows, each with its input row if the previous step still has it."""
    spec = pipeline.Spec.read(args.spec)
    for step in spec.steps if args.step is None else [pipeline.named(spec, args.step)]:
        for drop in pipeline.drops(spec, step):
            if args.reason is None or drop["reason"] == args.reason:
                print(json.dumps({"step": step.name, **drop}))
    return ""


def _steps(args: Steps, progress: Progress) -> str:
    return reference.listing() if args.name is None else reference.reference(args.name)


def _schema(args: Options, progress: Progress) -> str:
    return json.dumps(reference.schema(), indent=1)


def _size(args: Cache, progress: Progress) -> str:
    return "\n".join(cache.size_table(args.cache))


def _prune(args: Prune, progress: Progress) -> str:
    removed = cache.prune(args.cache, args.unused_days, args.dry_run)
    verb = "would be removed" if args.dry_run else "removed"
    total = f"{len(removed)} folders, {sum(entry.size for entry in removed):,} bytes {verb}"
    return "\n".join([*(str(entry.path) for entry in removed), total])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    verbs: dict[str, tuple[type[Options], commands.Verb]] = {
        "run": (Run, _run), "rows": (Rows, _rows), "plan": (OfSpec, _plan), "drops": (Drops, _drops),
        "steps": (Steps, _steps), "schema": (Options, _schema), "size": (Cache, _size), "prune": (Prune, _prune),
    }  # fmt: skip
    return commands.run(__doc__ or "", verbs, argv)
