"""Mistakes in a trainer's own keys, told in the words of the recipe: origins.json has our key for each of its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class NativeFault(NamedTuple):
    """One mistake: the trainer's dotted key, and what is wrong, the nearest valid value, what to do."""

    key: str
    message: str


def explain(faults: Iterable[NativeFault], origins: Mapping[str, Sequence[str]], trainer: str) -> list[str]:
    """One line each: `file:line: our key: message` if origins knows the key or one above, else the trainer's key."""
    return [_explained(fault, origins, trainer) for fault in faults]


def _explained(fault: NativeFault, origins: Mapping[str, Sequence[str]], trainer: str) -> str:
    above = [key for key in origins if fault.key == key or fault.key.startswith(f"{key}.")]
    if not above:
        return f"{trainer}.yaml: {fault.key}: {fault.message}"
    ours, where = origins[max(above, key=len)]
    native = "" if ours.endswith(fault.key) else f" ({trainer}'s {fault.key})"
    return f"{where}: {ours}: {fault.message}{native}"
