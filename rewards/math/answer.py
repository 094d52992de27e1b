"""Base of the rewards that extract one short answer from a completion and compare it with the row's answer."""

from abc import abstractmethod

from rewards.base import Reward, Row, Score, error
from rewards.extract import Fallback, cut_short, find_answer, has_box
from rewards.thinking import PRESETS, ThinkingFormat

SHOWN = 200  # characters of an answer kept in details
Answer = tuple[str, str]  # an extracted answer, and its source: "box", a fallback, or for `choice` the kind of decision


class AnswerReward(Reward):
    """Subclasses validate the row, extract the answer, and compare it with the row's.

    Outcomes: "error" for a row that cannot be graded, "truncated" (see the parameter), "bad_format" for a box without
    a usable answer, "no_answer" for a completion with neither a box nor an answer.

    thinking: a format's name or fields. truncated: which completions with meta.finish_reason "length" get outcome
    "truncated": all ("always"), none ("never"), or those without an answer.
    """

    needs = ("answer",)
    thinking: ThinkingFormat = PRESETS["think"]
    truncated: str = "always"  # the value for "without an answer" differs by subclass

    def grade(self, row: Row, completion: str) -> Score:
        answer = self.extracted(row, completion)
        return answer if isinstance(answer, Score) else self.compare(row, answer)

    def extracted(self, row: Row, completion: str) -> Score | Answer:
        """The completion's answer, or its score if the completion has none or the row cannot be graded."""
        if problem := self.problem(row):
            return error(problem)
        text = self.thinking.answer_of(completion)
        answer, truncated = self.find(row, text), self.truncated
        if truncated != "never" and cut_short(row) and (truncated == "always" or answer is None):
            return Score(0.0, "truncated")
        return answer or Score(0.0, "bad_format" if has_box(text) else "no_answer")

    def gold_problem(self, row: Row) -> str:
        if problem := self.problem(row):
            return problem
        for text in self.spellings(row):
            score = self.grade({**row, "meta": None}, text)
            if score.value != 1:
                reason = score.details.get("problem", "not recognised")
                return f"reference answer {str(row.get('answer'))[:80]!r}: {text[:80]!r} is {reason}"
        return ""

    @abstractmethod
    def spellings(self, row: Row) -> list[str]:
        """Correct completions: the row's answer in the notations that models use."""

    @abstractmethod
    def problem(self, row: Row) -> str:
        """Why the row cannot be graded; empty if it can."""

    @abstractmethod
    def find(self, row: Row, text: str) -> Answer | None:
        """The answer in the text after the thought, or None."""

    @abstractmethod
    def compare(self, row: Row, answer: Answer) -> Score:
        """The score of an extracted answer."""


class BoxedReward(AnswerReward):
    """The answer is the last box. fallbacks: where to look without a box, in this order."""

    fallbacks: tuple[Fallback, ...] = ()

    def find(self, row: Row, text: str) -> Answer | None:
        answer, source = find_answer(text, self.fallbacks)
        return None if answer is None else (answer.strip(), source)
