"""The prompts of templates/prompts in front of a question: as a system prompt, or at the head of the user's message."""

from __future__ import annotations

from collections.abc import Callable

from data_prep.core.step import Row
from data_prep.inference import prompts

Render = Callable[[Row], str]


def renderer(name: str | None) -> Render | None:
    """Renders a prompt with the row's `source` and `meta`. Raises DataError, at once where the prompt is at fault."""
    if name is None:
        return None
    file = f"{name}.txt"
    prompts.template(file)
    return lambda row: prompts.filled(file, {"source": row["source"], "meta": row.get("meta", {})})


def ask(row: Row, system: Render | None, instructions: Render | None) -> None:
    """Put both where they belong. A system prompt that the row has already stays."""
    if instructions:
        first = next(place for place, message in enumerate(row["prompt"]) if message["role"] != "system")
        message = row["prompt"][first]
        headed = {**message, "content": f"{instructions(row)}\n\n{message['content']}"}
        row["prompt"] = [*row["prompt"][:first], headed, *row["prompt"][first + 1 :]]
    if system and row["prompt"][0]["role"] != "system":
        row["prompt"] = [{"role": "system", "content": system(row)}, *row["prompt"]]
