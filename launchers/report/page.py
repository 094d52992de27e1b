"""Writes a run's `report.html`, a self-contained page without scripts.

    python -m launchers report runs/min_o1/sft_short/<time>-<hash>

It reads only the run directory. An unfinished run gets a page that says what is missing. Output is deterministic.
Names, prompts and completions are untrusted text: the template escapes them, and the page's content security policy
forbids scripts and network access.
"""

import json
from pathlib import Path
from typing import Any

from data_prep.core.files import write_atomic
from launchers.recipe.compose import shown
from launchers.render import environment
from launchers.report import format as figures
from launchers.report import plots
from launchers.report.format import count
from launchers.report.plots import Whisker
from launchers.report.results import Json, Results
from launchers.report.sections import data as report_data
from launchers.report.sections import online as report_online
from launchers.report.sections import rollouts as report_rollouts
from launchers.report.sections import training as report_training
from launchers.report.verdict import verdict, within

TEXT_LIMIT = 6000  # characters of a prompt or completion that the page contains
OPEN_LIMIT = 400  # characters shown before the text is expanded


def build(run_dir: Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises FileNotFoundError if there is no such directory.
    """
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir}: no such run directory")
    return write_page(run_dir, from_template("report.html.j2", page(Results(run_dir))))


def write_page(folder: Path, text: str) -> Path:
    """Write a page to `report.html` in a folder; returns its path."""
    path = folder / "report.html"
    write_atomic(path, [text.encode("utf-8", errors="replace")])
    return path


def from_template(name: str, values: Json) -> str:
    """Render a page template with escaping. Missing values are empty."""
    from jinja2 import ChainableUndefined  # imported here: slow, and only rendering needs it

    pages = environment().overlay(
        autoescape=True, finalize=figures.visible, keep_trailing_newline=False, undefined=ChainableUndefined
    )
    pages.filters.update(figures.FILTERS, shown=lambda path: shown(Path(path)), folded=folded)
    return pages.get_template(name).render(values) + "\n"


def page(run: Results) -> Json:
    """The template's values, including plots."""
    family, name = run.plan.get("family"), run.run.get("recipe") or run.plan.get("recipe") or run.dir.name
    parts: Json = {
        "name": name if not family or "/" in name else f"{family}/{name}",
        "scale": run.scale,
        "comparable": run.comparable,
        "verdict": verdict(run).replace(" %", "\u00a0%"),
        "within": within(run),
        "tiles": tiles(run),
        "run": run.run,
        "recipe": run.recipe,
        "plan": run.plan,
        **steps(run),
        "pipelines": {name: report_data.funnel(steps) for name, steps in run.pipelines.items()},
        "difficulties": {name: report_data.difficulty(steps) for name, steps in run.pipelines.items()},
        "spreads": report_data.spreads(run),
        "tokens": report_data.tokens(run),
        "look": run.look,
        "training": report_training.section(run),
        "online": report_online.section(run),
        "tasks": {t: [(n, r) for n in run.evals if (r := run.result(n, t))] for t in run.tasks},
        "eval_plots": eval_plots(run),
        "metric": run.metric,
        "decodings": decodings(run),
        "published": published(run),
        "comparisons": run.comparisons,
        "difference_plots": difference_plots(run),
        "levels": levels(run),
        "samples": samples(run),
        "rollouts": report_rollouts.section(run),
        "times": times(run),
        "versions": versions(run),
        "notes": [*report_online.notes(run), *report_data.notes(run), *run.notes],
    }
    log = parts["training"] or parts["online"]
    sources = {"data": parts["pipelines"], "a training log": log, "an evaluation": parts["tasks"]}
    parts["missing"] = [what for what, content in {**sources, "timings": parts["times"]}.items() if not content]
    return parts


def tiles(run: Results) -> list[tuple[str, str, str, Json, float | None]]:
    """(head, label, task, result, mean before) of the tiles at the top: all evaluations if there is one task, else the
    last evaluation of each task."""
    if len(run.tasks) == 1:
        task = run.tasks[0]
        tiles_of = [(name, name, task, run.result(name, task), None) for name in run.evals]
    else:
        last = "after" if "after" in run.evals else next(iter(run.evals), "")
        before = "before" if last == "after" else ""
        tiles_of = [(t, last, t, run.result(last, t), run.result(before, t).get("mean")) for t in run.tasks]
    return [tile for tile in tiles_of if tile[3]]


def steps(run: Results) -> Json:
    """Planned and finished steps; None if unknown."""
    online, planned = run.online.get("train"), (run.plan.get("steps") or {}).get("planned")
    done = run.losses["train"][-1][0] if "train" in run.losses else online and online.last
    return {
        "rolls_out": online is not None,
        "steps_planned": (online and online.planned) or planned,
        "steps_done": done,
    }


def decodings(run: Results) -> list[tuple[list[str], str]]:
    """Evaluations grouped by sampling parameters: (labels, parameters as text)."""
    labels_by_text: dict[str, list[str]] = {}
    for name, evaluation in run.evals.items():
        if settings := evaluation.get("decoding"):
            labels_by_text.setdefault(", ".join(f"{k} {v}" for k, v in settings.items()), []).append(name)
    return [(labels, settings) for settings, labels in labels_by_text.items()]


def eval_plots(run: Results) -> list[str]:
    """One plot per metric: means with intervals, a group per task, a line per evaluation, one for published results."""
    groups: dict[str, list[tuple[str, list[Whisker]]]] = {}
    for task in run.tasks:
        lines = [_whisker(run, name, r) for name in run.evals if (r := run.result(name, task))]
        others = [row["values"].get(task) for row in published(run) if not row["ours"]] if run.comparable else []
        if known := [value for value in others if value is not None]:
            lines.append(Whisker("published", plots.PUBLISHED, known))
        group = (task if len(run.tasks) > 1 else "", lines)
        groups.setdefault(figures.heading(run.metric(task)), []).append(group)
    return [
        plots.whiskers(f"accuracy{i}", f"{head}: means with 95 % intervals", own, head)
        for i, (head, own) in enumerate(groups.items())
    ]


def _whisker(run: Results, name: str, result: Json) -> Whisker:
    return Whisker(name, run.look(name), [result["mean"]], *(result.get("ci95") or ()))


def published(run: Results) -> list[Json]:
    """Results by task of this run, of the original (`expect`) and of other systems; [] without published results."""
    theirs = {"expected of this recipe": run.recipe.get("expect"), **(run.recipe.get("reference") or {})}
    rows = [{"name": name, "ours": False, "values": values} for name, values in theirs.items() if values]
    if rows and "after" in run.evals:
        ours = {task: run.result("after", task).get("mean") for task in run.tasks}
        rows.insert(0, {"name": "this run, after", "ours": True, "values": ours})
    return rows


def difference_plots(run: Results) -> list[str]:
    """One plot per unit: paired differences with intervals."""
    groups: dict[str, dict[str, list[Whisker]]] = {}
    for c in run.comparisons:
        pair = f"{c['a']} − {c['b']}"
        head, name = (pair, c["task"]) if len(run.tasks) > 1 else ("", pair)
        unit = "points" if c["metric"]["unit"] == "%" else figures.heading(c["metric"])
        whisker = Whisker(name, run.look(c["b"]), [c["difference"]], *c["ci95"])
        groups.setdefault(unit, {}).setdefault(head, []).append(whisker)
    title = "Paired differences with 95 % intervals"
    return [
        plots.whiskers(f"difference{i}", title, list(own.items()), f"difference, {unit}", zero=True)
        for i, (unit, own) in enumerate(groups.items())
    ]


def levels(run: Results) -> list[Json]:
    """For each task with levels: a plot and a table of accuracy by level and evaluation."""
    levels_of_tasks = []
    for i, task in enumerate(run.tasks):
        by = {n: table for n in run.evals if (table := (run.result(n, task).get("by") or {}).get("level"))}
        rows, groups = [], []
        for level in dict.fromkeys(level for table in by.values() for level in table):
            results = {name: table.get(level) for name, table in by.items()}
            rows.append((level, max(r["prompts"] for r in results.values() if r), list(results.values())))
            whiskers = [_whisker(run, name, r) for name, r in results.items() if r]
            groups.append((f"level {level}", whiskers))
        if rows:
            plot = plots.whiskers(f"level{i}", f"Accuracy on {task} by level", groups, "accuracy, %")
            levels_of_tasks.append({"task": task, "plot": plot, "labels": list(by), "rows": rows})
    return levels_of_tasks


def samples(run: Results) -> list[Json]:
    """Scored rows of the last evaluation."""
    label = "after" if run.paths("eval/after.samples.jsonl") else next(reversed(run.evals), "")
    rows = []
    for row in run.lines(f"eval/{label}.samples.jsonl"):
        right = isinstance(score := row.get("score"), int | float) and score >= 1
        messages = [message for message in row.get("prompt") or [] if isinstance(message, dict)]
        rows.append({**row, "label": label, "right": right, "prompt": messages})
    return rows


def folded(value: Any) -> tuple[str, str]:
    """(text shown, full text up to TEXT_LIMIT or "" if it is all shown)."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= OPEN_LIMIT + 100:
        return text, ""
    more = f"\n… {count(len(text) - TEXT_LIMIT)} more characters" if len(text) > TEXT_LIMIT else ""
    return text[:OPEN_LIMIT] + " …", text[:TEXT_LIMIT] + more


def times(run: Results) -> list[Json]:
    """Seconds (summed over attempts) and peak memory of each phase, and the last attempt's error if it failed."""
    phases: dict[str, Json] = {}
    empty = {"seconds": None, "peak": None, "started": 0, "ended": 0, "error": None}
    for event in run.events:
        if event.get("event") not in ("phase_start", "phase_end"):
            continue
        name = " · ".join(str(part) for part in (event.get("phase"), event.get("label")) if part)
        phase = phases.setdefault(name, {"name": name, **empty})
        if event["event"] == "phase_start":
            phase["started"] += 1
        else:
            phase["ended"] += 1
            phase["error"] = event.get("error")
            phase["seconds"] = (phase["seconds"] or 0) + (event.get("seconds") or 0)
            phase["peak"] = max(phase["peak"] or 0, event.get("peak_rss_mb") or 0) or None
    longest = max((phase["seconds"] or 0 for phase in phases.values()), default=0) or 1
    return [{**phase, "width": round(100 * (phase["seconds"] or 0) / longest, 2)} for phase in phases.values()]


def versions(run: Results) -> list[tuple[str, str]]:
    """Distinct package versions of the run and its evaluations."""
    pairs = {
        (f"{name} ({env})", str(value))
        for env, table in (run.run.get("versions") or {}).items()
        for name, value in table.items()
    }
    known = (e.get("versions") or {} for e in run.evals.values())
    pairs |= {(str(name), str(value)) for table in known for name, value in table.items() if value}
    return sorted(pairs, key=lambda pair: (pair[0].lower(), pair[1]))
