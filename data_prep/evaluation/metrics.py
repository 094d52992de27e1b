"""Evaluation metrics from scored rows: means with intervals by prompt, pass@k, maj@k, paired differences.

    python -m data_prep.evaluation.metrics evaluate --rows scored.jsonl --label after --model M --out eval/after.json
    python -m data_prep.evaluation.metrics compare --a eval/after.json --b eval/before.json --out compare.json

A row is a sample: `source` names its task, `meta.prompt_id` its prompt. All returned figures are in
percent. For maj@k two answers are equal if both are right or, in mathematics, if the reward grades them as
equal.
"""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, Json

import rewards
from data_prep.core import pipeline
from data_prep.core.commands import Options, run
from data_prep.core.files import write_atomic, write_json
from data_prep.core.manifest import read_rows
from data_prep.core.progress import Progress
from data_prep.core.step import Drop, Row
from data_prep.errors import DataError
from data_prep.evaluation.intervals import interval, majority, paired, paired_ratio, pass_at_k, percent
from data_prep.sources import tasks as task_files
from data_prep.sources.files import read_json, read_records

SHOWN = 6  # right and wrong rows each that `evaluate` keeps for the report


@dataclass(frozen=True)
class Sample:
    """The fields of a scored row that the metrics use. `score` is a fraction; 1.0 is right."""

    task: str
    prompt_id: str
    index: int  # number of the sample within its prompt
    score: float
    outcome: str
    vote: str | None  # the extracted answer, stripped
    votes_known: bool  # False if a scored row does not record the extracted answer
    truncated: bool
    tokens: int | None
    level: str | None  # of a code question: how many skills it combines
    skills: str | None  # these skills, in order

    @property
    def right(self) -> bool:
        """Whether the score is 1: partial credit is not a pass."""
        return self.score >= 1 - 1e-9


def sample(row: Row) -> Sample:
    """The sample in a scored row. Raises DataError if task, prompt or score is missing."""
    meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
    prompt_id = meta.get("prompt_id", row.get("id"))
    score = row.get("score")
    if not row.get("source") or prompt_id in (None, ""):
        raise DataError(f"row {row.get('id')!r} has no source (its task) or no meta.prompt_id")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise DataError(f"row {row.get('id')!r} has score {score!r}: run the score step first")
    details = meta.get("score_details") or {}
    vote, level = details.get("answer"), meta.get("level", meta.get("k"))
    outcome = str(row.get("outcome") or "scored")
    return Sample(
        task=str(row["source"]),
        prompt_id=str(prompt_id),
        index=int(meta.get("sample") or 0),
        score=float(score),
        outcome=outcome,
        vote=None if vote is None else str(vote).strip(),
        votes_known=vote is not None or outcome != "scored",
        truncated=meta.get("finish_reason") == "length" or outcome == "truncated",
        tokens=meta.get("tokens"),
        level=None if level is None else str(level),
        skills=", ".join(map(str, meta["skills"])) if isinstance(meta.get("skills"), list) else None,
    )


Same = Callable[[Sequence[tuple[str, str]]], list[bool]]  # whether the answers of each pair are equal


