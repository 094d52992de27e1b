"""events.jsonl: the events of a run, one JSON object per line, appended atomically."""

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEARTBEAT = "heartbeat"  # a file with a counter, updated while a command runs


def append(run: Path, event: str, **facts: Any) -> None:
    """Append one event in a single write, so that lines of several processes do not mix."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event, **facts}, ensure_ascii=False) + "\n"
    handle = os.open(run / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def read(run: Path) -> Iterator[dict[str, Any]]:
    """All events; incomplete lines are skipped."""
    path = run / "events.jsonl"
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue
