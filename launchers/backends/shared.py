"""Code shared by the backends: checks of native keys, reading JSON files, finding the reason of a failure in a log."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from launchers.envs import REPO
from launchers.errors import did_you_mean, nearest
from launchers.recipe import positions
from launchers.recipe.compose import Resolved
from launchers.recipe.names import derived, our_name

_TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
_EXCEPTION = re.compile(
    r"^(?:\[rank\d+\]:\s*|\(\w[^)]*\)\s*)?((?!Failures:)(?:\w+\.)*\w*(?:Error|Exception|Failures|Interrupt|Exit)\b.*)$"
)
_OURS = re.compile(r"^(?:\([^)]*\) )?error: (.*)$")
_ABOUT_A_CHILD = ("ChildFailedError", "ray.exceptions.RayTaskError", "ray.exceptions.ActorDied")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@lru_cache(maxsize=4)
def known_keys(trainer: str) -> dict[str, Any]:
    """A trainer's own keys, with types and choices (written by plugins/<trainer>/dump_keys.py)."""
    loaded: dict[str, Any] = json.loads((REPO / "configs" / "native" / f"{trainer}.json").read_text())
    return loaded


@lru_cache(maxsize=4)
def owned(trainer: str) -> tuple[dict[str, str], dict[str, str]]:
    """A trainer's keys mapped to the recipe keys that set them; and keys that cannot be set, with the reason."""
    file = f"configs/native/{trainer}.owned.yaml"
    table = positions.load(REPO / file, file).plain()
    return table["owned"], table.get("fixed", {})


def owned_fault(trainer: str, key: str) -> str | None:
    """Why a trainer's key cannot be set in `native`; None if it can."""
    ours, fixed = owned(trainer)
    if why := derived(key) or fixed.get(key):
        return f"cannot be set: {why}"
    return f"set {ours[key]} instead" if key in ours else None


def unknown(trainer: str, key: str, known: Iterable[str]) -> str:
    """The message for a key that a trainer does not have, with our name for it or the nearest of its keys."""
    if ours := our_name(key):
        return f"{trainer} has no such key; here it is {ours}"
    near = nearest(key, known)
    return f"{trainer} has no such key" + (f"; did you mean {near!r}?" if near else "")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings; keys may already be dotted."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def value_fault(value: Any, spec: Mapping[str, Any], trainer: str) -> str | None:
    """Why a value does not fit a key's spec {type, choices or items}. References (${…}) are left to the trainer."""
    if value is None or (isinstance(value, str) and value.startswith("${")):
        return None
    if isinstance(value, list) and "items" in spec:
        inner = {"type": "any", "choices": spec["items"]}
        return next((fault for item in value if (fault := value_fault(item, inner, trainer))), None)
    choices = [str(choice) for choice in spec.get("choices") or ()]
    if choices and str(value) not in choices:
        return f"{value!r} is not one of {trainer}'s values; {did_you_mean(str(value), choices)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value!r}"
    expected = _TYPES.get(spec.get("type", "any"))
    if expected and (not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)):
        return f"must be {spec['type']}, not {value!r}"
    return None


def origins(trainer: str, resolved: Resolved) -> dict[str, list[str]]:
    """Each native key that we write, with the recipe key and where that was written."""
    native = {key: f"native.{key}" for key, _ in leaves(resolved.recipe.native)}
    return {native_key: [ours, resolved.where(ours)] for native_key, ours in {**owned(trainer)[0], **native}.items()}


def reason(log: str) -> str:
    """The line that explains a failure: our own error, else the last exception that is not a child process's report."""
    lines = [line for given in log.splitlines() if (line := _COLOUR.sub("", given).strip())]
    ours = [match[1] for line in lines if (match := _OURS.match(line))]
    if ours:
        return ours[0] if len(ours) == 1 else f"{ours[0]} (and {len(ours) - 1} more in the log)"
    raised = [match[1] for line in lines if (match := _EXCEPTION.match(line))]
    own = [line for line in raised if not any(name in line.split(":")[0] for name in _ABOUT_A_CHILD)]
    return (own or raised or lines or ["no output"])[-1]


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file is missing or incomplete."""
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def backwards(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file that may still be growing, newest first."""
    for line in reversed(path.read_text().splitlines() if path.exists() else []):
        try:
            read = json.loads(line)
        except ValueError:
            continue  # an incomplete line
        if isinstance(read, dict):
            yield read


def as_json(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
