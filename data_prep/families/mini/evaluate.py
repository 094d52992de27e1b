"""Sampled accuracy of a mini model by level, with transformers alone: for building it and for its card.

A recipe's own evaluation samples with vLLM and scores with `rewards`; this one runs inside LlamaFactory's
environment, also from its training loop (`launchers/plugins/llamafactory/stop_on_accuracy.py`).

python -m data_prep.families.mini.evaluate MODEL --levels 1:5,2:250,3:250 --samples 4        prints JSON

Sums are right when the box holds the answer, functions when they pass all their tests in the sandbox.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import rewards
from data_prep.errors import DataError
from data_prep.evaluation.intervals import interval
from data_prep.families.mini import curriculum

Row = dict[str, Any]
BOX = re.compile(r"\\boxed\{([^{}]*)\}")
MAX_TOKENS = 128  # a short chain at level 5 takes about 110
WORKERS = 2  # programs tested at once
BATCH = 256  # completions sampled at once
PACKAGES = ("llamafactory", "transformers", "torch")  # of which the card gives the versions


def boxed(text: str) -> str | None:
    """The content of the last `\\boxed{}`."""
    answers: list[str] = BOX.findall(text)
    return answers[-1].strip() if answers else None


def sample(model: Any, tokenizer: Any, rows: Sequence[Row], *, seed: int, max_tokens: int) -> list[str]:
    """One completion per row at temperature 1, full distribution. The caller's random state is kept."""
    import torch

    completions: list[str] = []
    training = model.training
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for start in range(0, len(rows), BATCH):
            texts = [
                tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
                for row in rows[start : start + BATCH]
            ]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
            output = model.generate(
                **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_tokens
            )
            completions += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train(training)
    return completions


def right(rows: Sequence[Row], completions: Sequence[str]) -> list[bool]:
    """Whether each answer is right: the row's tests decide, or else its answer as text."""
    if not any("tests" in row for row in rows):
        return [boxed(completion) == row["answer"] for row, completion in zip(rows, completions, strict=True)]
    scores = rewards.load("code", value="all").score_many(rows, completions, WORKERS)
    if failed := [score for score in scores if score.outcome in ("error", "timeout")]:
        raise DataError(f"{len(failed)} of {len(scores)} programs could not be graded; {failed[0].details}")
    return [score.value == 1 for score in scores]


def accuracy(rows: Sequence[Row], completions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By `meta.level`: prompts, mean, stderr, ci95 in percent. Rows of one id are samples of one prompt."""
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row, good in zip(rows, right(rows, completions), strict=True):
        hits[str(row["meta"]["level"])][row["id"]].append(good)
    return {
        level: {"prompts": len(prompts), **interval([fmean(shares) for shares in prompts.values()])}
        for level, prompts in sorted(hits.items())
    }


def parse_levels(text: str) -> dict[int, int]:
    """`2:500,3:500` to {2: 500, 3: 500}. Raises ValueError."""
    return {int(level): int(count) for level, count in (pair.split(":") for pair in text.split(","))}


def main() -> None:
    parser = argparse.ArgumentParser(description="sampled accuracy of a mini model on held-out questions")
    parser.add_argument("model", type=Path)
    parser.add_argument("--levels", type=parse_levels, default={2: 250, 3: 250, 4: 250, 5: 250})
    parser.add_argument("--samples", type=int, default=4, help="completions per question")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    parser.add_argument("--subject", choices=list(curriculum.SUBJECTS), default="arithmetic")
    parser.add_argument("--chain", choices=["short", "long"], default="short")
    options = parser.parse_args()

    from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[attr-defined, unused-ignore]

    questions = curriculum.questions(
        options.levels, "test", chain=options.chain, seed=options.seed, subject=options.subject
    )
    rows = [row for row in questions for _ in range(options.samples)]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    completions = sample(model, tokenizer, rows, seed=options.seed, max_tokens=options.max_tokens)
    versions = {package: metadata.version(package) for package in PACKAGES}
    print(json.dumps({"levels": accuracy(rows, completions), "versions": versions}))


if __name__ == "__main__":
    main()
