"""Words and numbers of a text that may hold LaTeX, and its finer tokens: with variables and operators, too.

Neither list holds punctuation, layout commands or `[asy]` drawings. Chinese, Japanese and Korean characters are words
of their own, since nothing separates the words of these scripts.
"""

from __future__ import annotations

import re
import unicodedata

VARIABLE = "·"  # begins a token that is a variable; its own letter follows
_LETTER = "a-zA-Z"
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
_NUMBER = r"\d+(?:\.\d+)?"
_WORD = re.compile(rf"[{_CJK}]|[^\W\d_{_CJK}]{{2,}}|{_NUMBER}")
_ASCII_WORD = re.compile(rf"[a-z]{{2,}}|{_NUMBER}")  # the same of a text in small ASCII letters, in half the time
_TOKEN = re.compile(rf"[{_CJK}]|{_NUMBER}|[^\W\d_{_CJK}]+|<=|>=|!=|[-+*/^=<>]")

_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL | re.IGNORECASE)
_BRACED = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_FRACTION = re.compile(rf"\\[dtc]?frac\s*(?:{_BRACED}|(\w))\s*(?:{_BRACED}|(\w))")
_LAYOUT = re.compile(
    r"\\(?:begin|end)\s*\{[a-zA-Z*]+\}(?:\{[lcr|]+\})?|\\\\(?:\[[^\]]*\])?|\^\s*\{?\\circ\}?|\\[,;:! ]"
)
_TEXT = re.compile(r"\\(?:text\w*|mbox|operatorname|emph)\s*\{([^{}]*)\}")
_COMMAND = re.compile(rf"\\([{_LETTER}]+)")
_SPACES = re.compile(r" *([+*^=<>]) *")
_DIGIT_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,)(?=\d{3}(?!\d))")
STOP_WORDS = frozenset(
    "a an the of to in is are be was were and or if then that this it its as at by for from on with has have had will "
    "can may each all any there their them they he she his her you your we our i what which how many much find compute "
    "determine evaluate calculate simplify value express answer let given such so when where do does did into than "
    "following form not no".split()
)
_SIGNS = str.maketrans({
    "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "⁄": "/", "≤": "<=", "≥": ">=", "≠": "!=", "π": " pi ",
    "√": " sqrt ", "∑": " sum ", "∫": " int ",
})  # fmt: skip
_OPERATORS = {
    "cdot": "*", "times": "*", "div": "/", "pm": "+", "equiv": "=", "le": "<=", "leq": "<=", "leqslant": "<=",
    "ge": ">=", "geq": ">=", "geqslant": ">=", "ne": "!=", "neq": "!=", "lt": "<", "gt": ">", "not": "!",
}  # fmt: skip
_FUNCTIONS = frozenset(
    "sin cos tan sec csc cot arcsin arccos arctan sinh cosh tanh log ln exp sqrt sum prod int lim max min sup inf gcd "
    "lcm binom pi infty cup cap det deg mod triangle angle".split()
)
_SAME = {"dbinom": "binom", "tbinom": "binom", "choose": "binom", "bmod": "mod", "pmod": "mod",
         "lfloor": "floor", "lceil": "ceil"}  # fmt: skip
_GREEK = {
    name: letter
    for name, letter in zip(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
        "omega ell varepsilon varphi".split(),
        "αβγδεζηθικλμνξρστυφχψωℓεφ",
        strict=True,
    )
}
_NUMERALS = {
    **{word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve "
       "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()) if word != "one"},
    **{word: str(10 * n) for n, word in enumerate("thirty forty fifty sixty seventy eighty ninety hundred".split(), 3)},
    **{word: str(n) for n, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split(), 3)},
    "twice": "2", "double": "2", "triple": "3", "thousand": "1000", "million": "1000000",
    **dict(zip("〇零二三四五六七八九十百千万兩两", "0 0 2 3 4 5 6 7 8 9 10 100 1000 10000 2 2".split(), strict=True)),
}  # fmt: skip
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
    text = _SPACES.sub(r"\1", text)
    matches = list(_TOKEN.finditer(text))
    result: list[str] = []
    for match, following in zip(matches, [*(m[0] for m in matches[1:]), ""], strict=True):
        token, start, end = match[0], match.start(), match.end()
        before, after = text[max(0, start - 2) : start], text[end : end + 2]
        if token == "-" and len(following) > 1 and following[0].isalpha():
            continue  # a hyphen or dash
        article = token in ("a", "A", "I") and after[:1] == " " and after[1:].isalpha()
        if not article and _is_variables(token, before, after):
            result += [VARIABLE + letter for letter in token]
        else:
            token = token.casefold()
            result.append(_NUMERALS.get(token, token))
    return result


def _is_variables(token: str, before: str, after: str) -> bool:
    """One letter, up to three capitals (points of a triangle), or a few letters within a formula: $ax$, $ABCD$."""
    if not token.isalpha() or "\u3040" <= token[0]:
        return False
    if len(token) == 1 or (len(token) <= 3 and token.isupper()):
        return True
    near = {before[-1:], after[:1]}
    if token.isupper():
        return len(token) <= 6 and bool((near | {before.strip()[-1:], after.strip()[:1]}) & _FORMULA)
    return len(token) <= 3 and bool(near & _FORMULA) and token not in _FUNCTIONS and token not in STOP_WORDS


def plain(text: str) -> str:
    """The text without drawings and LaTeX's layout, fractions as quotients, compatibility forms united."""
    if "[asy]" in text:
        text = _DRAWING.sub(" ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
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
    return f" {name} " if name in _FUNCTIONS or name in _SAME.values() else " "
