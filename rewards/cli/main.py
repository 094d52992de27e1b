"""Command line of the rewards.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl [--param k=v]… [--workers N]
    python -m rewards list
    python -m rewards selfcheck [--input rows.jsonl --reward math]
    python -m rewards serve --reward math --input rows.jsonl --port 8000

Exit status: 0 done; 1 selfcheck found an attack that succeeds or a reference answer that does not grade as correct;
2 an error of usage, in one line; 3 too many errors or timeouts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rewards.base import FailureLimit, Reward
from rewards.cli import selfcheck, serve
from rewards.cli.score import score_file
from rewards.errors import RewardError, TooManyFailures
from rewards.registry import REGISTRY, load, reward_class


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    args = _parser().parse_args(argv)
    commands = {"list": _list, "selfcheck": _selfcheck, "score": _score, "serve": _serve}
    try:
        status = commands[args.verb](args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has had enough: `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RewardError, OSError) as problem:
        if isinstance(problem, OSError) and problem.filename:
            problem = RewardError(f"{problem.filename}: {problem.strerror}")
        print(f"error: {problem}", file=sys.stderr)
        return 3 if isinstance(problem, TooManyFailures) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rewards", description="Score completions.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="rewards, their row columns and their parameters")
    score = verbs.add_parser("score", help="score rows that carry `completion` or `completions`")
    check = verbs.add_parser("selfcheck", help="attack this machine's sandbox; with --input: check reference answers")
    for verb in (score, check):
        verb.add_argument("--param", action="append", default=[], metavar="K=V", help="V is JSON or a string")
        verb.add_argument("--input", type=Path, required=verb is score, metavar="JSONL")
    serve.add_parser(verbs)
    check.add_argument("--reward", default="math")
    score.add_argument("--reward", required=True)
    score.add_argument("--output", type=Path, required=True, metavar="JSONL")
    score.add_argument("--workers", type=_between(int, 1, 256), metavar="N", help="processes or requests at once")
    limit, share = FailureLimit(), _between(float, 0, 1)
    for name, default in (("errors", limit.error), ("timeouts", limit.timeout)):
        score.add_argument(f"--max-{name}", type=share, default=default, metavar="SHARE", help=f"default {default}")
    return parser


def _between(kind: Callable[[str], float], low: int, high: int) -> Callable[[str], float]:
    def number(text: str) -> float:
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not from {low} to {high}")
        return kind(text)

    return number


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RewardError(f"--param {text!r}: write it as name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _reward(args: argparse.Namespace) -> Reward:
    return load(args.reward, **dict(_param(text) for text in args.param))


def _list(args: argparse.Namespace) -> int:
    for name in REGISTRY:
        kind = reward_class(name)
        params = ", ".join(f"{name}={json.dumps(field.default)}" for name, field in kind.Params.model_fields.items())
        print(f"{name}: {(kind.__doc__ or '').splitlines()[0]}")
        print(f"  columns: {', '.join(kind.needs) or 'none'}\n  parameters: {params}")
    return 0


def _score(args: argparse.Namespace) -> int:
    limit = FailureLimit(error=args.max_errors, timeout=args.max_timeouts)
    outcomes = score_file(_reward(args), args.input, args.output, args.workers, limit)
    print(json.dumps({"output": str(args.output), "outcomes": outcomes}))
    return 0


def _selfcheck(args: argparse.Namespace) -> int:
    lines, passed = selfcheck.references(_reward(args), args.input) if args.input else selfcheck.machine()
    print("\n".join(lines))
    return 0 if passed else 1


def _serve(args: argparse.Namespace) -> int:
    return serve.serve(_reward(args), args)
