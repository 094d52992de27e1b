"""A made-up study's folder, with runs whose every figure follows from a few shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launchers.report.format import ACCURACY
from tests.launchers.made_up_run import put

Json = dict[str, Any]
LEVELS = {"2": 20, "3": 20}  # questions of each level
SAMPLES = 4
START = {"2": 2, "3": 1}  # right samples of each question before training


def answers(right: Mapping[str, int]) -> list[dict[str, Any]]:
    """Lines of a .prompts.jsonl: every question of a level with so many right samples."""
    return [
        {"task": "sums", "prompt_id": f"{level}-{i}", "level": level, "samples": SAMPLES, "right": right[level],
         "mean": 100 * right[level] / SAMPLES}
        for level, count in LEVELS.items() for i in range(count)
    ]  # fmt: skip


def make_run(path: Path, right: Mapping[str, int], seconds: float, before: Mapping[str, int] | None = START) -> None:
    """A finished run on a CPU that trained for so many CPU-seconds."""
    put(path / "plan.json", {"hardware": {"device": "cpu"}, "batch": {"world": 1}})
    put(path / "resolved.json", {"model": "m"})
    put(path / "eval/after.prompts.jsonl", answers(right))
    if before:
        put(path / "eval/before.prompts.jsonl", answers(before))
    times = {"time": "2026-01-31T09:30:00.000+00:00", "phase": "train", "label": "after"}
    end = {**times, "event": "phase_end", "status": 0, "seconds": 9 * seconds, "cpu_seconds": seconds}
    put(path / "events.jsonl", [{**times, "event": "phase_start"}, end])


def cell(**more: Any) -> dict[str, Any]:
    """A cell as study.json has it."""
    plain = {"recipe": "f/r", "set": {}, "model_of": None, "from_run": None, "trained_levels": ["2"]}
    return {**plain, "settings": {"model": "m", "train": {"steps": 5, "seed": 0}, "eval": {"n": SAMPLES}}, **more}


def make_study(
    path: Path, cells: Mapping[str, Json], questions: Sequence[Json], seeds: Sequence[int] = (0, 1, 2)
) -> Json:
    """study.json, with every run done in runs/<number>; returned to be changed and put again."""
    runs = [
        {"cell": name, "seed": seed, "status": "done", "reason": None, "run": f"runs/{i}-{seed}", "seconds": 60.0}
        for i, name in enumerate(cells) for seed in seeds
    ]  # fmt: skip
    record = {
        "family": "f", "scale": "mini", "created": "2026-01-31T09:30:00+00:00", "overrides": [], "warnings": [],
        "metric": dict(ACCURACY), "by": "level", "seeds": list(seeds), "questions": list(questions),
        "cells": dict(cells), "status": "done", "runs": runs,
    }  # fmt: skip
    put(path / "study.json", record)
    return record
