"""BLEUBERI's training data, with the options of the original's create_training_data.py.

    python -m data_prep.families.bleuberi grpo --model Qwen/Qwen2.5-7B --metric bleu --num_examples 5000
    python -m data_prep.families.bleuberi sft --input_data_path data/data_grpo/<name>

Exit status: 0 done, 2 something for you to mend, 3 a limit was passed (too many unusable rows), 130 stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.core.progress import Lines, Live
from data_prep.errors import DataError
from data_prep.families.bleuberi import build
from data_prep.sources.tasks import ROOT
from rewards import RewardError

STOPPED = "stopped; finished shards are kept, and the same command goes on from them"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    args = _parser().parse_args(argv)
    progress = Live() if sys.stderr.isatty() else Lines()
    try:
        if args.verb == "grpo":
            print(build.grpo(_request(args), progress))
        else:
            print(build.sft(args.input_data_path, args.output_dir, tuple(args.references)))
    except (DataError, RewardError) as error:
        print(error, file=sys.stderr)
        return error.status if isinstance(error, DataError) else 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    finally:
        if isinstance(progress, Live):
            progress.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    shape = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.families.bleuberi",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    cache = Path(os.environ.get("POSTTRAIN_CACHE") or ROOT / ".cache") / "steps"
    grpo = verbs.add_parser("grpo", help="prompts with references, chosen by likeness", formatter_class=shape)
    grpo.add_argument(
        "--hf_dataset_path", default="yapeichang/BLEUBERI-Tulu3-50k", help="on the Hub, or a folder or file"
    )
    grpo.add_argument("--ref_models", nargs="+", default=["gold"], help="whose answers are references")
    grpo.add_argument("--selection_mode", choices=("random", "easy", "medium", "hard"), default="hard", help=" ")
    grpo.add_argument("--num_examples", type=int, help="all, the highest score first, if not given")
    grpo.add_argument("--metric", choices=tuple(build.METRICS), help="needed unless selection_mode is random")
    grpo.add_argument("--model", help="whose answers are scored; needed unless selection_mode is random")
    grpo.add_argument("--inference_max_new_tokens", type=int, default=512, help="of an answer")
    grpo.add_argument("--seed", type=int, default=42, help="of answers, and of a random selection")
    grpo.add_argument("--output_dir", type=Path, default=Path("../data"), help="<output_dir>/data_grpo/<name>")
    grpo.add_argument("--output_dataset_name", help="by default made of the options, as in the original")
    grpo.add_argument("--guarded", action="store_true", help="leave out what is hard by its length only (choose.py)")
    grpo.add_argument("--reward_model", default="Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", help="of metric rm")
    grpo.add_argument("--reward_model_url", help="its server, of metric rm")
    grpo.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that score")
    grpo.add_argument("--cache", type=Path, default=cache, help="where finished work is kept")
    sft = verbs.add_parser("sft", help="a row for each reference", formatter_class=shape)
    sft.add_argument("--input_data_path", required=True, type=Path, help="a data set that grpo saved")
    sft.add_argument("--output_dir", type=Path, default=Path("../data"), help="<output_dir>/data_sft/<name>_SFT")
    sft.add_argument("--references", nargs="*", type=int, default=[], help="places of those to take; all by default")
    return parser


def _request(args: argparse.Namespace) -> build.Request:
    if args.metric == "rm" and not args.reward_model_url:
        raise DataError(f"metric rm asks a server: `vllm serve {args.reward_model}`, and give its --reward_model_url")
    model = {"url": args.reward_model_url, "model": args.reward_model, "thinking": "none"}
    return build.Request(
        hf_dataset_path=args.hf_dataset_path,
        ref_models=tuple(sorted(args.ref_models, key=lambda name: name != "gold")),
        selection_mode=args.selection_mode,
        num_examples=args.num_examples,
        metric=args.metric,
        model=args.model,
        inference_max_new_tokens=args.inference_max_new_tokens,
        seed=args.seed,
        output_dir=args.output_dir,
        output_dataset_name=args.output_dataset_name,
        guarded=args.guarded,
        reward_params=model if args.metric == "rm" else {},
        cache=args.cache.absolute(),
        workers=args.workers,
    )


if __name__ == "__main__":
    sys.exit(main())
