"""The report's part on what was trained on: the first rows as the trainer saw them, counts and notes."""

from __future__ import annotations

from launchers.report.format import count
from launchers.report.results import Json, Results


def section(run: Results) -> list[Json]:
    """For each training: its name, counts in a line, notes, and its first rows as (text, has loss, is special)."""
    found = {"the recipe": run.object("train/tokens.json")} | {
        path.split("/")[1]: run.object(path) for path in run.paths("controls/*/train/tokens.json")
    }
    return [
        {"name": name, "said": _counts(one), "notes": one.get("notes", []), "shown": one["shown"]}
        for name, one in found.items()
        if one.get("shown")
    ]


def _counts(one: Json) -> str:
    counts = one["counts"]
    return (
        f"{one['trainer']}, template {one['template']}: {count(counts['sequences'])} sequences looked at, "
        f"{count(counts['tokens'])} tokens, {count(counts['trained'])} with loss; longest {count(counts['longest'])}, "
        f"{count(counts.get('cut', 0))} truncated at max_length."
    )
