"""What belongs to a model beside its weights: sizes and chat template, from configs/models.yaml or its own files."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from launchers.envs import REPO
from launchers.recipe import positions as yaml_tree


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, Any]]:
    """configs/models.yaml: `models` by id, `families` and `marks` for the chat templates of others."""
    loaded: dict[str, dict[str, Any]] = yaml_tree.load(REPO / "configs" / "models.yaml", "configs/models.yaml").plain()
    return loaded


def known(model: str) -> dict[str, Any]:
    """The catalogue's entry of a model, empty where it has none."""
    entry: dict[str, Any] = catalogue()["models"].get(model) or {}
    return entry


def positions(model: str) -> int | None:
    """Tokens that the model has positions for, from its config.json or the catalogue; None where nothing says it."""
    config = Path(model) / "config.json"
    if not config.is_file():
        return known(model).get("positions")
    read = json.loads(config.read_text())
    return read.get("text_config", read).get("max_position_embeddings")  # type: ignore[no-any-return]


def template(model: str) -> str | None:
    """The name of a model's chat template, or None where nothing says it.

    A local folder is recognised by the template of its own tokenizer, a Hub id by the catalogue or its family's name.
    """
    if Path(model).is_dir():
        text = own_template(model)
        return next((name for mark, name in catalogue()["marks"].items() if mark in text), None)
    if named := known(model).get("template"):
        return str(named)
    name = model.rpartition("/")[2]
    fitting = [start for start in catalogue()["families"] if name.lower().startswith(start.lower())]
    return str(catalogue()["families"][max(fitting, key=len)]) if fitting else None


def own_template(model: str) -> str:
    """The chat template that lies in a model's folder, as text; empty where there is none."""
    folder = Path(model)
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text()
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return ""
    return json.dumps(json.loads(config.read_text()).get("chat_template") or "", ensure_ascii=False)
