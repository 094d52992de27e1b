"""The report's part on what was trained on: the first rows as the trainer saw them, counts and notes."""

from __future__ import annotations

from launchers.report.results import Json, Results


def section(run: Results) -> list[Json]:
    """For each training: its name, and its tokens.json with counts and the first rows."""
    return [
        {"name": name or "the recipe", "inspected": inspected}
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
