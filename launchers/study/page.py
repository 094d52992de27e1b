"""Writes a study's report: answers to its questions, plots, tables and settings.

It reads only the folders of the study and of its runs. If an interval includes zero, the answer says that no
difference can be shown.
"""

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

# The looks of a question's cells in every plot and table; a ninth cell looks like the first.
LOOKS = (
    plots.AFTER, *plots.OTHERS, Look("after", "D", "◆"), Look("c1", "o", "●"), Look("c2", "s", "■"),
)  # fmt: skip


def build(path: Path) -> Path:
    """Write `report.html` to a study's folder and return its path."""
    return write_page(path, render(Numbers(path)))


def render(numbers: Numbers) -> str:
    """The page as HTML text."""
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
    """The template's values for one question."""
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
    """A sentence about the cells without a finished run."""
    return f" Not included, because no run finished: {_listed(missing)}." if missing else ""


def can_show(numbers: Numbers, cells: Sequence[str]) -> str:
    """A sentence about the smallest difference that can be shown; "" if no cell has two different seeds."""
    smallest = numbers.smallest_difference(cells) if len(cells) > 1 else None
    if not smallest:
        return ""
    count = min(len(numbers.seeds(name)) for name in cells)
    amount = change(smallest, numbers.metric).removeprefix("+")
    return f"Given the variance between seeds, {count} seeds can show a difference of {amount} or more."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def answers(numbers: Numbers, cells: Sequence[str]) -> list[str]:
    """One sentence each about the best cell by score, by pass@k and by gain per cost."""
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
        parts.append(
            _best(numbers, cells, score, difference, unit, lambda n, e: f"{n} has the best pass@{k}, {shown(e)}")
        )
    parts.append(_best(
        numbers, cells, numbers.efficiency, numbers.efficiency_difference, f"{unit} per 1,000".lstrip(),
        lambda n, e: f"Per training cost {n} {gains} the most, {gained(e)}",
    ))  # fmt: skip
    return [part for part in parts if part]


def _best(
    numbers: Numbers, cells: Sequence[str], value: Callable[[str], Estimate | None],
    difference: Callable[[str, str], Estimate | None], unit: str, sentence: Callable[[str, Estimate], str],
) -> str:  # fmt: skip
    """A sentence about the cell with the best estimate, and which others are shown to be worse."""
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
    """A sentence about each cell's gain on levels or benchmarks that it was not trained on."""
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
        return "No answer yet: no cell has results on questions that it was not trained on."
    metric = numbers.metric["name"]
    phrases = {1: f"{metric} rose with {{}}", 0: "no change can be shown with {}", -1: f"{metric} fell with {{}}"}
    text = "; ".join(phrases[sign].format(_listed(names)) for sign, names in words.items() if names)
    return f"On questions that a cell was not trained on, {text}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def pairs(numbers: Numbers, cells: Sequence[str]) -> list[tuple[str, str, Estimate]]:
    """All pairs of a question's cells, the better one first."""
    return [
        (a, b, e) if numbers.direction * e.mean >= 0 else (b, a, -e)
        for a, b in combinations(cells, 2)
        if (e := numbers.difference(a, b))
    ]


def _score_plot(numbers: Numbers, index: int, cells: Sequence[str], looks: dict[str, Look]) -> str:
    """Score and pass@k of each cell, and the score before training."""
    groups = []
    for head, k in (("pass@1", 1), (f"pass@{numbers.k}", numbers.k))[: 1 + (numbers.k > 1)]:
        lines = [Whisker(name, looks[name], [e.mean], *e.ci95) for name in cells if (e := numbers.score(name, k))]
        if k == 1 and cells and (start := numbers.start(cells[0])):
            lines.insert(0, Whisker("before training", plots.BEFORE, [start.mean], *start.ci95))
        groups.append((head if numbers.k > 1 else "", lines))
    title = f"{_capital(numbers.metric['name'])} with 95 % intervals"
    return plots.whiskers(f"score{index}", title, groups, heading(numbers.metric)) if cells else ""


def _gain_plot(numbers: Numbers, index: int, cells: Sequence[str], looks: dict[str, Look]) -> str:
    """Gains on groups that a cell was trained on, and on the others."""
    groups = []
    for head, of in (("trained on", numbers.trained), ("not trained on", numbers.untrained)):
        gains = {name: gain for name in cells if (gain := numbers.gain(name, of(name)))}
        lines = [Whisker(name, looks[name], [gain.mean], *gain.ci95) for name, gain in gains.items()]
        groups += [(head, lines)] if lines else []
    title = "Gains with 95 % intervals"
    label = f"gain, {points(numbers.metric)}".rstrip(", ")
    return plots.whiskers(f"gain{index}", title, groups, label, zero=True) if groups else ""


def _cost_plot(numbers: Numbers, index: int, cells: Sequence[str], looks: dict[str, Look]) -> str:
    """Score against training cost."""
    dots = [
        (cost, Whisker(name, looks[name], [estimate.mean], *estimate.ci95))
        for name in cells
        if (cost := numbers.mean_cost(name)) is not None and (estimate := numbers.score(name))
    ]
    start = numbers.start(cells[0]) if cells else None
    first, label = start.mean if start else None, heading(numbers.metric)
    return plots.against_cost(f"cost{index}", dots, first, numbers.unit, label) if dots else ""


def groups(numbers: Numbers) -> Json:
    """Score of every cell by level (or benchmark), and whether the cell was trained on it."""
    heads = numbers.groups if len(numbers.groups) > 1 else []
    rows = [
        (name, [(numbers.score(name, 1, [head]), head in numbers.trained(name)) for head in heads])
        for name in numbers.cells
        if heads and numbers.seeds(name)
    ]
    counts = [sum(numbers.group(numbers.answers[key]) == head for key in numbers.questions) for head in heads]
    return {"heads": heads, "counts": counts, "rows": rows}


def settings(numbers: Numbers) -> Json:
    """The settings shared by all cells, and those that differ. Seeds and run directories are omitted."""
    flat = {name: _flat(cell["settings"]) for name, cell in numbers.cells.items()}
    keys = sorted({key for flat_cell in flat.values() for key in flat_cell})
    own = {key for key in keys if len({flat_cell.get(key) for flat_cell in flat.values()}) > 1}
    shared = [(key, next(iter(flat.values()))[key]) for key in keys if key not in own]
    cells = []
    for name, cell in numbers.cells.items():
        terms = {
            "recipe": cell["recipe"],
            "starts from the model of": cell["model_of"],
            "selects data from the run of": cell["from_run"],
            "trained on levels": ", ".join(map(str, cell["trained_levels"] or ())),
        }
        follows = ("model", "revision") if cell["model_of"] else ()
        values = [(key, flat[name][key]) for key in sorted(own) if key in flat[name] and key not in follows]
        cells.append((name, [(term, value) for term, value in terms.items() if value], values))
    return {"shared": shared, "cells": cells}


_NOT_SHOWN = ("eval.before", "expect", "extends", "from_run", "reference", "controls", "train.seed")


def _flat(settings: Json) -> dict[str, str]:
    """Dotted keys and values as text, without unset ones."""
    flat = {}
    for key, value in leaves(settings):
        if value not in (None, {}, []) and not key.startswith(_NOT_SHOWN):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list) else text
    return flat
