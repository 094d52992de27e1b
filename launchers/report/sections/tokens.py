"""The report's part on what was trained on: the first rows as the trainer saw them, counts and notes."""

from __future__ import annotations

from launchers.report.format import count
from launchers.report.results import Json, Results


def section(run: Results) -> list[Json]:
    """For each training: its name, counts in a line, and its first rows as (text, has loss, is special)."""
    return [
        {"name": name or "the recipe", "counts": _counts(inspected), "shown": inspected["shown"]}
        for name, inspected in _inspected(run).items()
        if inspected.get("shown")
    ]


def notes(run: Results) -> list[str]:
    """What is to be known of the rows, such as a system prompt that evaluation asks without."""
    return [
        f"{name}: {note}" if name else note
        for name, inspected in _inspected(run).items()
        for note in inspected.get("notes", [])
    ]


def _inspected(run: Results) -> dict[str, Json]:
    """tokens.json of the recipe's training ("") and of each control."""
    controls = {path.split("/")[1]: run.object(path) for path in run.paths("controls/*/train/tokens.json")}
    return {"": run.object("train/tokens.json")} | controls


def _counts(row: Json) -> str:
    counts = row["counts"]
    left = f"{count(counts.get('cut', 0))} truncated at max_length."
    if (long := counts.get("too_long")) is not None:  # prompts of online RL
        left = f"{count(long)} over data.max_prompt_length, which are left out."
    return (
        f"{row['trainer']}, template {row['template']}: {count(counts['sequences'])} sequences inspected, "
        f"{count(counts['tokens'])} tokens, {count(counts['trained'])} with loss; longest {count(counts['longest'])}, "
        f"{left}"
    )
