"""LLM-as-judge comparison of two answers: both orders, ties, length control, intervals by prompt, and a spend cap.

    python -m data_prep.evaluation.judge --questions question.jsonl --answers ours.jsonl --baseline theirs.jsonl \\
        --model gpt-4.1-mini --base_url https://api.openai.com/v1 --api_key_env OPENAI_API_KEY --spend_cap 5 \\
        --out judged

Question files: MT-Bench (turns; only the first is used), Arena-Hard v1 (turns) and v2 (prompt), WildBench
(conversation_input, checklist), creative writing (writing_prompt, with <SEED> replaced by the first of seed_modifiers;
also as one JSON object of questions by name). Answers: rows with `completion`, or the benchmarks' own answer files.
The prompt is our own (templates/prompts/judge), so results are not comparable with the benchmarks' own judges.

A reply counts only if its last line is a verdict. A pair without a verdict in either order after `tries` is invalid: it
is counted and excluded from all means. Style control is a logistic regression of the verdict on the relative length
difference, (a - b) / (a + b) in words, as in Arena-Hard; the controlled win rate is its value at equal lengths.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from data_prep.core import pipeline
from data_prep.core.commands import CACHE, Cache, Options, run
from data_prep.core.files import write_atomic, write_json
from data_prep.core.fingerprint import file_hash
from data_prep.core.progress import Progress
from data_prep.core.rows import encoded, with_meta
from data_prep.core.step import Drop, Output, Row
from data_prep.errors import DataError
from data_prep.evaluation.intervals import percent
from data_prep.inference import prompts
from data_prep.inference.api.params import SHARD_SAMPLES, EndpointStep, RepeatedParams
from data_prep.inference.sampling import Sample
from data_prep.sources.files import read_json, read_records
from rewards.errors import RewardError
from rewards.thinking import PRESETS, Thinking, thinking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data_prep.inference.api.client import ChatClient

_VERDICT = re.compile(
    r"""[\s*_`#"'(\[]*(?:final\s+)?verdict[\s*_`"':]+[(\[<]*(a|b|tie)[\s*_`"')\]>.]*""", re.IGNORECASE
)
_MARK = re.compile(r"<[\s/]*(answer|question)[\s_-]*[ab12]?\s*>", re.IGNORECASE)
ASKED = ("model", "base_url", "api_key_env", "spend_cap", "seed", "concurrency")  # options passed to the step
ORDERS = ("first", "second")  # position of our answer
THOUGHT_MARKS = [mark for preset in PRESETS.values() for mark in (preset.open, preset.close) if mark]
RESAMPLES = 1000
LEAST_JUDGED = 0.5  # share of the questions; results on fewer are not comparable
RIDGE = 1e-3  # ridge penalty: keeps the regression finite if one side wins every pair


class Judge(EndpointStep):
    """`completion` against `references[0]`: score 1, 0.5 or 0, averaged over both orders; else outcome error."""

    kind = "judge"
    prompts = "judge"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "references")
    present: ClassVar[tuple[str, ...]] = ("completion",)
    shard_rows = SHARD_SAMPLES // 2
    Params = RepeatedParams
    params: RepeatedParams

    def tally(self, row: Row) -> str:
        return str(row["outcome"])

    def answered(self, rows: Sequence[Row], client: ChatClient) -> Output:
        def read(key: tuple[int, str], sample: Sample) -> float | None:
            value = verdict(sample.text)
            return value if value is None or key[1] == "first" else 1 - value

        ids = {(at, order): str(row["id"]) for at, row in enumerate(rows) for order in ORDERS}
        verdicts, failed = self.params.ask(client, ids, lambda key: self._message(rows[key[0]], key[1]), read)
        problems = {at: {"problem": drop.reason} for (at, _), drop in failed.items()}
        for at, row in enumerate(rows):
            values = [verdicts.get((at, order)) for order in ORDERS]
            known = [value for value in values if value is not None]
            whole = len(known) == len(ORDERS)
            score, outcome = sum(known) / 2 if whole else 0.0, "scored" if whole else "error"
            about = {"verdicts": values, **problems.get(at, {})}
            yield with_meta({**row, "score": score, "outcome": outcome}, judge=about)

    def _message(self, row: Row, order: str) -> str:
        answers = [row["completion"], row["references"][0]]
        a, b = (_unmarked(text) for text in (answers if order == "first" else answers[::-1]))
        question = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in row["prompt"])
        checklist = row.get("meta", {}).get("checklist") or []
        return prompts.render("judge/pair", question=_unmarked(question), a=a, b=b, checklist=checklist)


def _unmarked(text: str) -> str:
    """A text without our prompt's delimiters, including those that form when another one is removed."""
    while (without := _MARK.sub("", text)) != text:
        text = without
    return text


