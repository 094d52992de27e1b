"""One page for a study: its questions answered from the numbers, with plots, and the settings beside them.

Only the study's folder and the folders of its runs are read. No sentence claims more than its interval: where that
holds zero, the sentence says that no difference can be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

from launchers.backends.shared import leaves
from launchers.report import plots
from launchers.report.format import change, figure, heading, measured, points, signed, span
from launchers.report.page import from_template, write_page
from launchers.report.plots import Look, Whisker
from launchers.report.results import Json
from launchers.study.results import Numbers
from launchers.study.statistics import Estimate

# What tells the cells of a question apart in every plot and table; a ninth looks like the first.
LOOKS = (
    plots.AFTER, *plots.OTHERS, Look("after", "D", "◆"), Look("c1", "o", "●"), Look("c2", "s", "■"),
)  # fmt: skip


def build(path: Path) -> Path:
    """Write `report.html` into a study's folder and return its path."""
    return write_page(path, render(Numbers(path)))


def render(numbers: Numbers) -> str:
    """The page as text: plain values and finished plots in a template."""
    record = numbers.record
    return from_template("study.html.j2", {
        "numbers": numbers,
        "record": record,
        "done": sum(entry["status"] == "done" for entry in record["runs"]),
        "lost": [entry for entry in record["runs"] if entry["status"] in ("failed", "blocked")],
        "measure": _capital(numbers.metric["name"]),
        "questions": [_question(numbers, i, entry) for i, entry in enumerate(record["questions"])],
        "groups": groups(numbers),
        **settings(numbers),
    })  # fmt: skip


def _question(numbers: Numbers, index: int, question: Json) -> Json:
    """One question: its answer, its plots, its table."""
    cells = [name for name in question["compare"] if numbers.seeds(name)]
    looks = {name: LOOKS[i % len(LOOKS)] for i, name in enumerate(question["compare"])}
    unseen = question["measure"] == "untrained"
    missing = [name for name in question["compare"] if name not in cells]
    return {
        "ask": question["ask"],
        "answers": [carries_over(numbers, cells)] if unseen else answers(numbers, cells),
        "without": without(missing),
        "can_show": "" if unseen else can_show(numbers, cells),
        "looks": looks,
        "unseen": unseen,
        "cells": cells,
        "plot": (_gain_plot if unseen else _score_plot)(numbers, index, cells, looks),
        "cost_plot": "" if unseen else _cost_plot(numbers, index, cells, looks),
        "pairs": [] if unseen else pairs(numbers, cells),
    }


def without(missing: Sequence[str]) -> str:
    """Which cells an answer had to do without."""
    them = "it" if len(missing) == 1 else "them"
    return f" Without {_listed(missing)}: no run of {them} finished." if missing else ""


def can_show(numbers: Numbers, cells: Sequence[str]) -> str:
    """The smallest difference that the seeds of these cells can show; "" where no two seeds of a cell differ."""
    smallest = numbers.smallest_difference(cells) if len(cells) > 1 else None
    if not smallest:
        return ""
    count = min(len(numbers.seeds(name)) for name in cells)
    amount = change(smallest, numbers.metric).removeprefix("+")
    return f"Judging by the spread between seeds of one cell, {count} seeds can show a difference of {amount} or more."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def answers(numbers: Numbers, cells: Sequence[str]) -> list[str]:
    """Which cell is best by score, by pass@k and by its cost, and what can be told apart: a sentence each."""
    if not cells:
        return ["No answer yet: none of these cells has finished."]
    metric, unit, k = numbers.metric, points(numbers.metric), numbers.k
    first = "is the most accurate" if numbers.is_accuracy else f"has the best {metric['name']}"
    gains = "gains" if numbers.direction > 0 else "lowers it"

    def shown(e: Estimate) -> str:
        return f"{measured(e.mean, metric)} ({span(e.ci95, metric)})"

    def gained(e: Estimate) -> str:
        return f"{change(e.mean, metric)} ({span(e.ci95, metric)}) per 1,000 {numbers.unit}"

    if len(cells) == 1 and (alone := numbers.score(cells[0])):
        return [f"No answer yet: only {cells[0]} has finished, with {metric['name']} {shown(alone)}."]
    parts = [_best(numbers, cells, numbers.score, numbers.difference, unit, lambda n, e: f"{n} {first}, {shown(e)}")]
    if k > 1:
        score, difference = partial(numbers.score, k=k), partial(numbers.difference, k=k)
        parts.append(_best(numbers, cells, score, difference, unit, lambda n, e: f"By pass@{k} it is {n}, {shown(e)}"))
    parts.append(_best(
        numbers, cells, numbers.efficiency, numbers.efficiency_difference, f"{unit} per 1,000".lstrip(),
        lambda n, e: f"For its training {n} {gains} the most, {gained(e)}",
    ))  # fmt: skip
    return [part for part in parts if part]


