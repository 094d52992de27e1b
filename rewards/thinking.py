"""A thinking format: how a thought and an answer are written into one text, and read out of it again.

    from rewards.thinking import thinking
    think = thinking("think")                     # a preset, or a mapping of the fields below
    text = think.render("2 and 2", "4")           # '<think>\n2 and 2\n</think>\n\n4'
    think.parse(text)                             # Parsed(thought='2 and 2', answer='4', problems=())

Builders of training text, samplers, pairs, rewards and evaluation share this object, so that what is trained
is what is scored. It imports nothing heavy and reads a text in a few passes of `str.find`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from rewards.errors import RewardError, nearest

Problem = Literal[
    "text_before",  # something stands before the opening mark
    "no_open",
    "no_close",  # the thought never ends: all that follows its start is thought
    "no_delimiter",  # the answer's own opening mark is missing
    "no_end",  # the answer's end mark is missing
    "text_between",  # between the thought and the answer
    "text_after",  # after the end mark
    "repeated",  # a mark stands more than once
    "disorder",  # marks are all there, in another order
    "empty_answer",
]


class Parsed(NamedTuple):
    """thought, answer: without white space around them. problems: how the text departs from the format."""

    thought: str
    answer: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Thinking:
    """A format. A mark that is "" does not occur in it; without `close` there is no thought.

    open, close: around the thought. delimiter, end: around the answer; without a delimiter the answer starts
    behind `close`. prefilled: the opening mark stands in the prompt, so that a completion lacks it.
    at: which one counts where the mark before the answer stands several times. inner, outer: white space that
    `render` puts inside the marks, and between thought and answer. strict: a malformed text gives `malformed`
    for an answer, whatever it says. name: for people.
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

    def __post_init__(self) -> None:
        where = f"thinking format {self.name!r}"
        if bool(self.open) and not self.close:
            raise RewardError(f"{where}: it has an opening mark and no closing one")
        if self.prefilled and not self.open:
            raise RewardError(f"{where}: prefilled needs an opening mark")
        if self.end and not self.delimiter:
            raise RewardError(f"{where}: it has an end mark and no delimiter")
        if self.at not in ("first", "last"):
            raise RewardError(f"{where}: at must be 'first' or 'last', not {self.at!r}")
        if self.inner.strip() or self.outer.strip():
            raise RewardError(f"{where}: inner and outer must be white space")
        for mark in self.marks:
            if mark != mark.strip():
                raise RewardError(f"{where}: mark {mark!r} has white space around it; that belongs to inner or outer")
            if any(mark in other for other in self.marks if other is not mark):
                raise RewardError(f"{where}: mark {mark!r} is part of another, or stands twice")

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.open, self.close, self.delimiter, self.end) if mark)

    @property
    def prefill(self) -> str:
        """What the prompt ends with where the opening mark is prefilled."""
        return self.open + self.inner if self.prefilled else ""

    def render(self, thought: str, answer: str) -> str:
        """The text a model writes: `prefill` + this is the whole. Outer white space of both parts is dropped.

        Raises RewardError for what `parse` could not give back: an empty answer, a thought where the format
        has none, or a mark inside either part.
        """
        thought, answer = thought.strip(), answer.strip()
        if not answer:
            raise RewardError(f"thinking format {self.name!r}: the answer is empty")
        if thought and not self.close:
            raise RewardError(f"thinking format {self.name!r} has no place for a thought")
        text = self._thought(thought) + self._answer(answer)
        if self.parse(text) != (thought, answer, ()):
            mark = next((mark for mark in self.marks if mark in thought or mark in answer), "")
            raise RewardError(
                f"thinking format {self.name!r}: the text holds the mark {mark!r}"
                if mark
                else f"thinking format {self.name!r}: the text runs into a mark, so it could not be read again"
            )
        return text

    def _thought(self, thought: str) -> str:
        if not self.close:
            return ""
        opening = self.open + self.inner if self.open and not self.prefilled else ""
        return f"{opening}{thought}{self.inner}{self.close}{self.outer}"

    def _answer(self, answer: str) -> str:
        opening = self.delimiter + self.inner if self.delimiter else ""
        return f"{opening}{answer}{self.inner + self.end if self.end else ''}"

    def parse(self, text: str) -> Parsed:
        """Thought, answer and every departure from the format. Total: any text gives a result."""
        problems: list[Problem] = []
        before, thought, start = self._thought_in(text, problems)
        between, answer, after = self._answer_in(text, start, problems)
        if before.strip():
            problems.append("text_before")
        if between.strip():
            problems.append("text_between")
        if after.strip():
            problems.append("text_after")
        if self._repeated(text):
            problems.append("repeated")
        answer = answer.strip()
        if not answer:
            problems.append("empty_answer")
        if self.strict and problems:
            answer = self.malformed
        return Parsed(thought.strip(), answer, tuple(problems))

    def answer_of(self, text: str) -> str:
        """`parse(text).answer`, several times as fast.

        No word of a thought that the marks show is in it: it starts behind the thought, ends where another one
        opens, and is "" when the thought never ends. Without any mark all of the text is the answer, unless
        the opening mark was prefilled.
        """
        if self.strict:
            return self.parse(text).answer
        closed = self._find(text, self.close)
        if closed < 0 and self._opened(text):
            return ""
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
        """What stands before the thought, the thought, and where the answer may start."""
        if not self.close:
            return "", "", 0
        closed = self._find(text, self.close)
        opened = text.find(self.open, 0, closed if closed >= 0 else None) if self.open and not self.prefilled else -1
        begin = opened + len(self.open) if opened >= 0 else 0
        if opened < 0 and self.open and not self.prefilled:
            problems.append("disorder" if self.open in text else "no_open")
        if closed >= 0:
            return text[: max(opened, 0)], text[begin:closed], closed + len(self.close)
        problems.append("no_close")
        if not self._opened(text):
            return "", "", 0
        return text[: max(opened, 0)], text[begin:], len(text)

    def _answer_in(self, text: str, start: int, problems: list[Problem]) -> tuple[str, str, str]:
        """What stands before the answer, the answer, and what follows it."""
        begin, stop = self._answer_span(text, start)
        if self.delimiter and not text.endswith(self.delimiter, start, begin):
            problems.append("disorder" if self.delimiter in text else "no_delimiter")
        between = text[start : max(begin - len(self.delimiter), start)]
        ended = bool(self.end) and text.startswith(self.end, stop)
        if self.end and not ended:
            problems.append("disorder" if self.end in text else "no_end")
        return between, text[begin:stop], text[stop + len(self.end) if ended else stop :]

    def _repeated(self, text: str) -> bool:
        if self.prefilled and self.open in text:
            return True
        return any(text.count(mark) > 1 for mark in self.marks)


