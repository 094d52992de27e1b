"""The first sentences of a report: what became of accuracy and of the answers' lengths."""

from __future__ import annotations

from launchers.report.format import number, signed, span
from launchers.report.results import Json, Results

WORTH_TELLING = 2.0  # percent of length


def verdict(run: Results) -> str:
    """Accuracy after against before and against the controls, with 95 % intervals, and lengths where they changed."""
    after = {task: result for task in run.tasks if (result := run.result("after", task))}
    if not after:
        return "Nothing has been evaluated after training, so there is no result yet."
    found = {c["task"]: c for c in run.comparisons if (c["a"], c["b"]) == ("after", "before")}
    changes = {task: found[task] for task in after if task in found}
    if len(after) > 1 and changes:
        return _of_many(changes) + _lengths(changes)
    task, result = next(iter(after.items()))
    if task not in changes:
        scores = [f"{number(r['mean'])} % on {t} ({span(r['ci95'])})" for t, r in after.items()]
        return f"After training: {', '.join(scores)}; no evaluation before it to compare with."
    change = changes[task]
    verb = {1: "rose", -1: "fell", 0: "did not measurably change"}[_sign(change)]
    before = run.result("before", task).get("mean")
    controls = [c for c in run.comparisons if (c["a"], c["task"]) == ("after", task) and c != change]
    return (
        f"Accuracy on {task} {verb}, from {number(before)} % to {number(result['mean'])} %: "
        f"{signed(change['difference'])} points (95 % interval {span(change['ci95'])})"
        f"{''.join(f'; {_against(c)}' for c in controls)}.{_lengths(changes)}"
    )


def _against(c: Json) -> str:
    if not _sign(c):
        return f"not distinguishable from the control {c['b']} ({signed(c['difference'])}, {span(c['ci95'])})"
    side = "above" if c["difference"] > 0 else "below"
    return f"{number(abs(c['difference']))} points {side} the control {c['b']} ({span(c['ci95'])})"


def _of_many(changes: dict[str, Json]) -> str:
    words = {1: "rose on", -1: "fell on", 0: "did not measurably change on"}
    parts = []
    for sign, word in words.items():
        tasks = [f"{t} ({signed(c['difference'])})" for t, c in changes.items() if _sign(c) == sign]
        parts += [f"{word} {', '.join(tasks)}"] if tasks else []
    return f"Accuracy {'; '.join(parts)}, in points; a change counts when its 95 % interval excludes zero."


def _sign(change: Json) -> int:
    low, high = change["ci95"]
    return int(low > 0) - int(high < 0)


def _lengths(changes: dict[str, Json]) -> str:
    """What became of the answers' lengths, where that is worth telling."""
    told = []
    for task, change in changes.items():
        tokens = change.get("tokens")
        if tokens and _sign(tokens) and abs(tokens["change"]) >= WORTH_TELLING:
            side, (low, high) = ("shorter", "longer")[tokens["change"] > 0], sorted(abs(end) for end in tokens["ci95"])
            where = f" on {task}" if len(changes) > 1 else ""
            told.append(f"{number(abs(tokens['change']))} % {side}{where} ({number(low)} to {number(high)})")
    return f" Answers are {', '.join(told)}." if told else ""
