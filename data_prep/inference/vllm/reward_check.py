"""Checks a reward-model server before a training uses it. Needs the vLLM environment.

    python -m data_prep.inference.vllm.reward_check MODEL URL [--revision COMMIT] [--template FILE] [--endpoint]

Eight fixed conversations, a good and a bad answer to each of four questions, are scored by the server and with
transformers. The check fails for: no chat template, weights missing from the checkpoint, several labels, more than one
BOS token, token counts or scores that differ from transformers, an endpoint that returns probabilities instead of raw
scores, bad answers scored above good ones. Prints a line for each conversation, then the verdict.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.sources.tasks import ROOT

TOLERANCE = 1e-2  # absolute below 1, relative above
HALF_TOLERANCE = 5e-2  # for bf16 and fp16 weights: a bf16 logit of 20 has steps of 0.125, and kernels round differently
MOST_WRONG = 1  # of four pairs; more in the wrong order fail the check
TIMEOUT_S = 120.0
PAIRS = (
    ("What is 3 + 4?", "3 + 4 = 7, so the answer is \\boxed{7}.", "\\boxed{12}"),
    ("What is 6 * 5?", "6 * 5 = 30, so the answer is \\boxed{30}.", "\\boxed{11}"),
    ("Which city is the capital of France?", "The capital of France is Paris.", "I don't know."),
    ("Name two primary colors.", "Two primary colors are red and blue.", "Purple purple purple"),
)


class Refused(Exception):
    """The server fails the check; the message is one line."""


def conversations() -> list[list[dict[str, str]]]:
    """The eight conversations: good and bad answers alternate."""
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, *answers in PAIRS
        for answer in answers
    ]


def served(url: str) -> list[tuple[float, int]]:
    """(score, tokens) of each conversation, from the server. Raises Refused."""
    import httpx2

    scores = []
    with httpx2.Client(trust_env=False, timeout=TIMEOUT_S) as client:
        for messages in conversations():
            body = {"messages": messages, "use_activation": False}
            try:
                reply = client.post(f"{url.rstrip('/').removesuffix('/v1')}/classify", json=body)
                reply.raise_for_status()
                read = reply.json()
                labels = read["data"][0]["probs"]
                scores.append((float(labels[-1]), int(read["usage"]["prompt_tokens"])))
            except (httpx2.HTTPError, ValueError, KeyError, IndexError) as error:
                why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                raise Refused(f"{url}/classify returns no score: {why}") from None
            if len(labels) > 1:
                raise Refused(f"{url}/classify returns {len(labels)} labels; a reward model has one, its raw score")
    return scores


def computed(model: str, revision: str | None, template: Path | None) -> tuple[list[tuple[float, int]], float]:
    """(score, tokens) of each conversation, from transformers on the CPU, and the tolerance. Raises Refused."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, revision=revision)
    if template is not None:
        tokenizer.chat_template = template.read_text()
    if not tokenizer.chat_template:
        raise Refused(f"{model} has no chat template: set reward_model.template")
    network, loaded = AutoModelForSequenceClassification.from_pretrained(
        model, revision=revision, dtype="auto", output_loading_info=True
    )
    if loaded["missing_keys"]:  # transformers would initialise them randomly
        raise Refused(f"{model} lacks the weights {', '.join(sorted(loaded['missing_keys']))}: not a reward model")
    if network.config.num_labels != 1:
        raise Refused(f"{model} has {network.config.num_labels} labels; a reward model has one, its raw score")
    network = network.eval()
    scores = []
    for messages in conversations():
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.bos_token_id is not None and ids.count(tokenizer.bos_token_id) > 1:
            raise Refused(f"the chat template writes {ids.count(tokenizer.bos_token_id)} BOS tokens")
        with torch.no_grad():
            score = network(input_ids=torch.tensor([ids])).logits[0, -1]
        scores.append((float(score), len(ids)))
    return scores, TOLERANCE if network.dtype == torch.float32 else HALF_TOLERANCE


def problem(
    scores: Sequence[tuple[float, int]], expected: Sequence[tuple[float, int]], tolerance: float = TOLERANCE
) -> str | None:
    """Why the server fails the check, or None. expected: empty if transformers is not used."""
    for number, ((score, tokens), (right, count)) in enumerate(zip(scores, expected, strict=False), 1):
        if tokens != count:
            return f"conversation {number} has {tokens} tokens on the server and {count} in transformers (2 BOS?)"
        if abs(score - right) > tolerance * max(1.0, abs(right)):
            return f"conversation {number} scores {score:.4f} on the server and {right:.4f} in transformers"
    if not expected and all(0 <= score <= 1 for score, _ in scores):
        return (
            "all scores are between 0 and 1, probably after a sigmoid or softmax, which compresses differences: "
            "serve raw scores (vLLM's /classify with use_activation: false)"
        )
    wrong = [PAIRS[i][0] for i in range(len(PAIRS)) if scores[2 * i][0] <= scores[2 * i + 1][0]]
    if len(wrong) > MOST_WRONG:
        return f"bad answers score above good ones in {len(wrong)} of {len(PAIRS)} pairs: {'; '.join(wrong)}"
    return None


def verify(python: Path, model: str, url: str, endpoint: bool, **options: str) -> None:
    """Run the check in the environment of `python`. Raises DataError if it fails."""
    words = [str(python), "-m", "data_prep.inference.vllm.reward_check", model, url]
    words += [*(["--endpoint"] if endpoint else []), *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", file=sys.stderr, flush=True)
    if done.returncode:
        raise DataError((done.stdout.strip().splitlines() or ["the score check failed"])[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Returns exit status 1 if the check fails; the last line says why."""
    parser = argparse.ArgumentParser(prog="data_prep.inference.vllm.reward_check", description="Check a reward model.")
    parser.add_argument("model")
    parser.add_argument("url")
    parser.add_argument("--revision")
    parser.add_argument("--template", type=Path)
    parser.add_argument("--endpoint", action="store_true", help="check only the server's scores (no local weights)")
    args = parser.parse_args(argv)
    try:
        expected, tolerance = ([], TOLERANCE) if args.endpoint else computed(args.model, args.revision, args.template)
        scores = served(args.url)
        for number, (score, tokens) in enumerate(scores):
            beside = f", transformers {expected[number][0]:.4f}" if expected else ""
            print(f"{('good', 'bad')[number % 2]:<4} {score:8.4f}{beside} ({tokens} tokens): {PAIRS[number // 2][0]}")
        if why := problem(scores, expected, tolerance):
            raise Refused(why)
    except (Refused, OSError) as error:
        print(error if isinstance(error, Refused) else f"{args.model}: {' '.join(str(error).split())[:300]}")
        return 1
    print("the server's scores agree with transformers" if expected else "the server prefers good answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