def _best(
    numbers: Numbers, cells: Sequence[str], value: Callable[[str], Estimate | None],
    difference: Callable[[str, str], Estimate | None], unit: str, sentence: Callable[[str, Estimate], str],
) -> str:  # fmt: skip
    """A sentence about the best of some estimates, and which others are shown to be worse."""
    metric, direction = numbers.metric, numbers.direction
    known = {name: estimate for name in cells if (estimate := value(name))}
    if not known:
        return ""
    best, *others = sorted(known, key=lambda name: -direction * known[name].mean)
    worse, same = [], []
    for name in others:
        estimate = difference(best, name)
        if estimate is None:
            same.append(f"{name} (no seed in common)")
        elif direction * estimate.sign > 0:
            amount = f"{figure(abs(estimate.mean), metric)} {unit}".rstrip() + (" above" if direction > 0 else " below")
            worse.append(f"{amount} {name} ({span(sorted(map(abs, estimate.ci95)), metric)})")
        else:
            same.append(f"{name} ({signed(estimate.mean, metric)}, {span(estimate.ci95, metric)})")
    text = sentence(best, known[best]) + (f", {_listed(worse)}" if worse else "")
    return f"{text}{f'; no difference from {_listed(same)} can be shown' if same else ''}."


def carries_over(numbers: Numbers, cells: Sequence[str]) -> str:
    """What each cell gained where it was not trained."""
    words: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for name in cells:
        groups = numbers.untrained(name)
        gain = numbers.gain(name, groups) if groups else None
        if gain is None:
            continue
        where = _listed(groups) if numbers.record["by"] == "task" else f"level {_listed(groups)}"
        amount = f"{change(gain.mean, numbers.metric)} on {where}"
        words[gain.sign].append(f"{name} ({amount}, {span(gain.ci95, numbers.metric)})")
    if not any(words.values()):
        return "No answer yet: no cell has a result on questions unlike those that it was trained on."
    phrases = {
        1: f"{_capital(numbers.metric['name'])} rose where a cell was not trained with {{}}",
        0: "no change can be shown with {}",
        -1: "it fell with {}",
    }
    text = "; ".join(phrases[sign].format(_listed(names)) for sign, names in words.items() if names)
    return f"{_capital(text)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def pairs(numbers: Numbers, cells: Sequence[str]) -> list[tuple[str, str, Estimate]]:
    """Every two cells of a question, the better one first."""
    return [
        (a, b, e) if numbers.direction * e.mean >= 0 else (b, a, -e)
        for a, b in combinations(cells, 2)
        if (e := numbers.difference(a, b))
    ]


