"""What text rewards share: the part of a completion that they grade, and tables of a row's references."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Reward, Row, Score, error
from rewards.processes.fanout import FansOut
from rewards.thinking import PRESETS, ThinkingFormat

AnswerTags = Literal["first", "last", "ignore"]
References = tuple[str, ...]
NOTHING_TO_COMPARE = "no reference has a token: there is nothing to compare with"


def answer_text(completion: str, tags: AnswerTags) -> str:
    """The text in `<answer>` tags if there are any, else all of it; without outer white space.

    "first" is BLEUBERI's choice (training/dataset.py: extract_answer): from the first opening tag to the next
    tag of either kind, or to the end. "last": from the last opening tag to the closing one, or to the end.
    "ignore": the whole completion.
    """
    if tags == "ignore" or "<answer>" not in completion:
        return completion.strip()
    inside = completion.split("<answer>")[1 if tags == "first" else -1]
    return inside.partition("</answer>")[0].strip()


class TextReward(Reward):
    """Grades the text itself: subclasses implement `grade_text`.

    thinking: the format whose answer is graded. answer_tags: see `answer_text`.
    """

    thinking: ThinkingFormat = PRESETS["none"]
    answer_tags: AnswerTags = "first"

    def text_of(self, completion: str) -> str:
        """The part of a completion that is graded."""
        return answer_text(self.thinking.answer_of(completion), self.answer_tags)

    @abstractmethod
    def grade_text(self, row: Row, text: str) -> Score:
        """Score of a text as `text_of` returns it."""

    def grade(self, row: Row, completion: str) -> Score:
        return self.grade_text(row, self.text_of(completion))


class ReferenceReward(TextReward, FansOut):
    """Grades the text of each completion against a table of its row's references.

    Subclasses make a table (`table`, None if no reference has a token) and grade a text with it (`against`), or several
    at once (`compare`). Consecutive rows with the same references are graded together. Thread-safe: tables are not
    changed once made. cache: how many tables are kept.
    """

    needs = ("references",)
    cache: Annotated[int, Field(ge=0, le=1 << 20)] = 128

    @cached_property
    def _table(self) -> Callable[[References], Any]:
        return lru_cache(maxsize=self.cache)(self.table)

    @abstractmethod
    def table(self, references: References) -> Any:
        """What texts are compared with; None if no reference has a token."""

    def against(self, table: Any, text: str) -> Score:
        """Score of a text as `text_of` returns it."""
        return self.compare(table, [text])[0]

    def compare(self, table: Any, texts: Sequence[str]) -> list[Score]:
        return [self.against(table, text) for text in texts]

    def gold_problem(self, row: Row) -> str:
        score = self._group(_references(row), [""])[0]
        return str(score.details["problem"]) if score.outcome == "error" else ""

    def grade_text(self, row: Row, text: str) -> Score:
        return self._group(_references(row), [text])[0]

    def grade_here(self, rows: Sequence[Row], completions: Sequence[str]) -> list[Score]:
        scores, texts = [], map(self.text_of, completions)
        for references, group in groupby(rows, _references):
            scores += self._group(references, [next(texts) for _ in group])
        return scores

    def _group(self, references: References | str, texts: Sequence[str]) -> list[Score]:
        """references: those of all texts, or what is wrong with them."""
        if isinstance(references, str):
            return [error(references) for _ in texts]
        table = self._table(references)
        return [error(NOTHING_TO_COMPARE) for _ in texts] if table is None else self.compare(table, texts)


def _references(row: Row) -> References | str:
    """The row's references, or what is wrong with them. A single text stands for a list of one."""
    given = row.get("references")
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, (list, tuple)) or not all(isinstance(text, str) for text in given):
        return f"the row's references are {str(given)[:100]!r}, not a list of texts"
    return tuple(given) or "the row's references are an empty list"
