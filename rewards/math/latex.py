r"""Answers as text: one spelling for LaTeX that means the same, exact rationals, and a screen for hostile
input.

Pure string work, no sympy: nothing here evaluates an answer, and everything is linear in its length or
bounded by MAX_CHARS.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARS = 1000
MAX_DIGITS = 200  # in one number
MAX_DEPTH = 24  # nested brackets of any kind
MAX_EXPONENT = 100_000  # of a numeric power, and of the value of b^c in a^(b^c)
MAX_FACTORIAL = 3000

_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1},}}")
_RUN = re.compile(r"([^0-9])\1{39}")
_EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?\s*([0-9]+)")
_TOWER = re.compile(r"\^[\s{(]*[-+]?([0-9]+)[\s})]*\^[\s{(]*[-+]?([0-9]+)([\s})]*\^)?")
_FACTORIAL = re.compile(r"([0-9]+)\s*[})]*\s*!(\s*[})]*\s*!)?")


def screen(text: str) -> str | None:
    """Why this answer is not worth the time of a computer algebra system, or None."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if _RUN.search(text):
        return "one sign 40 times in a row"
    if _LONG_NUMBER.search(text):
        return f"a number of more than {MAX_DIGITS} digits"
    if _depth(text) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    if any(int(m[1]) > MAX_EXPONENT for m in _EXPONENT.finditer(text)):
        return f"an exponent above {MAX_EXPONENT}"
    for m in _TOWER.finditer(text):
        if m[3] or len(m[1]) * int(m[2]) > 10 * len(str(MAX_EXPONENT)):
            return "a tower of powers"
        if int(m[1]) ** int(m[2]) > MAX_EXPONENT:
            return "a tower of powers"
    for m in _FACTORIAL.finditer(text):
        if int(m[1]) > MAX_FACTORIAL or (m[2] and int(m[1]) > 6):
            return f"a factorial above {MAX_FACTORIAL}!"
    return None


def _depth(text: str) -> int:
    depth = deepest = 0
    for c in text:
        if c in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "})]":
            depth -= 1
    return deepest


_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ",
        "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ",
        "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ",
        "≈": r"\approx ", "∅": r"\emptyset ",
        "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "²": "^2",
        "³": "^3", "，": ",", "。": ".", "（": "(", "）": ")", "％": "%", "＝": "=", "：": ":",
        "ℝ": r"\mathbb{R}", "θ": r"\theta ", "′": "'", "’": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
    }
)  # fmt: skip

_GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # braces with what they hold, up to two deeper
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mbox|hbox|mathsf)\s*" + _GROUP)
_UNIT_FRACTION = re.compile(r"\\frac\s*\{\\(?:text|mathrm)\{([^{}]*)\}\}\{\\(?:text|mathrm)\{([^{}]*)\}\}")
_FONT = re.compile(r"\\(?:mathbf|mathit|boldsymbol|bm|vec|boxed|fbox|framebox)\s*" + _GROUP)
_REMOVE = re.compile(
    r"\\(?:left|right|big[lrgm]?|Big[lrgm]?|bigg[lr]?|Bigg[lr]?)(?![a-zA-Z])\.?"
    r"|\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![a-zA-Z])|\\!"
)
_SPACE = re.compile(r"\\q?quad(?![a-zA-Z])|(?<!\\)\\[,;:>\s]|~|\s+")
_INNER_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
_DELIMITER = re.compile(r"\\[()\[\]](?!\s*[0-9.]+\s*(?:pt|em|ex|mm)\])|(?<!\\)\$")
_SYNONYM = re.compile(
    r"\\(dfrac|tfrac|cfrac|leq|leqslant|geq|geqslant|neq|lt|gt|lbrace|rbrace|lbrack|rbrack|langle|rangle|"
    r"varnothing|degree|degrees|iff|dots|cdots|ldots|tbinom|dbinom|arrow|lvert|rvert|mid|ast)(?![a-zA-Z])"
)
_SYNONYMS = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "leq": r"\le", "leqslant": r"\le", "geq": r"\ge",
    "geqslant": r"\ge", "neq": r"\ne", "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[",
    "rbrack": "]", "langle": "(", "rangle": ")", "varnothing": r"\emptyset", "degree": r"^\circ",
    "degrees": r"^\circ", "dots": r"\ldots", "cdots": r"\ldots", "tbinom": r"\binom", "dbinom": r"\binom",
    "lvert": "|", "rvert": "|", "mid": "|", "ast": r"\cdot ",
}  # fmt: skip
_FRAC = re.compile(r"\\frac\s*(?:\{([^{}]*)\}\s*([0-9a-zA-Z])|([0-9a-zA-Z])\s*(?:\{([^{}]*)\}|([0-9a-zA-Z])))")
_SQRT = re.compile(r"\\sqrt\s*(?:\(([^()]*)\)|([0-9]+|[a-zA-Z]))")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))")
_SET_OF_REALS = re.compile(r"(?i)^(?:the )?(?:set of )?all real(?: number)?s?(?: numbers)?$")


