"""Zero models: copies of base models with a chat template that prompts for a thinking format, and its end tokens.

Weights are hard-linked if the file system allows, else copied. `zero.json` in the copy describes it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_prep.core.commands import Options
from data_prep.core.fingerprint import REPO
from data_prep.core.progress import Progress
from data_prep.errors import DataError
from data_prep.inference.models import find_model
from data_prep.sources.files import read_json
from rewards.thinking import PRESETS

Format = Literal["zero", "zero_nothink"]
TEMPLATES = REPO / "templates" / "chat"
END_TOKENS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "</s>")  # the first one that the tokenizer has ends a turn
# Top level of the model's folder only: subfolders hold other formats of the weights.
FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
CONFIGS = ("config.json", "generation_config.json")
DONE = "zero.json"
VERSION = 2  # of the copy's content; a new version makes a new copy


class Request(Options):
    """Copy a base model with a chat template for a thinking format."""

    model: str = Field(description="folder or Hub id")
    revision: str | None = Field(None, description="Hub revision")
    format: Format = Field("zero", description="zero (with a thought) or zero_nothink")
    out: Path = Field(description="output folder")


def command(request: Request, progress: Progress) -> str:
    """Write the copy and return its path. Raises DataError."""
    return str(write_copy(request.model, request.revision, request.format, request.out))


def write_copy(model: str, revision: str | None, format: Format, out: Path) -> Path:
    """Write the copy to the folder `out`, atomically, and return it. Raises DataError, in one line."""
    if (out / DONE).is_file():
        return out
    source = _folder(model, revision)
    if not any(source.glob("*.safetensors")):
        raise DataError(f"model {model!r} has no *.safetensors: pickled weights are not loaded; convert them first")
    tokenizer = _read(source / "tokenizer_config.json")
    end = _end_token(source, tokenizer)
    configs = {name: _read(source / name) for name in CONFIGS if (source / name).is_file()}
    ends = list(dict.fromkeys([end[1], *(token for values in configs.values() for token in _ids(values))]))
    template = (TEMPLATES / f"{format}.jinja").read_text("utf-8")
    about = {"model": model, "revision": revision, "format": format, "stop": [PRESETS[format].end], "end_token": end[0]}
    objects = {
        "tokenizer_config.json": {**tokenizer, "chat_template": template, "eos_token": end[0]},
        **{name: {**configs.get(name, {}), "eos_token_id": ends} for name in CONFIGS},
        DONE: about,
    }
    texts = {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in objects.items()}
    texts["chat_template.jinja"] = template
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in (file for pattern in FILES for file in source.glob(pattern) if file.is_file()):
        if file.name not in texts:
            _link(file.resolve(), partial / file.name)
    for name, text in texts.items():
        (partial / name).write_text(text, "utf-8")
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return out


def _folder(model: str, revision: str | None) -> Path:
    known = find_model(model, revision, Path.cwd())
    if known.path:
        return known.path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=FILES, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise DataError(f"model {model!r} cannot be fetched: {str(error).splitlines()[0]}") from None


def _end_token(source: Path, tokenizer: dict[str, Any]) -> tuple[str, int]:
    """The end-of-turn token and its id: one of END_TOKENS, else the tokenizer's own end token."""
    vocabulary = _read(source / "tokenizer.json")
    ids = {token["content"]: int(token["id"]) for token in vocabulary.get("added_tokens", [])}
    named = tokenizer.get("eos_token")
    own = named.get("content") if isinstance(named, dict) else named
    for token in (*END_TOKENS, own):
        if token in ids:
            return str(token), ids[token]
    raise DataError(f"{source}/tokenizer.json: none of {', '.join(END_TOKENS)}, and its end token {own!r} has no id")


def _ids(config: dict[str, Any]) -> list[int]:
    """The base model's end tokens: it still emits them under the new template."""
    own = config.get("eos_token_id")
    return own if isinstance(own, list) else [] if own is None else [own]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _read(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object")
    return value
