"""Base of the rewards that extract one short answer from a completion and compare it with the row's answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from rewards.base import Reward, Row, Score, error
from rewards.extract import Fallback, ThinkingFormat, cut_short, find_answer, has_box
from rewards.params import RewardParams
from rewards.thinking import thinking

SHOWN = 200  # characters of an answer kept in details
Answer = tuple[str, str]  # an extracted answer, and where it stood


class AnswerParams(RewardParams):
    """thinking: a format's name or fields. Subclasses add `truncated`, and `fallbacks`: where to look when there is no
    box, in this order.
    """

    thinking: ThinkingFormat = "think"
    fallbacks: tuple[Fallback, ...] = ()


class AnswerReward(Reward):
    """Subclasses say what is wrong with a row, may find the answer in their own way, and compare it.

    Outcomes: "error" for a row that cannot be graded, "truncated" as the parameter says, "bad_format" for a box without
    a usable answer, "no_answer" for a text without any.
    """

    needs = ("answer",)

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._answer_of = thinking(params.thinking).answer_of

    def grade(self, row: Row, completion: str) -> Score:
        answer = self.extracted(row, completion)
        return answer if isinstance(answer, Score) else self.compare(row, answer)

    def extracted(self, row: Row, completion: str) -> Score | Answer:
        """The completion's answer, or the score of one without."""
        if problem := self.problem(row):
            return error(problem)
        text = self._answer_of(completion)
        answer, truncated = self.find(row, text), self.params.truncated
        if truncated != "never" and cut_short(row) and (truncated == "always" or answer is None):
            return Score(0.0, "truncated")
        return answer or Score(0.0, "bad_format" if has_box(text) else "no_answer")

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

    def find(self, row: Row, text: str) -> Answer | None:
        """The answer in the text behind the thought, None without one."""
        answer, source = find_answer(text, self.params.fallbacks)
        return None if answer is None else (answer.strip(), source)

    @abstractmethod
    def compare(self, row: Row, answer: Answer) -> Score:
        """The score of an answer."""
