"""Reward `repetition`: a penalty for text that repeats itself.

    python -m rewards score --reward repetition --param kind=loop --input rows.jsonl --output scored.jsonl

Kinds:
  ngrams  penalty × (1 - distinct / all) over the text's word n-grams, lower-cased, split at white space
          (the repetition penalty reward of open-r1, after arXiv 2502.03373)
  loop    penalty if a unit of at least `unit` characters is repeated at least `times` times in a row: with 5 and 5
          min-O1's pattern `(.{5,}?)\\1{4,}` (cs2916, serve_rm.py) without its exponential time. That pattern
          does not match across lines; here a unit may span lines unless within_lines is set
  both    the larger of the two penalties
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from rapidfuzz.distance import Postfix, Prefix

from rewards.base import Row, Score
from rewards.processes.fanout import ParallelReward
from rewards.text.base import TextReward

_SHOWN = 60  # characters of the repeated unit kept in details


class Repetition(TextReward, ParallelReward):
    """A penalty for text that repeats itself, 0 without repetition.

    Details: repeated_share (of n-grams), loop (its unit).

    kind, unit, times, within_lines: see above. n: words per n-gram. penalty: the lowest value.
    """

    kind: Literal["ngrams", "loop", "both"] = "both"
    n: Annotated[int, Field(ge=1, le=64)] = 4
    unit: Annotated[int, Field(ge=1, le=1 << 20)] = 5
    times: Annotated[int, Field(ge=5, le=1 << 20)] = 5
    within_lines: bool = False
    penalty: float = -1.0

    def grade_text(self, row: Row, text: str) -> Score:
        details: dict[str, Any] = {}
        worst = 0.0
        if self.kind != "loop":
            worst = details["repeated_share"] = repeated_share(text, self.n)
        if self.kind != "ngrams":
            pieces = text.split("\n") if self.within_lines else [text]
            units = (find_loop(piece, self.unit, self.times) for piece in pieces)
            if unit := next(filter(None, units), None):
                worst, details["loop"] = 1.0, unit[:_SHOWN]
        return Score(self.penalty * worst if worst else 0.0, "scored", details)


def repeated_share(text: str, n: int) -> float:
    """1 - distinct / all of the text's word n-grams; 0 for a text with fewer than n words."""
    words = text.lower().split()
    count = len(words) - n + 1
    if count < 1:
        return 0.0
    return 1 - len(set(zip(*(words[i:] for i in range(n)), strict=False))) / count


def find_loop(text: str, unit: int = 5, times: int = 5) -> str | None:
    """A unit of at least `unit` characters that is repeated `times` or more times in a row (times ≥ 5), or None.

    Time O(n log n) for n characters. Let q be the smallest period of a stretch and B the smallest power of two >= q. A
    block of B characters recurs after q characters and no sooner (a primitive word occurs in its own square only at
    the ends). Five periods contain a whole block that starts at a multiple of B, and its next copy. So for each B each
    such block is searched in the next 2 B characters, and the resulting period is extended in both
    directions.
    """
    block = 1 << (unit - 1).bit_length()
    while block <= len(text):
        for start in range(0, len(text) - block + 1, block):
            again = text.find(text[start : start + block], start + 1, start + 2 * block)
            if again < 0:
                continue
            period = again - start
            size = period * -(-unit // period)
            begin = _stretch_begin(text, start, period, size * times)
            if begin is not None:
                return text[begin : begin + size]
        block *= 2
    return None


def _stretch_begin(text: str, at: int, period: int, length: int) -> int | None:
    """The start, at or before `at`, of `length` characters with this period; None if there are fewer."""
    ahead = period + Prefix.similarity(text[at : at + length], text[at + period : at + length])
    first = max(0, at - length + ahead)
    behind = Postfix.similarity(text[first:at], text[first + period : at + period])
    return at - behind if ahead + behind >= length else None
