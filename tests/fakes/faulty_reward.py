"""A reward that does what its completion says: raise, sleep, return NaN; otherwise the value is the text's length.

python -m tests.fakes.faulty_reward serve --reward faulty --port 0
"""

from __future__ import annotations

import sys
import time

from rewards import REGISTRY, Reward, Score
from rewards.base import Row
from rewards.cli import main


class Faulty(Reward):
    """The length of the completion, or the fault that it names."""

    def grade(self, row: Row, completion: str) -> Score:
        match completion.split():
            case ["raise"]:
                raise KeyError("no such\ncolumn")
            case ["recurse"]:
                raise RecursionError
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["nan"]:
                return Score(float("nan"))
            case ["type"]:
                return 1.0  # type: ignore[return-value]
            case ["unserialisable"]:
                return Score(1.0, "scored", {"answer": {1, 2}})
        return Score(float(len(completion)))


if __name__ == "__main__":
    REGISTRY["faulty"] = f"{Faulty.__module__}:Faulty"
    sys.exit(main())
