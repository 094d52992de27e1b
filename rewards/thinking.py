"""A thinking format: how a thought and an answer are written into one text, and parsed out of it again.

    from rewards.thinking import thinking
    think = thinking("think")                     # a preset, or a mapping of the fields below
    text = think.render("2 and 2", "4")           # '<think>\n2 and 2\n</think>\n\n4'
    think.parse(text)                             # Parsed(thought='2 and 2', answer='4', problems=())

Builders of training text, samplers, pairs, rewards and evaluation share this object, so that the trained format is
the scored format. Parsing is a few passes of `str.find`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, model_validator

from rewards.errors import RewardError, nearest
from rewards.params import RewardParams, checked

Problem = Literal[
    "text_before",  # text before the opening mark
    "no_open",
    "no_close",  # the thought never ends: everything behind its start is thought
    "no_delimiter",  # the answer's own opening mark is missing
    "no_end",  # the answer's end mark is missing
    "text_between",  # text between the thought and the answer
    "text_after",  # text behind the end mark
    "repeated",  # a mark occurs more than once
    "disorder",  # all marks are there, in another order
    "empty_thought",  # both marks of the thought, and nothing between them
    "empty_answer",
]


class Parsed(NamedTuple):
    """thought, answer: without surrounding white space. problems: violations of the format."""

    thought: str
    answer: str
    problems: tuple[Problem, ...]


class Thinking(RewardParams):
    """A format. A mark that is "" does not occur in it; without `close` there is no thought.

    open, close: around the thought. delimiter, end: around the answer; without a delimiter the answer starts
    behind `close`. prefilled: the chat template's prompt ends in the opening mark, so completions lack it. at: which
    occurrence of the mark before the answer counts. inner, outer: white space that `render` puts inside the marks, and
    between thought and answer. strict: a text with problems has `malformed` as its answer. name: for messages.
    """

    open: str = ""
    close: str = ""
    delimiter: str = ""
    end: str = ""
    prefilled: bool = False
    at: Literal["first", "last"] = "last"
    inner: str = "\n"
    outer: str = "\n\n"
    strict: bool = False
    malformed: str = ""
    name: str = "custom"

    @model_validator(mode="after")
    def _consistent(self) -> Thinking:
        problems = {
            "it has an opening mark and no closing one": self.open and not self.close,
            "prefilled needs an opening mark": self.prefilled and not self.open,
            "it has an end mark and no delimiter": self.end and not self.delimiter,
            "inner and outer must be white space": self.inner.strip() or self.outer.strip(),
        }
        for i, mark in enumerate(self.marks):
            others = self.marks[:i] + self.marks[i + 1 :]
            problems[f"mark {mark!r} has white space around it; that belongs to inner or outer"] = mark != mark.strip()
            problems[f"mark {mark!r} is part of another, or stands twice"] = any(mark in other for other in others)
        for problem, present in problems.items():
            if present:
                raise ValueError(problem)
        return self

    @cached_property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.open, self.close, self.delimiter, self.end) if mark)

    @property
    def prefill(self) -> str:
        """The end of the prompt where the opening mark is prefilled."""
        return self.open + self.inner if self.prefilled else ""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts at which sampling ends. They belong to the completion, since `parse` looks for them."""
        return (self.end,) if self.end else ()

    def render(self, thought: str, answer: str) -> str:
        """The text a model writes: `prefill` + this is the whole. Outer white space of both parts is dropped.

        Raises RewardError for what `parse` could not return: an empty part, a thought where the format has none, or a
        mark inside either part.
        """
        thought, answer = thought.strip(), answer.strip()
        where = f"thinking format {self.name!r}"
        if not answer:
            raise RewardError(f"{where}: the answer is empty")
        if bool(thought) != bool(self.close):
            raise RewardError(f"{where}: the thought is empty" if self.close else f"{where} has no place for a thought")
        text = answer
        if self.delimiter:
            text = f"{self.delimiter}{self.inner}{answer}" + (self.inner + self.end if self.end else "")
        if self.close:
            opening = self.open + self.inner if self.open and not self.prefilled else ""
            text = f"{opening}{thought}{self.inner}{self.close}{self.outer}{text}"
        if self.parse(text) != (thought, answer, ()):
            mark = next((mark for mark in self.marks if mark in thought or mark in answer), "")
            reason = f"the text holds the mark {mark!r}" if mark else "the text forms a mark, so it cannot be parsed"
            raise RewardError(f"{where}: {reason}")
        return text

    def parse(self, text: str) -> Parsed:
        """Thought, answer and all problems. Any text gives a result."""
        problems: list[Problem] = []
        before, thought, start = self._thought_in(text, problems)
        between, answer, after = self._answer_in(text, start, problems)
        answer = answer.strip()
        checks: dict[Problem, object] = {
            "text_before": before.strip(),
            "text_between": between.strip(),
            "text_after": after.strip(),
            "repeated": (self.prefilled and self.open in text) or any(text.count(mark) > 1 for mark in self.marks),
            "empty_thought": self.close in text and not thought.strip() if self.close else False,
            "empty_answer": not answer,
        }
        problems += [problem for problem, present in checks.items() if present]
        return Parsed(thought.strip(), self.malformed if self.strict and problems else answer, tuple(problems))

    def answer_of(self, text: str) -> str:
        """`parse(text).answer`, several times as fast.

        No word of a marked thought is in it: it starts behind the thought, ends where another one opens, and is ""
        when the thought never ends. Without any mark the whole text is the answer, unless the opening mark was
        prefilled.
        """
        if self.strict:
            return self.parse(text).answer
        closed = self._find(text, self.close)
        if closed < 0:
            if self._opened(text):
                return ""
            if not self.delimiter:
                return text.strip()
        start, stop = self._answer_span(text, closed + len(self.close) if closed >= 0 else 0)
        return text[start:stop].strip()

    def _find(self, text: str, mark: str, start: int = 0) -> int:
        if not mark:
            return -1
        return text.find(mark, start) if self.at == "first" else text.rfind(mark, start)

    def _opened(self, text: str) -> bool:
        return self.prefilled or bool(self.open and self.open in text)

    def _answer_span(self, text: str, start: int) -> tuple[int, int]:
        """From behind the delimiter (or `start`) to the end mark, a new thought, or the end of the text."""
        at = self._find(text, self.delimiter, start)
        start = at + len(self.delimiter) if at >= 0 else start
        ends = [text.find(mark, start) for mark in (self.end, self.open) if mark]
        return start, min((end for end in ends if end >= 0), default=len(text))

    def _thought_in(self, text: str, problems: list[Problem]) -> tuple[str, str, int]:
        """The text before the thought, the thought, and where the answer may start."""
        if not self.close:
            return "", "", 0
        closed = self._find(text, self.close)
        written = bool(self.open) and not self.prefilled
        opened = text.find(self.open, 0, closed if closed >= 0 else None) if written else -1
        begin = opened + len(self.open) if opened >= 0 else 0
        if opened < 0 and written:
            problems.append("disorder" if self.open in text else "no_open")
        if closed >= 0:
            return text[: max(opened, 0)], text[begin:closed], closed + len(self.close)
        problems.append("no_close")
        return (text[: max(opened, 0)], text[begin:], len(text)) if self._opened(text) else ("", "", 0)

    def _answer_in(self, text: str, start: int, problems: list[Problem]) -> tuple[str, str, str]:
        """The text before the answer, the answer, and the text behind it."""
        begin, stop = self._answer_span(text, start)
        if self.delimiter and not text.endswith(self.delimiter, start, begin):
            problems.append("disorder" if self.delimiter in text else "no_delimiter")
        between = text[start : max(begin - len(self.delimiter), start)]
        ended = bool(self.end) and text.startswith(self.end, stop)
        if self.end and not ended:
            problems.append("disorder" if self.end in text else "no_end")
        return between, text[begin:stop], text[stop + len(self.end) if ended else stop :]


_FILE = Path(__file__).with_suffix(".toml")
PRESETS = {name: Thinking(name=name, **marks) for name, marks in tomllib.loads(_FILE.read_text("utf-8")).items()}


def thinking(given: str | Mapping[str, Any] | Thinking) -> Thinking:
    """A format from a preset's name, from a mapping of fields (`preset`: the format they change), or from that mapping
    as JSON text. Raises RewardError, naming the nearest preset or field.
    """
    if isinstance(given, Thinking):
        return given
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError as problem:
            raise RewardError(f"thinking format {given!r} is not JSON: {problem}") from None
    values: dict[str, Any] = {"preset": str(given)}
    if isinstance(given, Mapping):
        values = {"preset": "none", "name": "custom", **given}
    preset = values.pop("preset")
    if preset not in PRESETS:
        known = f"formats: {', '.join(PRESETS)}, or a mapping of marks"
        raise RewardError(f"unknown thinking format {preset!r}{nearest(str(preset), PRESETS)}; {known}")
    return checked(Thinking, PRESETS[preset].model_dump() | values, "thinking format") if values else PRESETS[preset]


ThinkingFormat = Annotated[Thinking, BeforeValidator(thinking)]  # as a parameter: a name, mapping or object
