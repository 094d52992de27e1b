"""The mini world's models: what each is taught, how, and when its training stops.

`recipes/mini/model` adds numbers, `recipes/mini/coder` writes short functions, `recipes/mini/reasoner` does both.
`data_prep.families.mini.build` builds any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from data_prep.families.mini import curriculum
from data_prep.families.mini.curriculum import Chain, Row, Split
from rewards.thinking import thinking

Levels = dict[int, int]

TRAIN: dict[str, Any] = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "full",
    "dataset": "curriculum",
    "template": "chatml",
    "cutoff_len": 160,
    "preprocessing_num_workers": 1,
    "dataloader_num_workers": 0,
    "disable_gradient_checkpointing": True,
    "flash_attn": "sdpa",
    "per_device_train_batch_size": 64,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1.0,
    "learning_rate": 3.0e-3,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 20,
    "adam_beta2": 0.98,
    "weight_decay": 0.0,
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 10,
    "save_strategy": "no",
    "report_to": "none",
}


@dataclass(frozen=True)
class World:
    """How one mini model is made. Counts are by level. name: what it is built by, where not by its subject."""

    subject: str
    folder: str  # where the shipped model is
    card: str  # a template in templates/cards
    vocab: int  # rows of the embedding, some of them free for tokens that later work adds
    tokenizer: Levels  # questions that the tokenizer is trained on
    mix: Levels  # shares of the training rows
    steps: int  # at most; the stopping rule ends the training long before
    held_out: Levels  # asked at every evaluation during training
    evaluation: Levels  # asked for the card
    stop: dict[str, Any]  # options of launchers/plugins/llamafactory/stop_on_accuracy.py
    max_tokens: int  # of a sampled answer
    chains: tuple[Chain, ...] = ("short",)  # the training rows' forms, in equal parts
    asked: tuple[Chain, ...] = ("short",)  # forms that a question can ask for; each is on the card
    samples: int = 4  # per question, for the card
    train: dict[str, Any] = field(default_factory=lambda: dict(TRAIN))
    name: str = ""
    also: World | None = None  # another world whose rows it is taught, too; its stopping rule is not looked at
    share: float = 0.0  # of the training rows that are the other world's
    marks: tuple[str, ...] = ()  # of a format that it may be taught later: the tokenizer knows their words

    @property
    def batch(self) -> int:
        """Rows per step."""
        return int(self.train["per_device_train_batch_size"])

    def training_rows(self, seed: int) -> list[Row]:
        """One epoch, steps × batch rows in the shares of `mix`. Easy questions come again."""
        rows = self.steps * self.batch
        others = round(rows * self.share) if self.also else 0
        mine = self._training_rows(seed, rows - others)
        return mine if self.also is None else [*mine, *self.also._training_rows(seed, others)]

    def _training_rows(self, seed: int, rows: int) -> list[Row]:
        share = rows // sum(self.mix.values())
        levels = {level: share * weight for level, weight in self.mix.items()}
        levels[max(self.mix)] += rows - sum(levels.values())
        if len(self.chains) == 1:
            return self.rows(levels, "train", seed, self.chains[0], distinct=False)
        forms = [
            self.rows(
                {level: -(-n // len(self.chains)) for level, n in levels.items()}, "train", seed + i, chain, False
            )
            for i, chain in enumerate(self.chains)
        ]
        return [row for together in zip(*forms, strict=True) for row in together][:rows]

    def rows(self, levels: Levels, split: Split, seed: int, chain: Chain = "short", distinct: bool = True) -> list[Row]:
        """Rows of the subject's curriculum."""
        return curriculum.rows(levels, split, chain=chain, seed=seed, distinct=distinct, subject=self.subject)

    def texts(self) -> list[str]:
        """What the tokenizer is trained on, but for the chat's roles."""
        rows = [row for chain in self.chains for row in self.rows(self.tokenizer, "train", 0, chain)]
        mine = [text for row in rows for text in (row["prompt"][0]["content"], row["completion"])]
        return [*mine, *(self.also.texts() if self.also else ()), *(len(rows) * self.marks)]


# What a search over seeds found: recipes/mini/README.md has its tables.
ARITHMETIC = World(
    subject="arithmetic",
    folder="recipes/mini/model",
    card="mini_model.md.j2",
    vocab=320,
    tokenizer={1: 50, 2: 400, 3: 400, 4: 400, 5: 400},
    mix={1: 1, 2: 3, 3: 3, 4: 2},  # level 5 stays unseen, hence near 0
    steps=600,
    held_out={2: 32, 3: 256, 4: 32},
    evaluation={1: 8, 2: 150, 3: 300, 4: 150, 5: 150},
    stop={"level": 3, "settle-at": 12, "settle-steps": 20, "target": 40, "every": 10, "start": 120},
    max_tokens=128,  # a short chain at level 5 takes about 110
)
FUNCTIONS = World(
    subject="functions",
    folder="recipes/mini/coder",
    card="mini_coder.md.j2",
    vocab=384,
    tokenizer={1: 250, 2: 600, 3: 600},
    mix={1: 1, 2: 2, 3: 3},
    steps=400,
    held_out={1: 24, 2: 128, 3: 64},
    evaluation={1: 30, 2: 150, 3: 150},
    stop={"level": 2, "settle-at": 25, "settle-steps": 20, "target": 45, "every": 10, "start": 80},
    max_tokens=96,  # a plan and its program take up to 86
    chains=("short", "long"),
    asked=("short", "long"),
)
REASONER = replace(
    ARITHMETIC,
    name="both",
    folder="recipes/mini/reasoner",
    card="mini_reasoner.md.j2",
    vocab=448,
    max_tokens=224,  # a checked sum at level 4 takes up to 215
    chains=("short", "short", "long"),  # nothing asks for it: one sum in three is checked, out of habit
    train={**TRAIN, "cutoff_len": 256},
    also=replace(FUNCTIONS, chains=("long",), asked=("long",)),
    share=0.3,
    marks=thinking("sky_t1").marks,
)
WORLDS = {world.name or world.subject: world for world in (ARITHMETIC, FUNCTIONS, REASONER)}
