"""Chat prompts rolled out by the mini model and scored by the served mini reward model, every row accounted for.

    WILDCHAT=wildchat-if_train.parquet pytest tests/data_prep/test_wildchat_rollout.py      64 of the real prompts

Without WILDCHAT the prompts are made up, in the columns of the original's parquet files.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.core import pipeline
from data_prep.core.manifest import read_manifest
from data_prep.inference.interpreters import run_with
from data_prep.inference.vllm.server import serve
from data_prep.inference.vllm.settings import EngineOptions
from tests.conftest import REPO

ASKED = 64
OURS = (
    "Write a two-line poem about a lighthouse keeper who is afraid of the dark.",
    "List four rules for a fair game of hide and seek, in lower case only.",
    "Schreib mir bitte eine kurze Absage für eine Einladung zum Abendessen am Freitag.",
    "Summarise the plot of Hamlet in exactly twenty words.",
    "Repeat after me: "
    + "the tide comes in and the tide goes out, " * 400,  # more than the mini model has positions for
)


def prompts(folder: Path) -> Path:
    """WildChat's file, or our own in its columns."""
    if given := os.environ.get("WILDCHAT"):
        return Path(given)
    rows = [
        {"data_source": "wildchat", "prompt": [{"role": "user", "content": f"({at}) {OURS[at % len(OURS)]}"}],
         "ability": "chat", "reward_model": {"style": "model"}, "extra_info": {"index": at, "split": "train"}}
        for at in range(ASKED)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "prompts.parquet")
    return folder / "prompts.parquet"


@pytest.mark.full
def test_every_prompt_is_scored_or_dropped_with_a_reason(tmp_path: Path, vllm_python: Path) -> None:
    sampled = {"model": str(REPO / "recipes/mini/model"), "temperature": 0.7, "max_tokens": 64, "seed": 1}
    served = REPO / "recipes/mini/reward_model"
    options = EngineOptions(dtype="float32")
    with serve(str(served), python=vllm_python, options=options, log=tmp_path / "log") as endpoint:
        reward = {"url": endpoint.base_url.removesuffix("/v1"), "model": str(served), "thinking": "none"}
        steps = [
            {"name": "load", "kind": "load", "params": {"path": str(prompts(tmp_path)), "limit": ASKED, "seed": 3}},
            {"name": "filter", "kind": "chat_prompts", "params": {}, "inputs": ["load"]},
            {"name": "generate", "kind": "generate", "params": sampled, "inputs": ["filter"]},
            {"name": "score", "kind": "score", "params": {"reward": "model", "params": reward}, "inputs": ["generate"]},
        ]
        made = {"name": "x", "base": str(tmp_path), "cache": str(tmp_path / "c/steps"), "steps": steps}
        spec = pipeline.Spec.model_validate({**made, "max_drop_share": 0.5})
        pipeline.run(spec, ["load", "filter"])
        run_with(spec, ["generate"], vllm_python)
        pipeline.run(spec, ["score"])
    rows, dropped = ASKED, {}
    for step in pipeline.jobs(spec):
        manifest = read_manifest(step.dir)
        assert manifest is not None
        assert manifest.rows_out == (rows if step.name == "load" else manifest.rows_in - sum(manifest.drops.values()))
        assert manifest.rows_in == rows or step.name == "load"
        rows = manifest.rows_out
        dropped[step.name] = dict(manifest.drops)
    assert dropped["filter"].get("another language", 0) > 0
    assert not dropped["score"]
    scored = list(pipeline.read_rows(pipeline.find(spec)))
    assert len(scored) == rows == ASKED - sum(n for drops in dropped.values() for n in drops.values())
    assert {row["outcome"] for row in scored} <= {"scored", "truncated", "no_answer", "bad_format"}
    values = {row["score"] for row in scored if row["outcome"] == "scored"}
    assert len(values) > len(scored) // 4  # a reward model that reads the answers
    print(f"\n{ASKED} prompts, {rows} scored, dropped: {dropped}")
