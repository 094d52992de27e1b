"""RLMT's preparation commands.

    python -m data_prep.families.long_cot prepare --input_json prompts.json --data_source wildchat
    python -m data_prep.families.long_cot zero --model meta-llama/Llama-3.1-8B --out models/zero_llama

Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.errors import DataError
from data_prep.families.long_cot import prepare, zero


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    args = vars(_parser().parse_args(argv))
    command = args.pop("command")
    try:
        if command == "zero":
            print(zero.write_copy(args["model"], args["revision"], args["format"], args["out"]))
            return 0
        paths, drops = prepare.prepare(prepare.Request(**args))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    for reason, count in drops.most_common():
        print(f"dropped {count:,}: {reason}", file=sys.stderr)
    print("\n".join(map(str, paths)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="data_prep.families.long_cot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser(
        "prepare", help="prompts for online RL", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    make.add_argument("--input_json", type=Path, required=True, help="a list of {instruction} or {messages}")
    make.add_argument("--data_source", default="wildchat", help="names the files and the rows' source")
    make.add_argument("--local_dir", type=Path, default=Path("data"), help="folder to write")
    make.add_argument("--num_examples", type=int, default=200_000, help="training prompts at most")
    make.add_argument("--num_validation_examples", type=int, default=1_000, help="prompts held out")
    make.add_argument("--seed", type=int, default=42, help="of the shuffle")
    copy = commands.add_parser("zero", help="a base model's copy, prompted into a format")
    copy.add_argument("--model", required=True, help="a folder, or a model on the Hub")
    copy.add_argument("--revision", help="the Hub's commit")
    copy.add_argument("--format", choices=("zero", "zero_nothink"), default="zero", help="with a thought, or without")
    copy.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
