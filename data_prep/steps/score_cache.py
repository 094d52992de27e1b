"""Verdicts on programs, kept on disk and shared by all runs and steps of a cache folder.

The key of a verdict hashes all that it depends on (`CodeReward.identities`). Only deterministic verdicts are kept:
an outcome other than `scored`, or a test that timed out, may be due to the machine. Files are named by the first digits
of their keys. Each verdict is appended in one write that begins and ends with a newline, so that processes can write to
one file and a `kill -9` loses one line; incomplete lines are ignored. The folder may be deleted at any time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from data_prep.errors import os_errors
from rewards import Score

DIGITS = 2


class ScoreCache:
    """The verdicts in a folder, read when they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, bytes] = {}
        self._read_to: dict[str, int] = defaultdict(int)  # bytes of each file that have been read
        with os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Score | None:
        """The verdict of this key, None if there is none yet. Raises DataError."""
        if key not in self._known:
            self._read_new(key[:DIGITS])
        line = self._known.get(key)
        return Score(**json.loads(line)["score"]) if line else None

    def put(self, verdicts: Mapping[str, Score]) -> None:
        """Keep the deterministic ones of these verdicts. Raises DataError."""
        for key, score in verdicts.items():
            if not is_decided(score) or key in self._known:
                continue
            line = json.dumps({"key": key, "score": score.as_json()}, separators=(",", ":")).encode()
            path = self._folder / f"{key[:DIGITS]}.jsonl"
            with os_errors(path), path.open("ab", buffering=0) as file:
                file.write(b"\n" + line + b"\n")  # the first one ends the line of a killed writer
            self._known[key] = line

    def _read_new(self, start: str) -> None:
        """Read the complete lines that were appended to a file since the last time."""
        path = self._folder / f"{start}.jsonl"
        if not path.exists():
            return
        with os_errors(path), path.open("rb") as file:
            file.seek(self._read_to[start])
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_to[start] += len(complete)
        for line in complete.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # of a damaged line
                self._known[json.loads(line)["key"]] = line


def is_decided(score: Score) -> bool:
    """Whether another run on this machine would give the same verdict."""
    if score.outcome != "scored" or score.details.get("compile_status") == "timeout":
        return False
    tests = score.details.get("tests", ())
    hidden = score.details.get("total", 0) > len(tests)  # the details show the first failures of many
    undecided = any(test["status"] in ("timeout", "not_run") for test in tests)
    return score.details.get("status") == "passed" or not (hidden or undecided)
