"""The report's rollouts: completions sampled during training, with the value of each reward component.

For a few steps it shows the completions with the highest and the lowest score and a pseudo-random one, to reveal reward
hacking; for thinking recipes also curves of thoughts and answers, from more steps.
"""

import hashlib
import re
from collections.abc import Iterator
from statistics import fmean

from launchers.report.curves import Point
from launchers.report.results import Json, Results
from rewards.model.chat import without_end_token
from rewards.thinking import thinking

Curves = dict[str, list[Point]]
SHOWN, MEASURED = 6, 60  # maximum number of steps with completions, and in curves
# Columns of the trainer's rollout files that are not reward components.
_PLAIN = frozenset({"input", "output", "gts", "score", "step", "outcome", "id", "acc"})
_STEP = re.compile(r"(\d+)\.jsonl$")


def section(run: Results) -> list[Json]:
    """Steps with three rollouts each; [] if there are none."""
    steps = []
    for step, rows in scored(run, SHOWN):
        chosen = {"best": max(rows, key=_score), "worst": min(rows, key=_score), "random": min(rows, key=_hash)}
        steps.append({
            "step": step,
            "completions": len(rows),
            "mean": fmean(map(_score, rows)),
            "characters": fmean(len(str(row.get("output", ""))) for row in rows),
            "rollouts": [(name, _shown(row)) for name, row in chosen.items()],
        })  # fmt: skip
    return steps


def scored(run: Results, most: int) -> Iterator[tuple[int, list[Json]]]:
    """At most `most` evenly spaced steps with their scored rollouts."""
    numbered = {int(match[1]): path for path in run.paths("train/samples/*.jsonl") if (match := _STEP.search(path))}
    steps = sorted(numbered)
    if len(steps) > most:  # including the first and the last
        steps = [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]
    for step in steps:
        if rows := [row for row in run.lines(numbered[step]) if isinstance(row.get("score"), int | float)]:
            yield step, rows


def _score(row: Json) -> float:
    return float(row["score"])


def _hash(row: Json) -> str:
    text = f"{row.get('id')}\0{row.get('output')}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _shown(row: Json) -> Json:
    output = str(row.get("output", ""))
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    return {
        "score": row["score"],
        "outcome": row.get("outcome"),
        # is_… flags repeat the outcome and are not reward components
        "parts": {name: n for name, n in numbers.items() if name not in _PLAIN and not name.startswith("is_")},
        "prompt": str(row.get("input", "")),
        "completion": output,
        "words": len(output.split()),
        "characters": len(output),
    }


def curves(run: Results) -> list[tuple[str, str, Curves]]:
    """(title, unit, curves by name) for thought, answer and reward; [] without a thinking format."""
    name = run.recipe.get("thinking")
    if not name:
        return []
    form = thinking(name)
    lengths: Curves = {"thought": [], "answer": []} if form.close else {"answer": []}
    malformed: Curves = {"malformed": []}
    rewards: Curves = {"well-formed": [], "malformed": []}
    for step, rows in scored(run, MEASURED):
        parsed = [form.parse(without_end_token(str(row.get("output", "")), form.tags)) for row in rows]
        for part, points in lengths.items():
            points.append((step, fmean(len(getattr(each, part)) for each in parsed)))
        broken = [bool(part.problems) for part in parsed]
        malformed["malformed"].append((step, 100 * sum(broken) / len(broken)))
        for kind, flag in (("well-formed", False), ("malformed", True)):
            if scores := [_score(row) for row, is_broken in zip(rows, broken, strict=True) if is_broken == flag]:
                rewards[kind].append((step, fmean(scores)))
    return [
        ("Thought and answer" if form.close else "Answer", "mean characters", lengths),
        ("Malformed", f"% of completions that break the format {name}", malformed),
        ("Reward by format", "mean", {kind: points for kind, points in rewards.items() if points}),
    ]
