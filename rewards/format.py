"""Reward `format`: whether a completion follows a thinking format, and has a boxed answer where one is required.

python -m rewards score --reward format --param thinking=zero --param boxed=true --input rows.jsonl …
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rewards.base import Reward, Row, Score
from rewards.extract import ThinkingFormat, cut_short, last_box
from rewards.model.chat import without_end_token
from rewards.params import RewardParams
from rewards.thinking import Problem, thinking


class FormatParams(RewardParams):
    r"""thinking: a format's name or fields. ignore: problems that are allowed. boxed: the answer part must have a
    closed `\boxed{}`. min_thought: minimum length of the thought in characters. good, bad: the two values.
    """

    thinking: ThinkingFormat = "think"
    ignore: tuple[Problem, ...] = ()
    boxed: bool = False
    min_thought: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    good: float = 1.0
    bad: float = 0.0


class FormatReward(Reward):
    """`good` if the completion follows the format, else `bad` with outcome "bad_format" and details.problems."""

    Params = FormatParams
    params: FormatParams

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._format = thinking(params.thinking)

    def grade(self, row: Row, completion: str) -> Score:
        parsed = self._format.parse(without_end_token(completion, self._format.marks))
        problems: list[str] = [problem for problem in parsed.problems if problem not in self.params.ignore]
        if len(parsed.thought) < self.params.min_thought:
            problems.append("short_thought")
        if self.params.boxed and last_box(parsed.answer) is None:
            problems.append("no_box")
        if not problems:
            return Score(self.params.good)
        return Score(self.params.bad, "truncated" if cut_short(row) else "bad_format", {"problems": problems})
