"""A Hub model's files at the recipe's revision: the trainers' own downloads take whatever is newest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def fetched(model: str, revision: str | None, patterns: Sequence[str] | None = None) -> str:
    """The model's folder: itself, or the Hub's files of these patterns, without a network those downloaded before."""
    if Path(model).is_dir():
        return model
    from huggingface_hub import constants, snapshot_download

    patterns = None if patterns is None else list(patterns)
    return snapshot_download(
        model, revision=revision, allow_patterns=patterns, local_files_only=constants.HF_HUB_OFFLINE
    )
