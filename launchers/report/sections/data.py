"""The report's part on data: the funnel of a pipeline's steps, what was left out and why, mixtures, labels and cost;
how samples of the questions spread; and the first rows as the trainer saw them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from launchers.report import plots
from launchers.report.format import count
from launchers.report.results import Json, Results, without_number

COUNTS_SHOWN = ("label", "difficulty", "rewrite", "length_pairs")  # steps whose counts are worth a line
COUNTED = ("answers", "prompt_tokens", "completion_tokens")  # of a manifest's cost
PARTS = ("samples", "pool", "choice", "pairs")
PANELS = {
    "pass_rates": ("Pass rate", "questions", "share of samples that are right"),
    "spreads": ("Spread", "questions", "highest less lowest score"),
    "scores": ("Scores", "samples", "score"),
    "chosen": ("Scores of the chosen", "prompts", "score by which they were chosen"),
    "margins": ("Margin", "pairs", "chosen less rejected score"),
    "longer": ("Length", "pairs", "characters by which the chosen one is longer"),
}


def funnel(steps: Sequence[Json]) -> list[Json]:
    """A line per step; widths are percent of the pipeline's widest step."""
    widest = max(max(m.get("rows_in") or 0, m.get("rows_out") or 0) for m in steps) or 1
    return [_line(manifest, widest) for manifest in steps]


def _line(manifest: Json, widest: int) -> Json:
    rows_out = manifest.get("rows_out") or 0
    flagged = manifest.get("kind") == "decontaminate"
    examples, drops = manifest.get("examples") or {}, manifest.get("drops") or {}
    return {
        "name": manifest.get("name") or manifest.get("kind"),
        "kind": manifest.get("kind"),
        "rows_in": manifest.get("rows_in") or 0,
        "rows_out": rows_out,
        "width": round(100 * rows_out / widest, 2),
        "lost": round(100 * min(sum(drops.values()), widest - rows_out) / widest, 2),
        "drops": [
            (why, n, [flagged_pair(e) if flagged else _example(e) for e in examples.get(why, [])])
            for why, n in Counter(drops).most_common()
        ],
        "summary": _summary(manifest),
        "mixture": mixture(manifest),
    }


def flagged_pair(example: Json) -> Json:
    """Of a drop of `decontaminate`: the row and the benchmark's question that it repeats, to stand side by side."""
    how, row, question = [*(example.get("detail") or "").split("\n"), "", "", ""][:3]
    name, _, share = how.partition(": ")
    return {
        "row": example.get("row_id") or "", "row_text": row.removeprefix("row: "),
        "question": name, "question_text": question.removeprefix("question: "), "how": share,
    }  # fmt: skip


def _example(example: Json) -> str:
    parts = (example.get("row_id"), example.get("detail"))
    return " · ".join(str(part) for part in parts if part)[:160]


def _summary(manifest: Json) -> list[str]:
    """What a step says of its rows in numbers: who labelled or rewrote them, and what that cost."""
    counts, cost = manifest.get("counts") or {}, manifest.get("cost") or {}
    parts = [", ".join(f"{count(n)} {what}" for what, n in Counter(counts).most_common())]
    paid = [f"{cost['usd']:,.2f} dollars"] if "usd" in cost else []
    paid += [f"{count(cost[name])} {name.replace('_', ' ')}" for name in COUNTED if name in cost]
    return [*(parts if manifest.get("kind") in COUNTS_SHOWN and counts else []), *([", ".join(paid)] if paid else [])]


def difficulty(steps: Sequence[Json]) -> str:
    """Whose judgement the difficulty of a pipeline's samples is, and how many of a model's labels could not be read.

    Empty where nothing measured it: the labels' own counts then say all.
    """
    measured, labelled = (
        sum((Counter(step.get("counts") or {}) for step in steps if step.get("kind") == kind), Counter[str]())
        for kind in ("difficulty", "label")
    )
    if not measured:
        return ""
    asked = labelled.total()
    unread = f" ({count(labelled['unlabelled'])} of {count(asked)} labels could not be read)" if asked else ""
    rates, labels = count(measured["by pass rate"]), count(measured["by label"])
    return f"Difficulty: {rates} samples by their question's pass rate, {labels} by a model's label{unread}."


def mixture(manifest: Json) -> list[Json]:
    """Of a step `mix`: for each category and source the rows, their share, and how many were asked for ("" for all)."""
    if manifest.get("kind") != "mix":
        return []
    counts: dict[str, Counter[str]] = {}
    for label, n in (manifest.get("counts") or {}).items():
        category, _, source = label.partition(": ")
        counts.setdefault(category, Counter())[source] = n
    total = manifest.get("rows_out") or 1
    rows = []
    for category, part in ((manifest.get("params") or {}).get("parts") or {}).items():
        sources = part.get("sources") or []
        each = sources if isinstance(sources, dict) else {}
        asked = part.get("n") or sum(each.values())
        category_counts = counts.get(category, Counter())
        rows.append(_share(category, "", asked, sum(category_counts.values()), total))
        rows += [_share("", source, each.get(source), category_counts[source], total) for source in sources]
    return rows


def _share(category: str, source: str, asked: int | None, got: int, total: int) -> Json:
    share = 100 * got / total
    return {"category": category, "source": source, "asked": count(asked) if asked else "", "rows": got, "share": share}


def spreads(run: Results) -> list[Json]:
    """How often sampled questions are solved and which pairs came of them: of each pipeline its facts and panels."""
    parsed = {without_number(Path(path).stem): run.object(path) for path in run.paths("spreads/*.json")}
    files = {name: spread for name, spread in parsed.items() if spread}
    return [
        {
            "name": name,
            **{part: spread.get(part) for part in PARTS},
            "panels": [
                {"title": title, "unit": unit, "plot": plots.bars(f"spread{at}-{key}", title, part[key], xlabel)}
                for part in (spread.get(name) or {} for name in PARTS)
                for key, (title, unit, xlabel) in PANELS.items()
                if key in part
            ],
        }
        for at, (name, spread) in enumerate(files.items())
    ]


def tokens(run: Results) -> list[Json]:
    """What is trained on: of each training its name and its tokens.json, with counts and the first rows."""
    return [
        {"name": name or "the recipe", "inspected": inspected}
        for name, inspected in _inspected(run).items()
        if inspected.get("shown")
    ]


def notes(run: Results) -> list[str]:
    """What is to be known of the rows, such as a system prompt that evaluation asks without."""
    found = ((name, note) for name, inspected in _inspected(run).items() for note in inspected.get("notes", []))
    return [f"{name}: {note}" if name else note for name, note in found]


def _inspected(run: Results) -> dict[str, Json]:
    """tokens.json of the recipe's training ("") and of each control."""
    controls = {path.split("/")[1]: run.object(path) for path in run.paths("controls/*/train/tokens.json")}
    return {"": run.object("train/tokens.json")} | controls
