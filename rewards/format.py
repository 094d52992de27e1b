"""Reward `format`: whether a completion keeps a thinking format, and holds a boxed answer where one is asked for.

python -m rewards score --reward format --param thinking=zero --param boxed=true --input rows.jsonl …
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from rewards.base import Reward, Row, Score
from rewards.extract import last_box, with_format
from rewards.model.chat import without_end_token
from rewards.params import RewardParams
from rewards.thinking import Problem, thinking


class FormatParams(RewardParams):
    r"""thinking: a format's name or fields. ignore: departures that are allowed. boxed: the answer part must hold
    a whole `\boxed{}`. min_thought: fewest characters of a thought. good, bad: the two values.
    """

    thinking: str = "think"
    ignore: tuple[Problem, ...] = ()
    boxed: bool = False
    min_thought: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    good: float = 1.0
    bad: float = 0.0


class FormatReward(Reward):
    """`good` if the completion keeps the format, else `bad` with outcome "bad_format" and details.problems."""

    Params = FormatParams
    params: FormatParams

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: FormatParams) -> None:
        super().__init__(name, params)
        self._format = thinking(params.thinking)

    def grade(self, row: Row, completion: str) -> Score:
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        thought, answer, found = self._format.parse(without_end_token(completion, self._format.marks))
        problems: list[str] = [problem for problem in found if problem not in self.params.ignore]
        if len(thought) < self.params.min_thought:
            problems.append("short_thought")
        if self.params.boxed and last_box(answer) is None:
            problems.append("no_box")
        if not problems:
            return Score(self.params.good)
        meta = row.get("meta")
        cut = isinstance(meta, dict) and meta.get("finish_reason") == "length"
        return Score(self.params.bad, "truncated" if cut else "bad_format", {"problems": problems})
