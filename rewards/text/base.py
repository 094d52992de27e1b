"""What all text rewards share: the part of a completion that they grade, and a base for those without references."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from rewards.base import Reward, Row, Score
from rewards.params import RewardParams
from rewards.thinking import as_text, thinking

AnswerTags = Literal["first", "last", "ignore"]


class TextParams(RewardParams):
    """thinking: the format whose answer is graded. answer_tags: see `answer_text`."""

    thinking: Annotated[str, BeforeValidator(as_text)] = "none"
    answer_tags: AnswerTags = "first"


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


def error(problem: str) -> Score:
    """The score of a row or completion that cannot be graded."""
    return Score(0.0, "error", {"problem": problem})


class TextReward(Reward):
    """Grades the text itself: subclasses implement `measure`, and their parameters extend TextParams."""

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        form, part = thinking(params.thinking), partial(answer_text, tags=params.answer_tags)
        # the part of a completion that is graded
        self.text_of: Callable[[str], str] = (lambda text: part(form.answer_of(text))) if form.marks else part

    def measure(self, row: Row, text: str) -> Score:
        """Score of a text as `text_of` returns it."""
        raise NotImplementedError

    def grade(self, row: Row, completion: str) -> Score:
        if not isinstance(completion, str):
            return not_a_text(completion)
        return self.measure(row, self.text_of(completion))


def not_a_text(completion: Any) -> Score:
    return error(f"the completion is {type(completion).__name__}, not a text")
