"""Base of rewards that compare a text with `row["references"]`, whose tokens are counted once per set of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from rewards.base import Row, Score
from rewards.processes.fanout import FansOut
from rewards.text.base import TextParams, TextReward, error, not_a_text

Table = TypeVar("Table")
References = tuple[str, ...]
NOTHING_TO_COMPARE = "no reference has a token: there is nothing to compare with"


class ReferenceParams(TextParams):
    """cache: how many sets of references are kept as tables."""

    cache: Annotated[int, Field(ge=0, le=1 << 20)] = 128


class ReferenceReward(TextReward, FansOut, Generic[Table]):
    """Grades the text of each completion against a table of its row's references.

    Subclasses make a table (`table`, None if no reference has a token) and grade texts with it (`compare`).
    Consecutive rows with the same references are graded together. Thread-safe: tables are not changed once made.
    """

    needs = ("references",)

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._table: Callable[[References], Table | None] = lru_cache(maxsize=params.cache)(self.table)

    def table(self, references: References) -> Table | None:
        raise NotImplementedError

    def compare(self, table: Table, texts: Sequence[str]) -> list[Score]:
        """Scores of texts as `text_of` returns them."""
        raise NotImplementedError

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kind "text"; a problem if there is nothing to compare with."""
        references = _references(row)
        if isinstance(references, str):
            return "", references
        return ("text", "") if self._table(references) is not None else ("", NOTHING_TO_COMPARE)

    def grade(self, row: Row, completion: str) -> Score:
        return self._group(_references(row), [completion])[0]

    def grade_here(self, rows: Sequence[Row], completions: Sequence[str]) -> list[Score]:
        scores: list[Score] = []
        for references, group in groupby(rows, _references):
            scores += self._group(references, completions[len(scores) : len(scores) + sum(1 for _ in group)])
        return scores

    def _group(self, references: References | str, completions: Sequence[Any]) -> list[Score]:
        table = None if isinstance(references, str) else self._table(references)
        if table is None:
            return [error(references if isinstance(references, str) else NOTHING_TO_COMPARE) for _ in completions]
        texts = [self.text_of(text) for text in completions if isinstance(text, str)]
        scores = self.compare(table, texts)
        if len(texts) == len(completions):
            return scores
        graded = iter(scores)
        return [next(graded) if isinstance(text, str) else not_a_text(text) for text in completions]


def _references(row: Row) -> References | str:
    """The row's references, or what is wrong with them. A single text stands for a list of one."""
    given = row.get("references")
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, (list, tuple)) or not all(isinstance(text, str) for text in given):
        return f"the row's references are {str(given)[:100]!r}, not a list of texts"
    return tuple(given) or "the row's references are an empty list"