def _frac(m: re.Match[str]) -> str:
    if m[2] is not None:
        return rf"\frac{{{m[1]}}}{{{m[2]}}}"
    return rf"\frac{{{m[3]}}}{{{m[5] if m[4] is None else m[4]}}}"


def clean(text: str) -> str:
    r"""One spelling: `\dfrac12` as `\frac{1}{2}`, `\leq` as `\le`, `\text{ cm}` as words, no layout commands.

    Words keep a space around them, degrees become the word `degree`, `\$` stays as the sign of a currency.
    """
    if not text.isascii():
        text = text.translate(_UNICODE)
    if "\\" in text or "$" in text:
        text = text.replace(r"\%", "%").replace(r"\{,\}", ",").replace(r"\&", " and ")
        text = _REMOVE.sub("", text)
        text = _SYNONYM.sub(lambda m: _SYNONYMS.get(m[1], m[0]), text)
        text = _UNIT_FRACTION.sub(r" \1/\2", text)
        for _ in range(3):
            text = _TEXT.sub(r" \1 ", text)
            text = _FONT.sub(r"\1", text)
        if "\\$" not in text and text.count("$") % 2:
            text = text.replace("$", r"\$")  # one lone dollar is money
        text = _DELIMITER.sub(" ", text)
        text = _FRAC.sub(_frac, text)
        text = _SQRT.sub(lambda m: rf"\sqrt{{{m[2] if m[1] is None else m[1]}}}", text)
        text = _DEGREE.sub(" degree ", text)
    text = _SPACE.sub(" ", text.replace("{,}", ",").replace("{:}", ":").replace(r"+\infty", r"\infty")).strip()
    while text.endswith((".", ",", ";")) and not text.endswith(r"\,"):
        text = text[:-1].rstrip()
    return r"\mathbb{R}" if _SET_OF_REALS.match(text) else text


def squeeze(text: str) -> str:
    """Without spaces, except between two digits: `1 2` is not `12`."""
    return _INNER_SPACE.sub("", text) if " " in text else text


_GROUPS = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+))(?![0-9]|,[0-9])")


def join_thousands(text: str) -> str:
    """`1,234,567` and `12 345` as one number. A list such as `1, 234` or `12,34` is left alone."""
    return _GROUPS.sub(lambda m: m[1].replace(",", "").replace(" ", ""), text)


_PLAIN = re.compile(r"[+-]?(?:[0-9]{1,200}(?:\.[0-9]{0,200})?|\.[0-9]{1,200})")
_FRACTION = re.compile(r"([+-]?)\\frac\{([+-]?[0-9.]{1,100})\}\{([+-]?[0-9.]{1,100})\}")
_SLASH = re.compile(r"([+-]?)\(?([+-]?[0-9]{1,100})\)?/\(?([+-]?[0-9]{1,100})\)?")
_MIXED = re.compile(r"([+-]?)([0-9]{1,50})(?: ?\\frac\{([0-9]{1,50})\}\{([0-9]{1,50})\}| ([0-9]{1,50})/([0-9]{1,50}))")
_SCIENTIFIC = re.compile(
    r"([+-]?(?:[0-9]{1,50}(?:\.[0-9]{0,50})?|\.[0-9]{1,50}))(?:(?:\\times|\\cdot|\*)10\^(?:\{([+-]?[0-9]{1,3})\}|([0-9]))"
    r"|[eE]([+-]?[0-9]{1,3}))"
)
_POWER = re.compile(r"([+-]?)\(?([0-9]{1,6})\)?\^(?:\{([+-]?[0-9]{1,3})\}|([0-9]))")
_REPEATING = re.compile(r"([+-]?)([0-9]{0,50})\.([0-9]{0,50})\\(?:overline|bar)\{?([0-9]{1,50})\}?")


