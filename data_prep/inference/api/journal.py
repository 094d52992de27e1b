"""Journal of requests and replies, on disk before they take effect: a killed step never pays twice for a reply.

An append-only file of JSON lines per step and endpoint (totals.journal_path). It is kept when the step is removed: when
a step's key changes, earlier replies are found in the journals of the same endpoint. Lines instead of a
database: a record is one write, an incomplete record is recognised by its missing line end, and one fdatasync stores
the replies of many requests. Records:

    {"sent": 7, "at": time, "key": "9f86d081", "most": 2000, "usd": 0.01}   about to be sent; most: maximum tokens
    {"free": 7}                                     it failed and was not billed
    {"paid": 7, "used": [13, 200], "usd": 0.002}    it was billed, but the reply is unusable
    {"got": 7, "name": hash, "reply": [[text, finish_reason, tokens, thought]], "used": …, "usd": …}   final

`usd` is omitted if the model has no price. A sent request without a second record may have been answered and billed
without our receiving the reply: it counts with its maximum cost.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.core.totals import Totals, complete_lines
from data_prep.errors import os_errors
from data_prep.inference.api.replies import Failed, Reply
from data_prep.inference.sampling import Sample

_ANSWER = re.compile(rb'\{"got":\d+,"name":"([^"]+)".*\n')  # a line that `note` wrote


class Journal:
    """The journal in a file, used by the process that holds the step's lock. Raises DataError."""

    def __init__(self, path: Path, recent: float = 0.0) -> None:
        """recent: how many seconds back `sent` reaches."""
        self.path = path
        self.totals = Totals()
        self.sent: dict[int, dict[str, Any]] = {}  # recently sent records by number
        self._last = 0  # number of the last request
        self._places: dict[str, tuple[int, int, int]] = {}  # descriptor, offset and length of each reply's record
        self._others: list[int] = []  # descriptors of the journals of other steps
        self._turn = asyncio.Lock()  # serialises syncs
        self._end = self._synced = 0
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            for other in sorted(path.parent.glob("*.jsonl")):
                if other != path:
                    self._read_other(other)
            self._read(time.time() - recent)
            os.ftruncate(self._file, self._end)  # an incomplete record of a killed process

    def _read(self, since: float) -> None:
        for line, record in complete_lines(self.path):
            self._take(record, len(line))
            if record.get("at", 0.0) >= since:
                self.sent[record["sent"]] = record
            number = record.get("got", record.get("paid", 0))
            if number in self.sent and record.get("used"):
                self.sent[number]["most"] = sum(record["used"])

    def _read_other(self, path: Path) -> None:
        """Index the replies in another step's journal, which may be growing."""
        descriptor = os.open(path, os.O_RDONLY)
        self._others.append(descriptor)
        place = 0
        with open(descriptor, "rb", closefd=False) as file:
            for line in file:
                if answer := _ANSWER.fullmatch(line):
                    self._places[answer.group(1).decode()] = (descriptor, place, len(line))
                place += len(line)

    def _take(self, record: Mapping[str, Any], length: int) -> None:
        """Account for a record at the end of the known part of the file."""
        self.totals.take(record)
        self._last = max(self._last, record.get("sent", 0))
        if "got" in record:
            self._places[record["name"]] = (self._file, self._end, length)
        self._end += length

    def number(self) -> int:
        """A new request number."""
        self._last += 1
        return self._last

    def get(self, name: str) -> Reply | None:
        """The reply to the request with this name, None if there is none yet."""
        if name not in self._places:
            return None
        descriptor, offset, length = self._places[name]
        reply = json.loads(os.pread(descriptor, length, offset))["reply"]
        if isinstance(reply, dict):
            return Failed(reply["failure"], reply["detail"])
        return tuple(Sample(*fields) for fields in reply)

    def note(self, record: Mapping[str, Any]) -> None:
        """Write a record without a sync: it survives a kill, but maybe not a power failure."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        data = memoryview(line)
        with os_errors(self.path):
            while data:
                data = data[os.write(self._file, data) :]
        self._take(record, len(line))

    async def keep(self, record: Mapping[str, Any]) -> None:
        """Write a record and return when it is on disk; concurrent writers share a sync."""
        self.note(record)
        end = self._end
        async with self._turn:
            if self._synced < end:
                written = self._end
                with os_errors(self.path):
                    await asyncio.to_thread(os.fdatasync, self._file)
                self._synced = written

    def close(self) -> None:
        """Close all files."""
        for descriptor in (self._file, *self._others):
            os.close(descriptor)


def reply_json(reply: Reply) -> Any:
    """A reply in the form of a record."""
    if isinstance(reply, Failed):
        return {"failure": reply.failure, "detail": reply.detail}
    return [
        [sample.text, sample.finish_reason, sample.tokens, *([sample.thought] if sample.thought else [])]
        for sample in reply
    ]
