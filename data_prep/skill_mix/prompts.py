"""The prompts of templates/prompts/skill_mix, rendered in Jinja's sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from data_prep.errors import DataError
from data_prep.fingerprint import file_hash, value_hash
from data_prep.skill_mix.signatures import Language
from data_prep.step import Row
from data_prep.tasks import PROMPTS

if TYPE_CHECKING:
    from jinja2 import Template

Style = Literal["direct", "cot"]

FOLDER = PROMPTS / "skill_mix"
WORDS: Mapping[str, Mapping[str, str]] = {
    "python": {"language": "Python", "fence": "python", "include": "import"},
    "cpp": {"language": "C++17", "fence": "cpp", "include": "#include"},
}


def render(name: str, language: Language, **values: Any) -> str:
    """The prompt of that name, without blank lines around it."""
    return _template(name).render(**WORDS[language], **values).strip()


def chat(style: Style, language: Language, statement: str, signature: str, docstring: str) -> list[Row]:
    """A question as it is asked: how to answer as the system's message, the question itself as the user's."""
    asked = render("question", language, statement=statement, signature=signature, docstring=docstring)
    return [{"role": "system", "content": render(style, language)}, {"role": "user", "content": asked}]


def content_hash() -> str:
    """Of all prompts together."""
    return value_hash({path.name: file_hash(path) for path in sorted(FOLDER.glob("*.j2"))})


@cache
def _template(name: str) -> Template:
    from jinja2 import StrictUndefined
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = FOLDER / f"{name}.j2"
    try:
        return ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(path.read_text("utf-8"))
    except TemplateError as error:
        raise DataError(f"{path}: {error}") from error