def _plain(text: str) -> Fraction | None:
    if not _PLAIN.fullmatch(text):
        return None
    return Fraction(text) if "." in text else Fraction(int(text))


def _sign(mark: str) -> int:
    return -1 if mark == "-" else 1


def _over(sign: str, top: str, bottom: str) -> Fraction | None:
    below = int(bottom)
    return Fraction(-int(top) if sign == "-" else int(top), below) if below else None


def rational(text: str) -> Fraction | None:
    r"""The exact value of a cleaned text that is one rational number, else None.

    Integers, decimals, `\frac{a}{b}`, `a/b`, mixed numbers, `a \times 10^{k}`, `1e5`, small integer powers,
    repeating decimals.
    """
    if m := _MIXED.fullmatch(text):
        top, bottom = int(m[3] or m[5]), int(m[4] or m[6])
        return _sign(m[1]) * (int(m[2]) + Fraction(top, bottom)) if 0 < top < bottom else None
    text = squeeze(text)
    value = _plain(text)
    if value is not None:
        return value
    if m := _FRACTION.fullmatch(text):
        if "." not in m[0]:
            return _over(m[1], m[2], m[3])
        above, below = _plain(m[2]), _plain(m[3])
        return _sign(m[1]) * above / below if above is not None and below else None
    if m := _SLASH.fullmatch(text):
        return _over(m[1], m[2], m[3])
    if m := _SCIENTIFIC.fullmatch(text):
        return Fraction(m[1]) * Fraction(10) ** int(m[2] or m[3] or m[4])
    if m := _POWER.fullmatch(text):
        base, exponent = int(m[2]), int(m[3] or m[4])
        return _sign(m[1]) * Fraction(base) ** exponent if base else None
    if m := _REPEATING.fullmatch(text):
        scale, period = 10 ** len(m[3]), 10 ** len(m[4]) - 1
        whole = Fraction(int((m[2] + m[3]) or "0"), scale)
        return _sign(m[1]) * (whole + Fraction(int(m[4]), period * scale))
    return None


_OPEN = {"(": ")", "[": "]", r"\{": r"\}", "{": "}"}
_BRACKET = re.compile(r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\[{}]|[(){}\[\]]")


def balanced(text: str) -> bool:
    """Whether every group `{}` closes; brackets may mix, as in half-open intervals."""
    depth = 0
    for m in _BRACKET.finditer(text):
        mark = m.group()
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return False
    return depth == 0


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """`text` split at `separator` where no bracket is open; empty parts are dropped."""
    depth, start, parts = 0, 0, []
    marks = [(m.start(), m.end(), m.group()) for m in _BRACKET.finditer(text)]
    at = 0
    for cut in separator.finditer(text):
        while at < len(marks) and marks[at][0] < cut.start():
            mark = marks[at][2]
            depth += 1 if mark in ("(", "[", "{", r"\{") or mark.startswith(r"\begin") else -1
            at += 1
        if depth == 0:
            parts.append(text[start : cut.start()])
            start = cut.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def unwrap(text: str) -> tuple[str, str, str] | None:
    r"""(opening, inside, closing) if one pair of brackets encloses all of `text`, else None.

    The pair may mix round and square, as in `(1,2]`.
    """
    first = next((mark for mark in (r"\{", "(", "[", "{") if text.startswith(mark)), None)
    if first is None:
        return None
    depth = 0
    for m in _BRACKET.finditer(text):
        mark = m.group()
        depth += 1 if mark in ("(", "[", "{", r"\{") or mark.startswith(r"\begin") else -1
        if depth == 0:
            if m.end() != len(text) or (first in ("{", r"\{") and mark != _OPEN[first]):
                return None
            if first in "([" and mark not in ")]":
                return None
            return first, text[len(first) : m.start()].strip(), mark
    return None
