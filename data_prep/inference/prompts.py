"""Prompt templates in templates/prompts, rendered in Jinja's sandbox.

Subfolders contain the steps' requests to models (.j2). The files at top level (.txt) are system prompts or instructions
at the start of the user message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from data_prep.core.fingerprint import file_hash, value_hash
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.sources.tasks import PROMPTS

if TYPE_CHECKING:
    from jinja2 import Template

Head = Callable[[Row], str]


def render(name: str, **values: Any) -> str:
    """Render the prompt `folder/name` and strip blank lines around it. Raises DataError if Jinja cannot render it."""
    return filled(f"{name}.j2", values)


def filled(file: str, values: Mapping[str, Any]) -> str:
    """Render a file below templates/prompts in the same way."""
    from jinja2.exceptions import TemplateError

    try:
        return template(file).render(values).strip()
    except TemplateError as error:
        raise DataError(f"{PROMPTS / file}: {error}") from error


def content_hash(folder: str) -> str:
    """The hash of all prompts in a folder."""
    return value_hash({path.name: file_hash(path) for path in sorted((PROMPTS / folder).glob("*.j2"))})


@cache
def template(file: str) -> Template:
    """Load a file below templates/prompts. Raises DataError."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = PROMPTS / file
    try:
        return ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(path.read_text("utf-8"))
    except TemplateError as error:
        raise DataError(f"{path}: {error}") from error


def head(name: str | None) -> Head | None:
    """A function that renders a prompt with a row's `source` and `meta`. Raises DataError, at once if it is invalid."""
    if name is None:
        return None
    file = f"{name}.txt"
    template(file)
    return lambda row: filled(file, {"source": row["source"], "meta": row.get("meta", {})})


def put(row: Row, system: Head | None, instructions: Head | None = None) -> None:
    """Add the system prompt, unless the row has one, and the instructions to the row's messages."""
    if instructions:
        first = next(place for place, message in enumerate(row["prompt"]) if message["role"] != "system")
        message = row["prompt"][first]
        headed = {**message, "content": f"{instructions(row)}\n\n{message['content']}"}
        row["prompt"] = [*row["prompt"][:first], headed, *row["prompt"][first + 1 :]]
    if system and row["prompt"][0]["role"] != "system":
        row["prompt"] = [{"role": "system", "content": system(row)}, *row["prompt"]]
