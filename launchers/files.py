"""JSON in a run's files, which others may be writing or have left half-written. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launchers.render import write


def as_json(value: Any) -> str:
    """A value as the text of a file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """A file of one value, written whole or not at all."""
    write(path, as_json(value))


def read_json(path: Path) -> dict[str, Any] | None:
    """An object of a file, None where there is none or it is half-written."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a JSON line by one write: a kill leaves whole lines, and those of several processes do not mix."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(line, ensure_ascii=False) + "\n").encode())
    finally:
        os.close(handle)


def read_lines(path: Path, newest_first: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file that may be growing, or was cut by a power failure; torn lines are left out."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for line in reversed(lines) if newest_first else lines:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content
