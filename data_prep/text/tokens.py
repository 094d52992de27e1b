"""Words and numbers of a text that may hold LaTeX, and its finer tokens: with variables and operators, too.

Neither list holds punctuation, layout commands or `[asy]` drawings. Chinese, Japanese and Korean characters are words
of their own, since nothing separates the words of these scripts.
"""

from __future__ import annotations

import re
import unicodedata

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
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿⁱ]+")
_OTHER_FORMS = "¼-¾₀-₉⅐-⅟①-⒛"  # of digits
_BESIDE_DIGITS = re.compile(rf"(?<=\d)(?=[{_OTHER_FORMS}])|(?<=[{_OTHER_FORMS}⁰¹²³⁴-⁹])(?=\d)")
_TABLE = re.compile(r"^[ |:]*-{3,}[-| :]*$", re.MULTILINE)  # Markdown's line below the head
_NOT = re.compile(r"(?<=can)(?:not|['’]t)\b|(?<=[a-z])(?<!ca)n['’]t\b", re.IGNORECASE)  # cannot, can't, isn't
_OR_EQUAL = re.compile(r"\bor (?:is |are )?equals?(?: to)?\b", re.IGNORECASE)
_POWER = re.compile(r"(?<=[0-9A-Za-z)|\]}])(?:\*\*| \*\* )(?=[0-9A-Za-z({\\-])")  # Python's; other ** are Markdown's
_DIGIT_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,)(?=\d{3}(?!\d))")
_split = str.split  # lists of words are easier to read in one string
STOP_WORDS = frozenset(_split(
    "a an the of to in is are be was were and or if then that this it its as at by for from on with has have had will "
    "can may each all any there their them they he she his her you your we our i what which how many much find compute "
    "determine evaluate calculate simplify value express answer let given such so when where do does did into than "
    "following form not no"
))  # fmt: skip
_SIGNS = str.maketrans({
    "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "⁄": "/", "≤": "<=", "≥": ">=", "≠": "!=", "π": " pi ",
    "√": " sqrt ", "∑": " sum ", "∫": " int ",
})  # fmt: skip
_OPERATORS = {
    "cdot": "*", "times": "*", "div": "/", "pm": "+", "equiv": "=", "le": "<=", "leq": "<=", "leqslant": "<=",
    "ge": ">=", "geq": ">=", "geqslant": ">=", "ne": "!=", "neq": "!=", "lt": "<", "gt": ">", "not": "!",
    "vert": "|", "lvert": "|", "rvert": "|", "mid": "|", "Vert": "||", "lVert": "||", "rVert": "||",
}  # fmt: skip
FUNCTIONS = frozenset(_split(
    "sin cos tan sec csc cot arcsin arccos arctan sinh cosh tanh log ln exp sqrt sum prod int lim max min sup inf gcd "
    "lcm binom pi infty cup cap det deg mod floor ceil triangle angle"
))  # fmt: skip
QUANTITIES = frozenset(_split(
    "sum product difference quotient remainder area perimeter volume radius diameter circumference length width height "
    "smallest largest even odd positive negative more less first last mean median mode increasing decreasing prime "
    "integer rational real complex factors multiples rows columns"
))  # fmt: skip
_SYNONYMS = {
    "least": "smallest", "minimum": "smallest", "greatest": "largest", "maximum": "largest", "fewer": "less",
    "greater": "more", "average": "mean", "integers": "integer", "primes": "prime",
}  # fmt: skip
_SAME = {"dbinom": "binom", "tbinom": "binom", "choose": "binom", "bmod": "mod", "pmod": "mod",
         "lfloor": "floor", "lceil": "ceil"}  # fmt: skip
_GREEK = dict(zip(_split(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "ell varepsilon varphi"
), "αβγδεζηθικλμνξρστυφχψωℓεφ", strict=True))  # fmt: skip
_NUMERALS = {
    word: number for line in (
        "zero 0 two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten 10 eleven 11 twelve 12 thirteen 13",
        "fourteen 14 fifteen 15 sixteen 16 seventeen 17 eighteen 18 nineteen 19 twenty 20 thirty 30 forty 40 fifty 50",
        "sixty 60 seventy 70 eighty 80 ninety 90 hundred 100 thousand 1000 million 1000000 twice 2 double 2 triple 3",
        "third 3 fourth 4 fifth 5 sixth 6 seventh 7 eighth 8 ninth 9 tenth 10",
        "〇 0 零 0 二 2 两 2 兩 2 三 3 四 4 五 5 六 6 七 7 八 8 九 9 十 10 百 100 千 1000 万 10000 萬 10000",
    ) for word, number in zip(_split(line)[::2], _split(line)[1::2], strict=True)
}  # fmt: skip
OR_EQUAL = "orequal"  # a token
# Words that make another question where they are left out or put in. Of Chinese and Japanese, those of one character.
NEGATIONS = frozenset(_split(
    f"not no never neither nor without except unless 不 没 沒 無 无 非 未 {OR_EQUAL}"
))  # fmt: skip
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


def numbers_apart(text: str) -> str:
    """The text with powers as ^, and a space beside other forms of digits: NFKC would make 99² 992, and 101₂ 1012."""
    return text if text.isascii() else _SUPERSCRIPTS.sub(r"^\g<0>", _BESIDE_DIGITS.sub(" ", text))


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if name in _OPERATORS:
        return _OPERATORS[name]
    if letter := _GREEK.get(name.lower()):
        return f" {letter.upper() if name[0].isupper() else letter} "
    name = _SAME.get(name, name)
    return f" {name} " if name in FUNCTIONS else " "
