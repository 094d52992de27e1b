"""Jinja with two escaping filters: `yaml` for configs, `q` for shell words.

Every user-supplied value must go through one of them. Undefined names are errors.
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
    """A value as YAML: JSON is a subset of YAML 1.2; floats are written so that YAML 1.1 parsers read numbers too."""
    if isinstance(value, float):
        text = repr(value)
        if "e" in text and "." not in text:  # YAML 1.1 reads 1e-05 as a string
            text = text.replace("e", ".0e")
        return text
    return json.dumps(value, ensure_ascii=False)


def shell_word(value: object) -> str:
    """A value quoted as one POSIX shell word."""
    return shlex.quote(str(value))


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The environment for shell and YAML templates; HTML pages use an escaping overlay (launchers/report/page.py)."""
    import jinja2  # imported here: slow, and only rendering needs it

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
    """A template in templates/."""
    return environment().get_template(name)


def write(path: Path, text: str, executable: bool = False) -> None:
    """Write a file atomically; an unchanged file is not touched."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.chmod(0o755 if executable else 0o644)
    partial.replace(path)
