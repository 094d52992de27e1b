"""Agreement of rewards with human preferences, next to the paper's figures.

    make agreement/bleuberi DATA=pairs.jsonl
    python -m data_prep.evaluation.agreement --data pairs.jsonl --paper recipes/bleuberi/_paper.yaml --out agreement

Rows: {"prompt": text or messages, "responses": [a, b], "winner": 0, 1 or "tie", "references": [text, …]}. As in
BLEUBERI (arena_analysis/run_arena_analysis.py) a reward predicts "tie" if both scores are equal, and agrees if its
prediction equals the human label, ties included. For each reward, pairs whose score is an error or that have too few
references are skipped and counted.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import Field

import rewards
from data_prep.core.commands import CPUS, Options, run
from data_prep.core.documents import read_yaml
from data_prep.core.files import write_atomic, write_json
from data_prep.core.progress import Progress
from data_prep.core.step import Drop
from data_prep.errors import DataError
from data_prep.evaluation.intervals import interval
from data_prep.sources.files import read_records
from rewards.errors import RewardError

Scores = list[tuple[float, float] | None]  # per pair; None if a response could not be scored
MOST_REFERENCES = 5
FLOOR = -40.0  # reward-model score of a blank response, below the score of any text


@dataclass(frozen=True)
class Pair:
    prompt: list[dict[str, str]]
    responses: tuple[str, str]
    winner: int | str
    references: list[str]


def read_pairs(path: Path) -> tuple[list[Pair], Counter[str]]:
    """The pairs of a file, and counts of invalid records by reason. Raises DataError if there is no pair."""
    pairs: list[Pair] = []
    faults: Counter[str] = Counter()
    for record in read_records(path):
        made = record.reason if isinstance(record, Drop) else _pair(record)
        if isinstance(made, Pair):
            pairs.append(made)
        else:
            faults[made] += 1
    if not pairs:
        raise DataError(
            f"{path}: no valid pair ({dict(faults)}); a row needs prompt, responses [a, b], winner and references"
        )
    return pairs, faults


def _pair(record: dict[str, Any]) -> Pair | str:
    """A pair, or why the record is invalid."""
    prompt, responses, references = (record.get(name) for name in ("prompt", "responses", "references"))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list) or not messages:
        return "no prompt"
    if not isinstance(responses, list) or len(responses) != 2 or not all(isinstance(text, str) for text in responses):
        return "responses are not two texts"
    if record.get("winner") not in (0, 1, "tie") or isinstance(record.get("winner"), bool):
        return "winner is not 0, 1 or tie"
    references = references if isinstance(references, list) else []
    texts = [text for text in references if isinstance(text, str) and text.strip()]
    return Pair(messages, (responses[0], responses[1]), record["winner"], texts) if texts else "no reference"


def scored(pairs: Sequence[Pair], name: str, params: dict[str, Any], references: int, workers: int) -> Scores:
    """A reward's scores of each pair that has at least `references` references. Raises RewardError."""
    reward = rewards.load(name, **params)
    reward.check_ready()
    asked = [
        (at, {"id": str(at), "prompt": pair.prompt, "references": pair.references[:references]}, text)
        for at, pair in enumerate(pairs)
        for text in (pair.responses if len(pair.references) >= references else ())
    ]
    scores = reward.score_many([row for _, row, _ in asked], [text for _, _, text in asked], workers)
    made: Scores = [None] * len(pairs)
    for (at, _, _), first, second in zip(asked[::2], scores[::2], scores[1::2], strict=True):
        if not {first.outcome, second.outcome} & {"error", "timeout"}:
            made[at] = first.value, second.value
    return made


def zsum(parts: Sequence[Scores]) -> Scores:
    """Mean of the parts' z-scores over all responses, as the original combines a reward model with BLEU."""
    normal: list[Scores] = []
    for part in parts:
        values = [value for both in part if both for value in both]
        mean, deviation = (fmean(values), pstdev(values)) if values else (0.0, 0.0)
        normal.append([both and tuple((v - mean) / deviation if deviation else 0.0 for v in both) for both in part])  # type: ignore[misc]
    return [
        (fmean(part[0] for part in own), fmean(part[1] for part in own)) if all(own) else None
        for own in zip(*normal, strict=True)
    ]


def agreement(pairs: Sequence[Pair], scores: Scores) -> dict[str, Any]:
    """Accuracy in percent over the scored pairs, with its 95 % interval."""
    known = [(pair.winner, *both) for pair, both in zip(pairs, scores, strict=True) if both]
    counts = {"pairs": len(known), "left_out": len(scores) - len(known)}
    if not known:
        return counts
    choices: list[int | str] = ["tie" if a == b else int(b > a) for _, a, b in known]
    agrees = [float(choice == winner) for choice, (winner, _, _) in zip(choices, known, strict=True)]
    return {**counts, "ties": choices.count("tie"), **interval(agrees)}


