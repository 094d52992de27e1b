"""Statistics in a step's directory: one record per shard, and the manifest of the finished step."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from data_prep.core.rows import read_jsonl
from data_prep.core.step import Drop, Row
from data_prep.errors import DataError

EXAMPLES = 3  # dropped rows shown per reason in statistics and manifests


@dataclass
class Stats:
    """Counts of one shard, or of all."""

    rows_in: int = 0
    rows_out: int = 0
    bad: int = 0
    seconds: float = 0.0
    drops: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    sha256: str = ""
    full: list[str] = field(default_factory=list)  # fields that are present and not empty in all rows of a shard

    def count(self, drops: Iterable[Drop]) -> None:
        """Count drops by reason, and keep the first few of each."""
        for drop in drops:
            self.bad += drop.bad
            self.drops[drop.reason] = self.drops.get(drop.reason, 0) + 1
            examples = self.examples.setdefault(drop.reason, [])
            if len(examples) < EXAMPLES:
                examples.append({"row_id": drop.row_id, "detail": drop.detail})

    def add(self, other: Stats) -> None:
        """Add the counts of the next shard."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.bad += other.bad
        self.seconds += other.seconds
        self.drops = dict(Counter(self.drops) + Counter(other.drops))
        self.counts = dict(Counter(self.counts) + Counter(other.counts))
        for reason, examples in other.examples.items():
            kept = self.examples.setdefault(reason, [])
            kept.extend(examples[: EXAMPLES - len(kept)])
        self.sha256 = hashlib.sha256(f"{self.sha256}{other.sha256}".encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The record of a finished step (`manifest.json`)."""

    kind: str
    name: str
    key: str
    params: dict[str, Any]
    fingerprint: dict[str, Any]
    code: str
    inputs: list[str]
    rows_in: int
    rows_out: int
    bad: int
    drops: dict[str, int]
    examples: dict[str, list[dict[str, str]]]
    counts: dict[str, int]
    shards: int
    sha256: str  # over the shards' hashes, in order
    seconds: float
    versions: dict[str, str]
    created: str
    cost: dict[str, float] = field(default_factory=dict)  # of an endpoint's replies: tokens and dollars


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a finished step, or None."""
    path = directory / "manifest.json"
    if not path.exists():
        return None
    written = json.loads(path.read_bytes())
    known = {field.name: field.default_factory is MISSING for field in fields(Manifest)}
    if missing := [name for name, required in known.items() if required and name not in written]:
        raise DataError(
            f"{path}: written by another version, without {', '.join(missing)}: remove the folder to rerun the step"
        )
    return Manifest(**{name: value for name, value in written.items() if name in known})


def shard_stats(directory: Path) -> list[Stats]:
    """Statistics of the finished shards of a step's directory, in order; [] if there are none."""
    return [Stats(**json.loads(path.with_suffix(".json").read_bytes())) for path in shard_paths(directory)]


def read_rows(directory: Path) -> Iterator[Row]:
    """All rows of a finished step, in order. Raises DataError if it is not finished."""
    if not (directory / "manifest.json").exists():
        raise DataError(f"{directory}: this step is not finished: run it by `python -m data_prep run`")
    for path in shard_paths(directory):
        yield from read_jsonl(path)


def shard_paths(directory: Path) -> list[Path]:
    """Files of the finished shards, in order."""
    return sorted(directory.glob("shards/[0-9]*[0-9].jsonl"), key=lambda path: int(path.stem))


def counts_line(counts: Mapping[str, int]) -> str:
    """`12 not JSON, 3 empty prompt`, most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {label}" for label, count in ordered)
