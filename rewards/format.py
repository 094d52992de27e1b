"""Reward `format`: whether a completion follows a thinking format and, if required, has a boxed answer.

python -m rewards score --reward format --param thinking=zero --param boxed=true --input rows.jsonl …
"""

from typing import Annotated

from pydantic import Field

from rewards.base import Reward, Row, Score
from rewards.extract import cut_short, last_box
from rewards.model.chat import without_end_token
from rewards.thinking import PRESETS, Problem, ThinkingFormat


class FormatReward(Reward):
    r"""`good` if the completion follows the format, else `bad` with outcome "bad_format" and details.problems.

    thinking: a format's name or fields. ignore: tolerated problems. boxed: the answer must contain a closed
    `\boxed{}`. min_thought: minimum length of the thought in characters. good, bad: the two values.
    """

    thinking: ThinkingFormat = PRESETS["think"]
    ignore: tuple[Problem, ...] = ()
    boxed: bool = False
    min_thought: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    good: float = 1.0
    bad: float = 0.0

    def grade(self, row: Row, completion: str) -> Score:
        parsed = self.thinking.parse(without_end_token(completion, self.thinking.tags))
        problems: list[str] = [problem for problem in parsed.problems if problem not in self.ignore]
        if len(parsed.thought) < self.min_thought:
            problems.append("short_thought")
        if self.boxed and last_box(parsed.answer) is None:
            problems.append("no_box")
        if not problems:
            return Score(self.good)
        return Score(self.bad, "truncated" if cut_short(row) else "bad_format", {"problems": problems})
