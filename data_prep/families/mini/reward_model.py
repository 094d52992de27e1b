"""A tiny reward model on the mini model's weights: its score head is fitted, its other weights stay.

A real sequence-classification checkpoint for servers and trainers at mini scale. The head is a ridge regression on the
last token's hidden state that separates right answers to the mini world's questions from answers to other questions.
Needs torch and transformers (the environment of vLLM).

python -m data_prep.families.mini.reward_model DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from data_prep.families.mini.worlds import ARITHMETIC
from data_prep.inference.vllm.reward_check import conversations

ROOT = Path(__file__).parents[3]
ROWS = {1: 40, 2: 200}  # questions by level
RIDGE = 1e-2
FIXED = 20  # weight of the eight conversations that every server is checked with


def build(out: Path, base: Path = ROOT / ARITHMETIC.folder) -> None:
    """Write a Qwen2ForSequenceClassification with one output and `base`'s tokenizer into `out`. Deterministic."""
    import torch
    from transformers import AutoTokenizer, Qwen2ForSequenceClassification

    rows = ARITHMETIC.rows(ROWS, "train", 0)
    answers = [row["completion"] for row in rows]
    good = [_chat(row["prompt"], answer) for row, answer in zip(rows, answers, strict=True)]
    bad = [_chat(row["prompt"], answer) for row, answer in zip(rows, [*answers[1:], answers[0]], strict=True)]
    fixed = conversations()
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model = Qwen2ForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    chats = [*good, *bad, *fixed[::2], *fixed[1::2]]
    features = torch.stack([_last_state(model, tokenizer, chat) for chat in chats]).double()
    goal = torch.tensor([1.0] * len(good) + [-1.0] * len(bad) + [1.0] * 4 + [-1.0] * 4).double()
    weight = torch.tensor([1.0] * 2 * len(rows) + [float(FIXED)] * 8).double()
    square = features.T @ (weight[:, None] * features) + RIDGE * torch.eye(features.shape[1]).double()
    with torch.no_grad():
        model.score.weight[0] = torch.linalg.solve(square, features.T @ (weight * goal)).float()
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _chat(prompt: list[dict[str, str]], answer: str) -> list[dict[str, str]]:
    return [*prompt, {"role": "assistant", "content": answer}]


def _last_state(model: Any, tokenizer: Any, chat: list[dict[str, str]]) -> Any:
    """The trunk's hidden state at the conversation's last token, [hidden]."""
    import torch

    ids = tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.model(input_ids=ids).last_hidden_state[0, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description="write the mini reward model")
    parser.add_argument("out", type=Path)
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
