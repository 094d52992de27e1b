"""The mini world's models, worlds.yaml: what each is taught, how, and when its training stops.

`recipes/mini/model` adds numbers, `recipes/mini/coder` writes short functions, `recipes/mini/reasoner` does both.
`data_prep.families.mini.build` builds any of them.
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
    """How one mini model is made. Counts are by level."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""  # what it is built by
    subject: str
    folder: str  # where the shipped model is
    card: str  # a template in templates/cards
    shape: dict[str, Any]  # names of transformers' Qwen2Config
    vocab: int  # rows of the embedding, some of them free for tokens that later work adds
    tokenizer: Levels  # questions that the tokenizer is trained on
    mix: Levels  # shares of the training rows
    steps: int  # at most; the stopping rule ends the training long before
    held_out: Levels  # asked at every evaluation during training
    evaluation: Levels  # asked for the card
    stop: dict[str, int]  # options of launchers/plugins/llamafactory/stop_on_accuracy.py
    max_tokens: int  # of a sampled answer
    train: dict[str, Any]
    chains: tuple[Chain, ...] = ("short",)  # the training rows' forms, in equal parts
    asked: tuple[Chain, ...] = ("short",)  # forms that a question can ask for; each is on the card
    samples: int = 4  # per question, for the card
    also: World | None = None  # another world whose rows it is taught, too; its stopping rule is not looked at
    share: float = 0.0  # of the training rows that are the other world's
    marks_of: str = ""  # a thinking format that it may be taught later: the tokenizer knows its marks

    @property
    def batch(self) -> int:
        """Rows per step."""
        return int(self.train["per_device_train_batch_size"])

    def training_rows(self, seed: int) -> list[Row]:
        """One epoch, steps × batch rows in the shares of `mix`. Easy questions come again."""
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
        """What the tokenizer is trained on, but for the chat's roles."""
        rows = [row for chain in self.chains for row in self.rows(self.tokenizer, "train", 0, chain)]
        own = [text for row in rows for text in (row["prompt"][0]["content"], row["completion"])]
        marks = thinking(self.marks_of).marks if self.marks_of else ()
        return [*own, *(self.also.texts() if self.also else ()), *(len(rows) * marks)]


WORLDS = {
    name: World.model_validate({"name": name, **given})
    for name, given in yaml.safe_load(Path(__file__).with_name("worlds.yaml").read_text()).items()
}
