r"""Extracts the program from a completion: Markdown's code blocks between ``` or ~~~ marks. The text is untrusted.

CommonMark's fenced code blocks, with three extensions for what models write: a block may open at the end of a line
of text ("Here it is: ```python"), it may close at the end of a line of code ("print(1)```"), and a block without a
closing mark ends at the next opening mark with a language, or at the end of the text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Choice = Literal["prefer", "require", "any"]
Which = Literal["last", "first", "longest"]

LANGUAGES: dict[str, frozenset[str]] = {
    "python": frozenset({"python", "py", "pypy", "cpython"}),
    "cpp": frozenset({"cpp", "c++", "gnu++", "cc", "cxx", "hpp", "h", "c"}),
}
_MARK = re.compile(r"([a-z+]+)(?:[0-9][\w.]*)?(?::.*)?")  # optional version and file: c++20, python:solution.py


def language_named(mark: str) -> str:
    """The key of LANGUAGES for the language in a block's opening mark, "" if there is none."""
    name = _MARK.fullmatch(mark.lower())
    return next((key for key, names in LANGUAGES.items() if name and name[1] in names), "")


@dataclass(frozen=True)
class Block:
    """One fenced block. language: first word after the opening mark, in lower case, "" if there is none."""

    code: str
    language: str
    closed: bool


class _Opening(NamedTuple):
    """An opening mark. indent: its columns. mark: as written. language: the first word after it. starts_line: whether
    only blanks precede it on its line.
    """

    indent: int
    mark: str
    language: str
    starts_line: bool

    def meets(self, mark: str, indent: int) -> bool:
        """Whether a mark may end this block. Indented by more than three columns, it is code (e.g. in a docstring)."""
        return mark.startswith(self.mark) and indent <= self.indent + 3


def blocks(text: str) -> list[Block]:
    """Every fenced block of `text`, in order, in linear time."""
    fenced: list[Block] = []
    opened: _Opening | None = None
    lines: list[str] = []

    def end(closed: bool) -> None:
        if opened is not None:
            fenced.append(Block("\n".join(_outdented(line, opened.indent) for line in lines), opened.language, closed))
        lines.clear()

    for line in text.split("\n"):
        line = line.removesuffix("\r")
        mark = line.strip()
        if opened is None:
            opened = _opening(line)
        elif mark == mark[:1] * len(mark) and opened.meets(mark, _columns(line)):
            end(closed=True)
            opened = None
        elif (new := _opening(line)) and new.starts_line and new.language and opened.meets(new.mark, new.indent):
            end(closed=False)
            opened = new
        elif mark.endswith(opened.mark) and (code := mark.rstrip(mark[-1])) and opened.mark not in code:
            lines.append(line.rstrip().rstrip(mark[-1]))
            end(closed=True)
            opened = None
        else:
            lines.append(line)
    end(closed=False)
    return fenced


def choose(
    fenced: Sequence[Block], language: str, choice: Choice = "prefer", which: Which = "last", unclosed: bool = True,
    fits: Callable[[str], bool] = lambda code: True,
) -> Block | None:  # fmt: skip
    """The block that holds the answer, None if there is none; blank blocks do not count.

    choice: "prefer": blocks marked as `language` (a key of LANGUAGES), if there are none unmarked blocks, else others,
    so that a sample output in the last block is not run; "require": only marked blocks; "any": all blocks.
    unclosed: whether a block without a closing mark may be selected. fits: whether a program is preferred, so that an
    example of a function's use after its definition is not selected.
    """
    usable = [block for block in fenced if block.code.strip() and (block.closed or unclosed)]
    marked = [block for block in usable if language_named(block.language) == language]
    if choice == "prefer":
        usable = marked or [block for block in usable if not block.language] or usable
    elif choice == "require":
        usable = marked
    usable = [block for block in usable if fits(block.code)] or usable
    if not usable:
        return None
    if which == "longest":
        return max(usable, key=lambda block: len(block.code))
    return usable[-1 if which == "last" else 0]


def _opening(line: str) -> _Opening | None:
    """The block that `line` opens, if any. No regular expression: it would take quadratic time on a run of marks."""
    text = line.strip()
    if text.startswith("~~~"):
        before, info = "", text.lstrip("~")
        mark = text[: len(text) - len(info)]
    else:
        end = text.rfind("`") + 1
        before, info = text[:end].rstrip("`"), text[end:]
        mark = text[len(before) : end]
    # After text on the same line, only a mark with at most one word ("…: ```python") opens; ```this``` is inline code.
    if len(mark) < 3 or "```" in before or (before and len(info.split()) > 1):
        return None
    words = info.replace("{", " ").replace("}", " ").replace(",", " ").split()
    language = words[0].lstrip(".").lower() if words else ""
    return _Opening(0 if before else _columns(line), mark, language, not before)


def _columns(line: str) -> int:
    """The indentation of `line` in columns."""
    return len(line[: len(line) - len(line.lstrip())].expandtabs(4))


def _outdented(line: str, columns: int) -> str:
    """`line` without the indentation of the opening mark, e.g. in a list item."""
    if not columns or not line[:1].isspace():
        return line
    line = line.expandtabs(4) if "\t" in line[: columns + 1] else line
    return line[min(columns, len(line) - len(line.lstrip(" "))) :]
