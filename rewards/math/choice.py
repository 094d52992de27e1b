r"""Reward `choice`: 1 if the letter that a completion decides for is the row's, else 0.

    python -m rewards score --reward choice --param letters=ABCDE --input rows.jsonl --output scored.jsonl

A decision is a box (`\boxed{C}`), a statement ("the answer is (C)", "Answer: C", "C is the correct choice"), and
where there is neither, a bold letter (`**C**`) or a last line that is a letter. The last decision counts, so a
change of mind is one; two letters at once are none of them. "A" before a word is an article, no answer. Where the
row has `choices`, the text of a choice stands for its letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rewards.base import Reward, Row, Score
from rewards.errors import RewardError
from rewards.extract import box_span, cut_short, has_box, with_format
from rewards.math.latex import MAX_CHARS, clean, squeeze
from rewards.params import RewardParams
from rewards.thinking import thinking

_LOOKED_AT = 100  # decisions, from the last on
_LINE = r"[^\n]{0,400}"
_WANTED = r"(?:answer|choice|option|selection)"
_SAYS = re.compile(
    rf"(?i)\b{_WANTED}\b[*_\s]{{0,9}}(?:(?:is|would be|should be|must be|has to be)\b|[:=])[*_:\s]{{0,9}}(?=({_LINE}))"
    rf"|\bI(?:'ll| will| would)? (?:choose|pick|select|go with)\b[*_:\s]{{0,9}}(?=({_LINE}))"
)
# The letter first. Not in "if B is the answer", nor at the end of a list.
_IS_IT = re.compile(
    r"(?<![,&/-] )(?<!\band )(?<!\bor )(?<!\b[Ii]f )(?<!\b[Ww]hether )(?<![\w\\])(?P<letter>\(?[A-Z]\)?)[*_]{0,4}"
    rf" (?:is|must be) (?:the )?(?:(?:correct|right|best|final) {_WANTED}|{_WANTED}|correct one)\b"
)
_BOLD = re.compile(r"(?P<before>^[^\S\n]*)?\*\*(?P<inside>[^*\n]{1,40})\*\*(?P<behind>[^\n]?[^\n]?)", re.MULTILINE)
_OPTION_LINE = re.compile(r"[\s*_>-]{0,9}\(?[A-Za-z][).:]")
_MARKUP = re.compile(r"[*_`\"“”$]+")
_LETTER = re.compile(
    r"(?:(?:the|letter|option|choice|answer)[\s:]+)*(?P<open>[(\[]?)\s*(?P<letter>[A-Za-z])\s*(?P<close>[)\]]?)(?![\w'’])(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_ANOTHER = re.compile(  # a list goes on
    r"\s*(?:[,;/&+]|\band\b|\bor\b)[\s,]*(?:and\b|or\b)?\s*[(\[]?(?P<letter>[A-Za-z])[)\]]?(?=\s*(?:$|[.,;/&)]|and\b|or\b))"
)
_ENDED = re.compile(
    r"\s*(?:$|[.,;:!)\]\n]|[-–—(]\s|\((?!\w\))"
    r"|(?:because|since|as|for|due|which|where|with|by|based)\b)"
)

# "(A) is wrong" on a last line speaks of a letter without deciding for it; "(C) is correct" decides.
_SPEAKS_OF = re.compile(
    r"\(?[A-Za-z]\)? (?:is(?:n['’]t)?|was|are|can(?:not|['’]t)?|could|would|does|has|seems|must|may|might)\b"
    r"(?! (?:the )?(?:correct|right|best)\b)"
)


class ChoiceParams(RewardParams):
    """letters: those that the question offers, capital. thinking: a format's name or fields.

    truncated: which completions with meta.finish_reason "length" get outcome "truncated": those that decide for
    nothing ("undecided"), all ("always"), none ("never").
    """

    letters: str = "ABCD"
    thinking: str = "think"
    truncated: Literal["undecided", "always", "never"] = "undecided"


@dataclass(frozen=True)
class Decision:
    """letters: what was decided for, more than one where a list was given. by: box, says, bold, line."""

    letters: str
    by: str


class ChoiceReward(Reward):
    """1 if the completion decides for the row's letter, else 0.

    details: answer (the letter, or all letters of a list), by (the kind of decision), problem."""

    Params = ChoiceParams
    needs = ("answer",)
    params: ChoiceParams

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: ChoiceParams) -> None:
        letters = params.letters
        if not re.fullmatch("[A-Z]{2,26}", letters) or len(set(letters)) < len(letters):
            raise RewardError(f"reward {name!r}: letters must be different capitals such as 'ABCD', not {letters!r}")
        super().__init__(name, params)
        self._format = thinking(params.thinking)

    def grade(self, row: Row, completion: str) -> Score:
        gold = self._gold(row)
        if len(gold) != 1:
            return Score(0.0, "error", {"problem": gold})
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        part = self._format.answer_of(completion)
        decision = decide(part, self.params.letters, _choices(row))
        how = self.params.truncated
        if how != "never" and cut_short(row) and (how == "always" or decision is None):
            return Score(0.0, "truncated")
        if decision is None:
            return Score(0.0, "bad_format" if has_box(part) else "no_answer")
        return Score(float(decision.letters == gold), "scored", {"answer": decision.letters, "by": decision.by})

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kinds: "letter", and "letter and text" where choices are given and the gold's text decides too."""
        gold = self._gold(row)
        if len(gold) != 1:
            return "", gold
        spellings = [
            rf"\boxed{{{gold}}}",
            f"The answer is ({gold}).",
            f"**{gold}**",
            f"So:\n{gold}",
            rf"$\boxed{{\text{{({gold})}}}}$.",
        ]
        choices = _choices(row)
        if choices:
            spellings.append(rf"\boxed{{{choices[self.params.letters.index(gold)]}}}")
        for text in spellings:
            if self.grade({**row, "meta": None}, text).value != 1:
                return "", f"gold {row['answer']!r} is not recognised in {text[:80]!r}"
        return ("letter and text" if choices else "letter"), ""

    def _gold(self, row: Row) -> str:
        """The row's letter, or (longer than one character) what is wrong with the row."""
        answer, letters = row.get("answer"), self.params.letters
        if not isinstance(answer, str) or not answer.strip():
            return f"the row's answer is {answer!r}, not one of {', '.join(letters)}"
        named = row.get("choices")
        if named is not None and not (_choices(row) and len(_choices(row)) <= len(letters)):
            return f"the row's choices must be a list of 1 to {len(letters)} texts"
        bare = re.fullmatch(r"\s*\(?([A-Za-z])\)?[.:]?\s*", answer)
        if bare and bare[1].upper() in letters:
            return bare[1].upper()
        return (
            _by_text(answer, letters, _choices(row))
            or f"the row's answer {answer[:80]!r} is none of {', '.join(letters)}"
        )


