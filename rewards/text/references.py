"""The door of rewards that compare a text with `row["references"]`: columns checked, references tabled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Generic, TypeVar

from rewards.base import Reward, Row, Score
from rewards.extract import with_format
from rewards.processes.fanout import FansOut
from rewards.text.checks import error, not_a_text, part_of

Table = TypeVar("Table")
References = tuple[str, ...]
NOTHING_TO_COMPARE = "no reference has a token: there is nothing to compare with"


class ReferenceReward(FansOut, Generic[Table]):
    """Grades the text of each completion against a table of its row's references.

    Subclasses say how a table is made (`table`, None if no reference has a token) and how texts are graded
    with it (`compare`). Tables are kept for the `params.cache` sets of references used last; rows in a row
    that share their references are graded together. Thread-safe: tables are not changed once made.
    """

    needs = ("references",)

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._part = part_of(params)
        self._table: Callable[[References], Table | None] = lru_cache(maxsize=params.cache)(self.table)

    def table(self, references: References) -> Table | None:
        raise NotImplementedError

    def compare(self, table: Table, texts: Sequence[str]) -> list[Score]:
        """Scores of texts that are in their final form, tags and outer white space removed."""
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
        if isinstance(references, str):
            return [error(references) for _ in completions]
        table = self._table(references)
        if table is None:
            return [error(NOTHING_TO_COMPARE) for _ in completions]
        texts = [self._part(text) for text in completions if isinstance(text, str)]
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
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
        return f"the row's references are {str(given)[:100]!r}, not a list of texts"
    return tuple(given) or "the row's references are an empty list"