def task_result(samples: Iterable[Sample], same: Same | None = None) -> dict[str, Any]:
    """The result of one task (the `tasks` entry of an evaluation), in percent.

    pass@k (with 95 % intervals over prompts) and maj@k are given for k = 1, 2, 4 … up to the smallest number of samples
    of a prompt. maj@k uses each prompt's first k samples, and is omitted if a scored sample does not record its
    extracted answer (`meta.score_details.answer`). `same` compares wrong answers (default: equal texts). Prompts
    with levels or skills are also reported by level, and by tuple of skills with pass@k.
    """
    samples = list(samples)
    prompts = list(by_prompt(samples).values())
    fewest = min(map(len, prompts))
    ks = sorted({2**i for i in range(fewest.bit_length())} | {fewest})
    result = {
        **_table(prompts, ks),
        "samples": max(map(len, prompts)),
        "pass_ci95": {str(k): interval([_pass(group, k) for group in prompts])["ci95"] for k in ks},
        "maj_at": {},
        "outcomes": dict(sorted(Counter(s.outcome for s in samples).items())),
        "truncated": percent(fmean(s.truncated for s in samples)),
        "mean_tokens": _tokens(samples, 1),
        "by": {},
    }
    if all(s.votes_known for s in samples):
        ballots = _ballots(prompts, same)
        result["maj_at"] = {str(k): percent(fmean(majority(ballot[:k]) for ballot in ballots)) for k in ks[1:]}
    for field, measured in (("level", ()), ("skills", ks)):
        if groups := _grouped(prompts, field):
            result["by"][field] = {name: _table(own, measured) for name, own in groups.items()}
    return result


def _ballots(prompts: Sequence[Sequence[Sample]], same: Same | None) -> list[list[tuple[str | None, float]]]:
    """Each prompt's (answer, score) votes, with one text for equal answers; all right answers are equal."""
    wrong = [sorted({s.vote for s in group if s.vote is not None and not s.right}) for group in prompts]
    pairs = [(number, a, b) for number, answers in enumerate(wrong) for a, b in combinations(answers, 2)]
    equal = same([(a, b) for _, a, b in pairs]) if same and pairs else [False] * len(pairs)
    names = [{answer: answer for answer in answers} for answers in wrong]
    for (number, a, b), is_equal in zip(pairs, equal, strict=True):
        if is_equal:
            names[number][b] = names[number][a]
    return [
        [(None if s.vote is None else "right" if s.right else f"wrong: {name[s.vote]}", s.score) for s in group]
        for group, name in zip(prompts, names, strict=True)
    ]


