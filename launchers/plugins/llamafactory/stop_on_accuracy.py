"""LlamaFactory training that stops at a target accuracy on held-out prompts.

For tasks where accuracy rises suddenly, at no predictable step. Every N steps the model answers the held-out prompts at
temperature 1; the content of `\\boxed{}` is compared with the answer as text. Training stops at the target
(LlamaFactory saves the model as usual), and a log with one JSON object per evaluation is written.

A high learning rate speeds up learning but makes the accuracy fluctuate. With `--settle-at`, the rate decays to a tenth
over `--settle-steps` once that accuracy is reached, and stays there until the target is reached.

python -m launchers.plugins.llamafactory.stop_on_accuracy train.yaml --rows held_out.jsonl --target 40

Exit status 3 if training ended below the target.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamafactory.train.tuner import run_exp
from omegaconf import OmegaConf
from transformers import TrainerCallback

from data_prep.families.mini import evaluate

Row = dict[str, Any]
BELOW_TARGET = 3
SETTLED = 0.1  # final fraction of the learning rate


class StopOnAccuracy(TrainerCallback):
    """Samples every `every` steps and stops the training at `target` on `level`."""

    def __init__(self, rows: Sequence[Row], options: argparse.Namespace) -> None:
        self.rows = rows
        self.options = options
        self.reached = False
        self.settling_since: int | None = None
        self.started = time.monotonic()
        options.log.parent.mkdir(parents=True, exist_ok=True)
        options.log.write_text("")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step == self.options.stop_at:
            control.should_training_stop = True
        self._settle(step, kwargs["optimizer"])
        if step % self.options.every or step < self.options.start:
            return
        sampling = {"seed": self.options.seed, "max_tokens": self.options.max_tokens}
        completions = evaluate.sample(kwargs["model"], kwargs["processing_class"], self.rows, **sampling)
        by_level = {level: accuracy["mean"] for level, accuracy in evaluate.accuracy(self.rows, completions).items()}
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        entry = {
            "step": step,
            "seconds": round(time.monotonic() - self.started, 1),
            "loss": losses[-1] if losses else None,
            "accuracy": by_level,
        }
        with self.options.log.open("a") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)
        if by_level[self.options.level] >= self.options.target:
            self.reached = True
            control.should_training_stop = True
        elif by_level[self.options.level] >= self.options.settle_at and self.settling_since is None:
            self.settling_since = step

    def _settle(self, step: int, optimizer: Any) -> None:
        """Scale the next step's learning rate; the scheduler resets it after each step."""
        if self.settling_since is not None:
            gone = min(1.0, (step - self.settling_since) / self.options.settle_steps)
            for group in optimizer.param_groups:
                group["lr"] *= 1 - (1 - SETTLED) * gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="LlamaFactory's YAML")
    parser.add_argument("--rows", type=Path, required=True, help="held-out rows: prompt, answer, meta.level")
    parser.add_argument("--level", default="3", help="the meta.level whose accuracy is compared with the target")
    parser.add_argument("--target", type=float, required=True, help="accuracy to stop at, in percent")
    parser.add_argument(
        "--settle-at", type=float, default=float("inf"), help="accuracy at which the rate starts to decay"
    )
    parser.add_argument("--settle-steps", type=int, default=40, help="steps over which the rate decays")
    parser.add_argument("--every", type=int, default=20, help="steps between evaluations")
    parser.add_argument("--start", type=int, default=0, help="no evaluation before this step")
    parser.add_argument("--stop-at", type=int, help="stop at this step at the latest; does not change the schedule")
    parser.add_argument("--max-tokens", type=int, default=evaluate.MAX_TOKENS)
    parser.add_argument("--seed", type=int, default=0, help="sampling seed")
    parser.add_argument("--log", type=Path, help="default: accuracy.jsonl in the training's output_dir")
    options = parser.parse_args()
    config: Any = OmegaConf.to_container(OmegaConf.load(options.config), resolve=True)
    options.log = options.log or Path(config["output_dir"]) / "accuracy.jsonl"
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines() if line]
    if options.level not in {str(row["meta"]["level"]) for row in rows}:
        parser.error(f"{options.rows}: no row has meta.level {options.level}")
    callback = StopOnAccuracy(rows, options)
    run_exp(args=config, callbacks=[callback])
    if not callback.reached and options.stop_at is None:
        below = f"training ended below {options.target} % on level {options.level}: see {options.log}\n"
        parser.exit(BELOW_TARGET, below)


if __name__ == "__main__":
    main()