THINK = Thinking("<think>", "</think>", name="think")
PRESETS: dict[str, Thinking] = {
    "none": Thinking(name="none"),
    # warm-started models: the answer is what follows </think>
    "think": THINK,
    "think_prefilled": replace(THINK, prefilled=True, name="think_prefilled"),
    # "zero" models of RLMT (arXiv 2509.20357), with thinking and without
    "zero": replace(THINK, delimiter="<response>", end="</response>", outer="\n", name="zero"),
    "zero_nothink": Thinking(delimiter="<response>", end="</response>", name="zero_nothink"),
    # DeepSeek-R1's two pairs of tags
    "answer_tags": replace(THINK, delimiter="<answer>", end="</answer>", outer="\n", name="answer_tags"),
    "sky_t1": Thinking(
        "<|begin_of_thought|>",
        "<|end_of_thought|>",
        "<|begin_of_solution|>",
        "<|end_of_solution|>",
        inner="\n\n",
        name="sky_t1",
    ),
}


def thinking(given: str | Mapping[str, Any] | Thinking) -> Thinking:
    """A format from a preset's name, from a mapping of fields (`preset`: what they change), or from that
    mapping as JSON text. Raises RewardError, naming the nearest preset or field.
    """
    if isinstance(given, Thinking):
        return given
    return _built(as_text(given))


def as_text(given: Any) -> Any:
    """A format as text that `thinking` reads, for parameters that are written to files; a text stays."""
    if isinstance(given, Thinking):
        return json.dumps(asdict(given), sort_keys=True)
    return json.dumps(dict(given), sort_keys=True) if isinstance(given, Mapping) else given


@lru_cache(maxsize=256)
def _built(text: str) -> Thinking:
    if not text.lstrip().startswith("{"):
        if text not in PRESETS:
            raise RewardError(
                f"unknown thinking format {text!r}{nearest(text, PRESETS)}; formats: {', '.join(PRESETS)}, "
                "or a mapping of marks"
            )
        return PRESETS[text]
    try:
        values = json.loads(text)
    except ValueError as problem:
        raise RewardError(f"thinking format {text!r} is not JSON: {problem}") from None
    preset = values.pop("preset", None)
    if preset is not None and not isinstance(preset, str):
        raise RewardError(f"thinking format: preset must be a name, not {preset!r}")
    base = thinking(preset) if preset is not None else Thinking()
    known = {f.name: f for f in fields(Thinking)}
    for name, value in values.items():
        if name not in known:
            raise RewardError(
                f"thinking format: unknown field {name!r}{nearest(name, known)}; fields: {', '.join(known)}"
            )
        if type(value) is not type(known[name].default):
            raise RewardError(f"thinking format: {name} must be a {type(known[name].default).__name__}, not {value!r}")
    return replace(base, **values)
