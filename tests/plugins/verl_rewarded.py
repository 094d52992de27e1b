"""A training in the real verl with a reward of ours, in a folder as the launcher lays it out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.families.mini import curriculum
from tests.plugins import verl_run
from tests.plugins.verl_run import ROLLOUT, Watched

FUNCTION = "reward.custom_reward_function"


def write_rows(path: Path, rows: Iterable[dict[str, Any]], split: str, source: str) -> None:
    """Rows as the export step writes them for verl."""
    pq.write_table(
        pa.Table.from_pylist(
            [
                {
                    "data_source": source,
                    "prompt": row["prompt"],
                    "reward_model": {"style": "rule", "ground_truth": row["answer"]},
                    "extra_info": {"index": index, "id": row["id"], "split": split, "row": json.dumps(row)},
                }
                for index, row in enumerate(rows)
            ]
        ),
        path,
    )


def prepare(folder: Path, model: Path, reward: dict[str, Any]) -> list[str]:
    """Write data and reward.json; verl's overrides for a run that keeps everything in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.parquet", curriculum.questions({2: 40, 3: 40}, "train", seed=3), "train", "arithmetic")
    write_rows(folder / "val.parquet", curriculum.questions({2: 8}, "test", seed=3), "validation", "level_2")
    (folder / "reward.json").write_text(json.dumps(reward))
    return [
        *verl_run.overrides(folder, folder, model, ranks=1),
        f"{FUNCTION}.path=pkg://rewards.serving.verl",
        f"{FUNCTION}.name=compute_score_async",
        f"+{FUNCTION}.reward_kwargs.config={folder}/reward.json",
        f"{ROLLOUT}.name=transformers",
        f"trainer.rollout_data_dir={folder}/samples",
        f"trainer.validation_data_dir={folder}/validation",
    ]


def train(python: Path, folder: Path, words: list[str], **environ: str) -> Watched:
    return verl_run.train(python, folder, folder, words, None, POSTTRAIN_TRAINING=str(folder), **environ)


def samples(folder: Path, kind: str, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / kind / f"{step}.jsonl").read_text().splitlines()]
