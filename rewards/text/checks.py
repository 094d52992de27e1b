"""What all text rewards share: the part of a completion that they look at, and a base for those without references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from rewards.base import Reward, Row, Score
from rewards.extract import with_format
from rewards.thinking import thinking

AnswerTags = Literal["first", "last", "ignore"]


def answer_text(completion: str, tags: AnswerTags) -> str:
    """What stands in `<answer>` tags if there are any, else all; without white space around it.

    "first" is BLEUBERI's choice (training/dataset.py: extract_answer): from the first opening tag to the next
    tag of either kind, or to the end. "last": from the last opening tag to the closing one, or to the end.
    "ignore": the whole completion.
    """
    if tags == "ignore" or "<answer>" not in completion:
        return completion.strip()
    inside = completion.split("<answer>")[1 if tags == "first" else -1]
    return inside.partition("</answer>")[0].strip()


def part_of(params: Any) -> Callable[[str], str]:
    """What text rewards take from a completion, given their parameters: the answer of the thinking format
    `params.thinking`, and of that the text in answer tags (`params.answer_tags`). Raises RewardError.
    """
    form = thinking(params.thinking)
    if not form.marks:
        return partial(answer_text, tags=params.answer_tags)
    return lambda completion: answer_text(form.answer_of(completion), params.answer_tags)


def error(problem: str) -> Score:
    """What a row or completion gets that cannot be graded."""
    return Score(0.0, "error", {"problem": problem})


def not_a_text(completion: Any) -> Score:
    """The score of a completion that is not a string."""
    return error(f"the completion is {type(completion).__name__}, not a text")


class TextReward(Reward):
    """Grades the text itself; subclasses say how (`measure`). Their parameters have `thinking` and `answer_tags`."""

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._part = part_of(params)

    def measure(self, row: Row, text: str) -> Score:
        """Score of a text in its final form, tags and outer white space removed."""
        raise NotImplementedError

    def grade(self, row: Row, completion: str) -> Score:
        if not isinstance(completion, str):
            return not_a_text(completion)
        return self.measure(row, self._part(completion))
