r"""Reward `choice`: 1 if a completion chooses the row's option letter, else 0.

    python -m rewards score --reward choice --param letters=ABCDE --input rows.jsonl --output scored.jsonl

Decisions come in three tiers. The highest tier that occurs counts, and within it the last decision:
1. a box (`\boxed{C}`) or a stated answer ("the answer is (C)", "Answer: C", "I choose C", "答案：C", `<answer>`);
2. a judgement of an option ("C is correct", "the correct option for this is (C)", "only (C) remains");
3. a last line that is an option ("C", "(C) 42") or ends with one ("therefore (C)"), a first line, a bold letter.
A decision for two letters is wrong unless the row's answer is such a list ("BD"). "A" before a word is an article.
Options that are rejected, doubted, conditional or only listed are not decisions. If the row has `choices`, the text of
a choice counts as its letter. See `rewards.extract.parts` for completions that continue with another question.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import field_validator

from rewards.base import Row, Score
from rewards.extract import STATED, STATED_WORDS, TEXT_COMMAND, box_span, last_box, matches, meant, parts, sentence
from rewards.math.answer import Answer, AnswerReward
from rewards.math.latex import MAX_CHARS, clean, squeeze

_BEFORE = 140  # characters searched before the first keyword of a statement, and before the statement
_LAST = 100  # only the last matches of a pattern are examined
_Patterns = dict[re.Pattern[str], str]  # pattern: lower-case keywords, one of which occurs in each match
_PHRASES = tomllib.loads(Path(__file__).with_name("choice.toml").read_text("utf-8"))
_FRAGMENTS = {**_PHRASES["fragments"], "stated_words": STATED_WORDS}
_FRAGMENTS["stated"] = STATED.replace(r"\banswer\b", rf"\b{_FRAGMENTS['noun']}\b")
_STATED, _JUDGED = (
    {re.compile(phrase["pattern"] % _FRAGMENTS): phrase["words"] % _FRAGMENTS for phrase in _PHRASES[tier]}
    for tier in ("stated", "judged")
)
_PATTERNS = {name: re.compile(pattern) for name, pattern in _PHRASES["patterns"].items()}
_OTHER = ("hypothesis", "named")
_OPTION = re.compile(
    r"(?i)(?:(?:the|letter|letra|option|choice|answer)[\s:]+|(?:选项|答案)[是为:\s]*)*(?P<open>[(\[<{【]?)\s*(?P<letter>[A-Z])"
    r"(?:\s*(?P<close>[)\]>】])|(?![^\W\u3000-\u9fff\uac00-\ud7a3]|['’](?![dt][iıuü]r)|\((?![\u3000-\u9fff])))\s*(?P<rest>.*)",
    re.DOTALL,
)
_LETTERS = re.compile(r"[(\[]?([A-Z]{2,5})[)\]]?(?!\w)")
_LABEL = re.compile(r"(?:^|[\s;,])\(?([A-Za-z])[).:]{1,2}\s(?!(?:is|are|was|means|does|can)\b)")
_OPTION_LINE = re.compile(r"[\s*_>-]{0,9}(?:[Oo]ption |[Cc]hoice )?\(?(?P<letter>[A-Za-z])(?:[).:]| [-–—] )")
_LABELLED = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice) )?\(?(?P<letter>[A-Za-z])(?:[).:。]+| [-–—] |,(?= (?:because|since)\b))"
    r"\s*(?P<rest>[^\s.)].*)",
    re.DOTALL,
)
_BARE = re.compile(r"(?i)(?:the )?(?:option |choice |letter |letra |alternativa )?[(\[<{]?([A-Z])[)\]>}]?[.!。]?")
_SEVERAL = re.compile("[A-Z](?:[,、 ]*[A-Z]){1,4}[.。]?")
_VALUE_FIRST = re.compile(r"[-+.\d][^()]*\s\(([A-Z])\)\.?")  # a box such as "12 (C)"
_BOLD = re.compile(r"(?P<before>^[^\S\n]*)?\*\*(?P<inside>[^*\n]{1,40})\*\*(?P<after>[^\n]?[^\n]?)", re.MULTILINE)
_QUOTED = re.compile(r"['‘’](\(?[A-Za-z]\)?)['‘’]")
_MARKS = str.maketrans("", "", '*_`"“”「」$')


class Decision(NamedTuple):
    """letters: one letter, or a list ("A, C"). by: box, says, judges, line, first line, bold."""

    letters: str
    by: str


class ChoiceReward(AnswerReward):
    """1 if the completion chooses the row's letter, else 0.

    details: answer (the letter, or all letters of a list), by (the kind of decision), problem.

    letters: the question's option letters, as capitals.
    """

    letters: str = "ABCD"
    truncated: Literal["undecided", "always", "never"] = "undecided"

    @field_validator("letters")
    @classmethod
    def _are_letters(cls, letters: str) -> str:
        if not re.fullmatch("[A-Z]{2,26}", letters) or len(set(letters)) < len(letters):
            raise ValueError("must be different capitals such as 'ABCD'")
        return letters

    def problem(self, row: Row) -> str:
        answer, letters = row.get("answer"), self.letters
        if not isinstance(answer, str) or not answer.strip():
            return f"the row's answer is {answer!r}, not one of {', '.join(letters)}"
        if row.get("choices") is not None and not 0 < len(_choices(row)) <= len(letters):
            return f"the row's choices must be a list of 1 to {len(letters)} texts"
        return "" if self._gold(row) else f"the row's answer {answer[:80]!r} is none of {', '.join(letters)}"

    def find(self, row: Row, text: str) -> Decision | None:
        return decide(text, self.letters, _choices(row))

    def compare(self, row: Row, answer: Answer) -> Score:
        letters, by = answer
        chosen, gold = set(letters.split(", ")), set(self._gold(row))
        details = {"answer": letters, "by": by}
        details |= {"problem": "more than one letter"} if len(chosen) > len(gold) == 1 else {}
        return Score(float(chosen == gold), "scored", details)

    def spellings(self, row: Row) -> list[str]:
        gold, choices = self._gold(row), _choices(row)
        if len(gold) > 1:
            return [rf"\boxed{{{gold}}}", f"The answer is {', '.join(gold)}.", f"So:\n{gold}"]
        texts = [rf"\boxed{{{choices[self.letters.index(gold)]}}}"] if choices else []
        return [rf"\boxed{{{gold}}}", f"The answer is ({gold}).", f"**{gold}**", f"So:\n{gold}", *texts]

    def _gold(self, row: Row) -> str:
        """The letter or sorted letters of the row's answer ("D", "(D) Alina", "BD", "B, D"), "" if it has none."""
        answer, letters = row["answer"].strip(), self.letters
        if bare := re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", answer):
            return bare[1].upper() if bare[1].upper() in letters else ""
        if by_text := _by_text(answer, letters, _choices(row)):
            return by_text
        if _SEVERAL.fullmatch(answer) and set(several := re.findall("[A-Z]", answer)) <= set(letters):
            return "".join(sorted(set(several)))
        label = _LABELLED.fullmatch(answer)
        return label["letter"] if label and label["letter"] in letters else ""


def decide(text: str, letters: str, choices: Sequence[str] = ()) -> Decision | None:
    """The decision of a completion, or None."""
    for part in parts(unicodedata.normalize("NFKC", text)):
        for content, by in _statements(part, letters, choices):
            if by == "box" and (m := _VALUE_FIRST.fullmatch(_plain(content))):
                content = m[1]
            chosen = _read(content, letters) or ("" if by == "bold" else _by_text(content, letters, choices))
            if chosen:
                return Decision(chosen, by)
            if _PATTERNS["none"].match(content):  # "none of these, so (D)"
                letter = _read(_closing(content), letters)
                return Decision(letter, by) if letter else None
    return None


def _statements(text: str, letters: str, choices: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(content, kind of decision) for each text that may name an option, in order of precedence."""
    plain = _QUOTED.sub(r"\1", _unmarked(TEXT_COMMAND.sub(r"\1", text)))
    stated = _matches(plain, _STATED, "says")
    if (span := box_span(plain)) is not None:
        stated.append((span[0], last_box(plain) or "", "box"))
    judged = sorted(_matches(plain, _JUDGED, "judges"))
    for _, content, by in sorted(stated, reverse=True):
        yield content, by
    for i, (at, content, by) in reversed(list(enumerate(judged))):
        together = [earlier for start, earlier, _ in judged[:i] if not _PATTERNS["break"].search(plain, start, at)]
        yield ", ".join(dict.fromkeys([*together, content])), by
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    for at, by in ((-1, "line"), (0, "first line")) if lines else ():
        if content := _line(lines, at, letters, choices):
            yield content, by
    for m in list(_BOLD.finditer(text))[: -_LAST - 1 : -1] if "**" in text else ():
        heads_line = m["before"] is not None and m["after"].strip(" .:")
        if not heads_line and not _PATTERNS["speaks_of"].match(_plain(m["inside"] + m["after"])):
            yield m["inside"], "bold"


def _matches(text: str, patterns: _Patterns, by: str) -> list[tuple[int, str, str]]:
    """(position, content, by) of each statement that is not conditional, not retracted, and does not start a list."""
    statements = []
    for m in (m for pattern, words in patterns.items() for m in matches(pattern, words, text, _BEFORE)[-_LAST:]):
        content = next(filter(None, m.groups()), "")
        retracted = _PATTERNS["retracted"].search(content)
        if _is_meant(m) and not (retracted or _heads_list(m[0], content, text[m.end() :][:500])):
            statements.append((m.start(), content, by))
    return statements


def _is_meant(statement: re.Match[str]) -> bool:
    """`meant`, and neither under a hypothesis nor after a noun that gives the letter another meaning ("Vitamin D")."""
    before = max(0, statement.start() - _BEFORE), statement.start()
    return meant(statement) and not any(_PATTERNS[name].search(statement.string, *before) for name in _OTHER)


def _heads_list(cue: str, content: str, text: str) -> bool:
    """Whether a content is the first item of a list of options: after "Options:", or before the next option."""
    label = _LABELLED.match(content.strip())
    if label is None:
        return False
    following = _OPTION_LINE.match(text.partition("\n")[2].lstrip())
    listed = "\n" in cue and re.match(r"(?i)option|choice", cue)
    return bool(listed or (following and ord(following["letter"].upper()) == ord(label["letter"].upper()) + 1))


def _line(lines: Sequence[str], at: int, letters: str, choices: Sequence[str]) -> str:
    """The option in the first (at=0) or last (at=-1) line; "" if there is none or the line is part of a list.

    The line may be the option, or the last line may end with it.
    """
    line = _PATTERNS["introduced"].sub("", lines[at]).strip("' ")[:MAX_CHARS]
    neighbour = lines[-2 if at else 1] if len(lines) > 1 else ""
    if _OPTION_LINE.match(neighbour) or len(_LABEL.findall(line)) > 1:
        return _closing(line) if _PATTERNS["concludes"].search(line) else ""
    if _BARE.fullmatch(line) or _SEVERAL.fullmatch(line) or _key(line) in map(_key, choices):
        return line
    if at and ", " in _read(line, letters):
        return line
    label = _LABELLED.fullmatch(line)
    about = any(_PATTERNS[name].match(line) for name in ("speaks_of", "species", "plural"))
    if label and not about:
        letter, text = label["letter"], _key(label["rest"])
        if text and any(_key(choice).startswith(text) for choice in choices[letters.find(letter.upper()) :][:1]):
            return letter
        short = len(label["rest"].split()) <= (12 if letter.isupper() else 4)
        return letter if short and (letter.isupper() or len(lines) == 1) else ""
    return _closing(line) if at else ""


def _closing(line: str) -> str:
    """The option at the end of a line ("therefore (C)"), "" without one."""
    closing = _PATTERNS["closing"].search(line)
    clause = re.split(r"[.;!?,]\s", line[: closing.end()])[-1] if closing else ""
    if closing is None or _PATTERNS["rejection"].search(clause) or not _is_meant(closing):
        return ""
    return next(filter(None, closing.groups()), "")


def _read(content: str, letters: str) -> str:
    """The letter at the start of a content, all letters if it is a list, "" without one."""
    content = _PATTERNS["not_but"].sub("", _plain(content).lstrip("' -–—"), count=1)
    if _PATTERNS["speaks_of"].match(content) or _PATTERNS["species"].match(content):
        return ""
    labels = _LABEL.findall(content)
    if len(labels) > 2:  # a list of options
        return ", ".join(labels)
    several = _LETTERS.match(content)
    if several and len(distinct := set(several[1])) == len(several[1]) and distinct <= set(letters):
        return ", ".join(several[1]) if _PATTERNS["ended"].match(content, several.end()) else ""
    m = _OPTION.match(content)
    if m is None or m["letter"].upper() not in letters:
        return ""
    letter, rest = m["letter"], m["rest"]
    listed, at = [letter.upper()], 0
    while (another := _PATTERNS["another"].match(rest, at)) and another["letter"].upper() in letters:
        listed.append(another["letter"].upper())
        at = another.end()
    if len(listed) == 1 and (joined := _PATTERNS["joined"].match(rest)):
        listed += [joined["letter"]] * (joined["letter"] in letters)
    if _PATTERNS["plural"].match(content):
        return ""
    if len(set(listed)) > 1:
        return ", ".join(listed)
    if letter.islower() and not (m["open"] or m["close"] or rest[:2] == ". ") and rest.strip(" .!)"):
        return ""
    return letter.upper() if m["open"] or m["close"] or _PATTERNS["ended"].match(rest, at) else ""


def _plain(content: str) -> str:
    """The content without LaTeX and Markdown markup."""
    content = content.strip()[:MAX_CHARS]
    if "\\" in content or "$" in content:
        content = clean(content.replace("$", "").replace(r"\vec", r"\hat"))
    return _unmarked(content).strip()


def _unmarked(text: str) -> str:
    """The text without math delimiters, quotes and emphasis."""
    for bracket in (r"\(", r"\)", r"\[", r"\]"):
        text = text.replace(bracket, "")
    return text.translate(_MARKS).replace("[[", "[").replace("]]", "]")


def _by_text(content: str, letters: str, choices: Sequence[str]) -> str:
    """The letter of the only choice with this text, or with the text of its first sentence; else ""."""
    for text in (content, sentence(content)) if choices else ():
        key = _key(text)
        same = [letter for letter, choice in zip(letters, choices, strict=False) if _key(choice) == key]
        if key and len(same) == 1:
            return same[0]
    return ""


def _key(text: str) -> str:
    """A text in the form in which choices are compared: no markup, case, spaces or final period."""
    return squeeze(_plain(unicodedata.normalize("NFKC", text))).casefold().rstrip(".")


def _choices(row: Row) -> Sequence[str]:
    """The texts of the row's choices, empty if they are missing or not a list of texts."""
    choices = row.get("choices")
    usable = isinstance(choices, (list, tuple)) and all(isinstance(choice, str) for choice in choices)
    return choices if usable and choices is not None else ()
