"""Base of text rewards: the graded part of a completion, and tables of a row's references."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Reward, Row, Score, error
from rewards.processes.fanout import ParallelReward
from rewards.thinking import PRESETS, ThinkingFormat

AnswerTags = Literal["first", "last", "ignore"]
References = tuple[str, ...]
NOTHING_TO_COMPARE = "no reference contains a token: nothing to compare with"


def answer_text(completion: str, tags: AnswerTags) -> str:
    """The text in `<answer>` tags if there are any, else the whole text; stripped.

    "first": as in BLEUBERI (training/dataset.py: extract_answer), from the first opening tag to the next
    opening or closing tag, or to the end. "last": from the last opening tag to the closing one, or to the end.
    "ignore": the whole completion.
    """
    if tags == "ignore" or "<answer>" not in completion:
        return completion.strip()
    inside = completion.split("<answer>")[1 if tags == "first" else -1]
    return inside.partition("</answer>")[0].strip()


class TextReward(Reward):
    """Base of rewards that grade a text; subclasses implement `grade_text`.

    thinking: the format from which the answer is extracted. answer_tags: see `answer_text`.
    """

    thinking: ThinkingFormat = PRESETS["none"]
    answer_tags: AnswerTags = "first"

    def text_of(self, completion: str) -> str:
        """The graded part of a completion."""
        return answer_text(self.thinking.answer_of(completion), self.answer_tags)

    @abstractmethod
    def grade_text(self, row: Row, text: str) -> Score:
        """The score of a text returned by `text_of`."""

    def grade(self, row: Row, completion: str) -> Score:
        return self.grade_text(row, self.text_of(completion))


class ReferenceReward(TextReward, ParallelReward):
    """Grades texts against a table built from the row's references.

    Subclasses build a table (`table`; None if no reference has a token) and grade one text with it (`against`) or
    several at once (`compare`). Consecutive rows with the same references are graded together. Thread-safe: tables are
    immutable. cache: number of cached tables.
    """

    needs = ("references",)
    cache: Annotated[int, Field(ge=0, le=1 << 20)] = 128

    @cached_property
    def _table(self) -> Callable[[References], Any]:
        return lru_cache(maxsize=self.cache)(self.table)

    @abstractmethod
    def table(self, references: References) -> Any:
        """The data that texts are compared with; None if no reference has a token."""

    def against(self, table: Any, text: str) -> Score:
        """The score of a text returned by `text_of`."""
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
        """Scores of texts with the same references. references: as returned by `_references`."""
        if isinstance(references, str):
            return [error(references) for _ in texts]
        table = self._table(references)
        return [error(NOTHING_TO_COMPARE) for _ in texts] if table is None else self.compare(table, texts)


def _references(row: Row) -> References | str:
    """The row's references as a tuple, or as a str why they are invalid. A single text is a list of one."""
    references = row.get("references")
    if isinstance(references, str):
        return (references,)
    if not isinstance(references, (list, tuple)) or not all(isinstance(text, str) for text in references):
        return f"the row's references must be a list of texts, got {str(references)[:100]!r}"
    return tuple(references) or "the row's references are an empty list"
