"""The report's data section: rows per pipeline step, dropped rows by reason, mixtures, labels and cost; distributions
of scores and pairs; the first training rows as tokens."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from launchers.report import plots
from launchers.report.format import count
from launchers.report.results import Json, Results, without_number

COUNTS_SHOWN = ("label", "difficulty", "rewrite", "length_pairs")  # kinds of steps whose counts are shown
COUNTED = ("answers", "prompt_tokens", "completion_tokens")  # keys of a manifest's cost
PARTS = ("samples", "pool", "choice", "pairs")
PANELS = {
    "pass_rates": ("Pass rate", "questions", "fraction of correct samples"),
    "spreads": ("Spread", "questions", "highest minus lowest score"),
    "scores": ("Scores", "samples", "score"),
    "chosen": ("Scores of selected prompts", "prompts", "score used for selection"),
    "margins": ("Margin", "pairs", "chosen minus rejected score"),
    "longer": ("Length", "pairs", "chosen minus rejected length, characters"),
}


def funnel(steps: Sequence[Json]) -> list[Json]:
    """One line per step; widths are percent of the largest step's rows."""
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
    """For a row dropped by `decontaminate`: the row and the benchmark question that it matches."""
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
    """A step's counts and cost as text."""
    counts, cost = manifest.get("counts") or {}, manifest.get("cost") or {}
    parts = [", ".join(f"{count(n)} {what}" for what, n in Counter(counts).most_common())]
    paid = [f"{cost['usd']:,.2f} dollars"] if "usd" in cost else []
    paid += [f"{count(cost[name])} {name.replace('_', ' ')}" for name in COUNTED if name in cost]
    return [*(parts if manifest.get("kind") in COUNTS_SHOWN and counts else []), *([", ".join(paid)] if paid else [])]


def difficulty(steps: Sequence[Json]) -> str:
    """How the difficulty of a pipeline's samples was determined, and how many of a model's labels were unreadable.

    Empty if no step `difficulty` ran: the labels' counts are then sufficient.
    """
    measured, labelled = (
        sum((Counter(step.get("counts") or {}) for step in steps if step.get("kind") == kind), Counter[str]())
        for kind in ("difficulty", "label")
    )
    if not measured:
        return ""
    total = labelled.total()
    unread = f" ({count(labelled['unlabelled'])} of {count(total)} labels could not be read)" if total else ""
    rates, labels = count(measured["by pass rate"]), count(measured["by label"])
    return f"Difficulty: {rates} samples by their question's pass rate, {labels} by a model's label{unread}."


def mixture(manifest: Json) -> list[Json]:
    """For a step `mix`: rows, share and requested rows ("" for all) of each category and source."""
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
    """For each pipeline, statistics and histograms of samples and pairs."""
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
    """For each training its name and its tokens.json, with counts and the first rows."""
    return [
        {"name": name or "the recipe", "inspected": inspected}
        for name, inspected in _inspected(run).items()
        if inspected.get("shown")
    ]


def notes(run: Results) -> list[str]:
    """Warnings about the training rows, such as a system prompt that evaluation does not use."""
    named = ((name, note) for name, inspected in _inspected(run).items() for note in inspected.get("notes", []))
    return [f"{name}: {note}" if name else note for name, note in named]


def _inspected(run: Results) -> dict[str, Json]:
    """tokens.json of the recipe's training ("") and of each control."""
    controls = {path.split("/")[1]: run.object(path) for path in run.paths("controls/*/train/tokens.json")}
    return {"": run.object("train/tokens.json")} | controls
