"""From a language model to a reward model: LlamaFactory's `rm` stage trains a value head, servers take a classifier.

    <llamafactory python> -m data_prep.families.mini.value_head untie MODEL OUT
    <llamafactory python> -m data_prep.families.mini.value_head convert TRAINED OUT
    <llamafactory python> -m data_prep.families.mini.value_head accuracy CLASSIFIER PAIRS.jsonl

`untie` gives the model an output matrix of its own: the stage saves nothing usable where it shares the embedding.
`convert` writes the trained backbone and its value head as a sequence classifier, without the head's bias: a constant
that no comparison sees, and classifiers have no place for. It proves on fixed conversations that each logit is the
value less that bias, and prints the bias and the largest difference as JSON. `accuracy` is the share of pairs whose
chosen answer scores higher.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4  # between value less bias and logit, in fp32


def untie(model: Path, out: Path) -> None:
    """Write `model` with separate embedding and output matrices into `out`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any = AutoModelForCausalLM.from_pretrained(model)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.config.tie_word_embeddings = False
    separate: Any = type(network)(network.config)
    separate.load_state_dict(weights)
    separate.save_pretrained(out)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)


def convert(trained: Path, out: Path) -> dict[str, float]:
    """The classifier of the `rm` stage's checkpoint `trained`, into `out`. Raises ValueError where a logit differs."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from data_prep.inference.vllm.reward_check import conversations

    head = load_file(trained / "value_head.safetensors")
    weight, bias = head["v_head.summary.weight"], float(head["v_head.summary.bias"])
    tokenizer: Any = AutoTokenizer.from_pretrained(trained)
    language: Any = AutoModelForCausalLM.from_pretrained(trained).eval()
    classifier: Any = AutoModelForSequenceClassification.from_pretrained(
        trained, num_labels=1, pad_token_id=tokenizer.pad_token_id
    ).eval()
    difference = 0.0
    with torch.no_grad():
        classifier.score.weight.copy_(weight)
        for chat in conversations():
            ids = tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")["input_ids"]
            state = language(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
            logit = float(classifier(input_ids=ids).logits[0, 0])
            difference = max(difference, abs(float(weight[0] @ state) - logit))
    if not difference <= TOLERANCE:
        raise ValueError(f"{trained}: a logit differs from its value by {difference:.2g}, more than {TOLERANCE:g}")
    classifier.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"bias": bias, "difference": difference}


def accuracy(model: Path, pairs: Path) -> dict[str, float]:
    """The share of rows {prompt, completion, rejected} of which the completion scores higher."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    classifier: Any = AutoModelForSequenceClassification.from_pretrained(model).eval()

    def score(prompt: list[dict[str, str]], answer: str) -> float:
        chat = [*prompt, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(classifier(input_ids=ids).logits[0, 0])

    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    right = sum(score(row["prompt"], row["completion"]) > score(row["prompt"], row["rejected"]) for row in rows)
    return {"accuracy": right / len(rows), "pairs": len(rows)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("untie", "convert", "accuracy"))
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        print(json.dumps(globals()[args.action](args.model, args.out)))
    except (OSError, ValueError, KeyError) as error:
        print(f"value_head: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
