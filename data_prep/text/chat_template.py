"""A model's chat template as text, without transformers."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ChatTemplate:
    """The chat template in a Hugging Face folder. Raises ValueError where there is none, OSError."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        given = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        self.tokens = {name: text.get("content") if isinstance(text, dict) else text for name, text in given.items()}
        self._template = _environment().from_string(_template(folder, config))

    def render(self, chat: Sequence[Mapping[str, str]], ask: bool = False) -> str:
        """A conversation as text; `ask` opens the assistant's turn. Raises jinja2's TemplateError."""
        known = {name: text for name, text in self.tokens.items() if text is not None}
        return self._template.render(messages=list(chat), add_generation_prompt=ask, **known)


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if isinstance(template, list):  # named templates
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ValueError(no_template(str(folder)))
    return template


def no_template(model: str) -> str:
    """What to do about a model without a chat template."""
    return (
        f"{model} has no chat template: put chat_template.jinja into a copy of it and name that folder as `model`, or "
        "take its instruct model"
    )


def _environment() -> ImmutableSandboxedEnvironment:
    """What transformers gives a chat template: it comes with a model, and is not trusted."""

    def refuse(message: str) -> str:
        raise jinja2.exceptions.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment
