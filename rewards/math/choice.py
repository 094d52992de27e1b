r"""Reward `choice`: 1 if the option letter that a completion decides for is the row's, else 0.

    python -m rewards score --reward choice --param letters=ABCDE --input rows.jsonl --output scored.jsonl

Three tiers of decisions; the highest tier that occurs counts, and within it the last decision:
1. a box (`\boxed{C}`), a stated answer ("the answer is (C)", "Answer: C", "I choose C", "答案：C", "故选C", `<answer>`);
2. a judgement of an option ("C is correct", "the correct option for this is (C)");
3. a last line that is an option ("C", "(C) 42") or closes with one ("so it must be (C)"), or a bold letter.
Two letters at once are no correct decision. "A" before a word is an article. Rejected, conditional and merely listed
options are no decisions. The text of a choice stands for its letter where the row has `choices`. See
`rewards.extract.parts` for completions that continue with another question.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.base import Row, Score
from rewards.errors import RewardError
from rewards.extract import STATED, TEXT_COMMAND, ThinkingFormat, box_span, last_box, parts, sentence
from rewards.math.answer import AnswerReward
from rewards.math.latex import MAX_CHARS, clean, squeeze
from rewards.params import RewardParams

_LAST = 100  # statements looked at, from the last on
_LINE = r"(?=([^\n]{1,400}))"
_NOUN = r"(?:answer|choice|option|selection|conclusion)"
_BE = r"(?:is|would be|should be|must be|has to be|seems to be|appears to be)"
_STATED = (
    re.compile("(?i)" + STATED.replace(r"\banswer\b", rf"\b{_NOUN}\b")),
    re.compile(rf"(?i)\b(?:I|we)(?:['’](?:ll|d)| will| would)? (?:choose|pick|select|go with)\b[:\s]*{_LINE}"),
    re.compile(rf"(?<![不能会可非])(?:故|应该?|答|可?)[選选]择?(?:答案|选项)?[是为:\s]*{_LINE}"),
)
_IS_ANSWER = (  # the letter first, not at the end of a list
    r"(?<![A-Z)][,&/] )(?<!- )(?<!\band )(?<!\bor )(?<![\w\\])(\(?[A-Z]\)?)(?= %s)"
)
_JUDGED_ANSWER = re.compile(
    _IS_ANSWER % rf"{_BE} (?:the )?(?:(?:only |most )?(?:correct|right|best|final|likely) {_NOUN}|{_NOUN}|correct one)\b"
)
_JUDGED = (
    re.compile(_IS_ANSWER % rf"(?:is|must be) (?:the )?(?:most )?(?:correct|right|best|accurate|appropriate)\b(?! (?:to|that))"),
    re.compile(rf"(?i)\b(?:correct|right|best)\b[^.\n]{{0,120}}?\b{_BE}\s(?=(\([A-Z]\))(?! (?:is|are|means)\b))"),
    re.compile(r"(?<![A-Z、和不])(?=([A-Z])(?:项|选项)?(?:是)?正确)"),
)
_NONE = re.compile(r"(?i)(?:none of|no (?:option|answer|choice|correct)|not (?:listed|given|provided|among|available))\b")
_RETRACTED = re.compile(r"(?i)\bbut (?:this|it|that) is(?:n['’]t| not| incorrect| wrong)")
# "If the answer is A, …" decides for nothing.
_CONDITION = re.compile(r"(?i)\b(?:if|whether|suppose|assum\w+|unless|why|not)\b[^.,;:!?\n]*$")
_REJECTION = re.compile(
    r"(?i)n['’]t\b|\b(?:not|cannot|neither|nor|never|than|unlike|wrong|incorrect|rul\w+ out|eliminat\w+|exclud\w+|discard\w*|reject\w*)\b"
)
_LETTER = re.compile(
    r"(?i)(?:(?:the|letter|option|choice|answer)[\s:]+)*(?P<open>[(\[<{]?)\s*(?P<letter>[A-Z])(?:\s*(?P<close>[)\]>])|(?![\w'’(]))\s*(?P<rest>.*)",
    re.DOTALL,
)
_LETTERS = re.compile(r"[(\[]?([A-Z]{2,5})[)\]]?(?!\w)")
_NOT_BUT = re.compile(r"(?i)not (?:option )?\(?[A-Z]\)?,? but (?:rather )?")
_ANOTHER = re.compile(  # a list goes on
    r"\s*(?:[,;/&+、和]|\band\b|\bor\b)[\s,]*(?:and\b|or\b)?\s*[(\[]?(?P<letter>[A-Za-z])[)\]]?(?=\s*(?:$|[.,;/&)<、。]|和|选项|and\b|or\b))"
)
_ENDED = re.compile(
    r"\s*(?:$|[.,;:!)\]}<\n\u3000-\u9fff]|\\[\])]|[-–—(]\s|\((?!\w\))"
    r"|(?:because|since|as|for|due|which|where|with|by|based|and not)\b)"
)
_OPTION_LINE = re.compile(r"[\s*_>-]{0,9}\(?[A-Za-z][).:]")
_LABEL = re.compile(r"(?:^|[\s;,])\(?([A-Za-z])[).:]\s")
_LABELLED = re.compile(r"(?P<letter>\(?[A-Za-z]\)|[A-Za-z][.:)])\s*(?P<rest>\S.*)")
_BARE = re.compile(r"(?i)(?:the )?(?:option |choice |letter )?[(\[<]?([A-Z])[)\]>]?[.!。]?")
_CLOSING = re.compile(
    rf"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice|[Ll]etter|(?:must|should|has to) be|(?:[Ii]t|[Tt]hat|[Tt]his)(?: is|['’]s))\s+(?=(\(?[A-Z]\)?|\([a-z]\))[.!\s]*$)"
    rf"|\b(?:is|be|select|choose|chose|pick)\s+(?=(\([A-Za-z]\))[.!\s]*$)|(?:[:：]\s+|→\s*)(?=(\([A-Z]\))[.!\s]*$)"
)
_BOLD = re.compile(r"(?P<before>^[^\S\n]*)?\*\*(?P<inside>[^*\n]{1,40})\*\*(?P<behind>[^\n]?[^\n]?)", re.MULTILINE)
# "(A) is wrong", "(A) means for all x": a sentence about a letter.
_SPEAKS_OF = re.compile(
    r"\(?[A-Za-z]\)? (?:is(?:n['’]t)?|was|are|can(?:not|['’]t)?|could|would|does|has|seems|must|may|might|means?|denotes?"
    r"|stands|represents?|implies|states?|says?|refers?|describes?|shows?|gives?|holds|fails)\b"
    r"(?! (?:the )?(?:correct|right|best|closest|most)\b)"
)
_MARKUP = re.compile(r"[*_`\"“”$]+|\\[()\[\]]")


class ChoiceParams(RewardParams):
    """letters: those that the question offers, capital. thinking: a format's name or fields.

    truncated: which completions with meta.finish_reason "length" get outcome "truncated": those without a decision
    ("undecided"), all ("always"), none ("never").
    """

    letters: str = "ABCD"
    thinking: ThinkingFormat = "think"
    truncated: Literal["undecided", "always", "never"] = "undecided"


@dataclass(frozen=True)
class Decision:
    """letters: the letter, or several where the text names a list ("A, C"). by: box, says, judges, line, bold."""

    letters: str
    by: str


class ChoiceReward(AnswerReward[Decision]):
    """1 if the completion decides for the row's letter, else 0.

    details: answer (the letter, or all letters of a list), by (the kind of decision), problem."""

    Params = ChoiceParams
    params: ChoiceParams

    def __init__(self, name: str, params: ChoiceParams) -> None:
        letters = params.letters
        if not re.fullmatch("[A-Z]{2,26}", letters) or len(set(letters)) < len(letters):
            raise RewardError(f"reward {name!r}: letters must be different capitals such as 'ABCD', not {letters!r}")
        super().__init__(name, params)

    def problem(self, row: Row) -> str:
        gold = self._gold(row)
        return gold if len(gold) > 1 else ""

    def find(self, row: Row, text: str) -> Decision | None:
        return decide(text, self.params.letters, _choices(row))

    def compare(self, row: Row, answer: Decision) -> Score:
        details = {"answer": answer.letters, "by": answer.by}
        if len(answer.letters) > 1:
            details["problem"] = "more than one letter"
        return Score(float(answer.letters == self._gold(row)), "scored", details)

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kinds: "letter", and "letter and text" where the row has choices."""
        gold, choices = self._gold(row), _choices(row)
        if len(gold) != 1:
            return "", gold
        completions = [rf"\boxed{{{gold}}}", f"The answer is ({gold}).", f"**{gold}**", f"So:\n{gold}"]
        if choices:
            completions.append(rf"\boxed{{{choices[self.params.letters.index(gold)]}}}")
        return ("letter and text" if choices else "letter"), self.refused(row, completions)

    def _gold(self, row: Row) -> str:
        """The row's letter, or (longer than one character) what is wrong with the row."""
        answer, letters = row.get("answer"), self.params.letters
        if not isinstance(answer, str) or not answer.strip():
            return f"the row's answer is {answer!r}, not one of {', '.join(letters)}"
        if row.get("choices") is not None and not 0 < len(_choices(row)) <= len(letters):
            return f"the row's choices must be a list of 1 to {len(letters)} texts"
        bare = re.fullmatch(r"\s*\(?([A-Za-z])\)?[.:]?\s*", answer)
        if bare and bare[1].upper() in letters:
            return bare[1].upper()
        return (
            _by_text(answer, letters, _choices(row))
            or f"the row's answer {answer[:80]!r} is none of {', '.join(letters)}"
        )


def decide(text: str, letters: str, choices: Sequence[str] = ()) -> Decision | None:
    """The decision of a completion, None without one."""
    for part in parts(unicodedata.normalize("NFKC", text)):
        for content, by in _statements(part, letters, choices):
            chosen = _read(content, letters) or ("" if by == "bold" else _by_text(content, letters, choices))
            if chosen:
                return Decision(chosen, by)
            if _NONE.match(content):
                return None
    return None


def _statements(text: str, letters: str, choices: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Texts that may name an option, each with its kind, the most decisive first."""
    plain = _MARKUP.sub("", TEXT_COMMAND.sub(r"\1", text))
    stated = _matches(plain, (*_STATED, _JUDGED_ANSWER))
    if (span := box_span(plain)) is not None:
        stated.append((span[0], last_box(plain) or "", "box"))
    for _, content, by in sorted(stated, reverse=True)[:_LAST]:
        yield content, by
    for _, content, _by in sorted(_matches(plain, _JUDGED), reverse=True)[:_LAST]:
        yield content, "judges"
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if lines and (content := _last_line(lines, letters, choices)):
        yield content, "line"
    for m in list(_BOLD.finditer(text))[: -_LAST - 1 : -1]:
        heads_line = m["before"] is not None and m["behind"].strip(" .:")
        if not heads_line and not _SPEAKS_OF.match(_plain(m["inside"] + m["behind"])):
            yield m["inside"], "bold"


def _matches(text: str, patterns: Sequence[re.Pattern[str]]) -> list[tuple[int, str, str]]:
    """(position, content, kind) of statements that stand under no condition."""
    found = []
    for m in (m for pattern in patterns for m in pattern.finditer(text)):
        content = next(filter(None, m.groups()), "")
        conditional = _CONDITION.search(text, max(0, m.start() - 60), m.start())
        if not conditional and not _RETRACTED.search(content) and not _heads_list(m[0], content, text[m.end() :][:500]):
            found.append((m.start(), content, "says"))
    return found


def _heads_list(cue: str, content: str, text: str) -> bool:
    """Whether a content is the first item of a list of options: after "each option:", or before the next option."""
    label = _LABELLED.match(content.strip())
    if label and "\n" in cue and re.match(r"(?i)option|choice", cue):
        return True
    following = re.match(r"[^\n]*\n[\s*_>-]*\(?([A-Za-z])[).:]", text)
    return bool(label and following) and ord(following[1].upper()) == ord(label["letter"].strip("().:").upper()) + 1


def _last_line(lines: Sequence[str], letters: str, choices: Sequence[str]) -> str:
    """What the last line decides for: an option that is all of it, or one that closes it."""
    line = re.sub(r"^A:\s*", "", lines[-1]).strip("' ")[:MAX_CHARS]  # "A:" introduces an answer
    if len(lines) > 1 and _OPTION_LINE.match(lines[-2]) or len(_LABEL.findall(line)) > 1:
        return ""  # a list of options
    if _BARE.fullmatch(line) or _key(line) in map(_key, choices):
        return line
    label = _LABELLED.fullmatch(line)
    if label and not _SPEAKS_OF.match(line):
        letter = label["letter"].strip("().:")
        if choices and letter.upper() in letters[: len(choices)]:
            option = choices[letters.index(letter.upper())]
            if _key(label["rest"]) and _key(option).startswith(_key(label["rest"])):
                return letter
        short = len(label["rest"].split()) <= (12 if letter.isupper() else 4)
        return letter if short and (letter.isupper() or len(lines) == 1) else ""
    closing = _CLOSING.search(line)
    clause = re.split(r"[.;!?]\s", line[: closing.start()])[-1] if closing else ""
    return next(filter(None, closing.groups()), "") if closing and not _REJECTION.search(clause) else ""


def _read(content: str, letters: str) -> str:
    """The letter that a content begins with, all of them if it is a list, "" without one."""
    content = _NOT_BUT.sub("", _plain(content).strip("' "), count=1)
    if _SPEAKS_OF.match(content):
        return ""
    labels = _LABEL.findall(content)
    if len(labels) > 2:  # a list of options
        return ", ".join(labels)
    several = _LETTERS.match(content)
    if several and set(several[1]) <= set(letters) and list(several[1]) == sorted(set(several[1])):
        return ", ".join(several[1])
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
    """The letter of the only choice with this text, or with the text of its first sentence; else ""."""
    for text in (content, sentence(content)) if choices else ():
        key = _key(text)
        same = [letter for letter, choice in zip(letters, choices, strict=False) if _key(choice) == key]
        if key and len(same) == 1:
            return same[0]
    return ""


def _key(text: str) -> str:
    return squeeze(_plain(unicodedata.normalize("NFKC", text))).casefold().rstrip(".")


def _choices(row: Row) -> Sequence[str]:
    choices = row.get("choices")
    usable = isinstance(choices, (list, tuple)) and all(isinstance(choice, str) for choice in choices)
    return choices if usable and choices is not None else ()
