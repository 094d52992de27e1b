"""Jinja with the two filters that keep values values: `yaml` for configs, `q` for shells.

Every value that a user can choose goes through one of them; undefined names are errors.
"""

from __future__ import annotations

import json
import os
import shlex
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launchers.envs import REPO

if TYPE_CHECKING:
    import jinja2


def yaml_value(value: Any) -> str:
    """A value as YAML flow text: JSON, which YAML 1.2 contains (numbers keep a form that YAML 1.1 reads too)."""
    if isinstance(value, float):
        text = repr(value)
        if "e" in text and "." not in text:  # YAML 1.1 takes 1e-05 for a word
            text = text.replace("e", ".0e")
        return text
    return json.dumps(value, ensure_ascii=False)


def shell_word(value: object) -> str:
    """A value as one word of POSIX shell."""
    return shlex.quote(str(value))


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Templates of shells and YAML; pages escape theirs in an overlay of it (launchers/report/page.py)."""
    import jinja2  # only what renders pays for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(REPO / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # shells and YAML, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(yaml=yaml_value, q=shell_word)
    return environment


def template(name: str) -> jinja2.Template:
    """A template below templates/."""
    return environment().get_template(name)


def write(path: Path, text: str, executable: bool = False) -> None:
    """Write a file whole or not at all; an unchanged file is left alone."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.chmod(0o755 if executable else 0o644)
    partial.replace(path)
