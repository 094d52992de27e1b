r"""Takes the program out of a completion: the blocks between ``` or ~~~ marks, as Markdown has them.

CommonMark's fenced code blocks, with two leniencies that models need: a block may open at the end of a line
of text ("Here it is: ```python"), and a block that is never closed is closed by the next opening mark with a
language, or by the end of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Choice = Literal["prefer", "require", "any"]
Which = Literal["last", "first", "longest"]

LANGUAGES: dict[str, frozenset[str]] = {
    "python": frozenset({"python", "py", "python3", "py3", "python2", "pypy", "pypy3", "cpython"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx", "hpp", "h", "c", "c++11", "c++14", "c++17", "c++20", "cpp17"}),
}


@dataclass(frozen=True)
class Block:
    """One fenced block. language: first word after the opening mark, in lower case, "" if there is none."""

    code: str
    language: str
    closed: bool


def blocks(text: str) -> list[Block]:
    """Every fenced block of `text`, in order. Linear in the text."""
    found: list[Block] = []
    opened: _Open | None = None
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        if opened is None:
            opened = _opening(line)
        elif opened.closed_by(line):
            found.append(opened.block(closed=True))
            opened = None
        elif (again := _opening(line)) and opened.replaced_by(again):
            found.append(opened.block(closed=False))
            opened = again
        else:
            opened.lines.append(line)
    if opened is not None:
        found.append(opened.block(closed=False))
    return found


def choose(
    found: Sequence[Block], language: str, choice: Choice = "prefer", which: Which = "last", unclosed: bool = True
) -> Block | None:
    """The block that holds the answer, None if there is none; blank blocks do not count.

    choice: "prefer" takes blocks marked as `language` (a key of LANGUAGES), else unmarked ones, else others, so
    that a sample output in the last fence is not run; "require" only marked ones; "any" whatever the mark.
    unclosed: whether a block that was cut off by the end of the text may be taken.
    """
    usable = [block for block in found if block.code.strip() and (block.closed or unclosed)]
    marked = [block for block in usable if block.language in LANGUAGES[language]]
    if choice == "prefer":
        usable = marked or [block for block in usable if not block.language] or usable
    elif choice == "require":
        usable = marked
    if not usable:
        return None
    if which == "longest":
        return max(usable, key=lambda block: len(block.code))
    return usable[-1 if which == "last" else 0]


class _Open:
    """A block whose end has not come yet."""

    def __init__(self, indent: int, mark: str, info: str, starts_line: bool) -> None:
        self.indent, self.mark, self.starts_line = indent, mark, starts_line
        words = info.replace("{", " ").replace("}", " ").replace(",", " ").split()
        self.language = words[0].lstrip(".").lower() if words else ""
        self.lines: list[str] = []

    def closed_by(self, line: str) -> bool:
        # Deeper than three columns it is part of the code, such as an example in a docstring.
        mark = line.strip()
        return self._like(mark) and mark == mark[0] * len(mark) and _columns(line) <= self.indent + 3

    def replaced_by(self, other: _Open) -> bool:
        return other.starts_line and bool(other.language) and self._like(other.mark) and other.indent <= self.indent + 3

    def _like(self, mark: str) -> bool:
        return mark.startswith(self.mark)

    def block(self, closed: bool) -> Block:
        return Block("\n".join(_outdented(line, self.indent) for line in self.lines), self.language, closed)


def _opening(line: str) -> _Open | None:
    """The block that `line` opens, if it does. Plain searches: a pattern would be quadratic in a run of marks."""
    text = line.strip()
    if text.startswith("~~~"):
        info = text.lstrip("~")
        return _Open(_columns(line), text[: len(text) - len(info)], info, starts_line=True)
    end = text.rfind("`") + 1
    before = text[:end].rstrip("`")
    mark, info = text[len(before) : end], text[end:].strip()
    if len(mark) < 3:
        return None
    if not before:
        return _Open(_columns(line), mark, info, starts_line=True)
    # In running text only "…: ```python" opens; ```this``` is inline code.
    if "```" in before or len(info.split()) > 1:
        return None
    return _Open(0, mark, info, starts_line=False)


def _columns(line: str) -> int:
    """How far `line` is indented."""
    return len(line[: len(line) - len(line.lstrip())].expandtabs(4))


def _outdented(line: str, columns: int) -> str:
    """`line` without the indentation that the opening mark has, as in a list item."""
    if not columns or not line[:1].isspace():
        return line
    line = line.expandtabs(4) if "\t" in line[: columns + 1] else line
    return line[min(columns, len(line) - len(line.lstrip(" "))) :]
