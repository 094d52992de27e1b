"""Code skill-mix from the command line: solutions to a file of questions, and their scores by unit tests.

    python -m data_prep.families.skill_mix generate --model_path MODEL --questions_path questions.json --task_name core
    python -m data_prep.families.skill_mix score --generations_path training_data/Llama3.1-8B-Instruct/core_N=50.jsonl

Exit status: 0 done, 2 something for you to mend, 3 a limit was passed (too many unusable rows), 130 stopped.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.core.progress import Lines, Live
from data_prep.errors import DataError
from data_prep.families.skill_mix import generation, scoring
from data_prep.sources.tasks import ROOT

STOPPED = "stopped; finished shards are kept, and the same command goes on from them"
A_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    args = _parser().parse_args(argv)
    progress = Live() if sys.stderr.isatty() else Lines()
    try:
        if args.verb == "generate":
            print(generation.generate(_generation(args), progress))
        else:
            print("\n".join(scoring.score(_scoring(args), progress)))
    except DataError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    finally:
        if isinstance(progress, Live):
            progress.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.families.skill_mix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    cache = Path(os.environ.get("POSTTRAIN_CACHE") or ROOT / ".cache") / "steps"
    make = verbs.add_parser("generate", help="sample solutions", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    make.add_argument("--model_path", required=True, help="a folder, or a model on the Hub")
    make.add_argument("--questions_path", required=True, type=Path, help="our .jsonl, or the original's questions.json")
    make.add_argument("--model_name", default="Llama3.1-8B-Instruct", type=_name, help="names the output's folder")
    make.add_argument("--task_name", required=True, type=_name, help="names the output")
    make.add_argument("-n", "--num_samples_per_question", type=int, default=50, help="samples of each question")
    make.add_argument("-t", "--temperature", type=float, default=0.8, help="of sampling")
    make.add_argument("--CoT", action="store_true", help="ask for steps before the solution")
    make.add_argument("--max_tokens", type=int, default=2048, help="of a solution")
    make.add_argument("--seed", type=int, default=0, help="of sampling")
    make.add_argument("--split", choices=("train", "held_out", "all"), default="all", help="which questions")
    make.add_argument("--out", type=Path, default=Path("training_data"), help="<out>/<model_name>/<task>_N=<n>.jsonl")
    make.add_argument("--python", type=Path, help="an interpreter with vLLM, if not the environment's")
    make.add_argument("--cache", type=Path, default=cache, help="where finished work is kept")
    judge = verbs.add_parser("score", help="run solutions", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    judge.add_argument("--generations_path", required=True, type=Path, help="samples: .jsonl, or the original's .json")
    judge.add_argument("--questions_path", type=Path, help="the questions of the original's samples")
    judge.add_argument("--output", type=Path, help="by default <generations>.scored.jsonl")
    judge.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="programs run at once")
    judge.add_argument("--no_cache", action="store_true", help="run programs again that were judged before")
    judge.add_argument("--max_error_share", type=float, default=0.02, help="of samples that could not be judged")
    judge.add_argument("--cache", type=Path, default=cache, help="where finished work is kept")
    return parser


def _name(given: str) -> str:
    """A name that can be a file's."""
    if not A_NAME.fullmatch(given):
        raise argparse.ArgumentTypeError(f"{given!r} is no name for a file: letters, digits, _ . + - only")
    return given


def _generation(args: argparse.Namespace) -> generation.Request:
    return generation.Request(
        model=args.model_path,
        questions=args.questions_path,
        model_name=args.model_name,
        task_name=args.task_name,
        n=args.num_samples_per_question,
        temperature=args.temperature,
        cot=args.CoT,
        max_tokens=args.max_tokens,
        seed=args.seed,
        split=args.split,
        out=args.out,
        cache=args.cache.absolute(),
        python=args.python,
    )


def _scoring(args: argparse.Namespace) -> scoring.Request:
    return scoring.Request(
        generations=args.generations_path,
        questions=args.questions_path,
        output=args.output,
        workers=args.workers,
        cached=not args.no_cache,
        max_error_share=args.max_error_share,
        cache=args.cache.absolute(),
    )


if __name__ == "__main__":
    sys.exit(main())
