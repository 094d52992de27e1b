"""The prompts of templates/prompts/skill_mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from data_prep.core.step import Row
from data_prep.families.skill_mix.signatures import Language
from data_prep.inference import prompts

Style = Literal["direct", "cot"]

WORDS: Mapping[str, Mapping[str, str]] = {
    "python": {"language": "Python", "fence": "python", "include": "import"},
    "cpp": {"language": "C++17", "fence": "cpp", "include": "#include"},
}


def render(name: str, language: Language, **values: Any) -> str:
    """The prompt of that name, without blank lines around it."""
    return prompts.render(f"skill_mix/{name}", **WORDS[language], **values)


def chat(style: Style, language: Language, statement: str, signature: str, docstring: str) -> list[Row]:
    """A question as it is asked: how to answer as the system's message, the question itself as the user's."""
    asked = render("question", language, statement=statement, signature=signature, docstring=docstring)
    return [{"role": "system", "content": render(style, language)}, {"role": "user", "content": asked}]


def content_hash() -> str:
    """Of all prompts together."""
    return prompts.content_hash("skill_mix")
