"""Base of the rewards that extract one short answer from a completion and compare it with the row's answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from rewards.base import Reward, Row, Score
from rewards.extract import cut_short, has_box
from rewards.thinking import thinking

SHOWN = 200  # characters of an answer kept in details
A = TypeVar("A")  # an extracted answer


class AnswerReward(Reward, Generic[A]):
    """Subclasses say what is wrong with a row, find the answer in a text, and compare it.

    Params must have `thinking` and `truncated`. Outcomes: "error" for a row that cannot be graded, "truncated" as the
    parameter says, "bad_format" for a box without a usable answer, "no_answer" for a text without any.
    """

    needs = ("answer",)

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._format = thinking(params.thinking)

    def grade(self, row: Row, completion: str) -> Score:
        problem = self.problem(row)
        if not problem and not isinstance(completion, str):
            problem = f"the completion is {type(completion).__name__}, not a text"
        if problem:
            return Score(0.0, "error", {"problem": problem})
        text = self._format.answer_of(completion)
        answer, truncated = self.find(row, text), self.params.truncated
        if truncated != "never" and cut_short(row) and (truncated == "always" or answer is None):
            return Score(0.0, "truncated")
        if answer is None:
            return Score(0.0, "bad_format" if has_box(text) else "no_answer")
        return self.compare(row, answer)

    def refused(self, row: Row, completions: list[str]) -> str:
        """A problem that quotes the first of these completions without full marks; empty if all have them."""
        for text in completions:
            score = self.grade({**row, "meta": None}, text)
            if score.value != 1:
                reason = score.details.get("problem", "not recognised")
                return f"reference answer {str(row.get('answer'))[:80]!r}: {text[:80]!r} is {reason}"
        return ""

    @abstractmethod
    def problem(self, row: Row) -> str:
        """Why the row cannot be graded; empty if it can."""

    @abstractmethod
    def find(self, row: Row, text: str) -> A | None:
        """The answer in the text behind the thought, None without one."""

    @abstractmethod
    def compare(self, row: Row, answer: A) -> Score:
        """The score of an answer."""
