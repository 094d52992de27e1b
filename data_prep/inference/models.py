"""Resolves a `model` parameter (a local folder or a Hub id) and its identity."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from data_prep.core.fingerprint import file_hash, value_hash
from data_prep.errors import DataError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
DECIDING = (*WEIGHTS, "*.json", "*.jinja", "*.model", "merges.txt")  # files that change a model's output
NOISE = re.compile(r"train(er_state|ing)\.json|.*results\.json")  # a trainer's records next to a model


@dataclass(frozen=True)
class Model:
    """A model: `path` is its local folder, or None for a Hub id at `revision`."""

    name: str
    path: Path | None
    revision: str | None = None

    @property
    def source(self) -> str:
        """The name or path for an engine to load."""
        return str(self.path or self.name)

    @property
    def bytes(self) -> int | None:
        """Size of a local model's weights; None if it is not local."""
        return sum(file.stat().st_size for file in _files(self.path, WEIGHTS)) if self.path else None

    def identity(self) -> dict[str, str]:
        """The model's identity by content, independent of its folder's name. Raises OSError."""
        if self.path is None:
            return {"hub": f"{self.name}@{self.revision or 'main'}"}
        hashes = {file.name: file_hash(file) for file in _files(self.path, DECIDING)}
        return {"files": value_hash(hashes)}


def find_model(name: str, revision: str | None, base: Path) -> Model:
    """Resolve a model's name; relative paths start from `base`. Raises DataError, in one line.

    The Hub is not contacted, so that plans work without a network.
    """
    folder = base / Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DataError(f"model {name!r}: no config.json in {folder}; give the folder that contains the model")
        if not _files(folder, WEIGHTS):
            raise DataError(f"model {name!r}: no weights (*.safetensors) in {folder}")
        return Model(name, folder.resolve())
    if not HUB_ID.fullmatch(name):
        raise DataError(f"model {name!r} is neither a local folder nor a Hub id (owner/name): {folder} does not exist")
    return Model(name, None, revision)


def needs_template(model: Model) -> bool:
    """Whether a local model's tokenizer has no chat template, which chat requests need."""
    if model.path is None or any((model.path / f"chat_template.{end}").exists() for end in ("jinja", "json")):
        return False
    config = model.path / "tokenizer_config.json"
    return config.is_file() and not json.loads(config.read_bytes()).get("chat_template")


def check_hub(model: Model) -> None:
    """Fetch a Hub model's config before an engine fails with pages of output. Raises DataError."""
    if model.path is not None:
        return
    from huggingface_hub import errors, hf_hub_download

    problems: dict[type[Exception], str] = {
        errors.GatedRepoError: "is gated: accept its terms on the Hub and set HF_TOKEN",
        errors.RepositoryNotFoundError: (
            "is neither a local folder nor a model on the Hub (a private one needs HF_TOKEN)"
        ),
        errors.RevisionNotFoundError: f"has no revision {model.revision!r} on the Hub",
        errors.LocalEntryNotFoundError: (
            "is neither a local folder nor in the local Hub cache, and the Hub cannot be reached"
        ),
        errors.EntryNotFoundError: "has no config.json on the Hub: it cannot be loaded",
    }
    try:
        hf_hub_download(model.name, "config.json", revision=model.revision)
    except tuple(problems) as error:
        problem = next(text for kind, text in problems.items() if isinstance(error, kind))
        raise DataError(f"model {model.name!r} {problem}") from error


def tokenizer_folder(model: Model) -> Path:
    """The folder of a model's tokenizer and chat template, the only files fetched from the Hub. Raises DataError."""
    if model.path is not None:
        return model.path
    check_hub(model)
    from huggingface_hub import snapshot_download

    files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    return Path(snapshot_download(model.name, revision=model.revision, allow_patterns=files))


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in files if not NOISE.fullmatch(file.name))