def measure(
    pairs: Sequence[Pair], workers: int, encoder: str | None, reward_models: Iterable[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """The agreement of every reward. reward_models: names and server addresses. Raises RewardError.

    encoder: of reward `embedding`. None: its default; if that cannot be loaded, the reward is skipped with the reason.
    "": skip the reward.
    """
    most = min(MOST_REFERENCES, max(len(pair.references) for pair in pairs))
    table: list[tuple[str, str, dict[str, Any], int]] = [
        (f"bleu, {count} reference{'s' if count > 1 else ''}", "bleu", {"variant": "nmt"}, count)
        for count in range(1, most + 1)
    ]
    table += [(name, name, {}, 1) for name in ("rouge_l", "bleu_rouge_f1", "chrf", "keywords")]
    unmeasured: dict[str, dict[str, Any]] = {}
    try:
        if encoder is None:  # the default model may be missing; a named one must exist
            rewards.load("embedding").check_ready()
        if encoder != "":
            table.append(("embedding", "embedding", {"model": encoder} if encoder else {}, 1))
    except RewardError as error:
        unmeasured["embedding"] = {"pairs": 0, "left_out": len(pairs), "reason": str(error)}
    made = {name: scored(pairs, reward, params, count, workers) for name, reward, params, count in table}
    made["length"] = [(float(len(a.split())), float(len(b.split()))) for a, b in (pair.responses for pair in pairs)]
    for model, url in reward_models:
        name = model.rsplit("/", 1)[-1]
        params = {"url": url, "model": model, "thinking": "none", "floor": FLOOR}
        made[name] = scored(pairs, "model", params, 1, workers)
        made[f"bleu + {name}"] = zsum([made["bleu, 1 reference"], made[name]])
    return {name: agreement(pairs, scores) for name, scores in made.items()} | unmeasured


class Request(Options):
    """Options of the measurement."""

    data: Path = Field(description="pairs")
    out: Path = Field(Path("agreement"), description="<out>.md, .json and .png")
    paper: Path | None = Field(None, description="YAML with `agreement`, a map from rewards to published figures")
    encoder: str | None = Field(None, description="of reward embedding: folder or Hub id; '' skips it")
    reward_models: tuple[str, ...] = Field((), description="name=address of running servers")
    workers: int = CPUS


def report(args: Request, progress: Progress) -> str:
    """Measure, write <out>.json, <out>.png and <out>.md, and return the table. Raises DataError and RewardError."""
    out, paper = args.out, _paper(args.paper) if args.paper else {}
    servers = [(model, url) for model, _, url in (given.partition("=") for given in args.reward_models)]
    pairs, faults = read_pairs(args.data)
    figures = measure(pairs, args.workers, args.encoder, servers)
    lines = [f"{len(pairs):,} pairs, {sum(pair.winner == 'tie' for pair in pairs)} of them ties.", ""]
    lines += ["| reward | pairs | agreement, % | 95 % interval | ties | paper, % |", "|---|---|---|---|---|---|"]
    for name, own in figures.items():
        values = "— | — | —"
        if own["pairs"]:
            values = f"{own['mean']:.1f} | {own['ci95'][0]:.1f} to {own['ci95'][1]:.1f} | {own['ties']}"
        lines.append(f"| {name} | {own['pairs']:,} | {values} | {paper.get(name, '—')} |")
    if faults:
        lines += ["", f"Skipped: {', '.join(f'{count:,} {reason}' for reason, count in faults.most_common())}."]
    for name, own in figures.items():
        lines += ["", f"{name}: not measured: {own['reason']}"] if "reason" in own else []
    write_json(out.with_suffix(".json"), {"pairs": len(pairs), "faults": faults, "rewards": figures})
    write_atomic(out.with_suffix(".md"), ["\n".join([*lines, ""]).encode()])
    _plot(out.with_suffix(".png"), {name: own for name, own in figures.items() if own["pairs"]}, paper)
    return "\n".join(lines)


def _paper(path: Path) -> dict[str, float]:
    """Published figures by reward. Raises DataError."""
    document = read_yaml(path)
    figures = document.get("agreement") if isinstance(document, dict) else None
    if not isinstance(figures, dict) or not all(isinstance(value, int | float) for value in figures.values()):
        raise DataError(f"{path}: needs `agreement`, a map from rewards to published figures in %")
    return figures


def _plot(path: Path, figures: dict[str, dict[str, Any]], paper: Mapping[str, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.35 * len(figures) + 1), layout="constrained")
    axes = figure.subplots()
    names = list(figures)[::-1]
    for place, name in enumerate(names):
        low, high = figures[name]["ci95"]
        axes.plot([low, high], [place, place], color="tab:blue")
        axes.plot(figures[name]["mean"], place, "o", color="tab:blue")
        if name in paper:
            axes.plot(paper[name], place, "x", color="tab:orange")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="agreement with humans, % (○ here, × the paper)")
    axes.axvline(50, color="lightgrey", zorder=0)
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(__doc__ or "", {"": (Request, report)}, argv)


if __name__ == "__main__":
    sys.exit(main())
