"""Specifications of the mini models (worlds.yaml): training data, hyperparameters and stopping rule of each.

`recipes/mini/model` adds numbers, `recipes/mini/coder` writes short functions, `recipes/mini/reasoner` does both.
`data_prep.families.mini.build` builds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from data_prep.families.mini import curriculum
from data_prep.families.mini.arithmetic import Chain, Row, Split
from rewards.thinking import thinking

Levels = dict[int, int]


class World(BaseModel):
    """The specification of a mini model. Counts are by level."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""  # its key in worlds.yaml
    subject: str
    folder: str  # location of the shipped model
    card: str  # a template in templates/cards
    shape: dict[str, Any]  # fields of transformers' Qwen2Config
    vocab: int  # rows of the embedding; some are reserved for tokens added later
    tokenizer: Levels  # questions for training the tokenizer
    mix: Levels  # relative shares of the training rows
    steps: int  # maximum; the stopping rule ends the training much earlier
    held_out: Levels  # questions of every evaluation during training
    evaluation: Levels  # questions of the card's evaluation
    stop: dict[str, int]  # options of launchers/plugins/llamafactory/stop_on_accuracy.py
    max_tokens: int  # token limit of a sampled answer
    train: dict[str, Any]
    chains: tuple[Chain, ...] = ("short",)  # forms of the training rows, in equal parts
    asked: tuple[Chain, ...] = ("short",)  # forms that a question can request; the card lists each
    samples: int = 4  # per question, for the card
    also: World | None = None  # another world whose rows are added to the training; its stopping rule is ignored
    share: float = 0.0  # share of the training rows from the other world
    thinking_format: str = ""  # a thinking format for later training: its tags are in the tokenizer's training text

    @property
    def batch(self) -> int:
        """Rows per step."""
        return int(self.train["per_device_train_batch_size"])

    def training_rows(self, seed: int) -> list[Row]:
        """One epoch: steps × batch rows in the shares of `mix`. Easy questions are repeated."""
        rows = self.steps * self.batch
        others = round(rows * self.share)
        own = self._training_rows(seed, rows - others)
        return own if self.also is None else [*own, *self.also._training_rows(seed, others)]

    def _training_rows(self, seed: int, rows: int) -> list[Row]:
        share = rows // sum(self.mix.values())
        levels = {level: share * weight for level, weight in self.mix.items()}
        levels[max(self.mix)] += rows - sum(levels.values())
        each = {level: -(-count // len(self.chains)) for level, count in levels.items()}
        forms = [self.rows(each, "train", seed + at, chain, distinct=False) for at, chain in enumerate(self.chains)]
        return [row for together in zip(*forms, strict=True) for row in together][:rows]

    def rows(self, levels: Levels, split: Split, seed: int, chain: Chain = "short", distinct: bool = True) -> list[Row]:
        """Rows of the subject's curriculum."""
        return curriculum.questions(levels, split, chain=chain, seed=seed, distinct=distinct, subject=self.subject)

    def texts(self) -> list[str]:
        """Training text of the tokenizer, without the chat roles."""
        rows = [row for chain in self.chains for row in self.rows(self.tokenizer, "train", 0, chain)]
        own = [text for row in rows for text in (row["prompt"][0]["content"], row["completion"])]
        tags = thinking(self.thinking_format).tags if self.thinking_format else ()
        return [*own, *(self.also.texts() if self.also else ()), *(len(rows) * tags)]


WORLDS = {
    name: World.model_validate({"name": name, **given})
    for name, given in yaml.safe_load(Path(__file__).with_name("worlds.yaml").read_text()).items()
}
