"""The first sentences of a report: how each benchmark's metric and the answers' lengths changed."""

from __future__ import annotations

from launchers.report.format import ACCURACY, measured, number, points, signed, span
from launchers.report.results import Json, Results

WORTH_TELLING = 2.0  # percent of length


def verdict(run: Results) -> str:
    """After training against before and against the controls, with 95 % intervals, and lengths where they changed."""
    after = {task: result for task in run.tasks if (result := run.result("after", task))}
    if not after:
        return "Nothing has been evaluated after training, so there is no result yet."
    comparisons = {c["task"]: c for c in run.comparisons if (c["a"], c["b"]) == ("after", "before")}
    changes = {task: comparisons[task] for task in after if task in comparisons}
    if len(after) > 1 and changes:
        return _of_many(changes) + _lengths(changes)
    task, result = next(iter(after.items()))
    if task not in changes:
        scores = [
            f"{_named(r)}{measured(r['mean'], r.get('metric'))} on {name} ({span(r['ci95'], r.get('metric'))})"
            for name, r in after.items()
        ]
        if run.plan.get("trains") is False:
            return f"The model as it is: {', '.join(scores)}."
        return f"After training: {', '.join(scores)}; no evaluation before it to compare with."
    change = changes[task]
    verb = {1: "rose", -1: "fell", 0: "did not measurably change"}[_sign(change)]
    before = run.result("before", task).get("mean")
    metric = result.get("metric") or ACCURACY
    name = f"{metric['name'][0].upper()}{metric['name'][1:]}"
    controls = [c for c in run.comparisons if (c["a"], c["task"]) == ("after", task) and c != change]
    return (
        f"{name} on {task} {verb}, from {measured(before, metric)} to {measured(result['mean'], metric)}: "
        f"{_amount(change)} (95 % interval {span(change['ci95'], metric)})"
        f"{''.join(f'; {_against(c)}' for c in controls)}.{_lengths(changes)}"
    )


def _named(result: Json) -> str:
    """What is measured, where it is not accuracy."""
    name = (result.get("metric") or ACCURACY)["name"]
    return "" if name == "accuracy" else f"{name} "


def _amount(c: Json) -> str:
    """A difference with its unit: +3.2 points."""
    return f"{signed(c['difference'], c.get('metric'))} {points(c.get('metric'))}".strip()


def _against(c: Json) -> str:
    interval = span(c["ci95"], c.get("metric"))
    if not _sign(c):
        return f"not distinguishable from the control {c['b']} ({signed(c['difference'], c.get('metric'))}, {interval})"
    side = "above" if c["difference"] > 0 else "below"
    return f"{_amount({**c, 'difference': abs(c['difference'])}).lstrip('+')} {side} the control {c['b']} ({interval})"


def _of_many(changes: dict[str, Json]) -> str:
    parts = []
    for sign, word in {1: "rose on", -1: "fell on", 0: "did not measurably change on"}.items():
        if tasks := [f"{t} ({_named(c)}{_amount(c)})" for t, c in changes.items() if _sign(c) == sign]:
            parts.append(f"{word} {', '.join(tasks)}")
    names = {(c.get("metric") or ACCURACY)["name"] for c in changes.values()}
    what = "Accuracy" if names == {"accuracy"} else "The score"
    return f"{what} {'; '.join(parts)}; a change counts when its 95 % interval excludes zero."


def _sign(change: Json) -> int:
    low, high = change["ci95"]
    return int(low > 0) - int(high < 0)


def _lengths(changes: dict[str, Json]) -> str:
    """The change of the answers' lengths, where there is one to report."""
    sentences = []
    for task, change in changes.items():
        tokens = change.get("tokens")
        if tokens and _sign(tokens) and abs(tokens["change"]) >= WORTH_TELLING:
            side, (low, high) = ("shorter", "longer")[tokens["change"] > 0], sorted(abs(end) for end in tokens["ci95"])
            where = f" on {task}" if len(changes) > 1 else ""
            sentences.append(f"{number(abs(tokens['change']))} % {side}{where} ({number(low)} to {number(high)})")
    return f" Answers are {', '.join(sentences)}." if sentences else ""


def metric(run: Results, task: str) -> Json:
    """What a benchmark measures: name, unit, direction."""
    metric_record = next((r["metric"] for n in run.evals if "metric" in (r := run.result(n, task))), None)
    return metric_record or ACCURACY


def within(run: Results) -> list[str]:
    """For each benchmark with an expected number, whether it lies within this run's 95 % interval."""
    lines = []
    for task, value in (run.recipe.get("expect") or {}).items():
        result = run.result("after", task)
        if result and run.comparable:
            low, high = result["ci95"]
            side = "within" if low <= value <= high else "below" if value < low else "above"
            published = measured(value, kind := metric(run, task))
            interval = f"the 95 % interval of this run ({span(result['ci95'], kind)})"
            lines.append(f"{task}: the published {published} lies {side} {interval}")
    return lines
