"""Prompts: templates in templates/prompts, rendered in Jinja's sandbox.

Those of its folders (.j2) are what steps ask a model with, those beside them (.txt) stand before questions, as a system
prompt or at the head of the user's message.
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
    """The prompt `folder/name`, without blank lines around it. Raises DataError for one that Jinja cannot render."""
    return filled(f"{name}.j2", values)


def filled(file: str, values: Mapping[str, Any]) -> str:
    """A file below templates/prompts, likewise."""
    from jinja2.exceptions import TemplateError

    try:
        return template(file).render(values).strip()
    except TemplateError as error:
        raise DataError(f"{PROMPTS / file}: {error}") from error


def content_hash(folder: str) -> str:
    """Of all prompts of a folder together."""
    return value_hash({path.name: file_hash(path) for path in sorted((PROMPTS / folder).glob("*.j2"))})


@cache
def template(file: str) -> Template:
    """A file below templates/prompts, read. Raises DataError."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = PROMPTS / file
    try:
        return ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(path.read_text("utf-8"))
    except TemplateError as error:
        raise DataError(f"{path}: {error}") from error


def head(name: str | None) -> Head | None:
    """Renders a prompt with the row's `source` and `meta`. Raises DataError, at once where the prompt is at fault."""
    if name is None:
        return None
    file = f"{name}.txt"
    template(file)
    return lambda row: filled(file, {"source": row["source"], "meta": row.get("meta", {})})


def put(row: Row, system: Head | None, instructions: Head | None = None) -> None:
    """Put both where they belong. A system prompt that the row has already stays."""
    if instructions:
        first = next(place for place, message in enumerate(row["prompt"]) if message["role"] != "system")
        message = row["prompt"][first]
        headed = {**message, "content": f"{instructions(row)}\n\n{message['content']}"}
        row["prompt"] = [*row["prompt"][:first], headed, *row["prompt"][first + 1 :]]
    if system and row["prompt"][0]["role"] != "system":
        row["prompt"] = [{"role": "system", "content": system(row)}, *row["prompt"]]
