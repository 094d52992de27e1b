"""Converts a reward model: LlamaFactory's `rm` stage trains a value head, servers need a sequence classifier.

`untie` unties the output matrix from the embedding: with tied weights the stage saves an unusable checkpoint.
`convert` writes the trained backbone and value head as a sequence classifier, without the head's bias: a constant
that does not affect comparisons and that classifiers cannot store. It verifies on fixed conversations that each logit
equals the value minus the bias, and returns the bias and the largest difference. `accuracy` is the share of pairs whose
chosen answer scores higher.
"""

import json
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4  # between value minus bias and logit, in fp32


def untie(model: str, out: str) -> None:
    """Write `model` with separate embedding and output matrices into `out`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any = AutoModelForCausalLM.from_pretrained(model)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.config.tie_word_embeddings = False
    separate: Any = type(network)(network.config)
    separate.load_state_dict(weights)
    separate.save_pretrained(out)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)


def convert(trained: str, out: str) -> dict[str, float]:
    """Convert the `rm` stage's checkpoint `trained` to a classifier in `out`. Raises ValueError if a logit differs."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from data_prep.inference.vllm.reward_check import conversations

    head = load_file(Path(trained) / "value_head.safetensors")
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
            state = language(input_ids=_ids(tokenizer, chat), output_hidden_states=True).hidden_states[-1][0, -1]
            difference = max(difference, abs(float(weight[0] @ state) - _logit(classifier, tokenizer, chat)))
    if not difference <= TOLERANCE:
        raise ValueError(f"{trained}: a logit differs from its value by {difference:.2g}, more than {TOLERANCE:g}")
    classifier.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"bias": bias, "difference": difference}


def accuracy(model: str, pairs: str) -> dict[str, float]:
    """The share of rows {prompt, completion, rejected} whose completion scores higher."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    classifier: Any = AutoModelForSequenceClassification.from_pretrained(model).eval()
    rows = [json.loads(line) for line in Path(pairs).read_text().splitlines()]
    right = 0
    with torch.no_grad():
        for row in rows:
            answers = ({"role": "assistant", "content": row[name]} for name in ("completion", "rejected"))
            chosen, rejected = (_logit(classifier, tokenizer, [*row["prompt"], answer]) for answer in answers)
            right += chosen > rejected
    return {"accuracy": right / len(rows), "pairs": len(rows)}


def _ids(tokenizer: Any, chat: list[dict[str, str]]) -> Any:
    return tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")["input_ids"]


def _logit(classifier: Any, tokenizer: Any, chat: list[dict[str, str]]) -> float:
    return float(classifier(input_ids=_ids(tokenizer, chat)).logits[0, 0])
