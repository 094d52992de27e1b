"""Decoded training text, chat marks included, taken apart into the prompt that a row has and the completion.

min-O1's reward server is sent such text, `<|im_start|>user\\n2+2?<|im_end|>\\n<|im_start|>assistant\\n4<|im_end|>`,
and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rewards.errors import RewardError
from rewards.model.chat import prompt_messages

MOST_TURNS = 64  # marks looked at; a completion may hold any number of them


@dataclass(frozen=True)
class Marks:
    """How a chat format opens the user's and the assistant's turn, and what ends one."""

    user: str
    assistant: str
    ends: tuple[str, ...]


CHATS = {
    "qwen": Marks("<|im_start|>user\n", "<|im_start|>assistant\n", ("<|im_end|>", "<|endoftext|>")),
    "llama3": Marks(
        "<|start_header_id|>user<|end_header_id|>",
        "<|start_header_id|>assistant<|end_header_id|>",
        ("<|eot_id|>", "<|end_of_text|>"),
    ),
    "deepseek": Marks("<｜User｜>", "<｜Assistant｜>", ("<｜end▁of▁sentence｜>",)),
}
Turns = tuple[str, ...]  # what the user said, turn by turn, without white space around it


class Prompts:
    """Rows found by what their user said. Raises RewardError for a row without a prompt, or one prompt twice
    with different golds.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows: dict[Turns, dict[str, Any]] = {}
        for number, row in enumerate(rows, 1):
            try:
                messages = prompt_messages(row.get("prompt"))
            except RewardError as problem:
                raise RewardError(f"row {number}: {problem}") from None
            turns = tuple(one["content"].strip() for one in messages if one["role"] == "user")
            known = self._rows.setdefault(turns, dict(row))
            if any(known.get(gold) != row.get(gold) for gold in ("answer", "tests", "references")):
                raise RewardError(f"row {number} has the prompt of an earlier row and another gold: {turns[-1][:80]!r}")

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, text: str) -> tuple[dict[str, Any], str]:
        """(row, completion) of a transcript; the row's meta.finish_reason says whether its end token is there.

        Raises RewardError if no row has its prompt. The first turn that fits decides: what a completion writes,
        forged turns included, stands behind it.
        """
        marks = _marks_of(text)
        for turns, rest in _splits(text, marks):
            if turns in self._rows:
                row = self._rows[turns]
                completion, finished = _until_end(rest, marks)
                meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
                return {**row, "meta": {**(meta or {}), "finish_reason": "stop" if finished else "length"}}, completion
        raise RewardError(f"no row has this prompt: {text[:80]!r}")


def _marks_of(text: str) -> Marks:
    """The chat format whose assistant speaks first."""
    found = [(at, name) for name, marks in CHATS.items() if (at := text.find(marks.assistant)) >= 0]
    if not found:
        raise RewardError(f"no assistant turn of {', '.join(CHATS)} in the text: {text[:80]!r}")
    return CHATS[min(found)[1]]


def _splits(text: str, marks: Marks) -> Iterator[tuple[Turns, str]]:
    """(what the user said before it, what follows it) for each place where the assistant's turn opens."""
    turns: list[str] = []
    start = 0
    for _ in range(MOST_TURNS):
        at = text.find(marks.assistant, start)
        if at < 0:
            return
        for said in text[start:at].split(marks.user)[1:]:
            turns.append(_until_end(said, marks)[0].strip())
        start = at + len(marks.assistant)
        yield tuple(turns), text[start:]


def _until_end(text: str, marks: Marks) -> tuple[str, bool]:
    places = [at for end in marks.ends if (at := text.find(end)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
