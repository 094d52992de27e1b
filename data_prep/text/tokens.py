"""Words and numbers of a text that may hold LaTeX, and its finer tokens: with variables and operators, too.

Neither list holds punctuation, layout commands or `[asy]` drawings. Chinese, Japanese and Korean characters are words
of their own, since nothing separates the words of these scripts.
"""

import re
import tomllib
import unicodedata
from pathlib import Path

from data_prep.text.normalise import numbers_apart

VARIABLE = "·"  # begins a token that is a variable; its own letter follows
_LETTER = "a-zA-Z"
CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
_NUMBER = r"\d+(?:\.\d+)?"
_WORD = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]{{2,}}|{_NUMBER}")
_ASCII_WORD = re.compile(rf"[a-z]{{2,}}|{_NUMBER}")  # the same of a text in small ASCII letters, in half the time
_TOKEN = re.compile(rf"[{CJK}]|{_NUMBER}|[^\W\d_{CJK}]+|<=|>=|!=|[-+*/^=<>|]")

_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL | re.IGNORECASE)
_BRACED = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_FRACTION = re.compile(rf"\\[dtc]?frac\s*(?:{_BRACED}|(\w))\s*(?:{_BRACED}|(\w))")
_LAYOUT = re.compile(
    r"\\(?:begin|end)\s*\{[a-zA-Z*]+\}(?:\{[lcr|]+\})?|\\\\(?:\[[^\]]*\])?|\^\s*\{?\\circ\}?|\\[,;:! ]"
)
_TEXT = re.compile(r"\\(?:text\w*|mbox|operatorname|emph)\s*\{([^{}]*)\}")
_COMMAND = re.compile(rf"\\([{_LETTER}]+)")
_SPACES = re.compile(r" *([+*^=<>]) *")
_TABLE = re.compile(r"^[ |:]*-{3,}[-| :]*$", re.MULTILINE)  # Markdown's line below the head
_NOT = re.compile(r"(?<=can)(?:not|['’]t)\b|(?<=[a-z])(?<!ca)n['’]t\b", re.IGNORECASE)  # cannot, can't, isn't
_OR_EQUAL = re.compile(r"\bor (?:is |are )?equals?(?: to)?\b", re.IGNORECASE)
_POWER = re.compile(r"(?<=[0-9A-Za-z)|\]}])(?:\*\*| \*\* )(?=[0-9A-Za-z({\\-])")  # Python's; other ** are Markdown's
_DIGIT_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,)(?=\d{3}(?!\d))")
OR_EQUAL = "orequal"  # a token
_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
STOP_WORDS, FUNCTIONS, QUANTITIES = (
    frozenset(_TABLES[name].split()) for name in ("stop_words", "functions", "quantities")
)
NEGATIONS = frozenset([*_TABLES["negations"].split(), OR_EQUAL])
OPPOSITES = {  # word -> what it is about, and which side of that
    word: (kind, side) for kind, sides in _TABLES["opposites"].items() for side in sides for word in side.split()
}
_SIGNS = str.maketrans(_TABLES["signs"])


def _by_word(table: str) -> dict[str, str]:
    """Each word of a table's lists with the key that it stands under."""
    return {word: key for key, words in _TABLES[table].items() for word in words.split()}


_OPERATORS, _SYNONYMS, _SAME, _NUMERALS = map(_by_word, ("operators", "synonyms", "commands", "numerals"))
_GREEK = dict(zip(_TABLES["greek"]["names"].split(), _TABLES["greek"]["letters"], strict=True))
_FORMULA = frozenset("0123456789^_=+*/<>|{}$")  # beside few letters: they are variables


def words(text: str) -> list[str]:
    """Words of two letters or more, CJK characters and numbers, without case."""
    text = plain(text)
    return _ASCII_WORD.findall(text.lower()) if text.isascii() else _WORD.findall(text.casefold())


def tokens(text: str) -> list[str]:
    """The words and numbers, numerals as digits, with operators and variables where they stand."""
    text = plain(text)
    if text.isupper():
        text = text.lower()
    text = _OR_EQUAL.sub(f" {OR_EQUAL} ", _NOT.sub(" not", _SPACES.sub(r"\1", text)))
    if "|" in text and _TABLE.search(text):
        text = text.replace("|", " ")
    matches = list(_TOKEN.finditer(text))
    result: list[str] = []
    for match, following in zip(matches, [*(m[0] for m in matches[1:]), ""], strict=True):
        word, start, end = match[0], match.start(), match.end()
        before, after = text[max(0, start - 2) : start], text[end : end + 2]
        if word == "-" and len(following) > 1 and following[0].isalpha() and following not in FUNCTIONS:
            continue  # a hyphen or dash
        article = word in ("a", "A", "I") and after[:1] == " " and after[1:].isalnum()
        if not article and _is_variables(word, before, after):
            result += [VARIABLE + letter for letter in word]
        else:
            word = word.casefold()
            result.append(_NUMERALS.get(word) or _SYNONYMS.get(word, word))
    return result


def _is_variables(token: str, before: str, after: str) -> bool:
    """One letter, up to three capitals (points of a triangle), or a few letters within a formula: $ax$, $ABCD$."""
    if not token.isalpha() or token[0] >= "\u3040":
        return False
    if len(token) == 1 or (len(token) <= 3 and token.isupper()):
        return True
    near = {before[-1:], after[:1].replace("(", "=")}  # xyz(x + y), but not (in cm)
    if before[-1:] + after[:1] == "()" or (len(token) == 2 and "-" in before + after):
        near.add("=")  # log(kx), 1 - xy
    if token.isupper():
        return len(token) <= 6 and bool((near | {before.strip()[-1:], after.strip()[:1]}) & _FORMULA)
    return len(token) <= 3 and bool(near & _FORMULA) and token not in FUNCTIONS and token not in STOP_WORDS


def plain(text: str) -> str:
    """The text without drawings and LaTeX's layout, fractions as quotients, compatibility forms united."""
    if "[asy]" in text:
        text = _DRAWING.sub(" ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", numbers_apart(text)).translate(_SIGNS)
    if "**" in text:
        text = _POWER.sub("^", text)
    if "\\" in text:
        text = re.sub(r"\\[(\[]\s*|\s*\\[)\]]", "$", _TEXT.sub(r" \1 ", _LAYOUT.sub(" ", text)))
        for _ in range(4):  # fractions within fractions
            text, count = _FRACTION.subn(r" \1\2/\3\4 ", text)
            if not count:
                break
        text = _COMMAND.sub(_command, text)
    return _DIGIT_GROUPS.sub("", text) if "," in text else text


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if name in _OPERATORS:
        return _OPERATORS[name]
    if letter := _GREEK.get(name.lower()):
        return f" {letter.upper() if name[0].isupper() else letter} "
    name = _SAME.get(name, name)
    return f" {name} " if name in FUNCTIONS else " "
