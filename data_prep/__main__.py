"""Run, read or plan a pipeline.

    python -m data_prep run  SPEC.json [--steps load,score]   runs those steps, or what is left of them
                             [--engine serial|processes|ray] [--workers 8]    where, in place of what the spec says
    python -m data_prep rows SPEC.json [--step score]         prints a finished step's rows as JSON lines
    python -m data_prep plan SPEC.json                        prints each step's state as JSON
    python -m data_prep drops SPEC.json [--step load] [--reason "not JSON"]   prints dropped rows as JSON lines
    python -m data_prep steps [NAME]                          prints all steps, or one with parameters and examples
    python -m data_prep schema                                prints the JSON schema of data.yaml
    python -m data_prep size  [.cache/steps]                  prints what the cache holds, by kind of step
    python -m data_prep prune [.cache/steps] --unused-days 30 [--dry-run]     removes steps that no run has used

Exit status: 0 done, 2 user error, 3 a limit was passed (too many unusable rows), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.core import cache, pipeline, reference
from data_prep.core.progress import Lines, Live
from data_prep.core.rows import encode
from data_prep.errors import DataError


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "rows", "plan"):
        verbs.add_parser(verb).add_argument("spec", type=Path)
    verbs.choices["run"].add_argument("--steps", help="comma-separated names; all by default")
    verbs.choices["run"].add_argument("--engine", choices=("serial", "processes", "ray"))
    verbs.choices["run"].add_argument("--workers", type=int, help="shards at once")
    verbs.choices["rows"].add_argument("--step", help="name of a step; the last by default")
    drops = verbs.add_parser("drops")
    drops.add_argument("spec", type=Path)
    drops.add_argument("--step", help="name of a step; all by default")
    drops.add_argument("--reason", help="only rows dropped for this reason")
    verbs.add_parser("steps").add_argument("name", nargs="?", help="a kind of step; all by default")
    verbs.add_parser("schema")
    for verb in ("size", "prune"):
        verbs.add_parser(verb).add_argument("cache", type=Path, nargs="?", default=Path(".cache/steps"))
    verbs.choices["prune"].add_argument("--unused-days", type=float, default=30.0, help="30 by default")
    verbs.choices["prune"].add_argument("--dry-run", action="store_true", help="only say what would be removed")
    args = parser.parse_args(argv)
    try:
        return _VERBS[args.verb](args)
    except DataError as error:
        print(error, file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
        return 0
    except KeyboardInterrupt:
        print("stopped; finished shards are kept, rerun the same command to resume", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    spec = pipeline.Spec.read(args.spec)
    given = {name: value for name in ("engine", "workers") if (value := getattr(args, name)) is not None}
    spec = spec.model_copy(update={"execution": spec.execution.model_copy(update=given)})
    progress = Live() if sys.stderr.isatty() else Lines()
    try:
        pipeline.run(spec, args.steps.split(",") if args.steps else None, progress)
    finally:
        if isinstance(progress, Live):
            progress.stop()
    return 0


def _rows(args: argparse.Namespace) -> int:
    spec = pipeline.Spec.read(args.spec)
    for row in pipeline.read_rows(pipeline.find(spec, args.step)):
        line = encode(row)
        assert isinstance(line, bytes)
        sys.stdout.buffer.write(line)
    sys.stdout.flush()
    return 0


def _plan(args: argparse.Namespace) -> int:
    print(pipeline.to_json(pipeline.plan(pipeline.Spec.read(args.spec))))
    return 0


def _drops(args: argparse.Namespace) -> int:
    """Dropped rows, each with the input row of its id where the step before still has it."""
    spec = pipeline.Spec.read(args.spec)
    for step in spec.steps if args.step is None else [pipeline.named(spec, args.step)]:
        for drop in pipeline.drops(spec, step):
            if args.reason is None or drop["reason"] == args.reason:
                print(json.dumps({"step": step.name, **drop}))
    return 0


def _steps(args: argparse.Namespace) -> int:
    print(reference.listing() if args.name is None else reference.reference(args.name))
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(reference.schema(), indent=1))
    return 0


def _size(args: argparse.Namespace) -> int:
    print("\n".join(cache.size_table(args.cache)))
    return 0


def _prune(args: argparse.Namespace) -> int:
    removed = cache.prune(args.cache, args.unused_days, args.dry_run)
    for entry in removed:
        print(entry.path)
    verb = "would be removed" if args.dry_run else "removed"
    print(f"{len(removed)} folders, {sum(entry.size for entry in removed):,} bytes {verb}")
    return 0


_VERBS = {
    "run": _run, "rows": _rows, "plan": _plan, "drops": _drops,
    "steps": _steps, "schema": _schema, "size": _size, "prune": _prune,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