def verdict(reply: str) -> float | None:
    """1 for the first answer, 0 for the second, 0.5 for a tie; None if the last line is not a verdict."""
    last = next((line.strip() for line in reversed(reply.splitlines()) if line.strip()), "")
    match = _VERDICT.fullmatch(last)
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[match[1].lower()] if match else None


def question(record: Mapping[str, Any]) -> Row | None:
    """A question in any of the formats, None if it has no prompt."""
    turns, asked = record.get("turns"), record.get("conversation_input")
    if isinstance(turns, list) and turns:
        asked = turns[0].get("content") if isinstance(turns[0], dict) else turns[0]
    asked = asked if asked else record.get("prompt", record.get("writing_prompt"))
    if isinstance(asked, str) and isinstance(seeds := record.get("seed_modifiers"), list) and seeds:
        asked = asked.replace("<SEED>", str(seeds[0]))
    prompt = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    if not prompt or not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in prompt):
        return None
    messages = [{"role": str(turn.get("role", "user")), "content": turn["content"]} for turn in prompt]
    source = str(record.get("category") or record.get("primary_tag") or record.get("source") or "all")
    about = {"checklist": record["checklist"]} if isinstance(record.get("checklist"), list) else {}
    return {"id": name_of(record), "prompt": messages, "source": source, "meta": about}


def name_of(record: Mapping[str, Any]) -> str:
    """A question's id, in its own file or in an answer file."""
    names = ("question_id", "uid", "session_id", "id")
    return next((str(record[name]) for name in names if record.get(name) is not None), "")


def answer(record: Mapping[str, Any]) -> str | None:
    """An answer's text, in any of the formats."""
    text = record.get("completion")
    if isinstance(choices := record.get("choices"), list) and choices and isinstance(choices[0], dict):
        text = next(iter(choices[0].get("turns") or []), None)
    if isinstance(messages := record.get("messages"), list) and messages:
        text = messages[-1]
    if isinstance(output := record.get("output"), list | str) and output:
        text = output[0] if isinstance(output, list) else output
    while isinstance(text, dict):
        text = text.get("answer", text.get("content"))
    return text if isinstance(text, str) else None


def pairs(questions: Path, answers: Path, baseline: Path, format: str | None = None) -> tuple[list[Row], Counter[str]]:
    """Rows to judge, without thoughts (in `format`), and counts of skipped questions by reason. Raises DataError."""
    try:
        form = thinking(format or "none")
    except RewardError as problem:
        raise DataError(f"--thinking: {problem}") from None
    whole = form.model_copy(update={"prefilled": False})  # a baseline may have no thoughts, hence no tags
    ours, others = (_answers(path, own if format else None) for path, own in ((answers, form), (baseline, whole)))
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for record in _questions(questions):
        made = None if isinstance(record, Drop) else question(record)
        if made is None or not made["id"]:
            left_out["no question" if made is None else "no id"] += 1
        elif made["id"] in seen:
            left_out["repeated id"] += 1
        elif made["id"] not in ours or made["id"] not in others:
            left_out["no answer" if made["id"] not in ours else "no answer of the baseline"] += 1
        else:
            rows.append({**made, "completion": ours[made["id"]], "references": [others[made["id"]]]})
        seen |= {made["id"]} if made else set()
    total = len(rows) + left_out.total()
    if len(rows) < max(1, LEAST_JUDGED * total):
        raise DataError(
            f"{answers}: only {len(rows)} of {total} questions in {questions} have both answers ({dict(left_out)})"
        )
    return rows, left_out


def _questions(path: Path) -> Iterator[dict[str, Any] | Drop]:
    named = read_json(path) if path.suffix == ".json" else None
    if isinstance(named, dict) and all(isinstance(record, dict) for record in named.values()):
        yield from ({"id": name, **record} for name, record in named.items())
    else:
        yield from read_records(path)


def _answers(path: Path, form: Thinking | None) -> dict[str, str]:
    """Answers by question id, without thoughts. Raises DataError for an answer with a thought if `form` is None."""
    answers = {}
    for record in read_records(path):
        if isinstance(record, dict) and (text := answer(record)) is not None:
            meta = record.get("meta")
            prompt = meta.get("prompt_id") if isinstance(meta, dict) else None
            name = str(prompt or name_of(record))
            if form is None and (mark := next((mark for mark in THOUGHT_MARKS if mark in text), None)):
                raise DataError(
                    f"{path}: the answer to {name} contains the tag {mark!r}: set the thinking format by --thinking "
                    f"({', '.join(PRESETS)}; none: it is part of the answer)"
                )
            if name in answers:
                raise DataError(f"{path}: {name} has two answers: keep one per question")
            answers[name] = form.answer_of(text) if form else text
    ends = Counter(name.rsplit("/", 1)[-1] for name in answers)  # our rows' ids are <task>/<question>
    return {end: text for name, text in answers.items() if ends[end := name.rsplit("/", 1)[-1]] == 1} | answers


