"""Run, read or plan a pipeline.

    python -m data_prep run  SPEC.json [--steps load,score]   runs those steps, or what is left of them
    python -m data_prep rows SPEC.json [--step score]         prints a finished step's rows as JSON lines
    python -m data_prep plan SPEC.json                        prints what stands and what is to do, as JSON

Exit status: 0 done, 2 something for you to mend, 3 a limit was passed (too many unusable rows), 130 stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import pipeline
from data_prep.errors import DataError
from data_prep.progress import Lines, Live
from data_prep.rows import encode


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "rows", "plan"):
        verbs.add_parser(verb).add_argument("spec", type=Path)
    verbs.choices["run"].add_argument("--steps", help="comma-separated names; all by default")
    verbs.choices["rows"].add_argument("--step", help="name of a step; the last by default")
    args = parser.parse_args(argv)
    try:
        return _run(args) if args.verb == "run" else _rows(args) if args.verb == "rows" else _plan(args)
    except DataError as error:
        print(error, file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
        return 0
    except KeyboardInterrupt:
        print("stopped; finished shards are kept, and the same command goes on from them", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    spec = pipeline.Spec.read(args.spec)
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


if __name__ == "__main__":
    sys.exit(main())
