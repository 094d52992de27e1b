"""Splits decoded training text, including chat control tokens, into a row's prompt and the completion.

min-O1's trainer sends only such text: `<|im_start|>user\\n2+2?<|im_end|>\\n<|im_start|>assistant\\n4<|im_end|>`.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rewards.errors import RewardError
from rewards.model.chat import prompt_messages

MAX_TURNS = 64  # assistant turns searched; a completion may contain any number


class Marks(NamedTuple):
    """The start of user and assistant turns in a chat format, and its end-of-turn tokens."""

    user: str
    assistant: str
    ends: list[str]


_FILE = Path(__file__).with_name("chats.toml")
CHATS = {name: Marks(**marks) for name, marks in tomllib.loads(_FILE.read_text("utf-8")).items()}


class Prompts:
    """Rows by the stripped texts of their user turns.

    Raises RewardError for a row without a prompt, or rows with the same prompt and different reference answers.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}
        for number, row in enumerate(rows, 1):
            try:
                messages = prompt_messages(row)
            except RewardError as problem:
                raise RewardError(f"row {number}: {problem}") from None
            turns = tuple(message["content"].strip() for message in messages if message["role"] == "user")
            earlier = self._rows.setdefault(turns, dict(row))
            if any(earlier.get(name) != row.get(name) for name in ("answer", "tests", "references")):
                raise RewardError(
                    f"row {number} has the prompt of an earlier row but another reference answer: {turns[-1][:80]!r}"
                )

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, text: str) -> tuple[dict[str, Any], str]:
        """(row, completion) of a transcript. The row's meta.finish_reason is "stop" with an end token, else "length".

        Raises RewardError if no row has its prompt. The completion is the first assistant turn after a known prompt,
        so that turns forged in the completion are ignored.
        """
        opened = [(at, marks) for marks in CHATS.values() if (at := text.find(marks.assistant)) >= 0]
        if not opened:
            raise RewardError(f"no assistant turn of {', '.join(CHATS)} in the text: {text[:80]!r}")
        marks = min(opened)[1]
        before, *rest = text.split(marks.assistant, MAX_TURNS)
        turns: list[str] = []
        start = 0
        for segment in (before, *rest[:-1]):
            turns += [_until_end(turn, marks)[0].strip() for turn in segment.split(marks.user)[1:]]
            start += len(segment) + len(marks.assistant)
            if row := self._rows.get(tuple(turns)):
                completion, finished = _until_end(text[start:], marks)
                meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
                return {**row, "meta": {**(meta or {}), "finish_reason": "stop" if finished else "length"}}, completion
        raise RewardError(f"no row has this prompt: {text[:80]!r}")


def _until_end(text: str, marks: Marks) -> tuple[str, bool]:
    """(text before its first end mark, whether there is one)."""
    places = [at for end in marks.ends if (at := text.find(end)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
