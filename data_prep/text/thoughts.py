r"""Splits what a reasoning model wrote into thought and solution, where the text itself shows the boundary.

    split("Let me see ... so 42.\n\n**Final Answer**\n\\boxed{42}", code=False, shortest=0.6)  # Parts(…, …)

A boundary is, in this order: a thinking format's marks; for code, the last program in a fence; else the last heading
such as "Final Answer" that the answer's box follows, or the last paragraph (of a text of one, the last line) if the
box is in it. A text without one, or with nothing before it, gives None.

So does a text whose boundary is in doubt: an example or a piece often follows the program that is meant, thinking goes
on below a program, and a heading may open the thinking itself.
"""

import re
from typing import Annotated, NamedTuple

from data_prep.core.validation import checked
from rewards.code.fences import blocks, language_named
from rewards.errors import RewardError
from rewards.extract import box_span
from rewards.thinking import thinking

FORMATS = ("sky_t1", "answer_tags", "think")
_FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_END = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)
_HEADING = re.compile(
    r"^[ \t]*(?:"
    r"(?:#{1,6}|\*\*)[ \t]*(?:the[ \t]+|my[ \t]+)?(?:final[ \t]+)?(?:answer|solution|result)[ \t]*:?[ \t]*(?:\*\*)?"
    r"|(?:final[ \t]+)(?:answer|solution|result)"
    r"|(?:answer|solution)[ \t]*(?=:)"
    r")[ \t]*:?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_BOX = re.compile(r"\\f?boxed\b")
NEARLY = 0.8  # of the longest program's length: the last one, polished, may be somewhat shorter than a draft


class Parts(NamedTuple):
    """thought, solution: without white space around them, neither empty."""

    thought: str
    solution: str


def known_format(name: str) -> str:
    """The name of a thinking format that holds a thought. Raises ValueError."""
    try:
        form = thinking(name)
    except RewardError as problem:
        raise ValueError(str(problem)) from None
    if not form.close:
        raise ValueError(f"format {name!r} has no place for a thought")
    return name


FormatName = Annotated[str | None, checked(known_format)]


def split(text: str, code: bool, shortest: float) -> Parts | None:
    """The two parts of a text; `code` for one that answers with a program.

    `shortest` is the share of the text, heading and box left out, that the thought before an answer must have. A plan
    may be shorter than its program, and a format's marks leave no doubt.
    """
    forms = [thinking(name) for name in FORMATS]
    for form in forms:
        parsed = form.parse(text)
        if parsed.thought and not parsed.problems:
            return Parts(parsed.thought, parsed.answer)
    if any(mark in text for form in forms for mark in form.tags):
        return None
    boundary = _program(text) if code else _answer(text)
    parts = Parts(text[:boundary].strip(), text[boundary:].strip()) if boundary is not None else None
    if not parts or not parts.thought or not parts.solution:
        return None
    if code:
        return parts if _is_whole(parts) else None
    thought, explained = len(parts.thought), len(explanation(parts.solution))
    return parts if thought >= shortest * (thought + explained) else None


def explanation(solution: str) -> str:
    """What a solution says besides its headings and its last box."""
    if box := box_span(solution):
        opened = max(solution.rfind("\\", 0, box[0]), 0)
        solution = f"{solution[:opened]}{solution[box[1] + 1 :]}"
    return _HEADING.sub("", solution).strip()


def words(text: str) -> int:
    """How many there are, marks and signs by themselves not counted."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def _program(text: str) -> int | None:
    """Where the last fenced program starts: of those marked as code of a language we know, else of those unmarked."""
    fenced = [match for match in _FENCED.finditer(text, 0, _last_end(text)) if match[2].strip()]
    chosen = [block for block in fenced if language_named(block[1])] or [block for block in fenced if not block[1]]
    return chosen[-1].start() if chosen else None


def _last_end(text: str) -> int:
    """Where the last fence ends: each that opens behind it would be followed to the end of the text, in vain."""
    return max((match.end() for match in _END.finditer(text)), default=0)


def _is_whole(parts: Parts) -> bool:
    """Whether the solution is the program that is meant: none is much longer, and it is not thought about any more."""
    before, after = blocks(parts.thought), blocks(parts.solution)
    if not after or not all(block.closed for block in (*before, after[0])):
        return False  # the boundary is inside a fence of another kind
    program = len(after[0].code)
    others = [len(block.code) for block in (*before, *after) if not block.language or language_named(block.language)]
    end = _last_end(parts.solution)
    prose = f"{_FENCED.sub('', parts.solution[:end])}{parts.solution[end:]}".strip()
    return program >= NEARLY * max(others, default=0) and len(prose) <= program


def _answer(text: str) -> int | None:
    """Where the part with the last box starts."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    last = boxes[-1].start()
    headings = [match for match in _HEADING.finditer(text) if match.end() <= last]
    if headings:
        return headings[-1].start()
    boundary = "\n\n" if "\n\n" in text.strip() else "\n"  # a text of one paragraph: its last line
    begins, follows = text.rfind(boundary, 0, last), text.find(boundary, last)
    is_last = follows < 0 or not text[follows:].strip()  # nothing comes after it
    return begins if begins >= 0 and is_last else None
