"""Thinking formats: rendering of thought and answer into one text, and parsing of such texts.

    from rewards.thinking import thinking
    think = thinking("think")                     # a preset, or a mapping of the fields below
    text = think.render("2 and 2", "4")           # '<think>\n2 and 2\n</think>\n\n4'
    think.parse(text)                             # Parsed(thought='2 and 2', answer='4', problems=())

Rendering of training text, sampling, pairs, rewards and evaluation share this class, so that training and scoring use
the same format. Parsing takes a few passes of `str.find`.
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
    "text_before",  # text before the opening tag
    "no_open",
    "no_close",  # the thought is not closed: everything after its start is thought
    "no_delimiter",  # the answer's opening tag is missing
    "no_end",  # the answer's closing tag is missing
    "text_between",  # text between the thought and the answer
    "text_after",  # text after the answer's closing tag
    "repeated",  # a tag occurs more than once
    "disorder",  # a tag occurs in the wrong order
    "empty_thought",  # nothing between the thought's tags
    "empty_answer",
]


class Parsed(NamedTuple):
    """thought, answer: stripped. problems: violations of the format."""

    thought: str
    answer: str
    problems: tuple[Problem, ...]


class Thinking(RewardParams):
    """A format. An empty tag means that the format has no such tag; without `close` there is no thought.

    open, close: around the thought. delimiter, end: around the answer; without a delimiter the answer starts
    after `close`. prefilled: the chat template's prompt ends with the opening tag, so completions lack it. at: which
    occurrence of the tag before the answer counts. inner, outer: white space that `render` writes inside the tags, and
    between thought and answer. strict: a text with problems gets the answer `malformed`. name: for messages.
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
            "open needs close": self.open and not self.close,
            "prefilled needs open": self.prefilled and not self.open,
            "end needs delimiter": self.end and not self.delimiter,
            "inner and outer must be white space": self.inner.strip() or self.outer.strip(),
        }
        for i, tag in enumerate(self.tags):
            others = self.tags[:i] + self.tags[i + 1 :]
            problems[f"tag {tag!r} has surrounding white space: put it in inner or outer"] = tag != tag.strip()
            problems[f"tag {tag!r} is repeated or part of another tag"] = any(tag in other for other in others)
        for problem, present in problems.items():
            if present:
                raise ValueError(problem)
        return self

    @cached_property
    def tags(self) -> tuple[str, ...]:
        return tuple(tag for tag in (self.open, self.close, self.delimiter, self.end) if tag)

    @property
    def prefill(self) -> str:
        """The end of the prompt if the opening tag is prefilled."""
        return self.open + self.inner if self.prefilled else ""

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings for sampling. Keep them in the completion, since `parse` looks for them."""
        return (self.end,) if self.end else ()

    def render(self, thought: str, answer: str) -> str:
        """The text that a model writes after `prefill`. Thought and answer are stripped.

        Raises RewardError for input that `parse` could not recover: an empty part, a thought in a format without
        thoughts, or a tag inside either part.
        """
        thought, answer = thought.strip(), answer.strip()
        where = f"thinking format {self.name!r}"
        if not answer:
            raise RewardError(f"{where}: the answer is empty")
        if bool(thought) != bool(self.close):
            raise RewardError(f"{where}: the thought is empty" if self.close else f"{where} has no thought")
        text = answer
        if self.delimiter:
            text = f"{self.delimiter}{self.inner}{answer}" + (self.inner + self.end if self.end else "")
        if self.close:
            opening = self.open + self.inner if self.open and not self.prefilled else ""
            text = f"{opening}{thought}{self.inner}{self.close}{self.outer}{text}"
        if self.parse(text) != (thought, answer, ()):
            tag = next((tag for tag in self.tags if tag in thought or tag in answer), "")
            reason = f"the text contains the tag {tag!r}" if tag else "the text forms a tag, so it cannot be parsed"
            raise RewardError(f"{where}: {reason}")
        return text

    def parse(self, text: str) -> Parsed:
        """Thought, answer and all problems, for any text."""
        problems: list[Problem] = []
        before, thought, start = self._thought_in(text, problems)
        between, answer, after = self._answer_in(text, start, problems)
        answer = answer.strip()
        checks: dict[Problem, object] = {
            "text_before": before.strip(),
            "text_between": between.strip(),
            "text_after": after.strip(),
            "repeated": (self.prefilled and self.open in text) or any(text.count(tag) > 1 for tag in self.tags),
            "empty_thought": self.close in text and not thought.strip() if self.close else False,
            "empty_answer": not answer,
        }
        problems += [problem for problem, present in checks.items() if present]
        return Parsed(thought.strip(), self.malformed if self.strict and problems else answer, tuple(problems))

    def answer_of(self, text: str) -> str:
        """`parse(text).answer`, several times faster.

        It never contains text of a tagged thought: it starts after the thought, ends before another thought, and is ""
        if the thought is not closed. Without any tag the whole text is the answer, unless the opening tag was
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

    def _find(self, text: str, tag: str, start: int = 0) -> int:
        """The index of the first or last occurrence of a tag, as `at` specifies; -1 without one."""
        if not tag:
            return -1
        return text.find(tag, start) if self.at == "first" else text.rfind(tag, start)

    def _opened(self, text: str) -> bool:
        """Whether the thought has an opening tag, in the text or prefilled."""
        return self.prefilled or bool(self.open and self.open in text)

    def _answer_span(self, text: str, start: int) -> tuple[int, int]:
        """(start, stop) of the answer: from delimiter or `start` to the closing tag, a new thought, or the end."""
        at = self._find(text, self.delimiter, start)
        start = at + len(self.delimiter) if at >= 0 else start
        ends = [text.find(tag, start) for tag in (self.end, self.open) if tag]
        return start, min((end for end in ends if end >= 0), default=len(text))

    def _thought_in(self, text: str, problems: list[Problem]) -> tuple[str, str, int]:
        """The text before the thought, the thought, and the index after it, where the answer may start."""
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
        """The text before the answer, the answer, and the text after it."""
        begin, stop = self._answer_span(text, start)
        if self.delimiter and not text.endswith(self.delimiter, start, begin):
            problems.append("disorder" if self.delimiter in text else "no_delimiter")
        between = text[start : max(begin - len(self.delimiter), start)]
        ended = bool(self.end) and text.startswith(self.end, stop)
        if self.end and not ended:
            problems.append("disorder" if self.end in text else "no_end")
        return between, text[begin:stop], text[stop + len(self.end) if ended else stop :]


_FILE = Path(__file__).with_suffix(".toml")
PRESETS = {name: Thinking(name=name, **fields) for name, fields in tomllib.loads(_FILE.read_text("utf-8")).items()}


def thinking(value: str | Mapping[str, Any] | Thinking) -> Thinking:
    """A format from a preset's name, from a mapping of fields (overriding those of `preset`), or from such a mapping as
    JSON text. Raises RewardError, suggesting the nearest preset or field.
    """
    if isinstance(value, Thinking):
        return value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as problem:
            raise RewardError(f"thinking format {value!r} is not JSON: {problem}") from None
    fields: dict[str, Any] = {"preset": str(value)}
    if isinstance(value, Mapping):
        fields = {"preset": "none", "name": "custom", **value}
    preset = fields.pop("preset")
    if preset not in PRESETS:
        known = f"formats: {', '.join(PRESETS)}, or a mapping of fields"
        raise RewardError(f"unknown thinking format {preset!r}{nearest(str(preset), PRESETS)}; {known}")
    return checked(Thinking, PRESETS[preset].model_dump() | fields, "thinking format") if fields else PRESETS[preset]


ThinkingFormat = Annotated[Thinking, BeforeValidator(thinking)]  # as a parameter: a name, mapping or object
