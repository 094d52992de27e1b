"""Prompts: templates in templates/prompts, rendered in Jinja's sandbox.

Those of its folders (.j2) are what steps ask a model with, those beside them (.txt) stand before questions
(`data_prep/steps/asking.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from data_prep.core.fingerprint import file_hash, value_hash
from data_prep.errors import DataError
from data_prep.sources.tasks import PROMPTS

if TYPE_CHECKING:
    from jinja2 import Template


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