def _score_plot(numbers: Numbers, index: int, cells: Sequence[str], looks: dict[str, Look]) -> str:
    """Score and pass@k of each cell, with the start."""
    groups = []
    for head, k in (("pass@1", 1), (f"pass@{numbers.k}", numbers.k))[: 1 + (numbers.k > 1)]:
        lines = [Whisker(name, looks[name], [e.mean], *e.ci95) for name in cells if (e := numbers.score(name, k))]
        if k == 1 and cells and (start := numbers.start(cells[0])):
            lines.insert(0, Whisker("before training", plots.BEFORE, [start.mean], *start.ci95))
        groups.append((head if numbers.k > 1 else "", lines))
    title = f"{_capital(numbers.metric['name'])} with 95 % intervals"
    return plots.whiskers(f"score{index}", title, groups, heading(numbers.metric)) if cells else ""


def _gain_plot(numbers: Numbers, index: int, cells: Sequence[str], looks: dict[str, Look]) -> str:
    """Gains where a cell was trained, and where not."""
    groups = []
    for head, of in (("trained on", numbers.trained), ("not trained on", numbers.untrained)):
        gains = {name: gain for name in cells if (gain := numbers.gain(name, of(name)))}
        lines = [Whisker(name, looks[name], [gain.mean], *gain.ci95) for name, gain in gains.items()]
        groups += [(head, lines)] if lines else []
    title = "Gains with 95 % intervals"
    label = f"gain, {points(numbers.metric)}".rstrip(", ")
    return plots.whiskers(f"gain{index}", title, groups, label, zero=True) if groups else ""


def _cost_plot(numbers: Numbers, index: int, cells: Sequence[str], looks: dict[str, Look]) -> str:
    """Score against what training took."""
    dots = [
        (cost, Whisker(name, looks[name], [estimate.mean], *estimate.ci95))
        for name in cells
        if (cost := numbers.mean_cost(name)) is not None and (estimate := numbers.score(name))
    ]
    start = numbers.start(cells[0]) if cells else None
    first, label = start.mean if start else None, heading(numbers.metric)
    return plots.against_cost(f"cost{index}", dots, first, numbers.unit, label) if dots else ""


def groups(numbers: Numbers) -> Json:
    """Score of every cell by level (or benchmark): heads, and a line per cell with what it was trained on."""
    heads = numbers.groups if len(numbers.groups) > 1 else []
    rows = [
        (name, [(numbers.score(name, 1, [head]), head in numbers.trained(name)) for head in heads])
        for name in numbers.cells
        if heads and numbers.seeds(name)
    ]
    counts = [sum(numbers.group(numbers.answers[key]) == head for key in numbers.questions) for head in heads]
    return {"heads": heads, "counts": counts, "rows": rows}


def settings(numbers: Numbers) -> Json:
    """Every cell's recipe: what all share, and what each has of its own. Seeds and places of runs are left out."""
    flat = {name: _flat(cell["settings"]) for name, cell in numbers.cells.items()}
    keys = sorted({key for flat_cell in flat.values() for key in flat_cell})
    own = {key for key in keys if len({flat_cell.get(key) for flat_cell in flat.values()}) > 1}
    shared = [(key, next(iter(flat.values()))[key]) for key in keys if key not in own]
    cells = []
    for name, cell in numbers.cells.items():
        terms = {
            "recipe": cell["recipe"],
            "starts from the model of": cell["model_of"],
            "chooses data by the run of": cell["from_run"],
            "trained on levels": ", ".join(map(str, cell["trained_levels"] or ())),
        }
        follows = ("model", "revision") if cell["model_of"] else ()
        values = [(key, flat[name][key]) for key in sorted(own) if key in flat[name] and key not in follows]
        cells.append((name, [(term, value) for term, value in terms.items() if value], values))
    return {"shared": shared, "cells": cells}


_NOT_SHOWN = ("eval.before", "expect", "extends", "from_run", "reference", "controls", "train.seed")


def _flat(settings: Json) -> dict[str, str]:
    """Dotted keys and values as text, without those that are not set."""
    flat = {}
    for key, value in leaves(settings):
        if value not in (None, {}, []) and not key.startswith(_NOT_SHOWN):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list) else text
    return flat
