"""Trainers' names for our keys, and keys that no recipe can set (configs/native/names.yaml)."""

import re
from functools import lru_cache

from launchers.envs import REPO
from launchers.recipe import positions

_FILE = "configs/native/names.yaml"


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, list[str]], dict[str, str]]:
    tables = positions.load(REPO / _FILE, _FILE).plain()
    return tables["names"], tables["derived"]


def our_name(key: str) -> str | None:
    """Our name for a trainer's `key`; None if we have none."""
    bare = key.rsplit(".", 1)[-1]
    return next(
        (ours for ours, native_names in _tables()[0].items() if bare in native_names or key in native_names), None
    )


def is_native(trainer: str, key: str) -> bool:
    """Whether a trainer has a key or a section of this name."""
    text = (REPO / "configs" / "native" / f"{trainer}.json").read_text()
    return re.search(rf'^ *"{re.escape(key)}["."]', text, re.MULTILINE) is not None


def derived(key: str) -> str | None:
    """Why a recipe cannot set a derived key; None if it is not derived."""
    return _tables()[1].get(key)
