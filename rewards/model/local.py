"""A reward model in this process, with transformers: one forward pass at a time, longest conversations first."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rewards.errors import RewardError
from rewards.model.chat import Messages


class LocalModel:
    """A sequence-classification model and its tokenizer. Not for use after fork once a GPU was touched."""

    def __init__(self, path: str, dtype: str, device: str) -> None:
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as problem:
            raise RewardError(f"a reward model by path needs torch and transformers here: {problem}") from None
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
            model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype)
        except (OSError, ValueError) as problem:
            raise RewardError(f"reward model {path!r}: {str(problem).splitlines()[0][:300]}") from None
        self._torch, self._lock = torch, threading.Lock()
        self._model = model.to(device).eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._tokenizer.padding_side = self._tokenizer.truncation_side = "right"
        # the model finds a conversation's last token by looking for padding
        self._model.config.pad_token_id = self._tokenizer.pad_token_id

    def values(self, conversations: Sequence[Messages], batch: int, max_tokens: int, label: int) -> list[float | str]:
        """Raw outputs, without sigmoid or softmax, or why there is none. max_tokens: longer conversations are truncated
        at their end; 0: those longer than the model reads have no value.
        """
        texts = [self._tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
        truncation = {"truncation": True, "max_length": max_tokens} if max_tokens else {}
        tokens: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, **truncation)["input_ids"]
        limit = getattr(self._model.config, "max_position_embeddings", None) or sys.maxsize
        values: list[float | str] = [f"a conversation of {len(ids)} tokens; the model reads {limit}" for ids in tokens]
        # sorted by length: little padding within a batch
        order = sorted((i for i, ids in enumerate(tokens) if len(ids) <= limit), key=lambda i: -len(tokens[i]))
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            for place, value in zip(places, self._forward([tokens[i] for i in places], label), strict=True):
                values[place] = value
        return values

    def _forward(self, tokens: list[list[int]], label: int) -> list[float]:
        padded = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
        with self._lock, self._torch.inference_mode():
            outputs = self._model(**padded.to(self._model.device)).logits.float()
        values: list[float] = outputs[:, label].tolist()
        return values


@lru_cache(maxsize=4)
def local_model(path: str, dtype: str, device: str) -> LocalModel:
    """Loaded once per process. Raises RewardError when it cannot be."""
    return LocalModel(path, dtype, device)
