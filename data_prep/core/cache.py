"""The cache of step results: its contents and size, and removing steps that have not been used for a while."""

import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data_prep.core.files import locked, size_text
from data_prep.core.totals import REPLIES
from data_prep.errors import DataError

SHARED = (REPLIES, "scores", "downloads", "contents")  # folders of the cache that hold no step


@dataclass(frozen=True)
class Entry:
    """A folder of the cache. used: when a run last created or read it, seconds since 1970; size: bytes."""

    path: Path
    kind: str
    size: int
    used: float


def entries(cache: Path) -> list[Entry]:
    """The folders of all steps and the shared ones, largest first. Raises DataError if there is no cache."""
    if not cache.is_dir():
        raise DataError(f"{cache}: no such folder; give the folder that holds the steps' results")
    folders = [_entry(path) for path in cache.iterdir() if path.is_dir() and path.name != "contents"]
    return sorted(folders, key=lambda entry: -entry.size)


def _entry(path: Path) -> Entry:
    files = [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    kind = path.name if path.name in SHARED else path.name.rpartition("-")[0]
    lock = path / "lock"
    used = (lock if lock.exists() else path).stat().st_mtime
    return Entry(path, kind, sum(file.stat().st_size for file in files), used)


def size_table(cache: Path) -> list[str]:
    """Bytes by kind of step, as printable lines."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in entries(cache):
        for kind in (entry.kind, "total"):
            counts[kind] += 1
            sizes[kind] += entry.size
    kinds = sorted(sizes, key=lambda kind: (kind == "total", -sizes[kind]))
    lines = [f"{kind:<20} {counts[kind]:>8} {size_text(sizes[kind]):>10}" for kind in kinds]
    return [f"{'kind':<20} {'folders':>8} {'size':>10}", *lines]


def prune(cache: Path, unused_days: float, dry_run: bool = False) -> list[Entry]:
    """Remove steps that no run has used for `unused_days`; returns them. Paid model replies are never removed.

    A step is kept while another step links to its files, or while a process works on it.
    """
    before = time.time() - unused_days * 86400
    everything = [entry for entry in entries(cache) if entry.kind not in SHARED]
    kept = [entry for entry in everything if entry.used >= before]
    linked = {link.resolve().parent for entry in kept for link in entry.path.iterdir() if link.is_symlink()}
    removed = []
    for entry in everything:
        unused = entry.used < before and entry.path.resolve() not in linked
        if unused and (dry_run or _remove(entry.path)):
            removed.append(entry)
    if not dry_run:
        for link in (cache / "contents").glob("*"):
            if not link.exists():
                link.unlink()
    return removed


def _remove(path: Path) -> bool:
    """Remove a step's folder unless a process holds its lock."""
    try:
        with locked(path / "lock"):
            (path / "manifest.json").unlink(missing_ok=True)  # first: a kill must not leave a step that looks finished
            shutil.rmtree(path)
    except BlockingIOError:
        return False
    return True
