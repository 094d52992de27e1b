"""Sampled accuracy of a mini model by level, using only transformers: for its training and its card.

A recipe's evaluation samples with vLLM and scores with `rewards`; this one runs in LlamaFactory's
environment, also within its training loop (`launchers/plugins/llamafactory/stop_on_accuracy.py`).

A sum is right if the box contains the answer, a function if it passes all its tests in the sandbox.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import metadata
from statistics import fmean
from typing import Any

import rewards
from data_prep.errors import DataError
from data_prep.evaluation.intervals import interval
from data_prep.families.mini import curriculum
from data_prep.families.mini.arithmetic import Chain, Row

BOX = re.compile(r"\\boxed\{([^{}]*)\}")
MAX_TOKENS = 128  # a short chain at level 5 takes about 110
WORKERS = 2  # programs tested at once
BATCH = 256  # completions sampled at once
PACKAGES = ("llamafactory", "transformers", "torch")  # the card lists their versions


def sample(model: Any, tokenizer: Any, rows: Sequence[Row], *, seed: int, max_tokens: int) -> list[str]:
    """One completion per row at temperature 1, without top-k or top-p. The caller's random state is preserved."""
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
    """Whether each answer is right: it passes the row's tests, or, without tests, its last box equals the answer."""
    if not any("tests" in row for row in rows):
        boxes = [["", *BOX.findall(completion)][-1].strip() for completion in completions]
        return [box == row["answer"] for row, box in zip(rows, boxes, strict=True)]
    scores = rewards.load("code", value="all").score_many(rows, completions, WORKERS)
    if failed := [score for score in scores if score.outcome in ("error", "timeout")]:
        raise DataError(f"{len(failed)} of {len(scores)} programs could not be graded; {failed[0].details}")
    return [score.value == 1 for score in scores]


def accuracy(rows: Sequence[Row], completions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By `meta.level`: prompts, mean, stderr, ci95 in percent. Rows with the same id are samples of one prompt."""
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row, good in zip(rows, right(rows, completions), strict=True):
        hits[str(row["meta"]["level"])][row["id"]].append(good)
    return {
        level: {"prompts": len(prompts), **interval([fmean(shares) for shares in prompts.values()])}
        for level, prompts in sorted(hits.items())
    }


def evaluate(
    model: str,
    levels: Mapping[str, int],
    samples: int = 4,
    max_tokens: int = MAX_TOKENS,
    subject: str = "arithmetic",
    chain: Chain = "short",
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy on held-out questions, `levels` giving the number per level, and the packages' versions."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[attr-defined, unused-ignore]

    counts = {int(level): count for level, count in levels.items()}
    questions = curriculum.questions(counts, "test", chain=chain, seed=seed, subject=subject)
    rows = [row for row in questions for _ in range(samples)]
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    completions = sample(network, AutoTokenizer.from_pretrained(model), rows, seed=seed, max_tokens=max_tokens)
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {"levels": accuracy(rows, completions), "versions": versions}