def decide(text: str, letters: str, choices: Sequence[str] = ()) -> Decision | None:
    """What a text decides for, None if for nothing."""
    strong: list[tuple[int, str, str]] = []
    box = box_span(text)
    if box is not None:
        strong.append((box[0], text[box[0] : box[1]], "box"))
    for pattern in (_SAYS, _IS_IT):
        strong += [(m.start(), next(filter(None, m.groups()), ""), "says") for m in pattern.finditer(text)]
    strong.sort(reverse=True)
    for _, content, by in [*strong[:_LOOKED_AT], *_weak(text)]:
        found = _read(content, letters) or _by_text(content, letters, choices)
        if found:
            return Decision(found, by)
    return None


def _weak(text: str) -> Iterator[tuple[int, str, str]]:
    """The last line, then bold pieces from the last on; neither where it heads an item of a list of options, or only
    speaks of a letter.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and not (len(lines) > 1 and _OPTION_LINE.match(lines[-2])) and not _SPEAKS_OF.match(_plain(lines[-1])):
        yield len(text), lines[-1].strip()[:MAX_CHARS], "line"
    for m in list(_BOLD.finditer(text))[: -_LOOKED_AT - 1 : -1]:
        bare = m["inside"] + m["behind"]
        if (m["before"] is None or not m["behind"].strip(" .:")) and not _SPEAKS_OF.match(_plain(bare)):
            yield m.start(), m["inside"], "bold"


def _read(content: str, letters: str) -> str:
    """The letter that a decision names, all of them if it is a list, "" if it names none."""
    content = _plain(content)
    m = _LETTER.match(content)
    if m is None or m["letter"].upper() not in letters:
        return ""
    letter, rest = m["letter"], m["rest"]
    named, at = [letter.upper()], 0
    while (another := _ANOTHER.match(rest, at)) and another["letter"].upper() in letters:
        named.append(another["letter"].upper())
        at = another.end()
    if len(set(named)) > 1:
        return ", ".join(named)
    if letter.islower() and not m["open"] and rest.strip(" .!)"):
        return ""
    return letter.upper() if m["open"] or m["close"] or _ENDED.match(rest, at) else ""


def _plain(content: str) -> str:
    """Without LaTeX and Markdown around the words."""
    content = content.strip()[:MAX_CHARS]
    if "\\" in content or "$" in content:
        content = clean(content.replace("$", ""))
    return _MARKUP.sub("", content).strip()


def _by_text(content: str, letters: str, choices: Sequence[str]) -> str:
    """The letter of the one choice with this text, "" if none or several have it."""
    if not choices:
        return ""
    wanted = _key(content)
    same = [letter for letter, choice in zip(letters, choices, strict=False) if _key(choice) == wanted]
    return same[0] if wanted and len(same) == 1 else ""


def _key(text: str) -> str:
    return squeeze(_plain(text)).casefold().rstrip(".")


def _choices(row: Row) -> Sequence[str]:
    choices = row.get("choices")
    given = isinstance(choices, (list, tuple)) and all(isinstance(choice, str) for choice in choices)
    return choices if given and choices is not None else ()
