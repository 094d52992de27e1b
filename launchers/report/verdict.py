"""The report's verdict: how each benchmark's metric and the answer lengths changed."""

from launchers.report.format import Metric, change, measured, number, sign, signed, span
from launchers.report.results import Json, Results

MIN_LENGTH_CHANGE = 2.0  # percent; smaller changes are not reported


def verdict(run: Results) -> str:
    """After training compared with before and with the controls, with 95 % intervals, and changes of length."""
    after = {task: result for task in run.tasks if (result := run.result("after", task))}
    if not after:
        return "Nothing has been evaluated after training, so there is no result yet."
    comparisons = {c["task"]: c for c in run.comparisons if (c["a"], c["b"]) == ("after", "before")}
    changes = {task: comparisons[task] for task in after if task in comparisons}
    if len(after) > 1 and changes:
        return _of_many(changes) + _lengths(changes)
    task, result = next(iter(after.items()))
    if task not in changes:
        kinds = {name: run.metric(name) for name in after}
        scores = [
            f"{_named(kinds[name])}{measured(r['mean'], kinds[name])} on {name} ({span(r['ci95'], kinds[name])})"
            for name, r in after.items()
        ]
        if run.plan.get("trains") is False:
            return f"The model without training: {', '.join(scores)}."
        return f"After training: {', '.join(scores)}; there is no evaluation before training to compare with."
    difference = changes[task]
    verb = {1: "rose", -1: "fell", 0: "did not measurably change"}[sign(difference["ci95"])]
    before = run.result("before", task).get("mean")
    metric = run.metric(task)
    name = f"{metric['name'][0].upper()}{metric['name'][1:]}"
    controls = [c for c in run.comparisons if (c["a"], c["task"]) == ("after", task) and c != difference]
    return (
        f"{name} on {task} {verb}, from {measured(before, metric)} to {measured(result['mean'], metric)}: "
        f"{change(difference['difference'], metric)} (95 % interval {span(difference['ci95'], metric)})"
        f"{''.join(f'; {_against(c)}' for c in controls)}.{_lengths(changes)}"
    )


def _named(metric: Metric) -> str:
    """The metric's name, unless it is accuracy."""
    return "" if metric["name"] == "accuracy" else f"{metric['name']} "


def _against(c: Json) -> str:
    interval = span(c["ci95"], c["metric"])
    if not sign(c["ci95"]):
        return f"not distinguishable from the control {c['b']} ({signed(c['difference'], c['metric'])}, {interval})"
    side = "above" if c["difference"] > 0 else "below"
    amount = change(abs(c["difference"]), c["metric"]).removeprefix("+")
    return f"{amount} {side} the control {c['b']} ({interval})"


def _of_many(changes: dict[str, Json]) -> str:
    parts = []
    for side, word in {1: "rose on", -1: "fell on", 0: "did not measurably change on"}.items():
        alike = {task: c for task, c in changes.items() if sign(c["ci95"]) == side}
        if tasks := [f"{t} ({_named(c['metric'])}{change(c['difference'], c['metric'])})" for t, c in alike.items()]:
            parts.append(f"{word} {', '.join(tasks)}")
    names = {c["metric"]["name"] for c in changes.values()}
    what = "Accuracy" if names == {"accuracy"} else "The score"
    return f"{what} {'; '.join(parts)}; a change counts if its 95 % interval excludes zero."


def _lengths(changes: dict[str, Json]) -> str:
    """Significant changes of the answer lengths."""
    sentences = []
    for task, difference in changes.items():
        tokens = difference.get("tokens")
        if tokens and sign(tokens["ci95"]) and abs(tokens["change"]) >= MIN_LENGTH_CHANGE:
            side, (low, high) = ("shorter", "longer")[tokens["change"] > 0], sorted(abs(end) for end in tokens["ci95"])
            where = f" on {task}" if len(changes) > 1 else ""
            sentences.append(f"{number(abs(tokens['change']))} % {side}{where} ({number(low)} to {number(high)})")
    return f" Answers are {', '.join(sentences)}." if sentences else ""


def within(run: Results) -> list[str]:
    """For each benchmark with a published result, whether that is within this run's 95 % interval."""
    lines = []
    for task, value in (run.recipe.get("expect") or {}).items():
        result = run.result("after", task)
        if result and run.comparable:
            low, high = result["ci95"]
            side = "within" if low <= value <= high else "below" if value < low else "above"
            interval = f"the 95 % interval of this run ({span(result['ci95'], run.metric(task))})"
            lines.append(f"{task}: the published {measured(value, run.metric(task))} is {side} {interval}")
    return lines
