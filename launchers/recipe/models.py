"""A model's sizes, maximum length and chat template, from configs/models.yaml or its own files."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from launchers.envs import REPO
from launchers.errors import fail
from launchers.recipe import positions as yaml_tree

# Keys of config.json that estimates use.
SIZES = frozenset({"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
                   "max_position_embeddings"})  # fmt: skip


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, Any]]:
    """configs/models.yaml: `models` by id; `families` and `marks` identify the chat templates of other models."""
    return dict(yaml_tree.load(REPO / "configs" / "models.yaml", "configs/models.yaml").plain())


def known(model: str) -> dict[str, Any]:
    """The catalogue entry of a model; empty if there is none."""
    return catalogue()["models"].get(model) or {}


def folder(model: str, revision: str | None = None) -> Path | None:
    """The local folder with a model's config.json (its own folder or the Hub cache); None if there is none."""
    if Path(model).is_dir():
        return Path(model) if (Path(model) / "config.json").is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:  # a path to nothing
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises UserError if it cannot be read or a size in it is a string."""
    file = folder / "config.json"
    config = _read_object(file)
    language = text_config(config)
    if not isinstance(language, dict):
        raise fail(f"text_config must be an object, not {language!r}", str(file))
    for key in SIZES:
        if isinstance(value := language.get(key), str):
            raise fail(f"{key} must be a number, not {value!r}", str(file))
    return config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a config."""
    return config.get("text_config") or config


def positions(model: str, revision: str | None = None) -> int | None:
    """The model's maximum sequence length, from the catalogue or its config.json; None if unknown."""
    if entry := known(model):
        return entry.get("positions")
    place = folder(model, revision)
    return text_config(read_config(place)).get("max_position_embeddings") if place else None


def template(model: str, revision: str | None = None) -> str | None:
    """The name of a model's chat template; None if unknown.

    A local folder is identified by its tokenizer's chat template, a Hub id by the catalogue, its family's name, or the
    tokenizer in the Hub cache.
    """
    if not Path(model).is_dir():
        if named := known(model).get("template"):
            return str(named)
        name = model.rpartition("/")[2]
        fitting = [start for start in catalogue()["families"] if name.lower().startswith(start.lower())]
        if fitting:
            return str(catalogue()["families"][max(fitting, key=len)])
    text = own_template(model, revision)
    return next((name for mark, name in catalogue()["marks"].items() if mark in text), None)


def own_template(model: str, revision: str | None = None) -> str:
    """The text of the chat template in a model's folder; empty if there is none."""
    place = folder(model, revision)
    if place is None:
        return ""
    template_file = place / "chat_template.jinja"
    if template_file.is_file():
        return _read_text(template_file)
    config = place / "tokenizer_config.json"
    own = _read_object(config).get("chat_template") if config.is_file() else None
    if isinstance(own, list):  # several by name
        own = {entry["name"]: entry["template"] for entry in own}.get("default")
    return own or ""


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise fail(f"cannot be read: {error}", str(file)) from None


def _read_object(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(_read_text(file))
    except ValueError as error:
        raise fail(f"not valid JSON: {error}", str(file)) from None
    if not isinstance(read, dict):
        raise fail(f"must be an object, not a {type(read).__name__}", str(file))
    return read
