"""Sums over journals: the tokens and dollars of a step's replies."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPLIES = "replies"  # folder of all journals, next to the steps' directories
ENDS = ("got", "paid", "free")  # records that close a `sent` record
TOKENS = ("answers", "prompt_tokens", "completion_tokens")


@dataclass
class Totals:
    """Sums over journals. Tokens and dollars are those of replies; `open` requests may have been billed without one."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    priced: bool = False
    open: dict[tuple[int, int], float] = field(default_factory=dict)  # (journal, number) to its maximum cost in dollars

    def take(self, record: Mapping[str, Any], journal: int = 0) -> None:
        """Add a record; request numbers are unique within a journal."""
        usd = record.get("usd")
        self.priced = self.priced or usd is not None
        if "sent" in record:
            self.open[journal, record["sent"]] = usd or 0.0
        elif ended := [record[kind] for kind in ENDS if kind in record]:
            self.open.pop((journal, ended[0]), None)
            if "free" not in record:
                self.answers += 1
                self.usd += usd or 0.0
                prompt, completion = record.get("used") or (0, 0)
                self.prompt_tokens += prompt
                self.completion_tokens += completion

    @property
    def lost_usd(self) -> float:
        """Maximum cost of open requests."""
        return sum(self.open.values())

    @property
    def at_most(self) -> float:
        """Maximum of what may have been billed, requests in flight included."""
        return self.usd + self.lost_usd

    def summary(self) -> dict[str, float]:
        """The figures for a manifest."""
        figures: dict[str, float] = {name: getattr(self, name) for name in TOKENS}
        if self.open:
            figures["lost"] = len(self.open)
        if self.priced:
            figures["usd"] = round(self.usd, 6)
            if self.open:
                figures["lost_usd_at_most"] = round(self.lost_usd, 6)
        return figures


def journal_path(directory: Path, endpoint: str) -> Path:
    """The journal of a step's requests to an endpoint: `replies/<endpoint's hash>/<step's directory>.jsonl`.

    It is kept when the step is removed. All steps that query the same endpoint share a folder and read each other's
    journals.
    """
    folder = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
    return directory.parent / REPLIES / folder / f"{directory.name}.jsonl"


def read_totals(directory: Path) -> Totals | None:
    """Sums over the journals of a step's directory, None if it sent no requests."""
    paths = list((directory.parent / REPLIES).glob(f"*/{directory.name}.jsonl"))
    totals = Totals()
    for journal, path in enumerate(paths):
        for _, record in complete_lines(path):
            totals.take(record, journal)
    return totals if paths else None


def complete_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Complete lines and their records; a line damaged by a power failure gives an empty record."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                record = {}
            yield line, record if isinstance(record, dict) else {}
