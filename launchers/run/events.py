"""events.jsonl: what happened in a run, one JSON object a line, appended whole or not at all."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEARTBEAT = "heartbeat"  # a file that the watcher of a running command counts up


def append(run: Path, event: str, **facts: Any) -> None:
    """Add one event. A line is one write, so that lines of several processes do not mix."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event, **facts}, ensure_ascii=False) + "\n"
    handle = os.open(run / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def read(run: Path) -> Iterator[dict[str, Any]]:
    """All events; a line cut by a power failure is passed over."""
    path = run / "events.jsonl"
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue
