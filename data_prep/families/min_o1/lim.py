"""Keeps the prompts whose learning curve in a finished online RL run follows the mean curve (LIMR's LIM score).

- lim: {run: "${from_run}", threshold: 0.6}      prompts with at least this score
- lim: {run: "${from_run}", n: 96}               the n best prompts, with or without a threshold

With a prompt's pass rate r_k in epoch k = 1..K and the mean m_k of r_k over all prompts, its score is

    s = 1 - sum_k (r_k - m_k)^2 / sum_k (1 - m_k)^2

(arXiv 2502.11886; lim/lim_selection.py of github GAIR-NLP/LIMR, including its treatment of gaps: a missing
epoch takes the rate of the next epoch if that was measured; a prompt that still has a gap is dropped and excluded from
the means). The score is stored in `meta.lim`.

An epoch ends when a step repeats a prompt of that epoch. Step numbers are not sufficient: trainers
drop prompts that are too long, and the last incomplete batch of an epoch. Since fewer prompts than a batch are dropped
there, the first step of the next epoch always repeats one. The last epoch counts only if it is as long as the longest:
training may have ended within it.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from data_prep.core.fingerprint import file_hash, value_hash
from data_prep.core.rows import decode, lines_of, prompt_of
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError

Rates = dict[str, float]  # prompt id -> share of right samples
DIGITS = 9  # of a score: rounding errors must not decide about the threshold


class LimParams(Params):
    """`run` is the folder of a run, or of one of its trainings, with samples/<step>.jsonl."""

    run: str = Field(min_length=1)
    threshold: float | None = Field(None, le=1)
    n: int | None = Field(None, ge=1)  # an upper bound

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.threshold is None and self.n is None:
            raise ValueError("give threshold (0.6 in LIMR), n, or both")
        return self


class Lim(Step):
    """Keeps rows whose prompts the run sampled, with their scores; drops the others."""

    kind = "lim"
    scope = "whole"
    unkeyed: ClassVar[tuple[str, ...]] = ("run",)  # the samples' content is in the fingerprint
    Params = LimParams
    params: LimParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The run's samples. Raises DataError if there are none."""
        files = sample_files(base / Path(self.params.run).expanduser())
        return {"samples": value_hash({path.name: file_hash(path) for path in files})}

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in input order. Raises DataError if the run has no sample of any of them."""
        files = sample_files(ctx.base / Path(self.params.run).expanduser())
        steps, unreadable = read_steps(files)
        if not any(steps):
            example = f"; for example {unreadable[0].detail}" if unreadable else ""
            raise DataError(f"{files[0].parent}: no sample has an id and an acc (a number from 0 to 1){example}")
        asked = set().union(*steps)
        if asked.isdisjoint(map(prompt_of, rows)):
            raise DataError(f"{files[0].parent}: none of these {len(rows):,} prompts was sampled: is it a run on them?")
        scores = lim_scores(epochs(steps))
        chosen = self._chosen({name: scores[name] for row in rows if (name := prompt_of(row)) in scores})
        yield from unreadable
        for row in rows:
            name = prompt_of(row)
            if name in chosen:
                yield {**row, "meta": {**row.get("meta", {}), "lim": scores[name]}}
            else:
                yield Drop(self._reason(name, asked, scores), str(row["id"]), str(scores.get(name, "")))

    def _chosen(self, scores: Mapping[str, float]) -> set[str]:
        """The prompts to keep; ties are broken by the ids' hashes."""
        low = -math.inf if self.params.threshold is None else self.params.threshold
        fit = [name for name, score in scores.items() if score >= low]
        fit.sort(key=lambda name: (-scores[name], hashlib.sha256(name.encode()).hexdigest()))
        return set(fit[: self.params.n])

    def _reason(self, name: str, asked: set[str], scores: Mapping[str, float]) -> str:
        if name not in asked:
            return "never sampled"
        if name not in scores:
            return "missing in an epoch"
        below = self.params.threshold is not None and scores[name] < self.params.threshold
        return "LIM score below threshold" if below else "LIM score not among the best"


def sample_files(run: Path) -> list[Path]:
    """A run's sample files by step; a resumed run has overwritten those of repeated steps. Raises DataError."""
    if not run.is_dir():
        raise DataError(f"{run}: no such folder; lim reads the samples of a finished online RL run")
    for folder in (run / "train" / "samples", run / "samples"):
        if files := [path for path in folder.glob("*.jsonl") if path.stem.isdecimal()]:
            return sorted(files, key=lambda path: int(path.stem))
    raise DataError(f"{run}: neither train/samples/<step>.jsonl nor samples/<step>.jsonl: is it an online RL run?")


def read_steps(files: Iterable[Path]) -> tuple[list[Rates], list[Drop]]:
    """Per step, its prompts' pass rates; and the unreadable lines (such as an incomplete last one)."""
    steps: list[Rates] = []
    unreadable: list[Drop] = []
    for path in files:
        accuracies: dict[str, list[float]] = defaultdict(list)
        with path.open("rb") as file:
            for number, line in lines_of(file):
                sample = _sample(line)
                if isinstance(sample, str):
                    unreadable.append(Drop("unreadable sample", "", f"{path.name}:{number}: {sample}"))
                else:
                    accuracies[sample[0]].append(sample[1])
        steps.append({name: math.fsum(values) / len(values) for name, values in accuracies.items()})
    return steps, unreadable


def _sample(line: bytes | None) -> tuple[str, float] | str:
    """A sample's prompt id and accuracy, or why the line is invalid."""
    if line is None:
        return "line too long"
    sample = decode(line)
    if isinstance(sample, Drop):
        return f"{sample.reason}, {sample.detail}"
    name, accuracy = sample.get("id"), sample.get("acc")
    if not isinstance(name, str):
        return f"id is {name!r}"
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        return f"acc is {accuracy!r}"
    return name, float(accuracy)


def epochs(steps: Iterable[Rates]) -> list[Rates]:
    """Pass rates by epoch: steps are merged until one repeats a prompt; a shorter last epoch is ignored."""
    passes: list[list[Rates]] = []
    asked: set[str] = set()
    for step in steps:
        if not passes or not asked.isdisjoint(step):
            passes.append([])
            asked = set()
        passes[-1].append(step)
        asked |= step.keys()
    whole = passes[:-1] if passes and len(passes[-1]) < max(map(len, passes)) else passes
    return [{name: rate for step in epoch for name, rate in step.items()} for epoch in whole]


def lim_scores(rates: Sequence[Rates]) -> Rates:
    """The score of each prompt that has a rate in every epoch after gaps are filled from the next epoch.

    If all prompts were always solved the formula is 0/0; they all follow the mean exactly, so their score is 1.
    """
    import numpy as np

    names = sorted(set().union(*rates))
    curves = np.array([[epoch.get(name, np.nan) for epoch in [*rates, {}]] for name in names])
    if not names:
        return {}
    curves = np.where(np.isnan(curves), np.roll(curves, -1, axis=1), curves)[:, :-1]
    complete = ~np.isnan(curves).any(axis=1)
    curves = curves[complete]
    means = curves.mean(axis=0) if complete.any() else np.zeros(len(rates))
    most = np.sum((1 - means) ** 2)
    scores = 1 - np.sum((curves - means) ** 2, axis=1) / (most or 1)
    return dict(zip(compress(names, complete), np.round(scores, DIGITS).tolist(), strict=True))
