"""What was asked of an endpoint and what it answered, on disk before it counts: a killed step pays for nothing twice.

A file of JSON lines that only grows, one a step and endpoint (totals.journal_path). It outlives the step: whatever
changes a step's key, the journals of the same endpoint answer for requests that were answered before. Lines, not a
database: one write makes one record, a torn one is known by its missing line end, and the answers of many requests go
to disk by one fdatasync. Records:

    {"sent": 7, "at": time, "key": "9f86d081", "most": 2000, "usd": 0.01}   about to be sent: its tokens at most
    {"free": 7}                                     it failed, and is not billed
    {"paid": 7, "used": [13, 200], "usd": 0.002}    it was answered to no use
    {"got": 7, "name": hash, "reply": [[text, finish_reason, tokens, thought]], "used": …, "usd": …}   final

`usd` is left out where the model has no price. What was sent and has no second record may have been answered, unheard:
it counts as paid, at the most it may have cost.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.core.totals import Totals, whole_lines
from data_prep.errors import explain, os_errors
from data_prep.inference.api.replies import Failed, Reply
from data_prep.inference.sampling import Sample

OWN = -1  # in place of a descriptor: this step's own file
_ANSWER = re.compile(rb'\{"got":\d+,"name":"([^"]+)"')  # the beginning of a line that `note` wrote


@dataclass(frozen=True)
class Sent:
    """What was sent a short while ago: by which key, when (`time.time()`), and how many tokens it took at most."""

    key: str
    at: float
    tokens: int


class Journal:
    """The journal in a file, open for one process at a time: the step's lock is held. Raises DataError."""

    def __init__(self, path: Path, recent: float = 0.0) -> None:
        """`recent` is for how many seconds back `sent` tells."""
        self.path = path
        self.totals = Totals()
        self.sent: dict[int, Sent] = {}
        self._last = 0  # number of a request
        self._places: dict[str, tuple[int, int, int]] = {}  # file, offset and length of each answer's record
        self._others: list[int] = []  # descriptors of the journals of other steps
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in sorted(path.parent.glob("*.jsonl")):
                if other != path:
                    self._read_other(other)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end = self._read(time.time() - recent)
            os.ftruncate(self._file, self._end)  # of a record that a killed process did not finish

    def _read(self, since: float) -> int:
        """Take in all whole records; returns where they end."""
        place = 0
        for line, record in whole_lines(self.path):
            self._take(record, place, len(line))
            if record.get("at", 0.0) >= since:
                self.sent[record["sent"]] = Sent(record["key"], record["at"], record["most"])
            number = record.get("got", record.get("paid", 0))
            if (known := self.sent.get(number)) and record.get("used"):
                self.sent[number] = Sent(known.key, known.at, sum(record["used"]))
            place += len(line)
        return place

    def _read_other(self, path: Path) -> None:
        """Index the answers in another step's journal, which may be growing."""
        descriptor = os.open(path, os.O_RDONLY)
        self._others.append(descriptor)
        place = 0
        with open(descriptor, "rb", closefd=False) as file:
            for line in file:
                if (answer := _ANSWER.match(line)) and line.endswith(b"\n"):
                    self._places[answer.group(1).decode()] = (descriptor, place, len(line))
                place += len(line)

    def _take(self, record: Mapping[str, Any], place: int, length: int) -> None:
        self.totals.take(record)
        self._last = max(self._last, record.get("sent", 0))
        if "got" in record:
            self._places[record["name"]] = (OWN, place, length)

    def number(self) -> int:
        """A number for the next request, that none has had."""
        self._last += 1
        return self._last

    def get(self, name: str) -> Reply | None:
        """The reply to the request of this name, None when there is none yet."""
        place = self._places.get(name)
        if place is None:
            return None
        file, offset, length = place
        reply = json.loads(os.pread(self._file if file == OWN else file, length, offset))["reply"]
        if isinstance(reply, dict):
            return Failed(reply["failure"], reply["detail"])
        return tuple(Sample(*fields) for fields in reply)

    def note(self, *records: Mapping[str, Any]) -> None:
        """Write records: they outlive a kill, and may not outlive a power cut."""
        lines = [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records]
        data = memoryview(b"".join(lines))
        with os_errors(self.path):
            while data:
                data = data[os.write(self._file, data) :]
        for record, line in zip(records, lines, strict=True):
            self._take(record, self._end, len(line))
            self._end += len(line)

    async def keep(self, *records: Mapping[str, Any]) -> None:
        """Write records, and return when they are on disk."""
        self.note(*records)
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await written

    async def _sync(self) -> None:
        """Sync the file while anybody waits for it: once for all who have written before."""
        while self._waiting:
            done, self._waiting = self._waiting, []
            try:
                await asyncio.get_running_loop().run_in_executor(None, os.fdatasync, self._file)
            except OSError as error:
                for entry in done:
                    if not entry.done():
                        entry.set_exception(explain(error, self.path))
            for entry in done:
                if not entry.done():
                    entry.set_result(None)
        self._syncing = None

    def close(self) -> None:
        """Write no more."""
        for descriptor in (self._file, *self._others):
            os.close(descriptor)


def reply_json(reply: Reply) -> Any:
    """A reply as a record holds it."""
    if isinstance(reply, Failed):
        return {"failure": reply.failure, "detail": reply.detail}
    return [
        [sample.text, sample.finish_reason, sample.tokens, *([sample.thought] if sample.thought else [])]
        for sample in reply
    ]
