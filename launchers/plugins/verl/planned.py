"""Tells the launcher how many steps verl is going to do: planned.json in the training's folder.

verl decides this once it has read the data and left out the prompts that are too long.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = "POSTTRAIN_TRAINING"


def write_planned(ray_trainer: ModuleType) -> None:
    """Wrap the trainer's `_create_dataloader`, which is where verl counts its steps."""
    trainer = ray_trainer.RayPPOTrainer
    create = trainer._create_dataloader

    @functools.wraps(create)
    def create_and_tell(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        path = Path(os.environ[FOLDER], "planned.json")
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"steps": self.total_training_steps, "steps_per_pass": len(self.train_dataloader)})
        )
        partial.replace(path)

    trainer._create_dataloader = create_and_tell
