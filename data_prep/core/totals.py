"""Sums over a journal: what a step's answers came to in tokens and dollars."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPLIES = "replies"  # the folder of all journals, beside the steps' directories
ENDS = ("got", "paid", "free")  # kinds of records that end what `sent` began


@dataclass
class Totals:
    """Sums over a journal. Tokens and dollars are those of answers; `lost` ones may have been paid, unheard."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    lost: int = 0
    lost_usd: float = 0.0
    priced: bool = False
    open: dict[int, float] = field(default_factory=dict)  # sent, with no second record yet

    def take(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        usd = record.get("usd")
        self.priced = self.priced or usd is not None
        if "sent" in record:
            self.open[record["sent"]] = usd or 0.0
            self.lost += 1
            self.lost_usd += usd or 0.0
            return
        number = next((record[kind] for kind in ENDS if kind in record), None)
        if number is None:
            return
        sent = self.open.pop(number, None)
        if sent is not None:
            self.lost -= 1
            self.lost_usd -= sent
        if "free" not in record:
            self.answers += 1
            self.usd += usd or 0.0
            prompt, completion = record.get("used") or (0, 0)
            self.prompt_tokens += prompt
            self.completion_tokens += completion

    @property
    def at_most(self) -> float:
        """Dollars that may have been paid, those for what is on its way included."""
        return self.usd + max(self.lost_usd, 0.0)

    def summary(self) -> dict[str, float]:
        """What a manifest says of it."""
        figures: dict[str, float] = {
            "answers": self.answers,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.lost:
            figures["lost"] = self.lost
        if self.priced:
            figures["usd"] = round(self.usd, 6)
            if self.lost:
                figures["lost_usd_at_most"] = round(max(self.lost_usd, 0.0), 6)
        return figures


def journal_path(directory: Path, endpoint: str) -> Path:
    """The journal of a step's requests to an endpoint: `replies/<endpoint's hash>/<step's directory>.jsonl`.

    It outlives the step. All steps that ask the same endpoint have theirs in one folder, and read each other's.
    """
    folder = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
    return directory.parent / REPLIES / folder / f"{directory.name}.jsonl"


def read_totals(directory: Path) -> Totals | None:
    """Sums over the journals of a step's directory, None when it asked nothing."""
    paths = list((directory.parent / REPLIES).glob(f"*/{directory.name}.jsonl"))
    totals = Totals()
    for path in paths:
        for _, record in whole_lines(path):
            totals.take(record)
    return totals if paths else None


def whole_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Whole lines and their records; a line that a power cut has spoilt is an empty record."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                record = {}
            yield line, record if isinstance(record, dict) else {}