def summary(rows: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Results over judged rows, in percent: win rate, plain and length-controlled, with 95 % intervals by prompt; ties;
    disagreement between the orders; wins of the longer answer; also mean lengths in words and invalid rows."""
    valid = [row for row in rows if row["outcome"] == "scored"]
    result: dict[str, Any] = {"pairs": len(rows), "invalid": len(rows) - len(valid)}
    if not valid:
        return result
    wins = np.array([row["score"] for row in valid])
    words = np.array(
        [[len(text.split()) for text in (row["completion"], row["references"][0])] for row in valid], float
    )
    style = (words[:, 0] - words[:, 1]) / np.maximum(1, words.sum(axis=1))
    draws = np.random.default_rng(seed).integers(len(valid), size=(RESAMPLES, len(valid)))
    verdicts = [row["meta"]["judge"]["verdicts"] for row in valid]
    decided = (wins != 0.5) & (style != 0)
    result |= {
        "win_rate": _with_interval(float(wins.mean()), wins[draws].mean(axis=1)),
        "win_rate_equal_length": _with_interval(
            controlled(wins, style), np.array([controlled(wins[draw], style[draw]) for draw in draws])
        ),
        "ties": percent(float((wins == 0.5).mean())),
        "orders_disagree": percent(sum(first != second for first, second in verdicts) / len(valid)),
        "longer_wins": percent(float(((style > 0) == (wins > 0.5))[decided].mean())) if decided.any() else None,
        "mean_words": {"ours": round(float(words[:, 0].mean()), 1), "baseline": round(float(words[:, 1].mean()), 1)},
    }
    by: dict[str, list[float]] = defaultdict(list)
    for row in valid:
        by[row["source"]].append(row["score"])
    result["by_category"] = {name: {"n": len(own), "win_rate": percent(fmean(own))} for name, own in by.items()}
    return result


def controlled(wins: NDArray[np.float64], style: NDArray[np.float64]) -> float:
    """Win rate at equal lengths: sigmoid of the intercept of a logistic regression, fitted by Newton's method."""
    features, weights = np.stack([np.ones_like(style), style], axis=1), np.zeros(2)
    for _ in range(30):
        chance = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (wins - chance) - RIDGE * weights
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights += np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-9:
            break
    return float(1 / (1 + np.exp(-weights[0])))


def _with_interval(value: float, resampled: NDArray[np.float64]) -> dict[str, Any]:
    return {"mean": percent(value), "ci95": [percent(float(bound)) for bound in np.quantile(resampled, (0.025, 0.975))]}


class Request(Options):
    """Options of the comparison."""

    questions: Path
    answers: Path
    baseline: Path
    model: str = Field(description="judge model")
    base_url: str
    api_key_env: str | None = None
    spend_cap: float | None = Field(None, description="dollars")
    concurrency: int | None = None
    thinking: str | None = Field(None, description="thinking format; thoughts are not judged or counted in lengths")
    seed: int = 0
    out: str = Field(description="<out>.json: results; <out>.jsonl: every pair with its verdicts")
    cache: Cache = CACHE


def judge(args: Request, progress: Progress) -> str:
    """Judge the remaining pairs and write <out>.jsonl and <out>.json. Raises DataError."""
    rows, left_out = pairs(args.questions, args.answers, args.baseline, args.thinking)
    out = Path(f"{args.out}.pairs.jsonl").absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, encoded(rows))
    params = args.model_dump(include=set(ASKED), exclude_none=True)
    items = [{"load": {"path": str(out)}}, {"data_prep.evaluation.judge:Judge": {"name": "judge", **params}}]
    steps, faults = pipeline.parse("judge", items)
    if faults:
        raise DataError("\n".join(f"{fault.path[-1]}: {fault.message}" for fault in faults))
    spec = pipeline.Spec(name="judge", base=Path.cwd(), cache=args.cache, steps=tuple(steps), max_drop_share=0.05)
    _, manifest = pipeline.run(spec, progress=progress)
    judged = list(pipeline.read_rows(pipeline.find(spec)))
    files = {name: file_hash(getattr(args, name)) for name in ("questions", "answers", "baseline")}
    about = {"judge": args.model, "seed": args.seed, "files": files, "left_out": dict(left_out), "cost": manifest.cost}
    result = {**summary(judged, args.seed), **about}
    write_json(Path(f"{args.out}.json"), result)
    write_atomic(Path(f"{args.out}.jsonl"), encoded(judged))
    if "win_rate" not in result:
        raise DataError(f"{args.out}.jsonl: no reply of {args.model} ends with a verdict")
    return json.dumps(result, indent=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(__doc__ or "", {"": (Request, judge)}, argv)


if __name__ == "__main__":
    sys.exit(main())
