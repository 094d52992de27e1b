"""Verdicts on programs, on disk, shared by all runs and steps of a cache folder.

A verdict's key is a hash of everything that it depends on (`CodeReward.identities`). Only deterministic verdicts are
stored: an outcome other than `scored`, or a test that timed out, may be due to the machine. Files are named by the
first digits of their keys. Each verdict is appended in one write that starts and ends with a newline, so that processes
can share a file and a `kill -9` loses one line; incomplete lines are ignored. The folder may be deleted at any time.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from data_prep.errors import os_errors
from rewards import Score

DIGITS = 2


class ScoreCache:
    """The verdicts in a folder, read on demand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, bytes] = {}
        self._read_to: dict[str, int] = defaultdict(int)  # bytes read so far of each file
        with os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Score | None:
        """The verdict for this key, None if there is none yet. Raises DataError."""
        if key not in self._known:
            self._read_new(key[:DIGITS])
        line = self._known.get(key)
        return Score(**json.loads(line)["score"]) if line else None

    def put(self, verdicts: Mapping[str, Score]) -> None:
        """Store the deterministic verdicts. Raises DataError."""
        for key, score in verdicts.items():
            if not is_decided(score) or key in self._known:
                continue
            line = json.dumps({"key": key, "score": score.as_json()}, separators=(",", ":")).encode()
            path = self._folder / f"{key[:DIGITS]}.jsonl"
            with os_errors(path), path.open("ab", buffering=0) as file:
                file.write(b"\n" + line + b"\n")  # the first newline ends a killed writer's incomplete line
            self._known[key] = line

    def _read_new(self, start: str) -> None:
        """Read the complete lines that were appended to a file since the last read."""
        path = self._folder / f"{start}.jsonl"
        if not path.exists():
            return
        with os_errors(path), path.open("rb") as file:
            file.seek(self._read_to[start])
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_to[start] += len(complete)
        for line in complete.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a damaged line
                self._known[json.loads(line)["key"]] = line


def is_decided(score: Score) -> bool:
    """Whether another run on this machine would give the same verdict."""
    if score.outcome != "scored" or score.details.get("compile_status") == "timeout":
        return False
    tests = score.details.get("tests", ())
    hidden = score.details.get("total", 0) > len(tests)  # the details contain only the first failures
    undecided = any(test["status"] in ("timeout", "not_run") for test in tests)
    return score.details.get("status") == "passed" or not (hidden or undecided)
