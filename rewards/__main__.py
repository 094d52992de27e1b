"""`python -m rewards`, see rewards/cli/main.py."""

import sys
<<<<<<< HEAD
=======
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewards.base import FailureLimit, Reward
from rewards.cli import serve
from rewards.errors import RewardError, TooManyFailures
from rewards.registry import REGISTRY, load, reward_class


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        if args.verb == "list":
            return _list()
        if args.verb == "selfcheck":
            return _selfcheck(args)
        reward = _reward(args)
        if args.verb == "serve":
            return serve.serve(reward, args)
        from rewards.cli.score import score_file

        limit = FailureLimit(error=args.max_errors, timeout=args.max_timeouts)
        counts = score_file(reward, args.input, args.output, args.workers, limit)
        print(json.dumps({"output": str(args.output), "outcomes": counts}))
        return 0
    except TooManyFailures as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 3
    except RewardError as problem:
        print(f"error: {problem}", file=sys.stderr)
    except OSError as problem:
        print(f"error: {problem.filename or args.input}: {problem.strerror}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rewards", description="Score completions.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="rewards, their row columns and their parameters")
    score = verbs.add_parser("score", help="score rows that carry `completion` or `completions`")
    check = verbs.add_parser("selfcheck", help="do the walls hold? with --input: does every gold equal itself?")
    for verb in (score, check):
        verb.add_argument("--param", action="append", default=[], metavar="K=V", help="V is JSON or a string")
        verb.add_argument("--input", type=Path, required=verb is score, metavar="JSONL")
    serve.add_parser(verbs)
    check.add_argument("--reward", default="math")
    score.add_argument("--reward", required=True)
    score.add_argument("--output", type=Path, required=True, metavar="JSONL")
    score.add_argument("--workers", type=_positive, default=None, help="answers graded at once")
    share = FailureLimit()
    for name, default in (("errors", share.error), ("timeouts", share.timeout)):
        score.add_argument(f"--max-{name}", type=_share, default=default, metavar="SHARE", help=f"default {default}")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 256")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return share


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RewardError(f"--param {text!r}: write it as name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _list() -> int:
    for name in REGISTRY:
        found = reward_class(name)
        params = ", ".join(f"{name}={json.dumps(field.default)}" for name, field in found.Params.model_fields.items())
        print(f"{name}: {(found.__doc__ or '').splitlines()[0]}")
        print(f"  columns: {', '.join(found.needs) or 'none'}\n  parameters: {params}")
    return 0


def _selfcheck(args: argparse.Namespace) -> int:
    from rewards.cli import selfcheck

    lines, well = selfcheck.golds(_reward(args), args.input) if args.input else selfcheck.machine()
    print("\n".join(lines))
    return 0 if well else 1


def _reward(args: argparse.Namespace) -> Reward:
    return load(args.reward, **dict(_param(text) for text in args.param))
>>>>>>> main

from rewards.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