def same_answers(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the reward `math` accepts the second answer with the first as the reference."""
    rows = [{"prompt": [], "answer": a} for a, _ in pairs]
    return [score.value == 1 for score in rewards.load("math").score_many(rows, [f"\\boxed{{{b}}}" for _, b in pairs])]


def _comparison(task: str) -> Same | None:
    """The comparison of a task's answers: its reward's, if that is `math`."""
    return same_answers if task in task_files.names() and task_files.read(task).reward.name == "math" else None


def _grouped(prompts: Iterable[Sequence[Sample]], field: str) -> dict[str, list[Sequence[Sample]]]:
    """Prompts by a field of their samples, in natural order; prompts without the field are skipped."""
    groups: dict[str, list[Sequence[Sample]]] = {}
    for group in prompts:
        if (name := getattr(group[0], field)) is not None:
            groups.setdefault(name, []).append(group)
    return dict(sorted(groups.items(), key=lambda item: natural(item[0])))


def _table(groups: Sequence[Sequence[Sample]], ks: Sequence[int]) -> dict[str, Any]:
    passes = {str(k): percent(fmean(_pass(group, k) for group in groups)) for k in ks}
    scores = interval([_mean(group) for group in groups])
    return {"prompts": len(groups), **scores, **({"pass_at": passes} if ks else {})}


def by_prompt(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples by prompt, ordered by number. Raises DataError for a repeated sample."""
    prompts: dict[str, list[Sample]] = {}
    for s in samples:
        prompts.setdefault(s.prompt_id, []).append(s)
    for prompt_id, group in prompts.items():
        group.sort(key=lambda s: s.index)
        if len({s.index for s in group}) < len(group):
            raise DataError(f"prompt {prompt_id!r} has two samples with the same number: were its rows given twice?")
    return prompts


def natural(text: str) -> tuple[float, str]:
    """Sort key: numbers by value, then words."""
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


def evaluate(rows: Iterable[Row]) -> tuple[dict[str, Any], list[Row], list[Row]]:
    """(tasks, prompts, shown) of scored rows: results by task, one line per prompt, example rows.

    The examples are the SHOWN right and SHOWN wrong rows with the lowest id hashes: the same rows in any order,
    and the same prompts before and after training.
    """
    tasks: dict[str, list[Sample]] = {}
    measured: dict[str, dict[str, Any]] = {}  # metrics that a harness defines for its tasks
    shown: dict[bool, list[tuple[str, Row]]] = {True: [], False: []}
    for row in rows:
        s = sample(row)
        tasks.setdefault(s.task, []).append(s)
        if isinstance(metric := (row.get("meta") or {}).get("metric"), dict):
            measured[s.task] = {"unit": "%", **metric}
        key = hashlib.sha256(f"{s.task}\0{s.prompt_id}\0{s.index}".encode(errors="replace")).hexdigest()
        shown[s.right] = sorted([*shown[s.right], (key, row)], key=itemgetter(0))[:SHOWN]
    if not tasks:
        raise DataError("no rows to evaluate")
    results = {
        task: in_unit(task_result(samples, _comparison(task)), measured.get(task) or metric_of(task))
        for task, samples in sorted(tasks.items())
    }
    prompts = [
        {"task": task, "prompt_id": p, "mean": percent(_mean(group)), "level": group[0].level,
         "samples": len(group), "right": sum(s.right for s in group), "tokens": _tokens(group, 4)}
        for task, samples in sorted(tasks.items())
        for p, group in sorted(by_prompt(samples).items())
    ]  # fmt: skip
    return results, prompts, [row for right in (True, False) for _, row in shown[right]]


def metric_of(task: str) -> dict[str, Any]:
    """Name, unit and direction of a task's metric; accuracy for an unknown task."""
    measured = task_files.read(task).measured if task in task_files.names() else task_files.Metric()
    return measured.model_dump()


def in_unit(result: dict[str, Any], metric: dict[str, Any]) -> dict[str, Any]:
    """A task's result, given in percent, in its metric's unit; pass@k and maj@k are kept for accuracies only."""
    converted = _scaled(result, metric, "mean")
    if metric["name"] != "accuracy":
        converted |= {"pass_at": {}, "pass_ci95": {}, "maj_at": {}, "by": {}}
    return converted


def _scaled(figures: dict[str, Any], metric: dict[str, Any], name: str) -> dict[str, Any]:
    """The figure `name`, given in percent, with its error and interval in the metric's unit (percent: points)."""
    if metric["unit"] == "%":
        return {**figures, "metric": metric}
    scaled = {key: round(figures[key] / 100, 6) for key in (name, "stderr")}
    return {**figures, **scaled, "ci95": [round(end / 100, 6) for end in figures["ci95"]], "metric": metric}


def compare(a: Path, b: Path) -> list[dict[str, Any]]:
    """Paired differences a - b for every task in both evaluations, from their .prompts.jsonl files.

    `tokens` is the change in mean completion length, if both record it.
    """
    left, right = _figures(a), _figures(b)
    if not (shared := sorted(left.keys() & right.keys())):
        raise DataError(f"{a} and {b} have no task in common: {sorted(left)} and {sorted(right)}")
    labels, results = {"a": read_json(a)["label"], "b": read_json(b)["label"]}, read_json(a)["tasks"]
    comparisons = []
    for task in shared:
        means, tokens = ([figures[task][name] for figures in (left, right)] for name in ("mean", "tokens"))
        metric = results[task].get("metric") or metric_of(task)
        comparison = {**labels, "task": task, **_scaled(paired(*means), metric, "difference")}
        comparisons.append(comparison | ({"tokens": paired_ratio(*tokens)} if all(tokens) else {}))
    return comparisons


def _figures(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """An evaluation's figures by task, name and prompt, where they are recorded."""
    tasks: dict[str, dict[str, dict[str, float]]] = {}
    for row in _rows(path.with_suffix(".prompts.jsonl")):
        for name, known in tasks.setdefault(row["task"], {"mean": {}, "tokens": {}}).items():
            if row.get(name) is not None:
                known[row["prompt_id"]] = row[name]
    return tasks


def _mean(group: Sequence[Sample]) -> float:
    return fmean(s.score for s in group)


def _pass(group: Sequence[Sample], k: int) -> float:
    return pass_at_k(len(group), sum(s.right for s in group), k)


def _tokens(samples: Sequence[Sample], digits: int) -> float | None:
    known = [s.tokens for s in samples if s.tokens is not None]
    return round(fmean(known), digits) if known else None


def _rows(path: Path) -> Iterator[Row]:
    for record in read_records(path):
        if isinstance(record, Drop):
            raise DataError(f"{path}: {record.row_id}: {record.reason} ({record.detail})")
        yield record


class Evaluation(Options):
    """Evaluate scored rows: from files (`rows`), or from the score steps of a finished pipeline (`spec`)."""

    rows: tuple[Path, ...] = Field((), description="scored rows, JSONL")
    spec: Path | None = Field(None, description="a finished pipeline; its manifests are evaluated as well")
    label: str = Field(description="before, after, or a control's name")
    model: str
    decoding: Json[dict[str, Any]] = Field({}, description="JSON: n, temperature, seed …")
    all_rows: bool = Field(False, description="also write every row with prompt and completion: .rows.jsonl")
    out: Path = Field(description="output; .prompts.jsonl and .samples.jsonl are written next to it")


class Comparison(Options):
    """Paired differences of two evaluations, merged into `out`."""

    a: Path
    b: Path
    out: Path


def _finished(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """Steps with scored rows of a finished pipeline, and its metadata for the evaluation. Raises DataError."""
    scored: list[Path] = []
    spec = pipeline.Spec.read(path)
    read = {name for step in spec.steps for name in step.inputs}
    facts: dict[str, Any] = {"model_fingerprint": None, "versions": {}, "seconds": 0.0}
    for step in pipeline.plan(spec):
        manifest = pipeline.read_manifest(step.dir)
        if manifest is None:
            raise DataError(f"{path}: step {step.name!r} has not been run")
        facts["versions"] |= manifest.versions
        facts["seconds"] = round(facts["seconds"] + manifest.seconds, 2)
        facts["model_fingerprint"] = manifest.fingerprint.get("model", facts["model_fingerprint"])
        if step.name not in read:
            scored.append(step.dir)
    return scored, facts


def _evaluate_files(args: Evaluation, progress: Progress) -> str:
    if bool(args.rows) == bool(args.spec):
        raise DataError("give one of --rows, --spec")
    steps, facts = _finished(args.spec) if args.spec else ([], {})

    def rows() -> Iterator[Row]:
        return chain.from_iterable(map(read_rows, steps) if args.spec else map(_rows, args.rows))

    tasks, prompts, shown = evaluate(rows())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    written = {"prompts": prompts, "samples": shown, **({"rows": rows()} if args.all_rows else {})}
    for name, lines in written.items():
        write_atomic(args.out.with_suffix(f".{name}.jsonl"), (f"{json.dumps(row)}\n".encode() for row in lines))
    about = {"label": args.label, "model": args.model, "decoding": args.decoding}
    write_json(args.out, {**about, **facts, "tasks": tasks})
    return f"{args.out}: {', '.join(tasks)}"


def _compare_files(args: Comparison, progress: Progress) -> str:
    old = read_json(args.out) if args.out.exists() else []
    # New comparisons replace those of the same a, b and task.
    merged = {(one["a"], one["b"], one["task"]): one for one in [*old, *compare(args.a, args.b)]}
    write_json(args.out, list(merged.values()))
    return f"{args.out}: {len(merged)} comparisons"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(
        __doc__ or "", {"evaluate": (Evaluation, _evaluate_files), "compare": (Comparison, _compare_files)}, argv
    )


if __name__ == "__main__":
    sys.exit(main())
