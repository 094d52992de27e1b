"""events.jsonl: what happened in a run, one JSON object a line, appended whole or not at all."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launchers import files

HEARTBEAT = "heartbeat"  # a file that the watcher of a running command counts up
FILE = "events.jsonl"


def append(run: Path, event: str, **facts: Any) -> None:
    """Add one event."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    files.append(run / FILE, {"time": now, "event": event, **facts})


def read(run: Path) -> Iterator[dict[str, Any]]:
    """All events."""
    return files.read_lines(run / FILE)
