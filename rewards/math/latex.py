r"""Answers as text: normalisation of LaTeX and plain notation, exact rationals, and a screen before algebra.

Only string operations, no sympy: nothing here evaluates an answer, and all running times are linear in its length or
bounded by MAX_CHARS.
"""

import contextlib
import re
import tomllib
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

MAX_CHARS = 1000
MAX_DIGITS = 200  # in one number
MAX_DEPTH = 24  # nested brackets of any kind
MAX_EXPONENT = 100_000  # of a numeric power, and of the value of b^c in a^(b^c)
MAX_FACTORIAL = 3000

_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1},}}")
_RUN = re.compile(r"([^0-9])\1{39}")
_EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?\s*([0-9]+)")
_TOWER = re.compile(r"\^[\s{(]*[-+]?([0-9]+)([\s})]*)\^[\s{(]*[-+]?([0-9]+)([\s})]*\^)?")
_FACTORIAL = re.compile(r"([0-9]+)\s*[})]*\s*!(?!!)(\s*[})]+\s*!)?")
_FACTORIAL_OF_POWER = re.compile(r"\^(?:\{[0-9]{2,}\}|[4-9]) ?\)?!(?!!)")


def screen(text: str) -> str | None:
    """Why this answer is rejected before any algebra, or None."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if _RUN.search(text):
        return "one sign 40 times in a row"
    if _LONG_NUMBER.search(text):
        return f"a number of more than {MAX_DIGITS} digits"
    if max(accumulate(((c in "{([") - (c in "})]") for c in text), initial=0)) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    return None


def too_large(text: str) -> bool:
    """Whether a text contains a power or factorial that is too large to compute."""
    if any(int(m[1]) > MAX_EXPONENT for m in _EXPONENT.finditer(text)) or _FACTORIAL_OF_POWER.search(text):
        return True
    for m in _TOWER.finditer(text):
        inner, outer = int(m[1]), int(m[3])
        if m[4] or (inner * outer > MAX_EXPONENT if m[2].strip() else outer > 50 or inner**outer > MAX_EXPONENT):
            return True
    return any(int(m[1]) > MAX_FACTORIAL or (m[2] and int(m[1]) > 6) for m in _FACTORIAL.finditer(text))


# How answers are written: signs, commands, plain words, units.
NOTATION = tomllib.loads((Path(__file__).parent / "notation.toml").read_text("utf-8"))
GREEK = NOTATION["greek"].split()
COMMAND = re.compile(r"\\[A-Za-z]+")


def inverted(table: Mapping[str, str]) -> dict[str, str]:
    """{name: key} for {key: "name name"}."""
    return {name: key for key, names in table.items() for name in names.split()}


_UNICODE = str.maketrans(
    {entry[0]: entry[1:] + " " * entry[-1].isalpha() for entry in NOTATION["unicode"].split()}
    | {sign: f"\\{name} " for sign, name in zip(NOTATION["greek_signs"], GREEK, strict=True)}
    | {sign: f"_{digit}" for digit, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")}
)
_CIRCLED = re.compile("[①-⑳]")  # numbers of the true statements, read as a list
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+")
_SUPERSCRIPT_SIGNS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n")
_MACROS: dict[str, tuple[int, str]] = {
    name: (m["arguments"], m["writes"]) for m in NOTATION["macros"] for name in m["names"].split()
}
_SYNONYMS = inverted(NOTATION["synonyms"])
_WORDS = {word: f"\\{word}" for word in NOTATION["words"].split()} | inverted(NOTATION["word_synonyms"])
_NEED_BRACKETS = frozenset(NOTATION["need_brackets"].split())
_WRAPPED = {"exp": "e^{#1}", "abs": "|#1|", "cbrt": r"\sqrt[3]{#1}", "factorial": "(#1)!"}
_WRAPPED |= {"floor": r"\lfloor #1\rfloor ", "ceil": r"\lceil #1\rceil "}
_VECTORS = frozenset((r"\mathbf", r"\vec", r"\overrightarrow", r"\boldsymbol", r"\bm"))
_BETWEEN_POINTS = re.compile(r"[A-Z]{2}")
_VECTOR_PRODUCTS = {r"\times": r"\otimes ", r"\cdot": r"\odot "}
_SPACES = frozenset((r"\,", r"\;", r"\:", r"\>", r"\ ", "\\\n", "~"))

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|[0-9]+|\*\*|\s+|.", re.DOTALL)


class _Reader:
    """Normalises LaTeX or plain notation token by token: equal notations get the same text."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def skip_space(self) -> str:
        """The next token after white space."""
        while self.peek().isspace():
            self.at += 1
        return self.peek()

    def until(self, end: str) -> str:
        """The normalised text before the token `end`, or the rest of the text."""
        text, depth = "", 0
        while (piece := self.peek()) and (piece != end or depth):
            depth += (piece == "(") - (piece == ")") if end == ")" else 0
            text += self.element()
        self.at += 1
        for command, joined in ((r"\choose", r"\binom"), (r"\over ", r"\frac")):
            if end == "}" and command in text:
                above, _, below = text.partition(command)
                return f"{joined}{{{above.strip()}}}{{{below.strip()}}}"
        return text

    def argument(self, whole_number: bool = False) -> str:
        """The next argument as in TeX: a group, a command, one character. whole_number: all digits of `x^12`."""
        piece = self.skip_space()
        if piece == "{":
            self.at += 1
            return self.until("}").strip()
        if len(piece) > 1 and (piece.isalpha() or (piece.isdecimal() and not whole_number)):
            self.tokens[self.at : self.at + 1] = [piece[0], piece[1:]]
        return self.element().strip() if piece and piece not in ")]}" else ""

    def bracketed(self) -> str | None:
        """The normalised content of round brackets that start here, None without a balanced pair."""
        depth, start = 0, self.at
        if self.skip_space() == "(":
            for piece in self.tokens[self.at :]:
                depth += (piece == "(") - (piece == ")")
                if depth == 0:
                    self.at += 1
                    return self.until(")")
        self.at = start
        return None

    def element(self) -> str:
        """The next token and its arguments, normalised."""
        piece = self.peek()
        self.at += 1
        if piece == "{":
            return "{" + self.until("}") + "}"
        if piece[0] == "\\" and piece[1:].isalpha():
            return self.command(piece)
        if piece in ("^", "_", "**"):
            return self.script("^" if piece == "**" else piece)
        if len(piece) > 1 and piece.isalpha():
            return self.word(piece)
        return " " if piece in _SPACES else {"*": r"\cdot ", r"\%": "%", r"\&": " and "}.get(piece, piece)

    def script(self, mark: str) -> str:
        """A superscript or subscript; degrees become words, primes stay bare."""
        inside = self.bracketed() if mark == "^" else None
        if inside is None:
            sign = self.skip_space() if self.peek() in ("-", "+", "*") else ""
            self.at += bool(sign)
            inside = sign if sign == "*" else sign + self.argument(whole_number=True)
        if inside in (r"\circ", "degree", "o"):
            return " degree "
        if inside and not inside.strip("'"):
            return inside
        bare = len(inside) == 1 and inside != "*" and not self.peek().isdecimal()  # \log_{9}4 is not \log_94
        return f"{mark}{inside}" if bare else f"{mark}{{{inside}}}"

    def word(self, word: str) -> str:
        """A plain word as the command of the same meaning (`sqrt(2)`, `log2(x)`, `pi`), or unchanged."""
        follows = next((piece for piece in self.tokens[self.at : self.at + 2] if not piece.isspace()), "")
        if word in ("sqrt", "frac") and follows not in ("", ","):
            return self.command("\\" + word)
        if word in _WRAPPED and (inside := self.bracketed()) is not None:
            return _WRAPPED[word].replace("#1", inside)
        if word in ("binomial", "comb") and (inside := self.bracketed()) is not None and "," in inside:
            return rf"\binom{{{inside.replace(',', '}{', 1)}}}"
        if word == "log" and self.peek() in ("2", "10") and self.tokens[self.at + 1 : self.at + 2] == ["("]:
            self.at += 1
            return rf"\log_{{{self.tokens[self.at - 1]}}}"
        if word not in _WORDS or (word in _NEED_BRACKETS and follows != "("):
            return word
        return self.spaced(_WORDS[word])

    def spaced(self, command: str) -> str:
        """A command, separated by a space from a following letter."""
        return command + " " if command[-1:].isalpha() and self.skip_space()[:1].isalpha() else command

    def command(self, piece: str) -> str:
        """A LaTeX command with its arguments, normalised by the tables of notation.toml."""
        name = piece[1:]
        if name == "exp" and (inside := self.bracketed()) is not None:
            return f"e^{{{inside}}}"
        if name == "sqrt":
            root = ""
            if self.skip_space() == "[":
                self.at += 1
                root = f"[{self.until(']').strip()}]"
            inside = self.bracketed()
            return rf"\sqrt{root}{{{self.argument(whole_number=True) if inside is None else inside}}}"
        if piece in _VECTORS:
            text = self.argument()
            if piece in (r"\vec", r"\overrightarrow") and _BETWEEN_POINTS.fullmatch(text):
                text = rf"\overrightarrow{{{text}}}"
            start, product = self.at, _VECTOR_PRODUCTS.get(self.skip_space())
            self.at += 1
            if product and self.skip_space() in _VECTORS:
                return f"{text} {product}"
            self.at = start
            return text
        if name in _MACROS:
            count, template = _MACROS[name]
            text = template.replace("#0", name)
            for i in range(count):
                text = text.replace(f"#{i + 1}", self.argument())
            if name == "operatorname" or (text[1:-1] in _NEED_BRACKETS and self.skip_space() in ("(", r"\{")):
                word = re.sub(r"\W|operatorname", "", text)  # \operatorname{sin}, \text{gcd}(4,6)
                return self.spaced(_WORDS[word]) if word in _WORDS else text
            return text
        return self.spaced(_SYNONYMS.get(name, piece))


_UNIT_FRACTION = re.compile(
    r"\\[dt]?frac\s*\{\\(?:text|mathrm)\{([^{}]*)\}\}\{\\(?:text|mathrm)\{([^{}]*)\}((?:\^[0-9])?)\}"
)
_LAYOUT = re.compile(
    r"\\(?:begin|end)\{(?:aligned|align\*?|gather(?:ed)?\*?|equation\*?|split|center)\}|\\!\s*"
    r"|(?<!\\)\\[()\[\]](?!\s*[0-9.]+\s*(?:pt|em|ex|mm)\])|\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?"
)
# Open intervals in French notation (`]0,1[`), and unit vectors.
_REVERSED = re.compile(r"(^|\\cup|\\in) ?([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])")
_UNIT_VECTOR = re.compile(r"\\(?:wide)?hat *(?:\{ *\\?([ijk])(?:math)? *\}|([ijk])(?![A-Za-z]))")
_ONE_CELL = re.compile(r"\\begin\{array\}\{[lcr]\}([^&\\]*)\\end\{array\}")
# Line breaks outside a matrix: before the next side of an equation, and before another equation.
_NEXT_SIDE, _NEXT_LINE = re.compile(r"\\\\,?\s*(?=&?\s*=)"), re.compile(r"\\\\(?:\[\w+\])?(?=[\s,]|$)")
_EMPHASIS = re.compile(r"^\*+([^*]+)\*+\.?$")
_DOUBLED = re.compile(r"\\\\(?:[A-Za-z]{2}|[{}%,$!])")
_SINGLE_BACKSLASH = re.compile(r"(?<!\\)\\(?:\\\\)*(?!\\)")
_DOLLAR = re.compile(r"(?<!\\)\$")
_BLANKS = re.compile(r"\s+")
_BLANK_AFTER_COMMA = re.compile(r"\s*\{\s*,\s*\}\s*|(?<=[0-9])\\text\{,\}(?=[0-9])")
_INNER_SPACE = re.compile(r"(\\[A-Za-z]+ )(?=[A-Za-z])|(?<=[0-9])( )(?=[0-9])| ")
_REALS = {re.compile(f"(?i){pattern}"): interval for interval, pattern in NOTATION["reals"].items()}
_SIGN_WORD = re.compile(
    r"(?:(?:(^|[=,;(] ?)(?:negative|minus)|(?<=[0-9)}] )minus) |(?<![^\W\d_])负|(^|[=,;(] ?)positive )"
    r"(?=[0-9.]|\\[a-z])"
)
_ANGLE = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc|cis)(?:\^(?:[0-9]|\{-?[0-9]\}))?) ?(\((?:[^()]|\([^()]*\))*\)"
    r"|\{(?:[^{}]|\{[^{}]*\})*\}|(?:\\frac\{[^{}]*\}\{[^{}]*\}|[0-9.]+)?[A-Za-z]?)(\s*degrees?)?(?![A-Za-z])"
)
_DEGREES, _RADIANS = re.compile(r"\s*degrees?"), r" \\cdot \\frac{\\pi}{180}"


def _in_radians(m: re.Match[str]) -> str:
    """A trigonometric function with its angle in degrees converted to radians."""
    angle = m[2] + (m[3] or "")
    return f"{m[1]}({_DEGREES.sub(_RADIANS, angle)})" if "degree" in angle else m[0]


@lru_cache(maxsize=8192)
def clean(text: str) -> str:
    r"""Normalises an answer: `\dfrac12` to `\frac{1}{2}`, `sqrt(2)` to `\sqrt{2}`, `\text{ cm}` to words.

    Layout commands are removed. Words keep a space around them. Degrees become the word `degree`, or radians in the
    angle of a trigonometric function. `\$` is kept as a currency sign.
    """
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda m: f"^{{{m.group().translate(_SUPERSCRIPT_SIGNS)}}}", text)
        text = _CIRCLED.sub(r"\g<0>,", text.translate(_UNICODE))
        text = unicodedata.normalize("NFKC", text)
    text = text.strip().strip("`")
    if "\n" in text and sum("=" in line for line in text.split("\n")) > 1:
        text = text.replace("\n", ", ")  # one statement per line
    text = _EMPHASIS.sub(r"\1", text)
    if "\\\\" in text and _DOUBLED.search(text) and not _SINGLE_BACKSLASH.search(text):
        text = text.replace("\\\\", "\\")  # doubly escaped, as in JSON inside JSON
    text = _BLANK_AFTER_COMMA.sub(",", _UNIT_FRACTION.sub(r" \1/\2\3", text.replace("...", r"\ldots ")))
    text = _UNIT_VECTOR.sub(r"\1\2", _LAYOUT.sub("", text))
    if "\\\\" in text and "\\begin" not in text:
        text = _NEXT_LINE.sub(", ", _NEXT_SIDE.sub(" ", text)).replace("&", "")
    if "$" in text:
        money = "\\$" in text or text.count("$") % 2
        text = text.replace("$", r"\$") if money and "\\$" not in text else _DOLLAR.sub(" ", text)
    if balanced(text):
        with contextlib.suppress(RecursionError):  # nested deeper than any real answer: left unchanged
            text = _Reader(_ONE_CELL.sub(r"\1", text)).until("")
    if "tive " in text or "minus " in text or "负" in text:
        text = _BLANKS.sub(" ", text).strip()
        text = _SIGN_WORD.sub(lambda m: (m[1] or m[2] or "") + "-" * ("positive" not in m[0]), text)
    if "degree" in text:
        text = _ANGLE.sub(_in_radians, text)
    text = _BLANKS.sub(" ", text.replace("{:}", ":").replace(r"+\infty", r"\infty").replace(r"\log_e", r"\ln")).strip()
    if "]" in text or "[" in text:
        text = _REVERSED.sub(lambda m: m[1] + "(["[m[2] == "["] + m[3] + ")]"[m[4] == "]"], text)
    while text.endswith((".", ",", ";")):
        text = text[:-1].rstrip()
    if "eal" in text or "R" in text:
        return next((interval for pattern, interval in _REALS.items() if pattern.fullmatch(text)), text)
    return text


def squeeze(text: str) -> str:
    """Removes spaces, except between digits and after a command: `1 2` is not `12`, `\\sin h` is not `\\sinh`."""
    return _INNER_SPACE.sub(r"\1\2", text) if " " in text else text


_GROUPS = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+))(?![0-9]|,[0-9])")


def join_thousands(text: str) -> str:
    """Removes thousands separators: `1,234,567`, `12 345`. Lists such as `1, 234` and `12,34` are unchanged."""
    return _GROUPS.sub(lambda m: m[1].replace(",", "").replace(" ", ""), text)


_PLAIN = re.compile(r"[+-]?(?:[0-9]{1,200}(?:\.[0-9]{0,200})?|\.[0-9]{1,200})")
_TERM = r"([+-]?[0-9.]{1,100})"
_FRACTION = re.compile(rf"([+-]?)(?:\\frac\{{{_TERM}\}}\{{{_TERM}\}}|\(?{_TERM}\)?/\(?{_TERM}\)?)")
_MIXED = re.compile(r"([+-]?)([0-9]{1,50})(?: ?\\frac\{([0-9]{1,50})\}\{([0-9]{1,50})\}| ([0-9]{1,50})/([0-9]{1,50}))")
_SCIENTIFIC = re.compile(
    r"([+-]?(?:[0-9]{1,50}(?:\.[0-9]{0,50})?|\.[0-9]{1,50}))(?:(?:\\times|\\cdot|\*)10\^(?:\{([+-]?[0-9]{1,3})\}|([0-9]))"
    r"|[eE]([+-]?[0-9]{1,3}))"
)
_POWER = re.compile(r"([+-]?)\(?([0-9]{1,6})\)?\^(?:\{([+-]?[0-9]{1,3})\}|([0-9]))")
_REPEATING = re.compile(
    r"([+-]?)([0-9]{0,50})\.([0-9]{0,50}?)(?:\\overline\{([0-9]{1,50})\}|\(([0-9]{1,50})\)|([0-9]{1,6}?)\6{2,30}\\ldots"
    r"|\\dot\{([0-9])\}(?:([0-9]{0,50})\\dot\{([0-9])\})?)"
)


def _plain(text: str) -> Fraction | None:
    """The value of an integer or decimal, None for other texts."""
    if not _PLAIN.fullmatch(text):
        return None
    return Fraction(text) if "." in text else Fraction(int(text))


def rational(text: str) -> Fraction | None:
    r"""The exact value of a cleaned text that is one rational number, else None.

    Integers, decimals, `\frac{a}{b}`, `a/b`, mixed numbers, `a \times 10^{k}`, `1e5`, small integer powers,
    repeating decimals.
    """
    if m := _MIXED.fullmatch(text):
        part, units = int(m[3] or m[5]), int(m[4] or m[6])
        return int(m[1] + "1") * (int(m[2]) + Fraction(part, units)) if 0 < part < units else None
    if text[-1:].isalpha() and not text.endswith("ldots"):
        return None
    text = squeeze(text)
    value = _plain(text)
    if value is not None:
        return value
    if m := _FRACTION.fullmatch(text):
        sign = int(m[1] + "1")
        upper, lower = m[2] or m[4], m[3] or m[5]
        if "." not in text:
            return Fraction(sign * int(upper), int(lower)) if int(lower) else None
        above, below = _plain(upper), _plain(lower)
        return sign * above / below if above is not None and below else None
    if m := _SCIENTIFIC.fullmatch(text):
        return Fraction(m[1]) * Fraction(10) ** int(m[2] or m[3] or m[4])
    if m := _POWER.fullmatch(text):
        base, exponent = int(m[2]), int(m[3] or m[4])
        return int(m[1] + "1") * Fraction(base) ** exponent if base else None
    if m := _REPEATING.fullmatch(text):
        repeated = "".join(filter(None, m.groups()[3:]))
        scale, period = 10 ** len(m[3]), 10 ** len(repeated) - 1
        start = Fraction(int((m[2] + m[3]) or "0"), scale)
        return int(m[1] + "1") * (start + Fraction(int(repeated), period * scale))
    return None


_CLOSE = {"(": (")", "]"), "[": (")", "]"), r"\{": (r"\}",), "{": ("}",)}
_BRACKET = re.compile(r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\[{}]|[(){}\[\]]")


def balanced(text: str) -> bool:
    """Whether every `{` has its `}`. Other brackets are not checked, because half-open intervals mix them."""
    depths: list[int] = list(accumulate(((m == "{") - (m == "}") for m in _BRACKET.findall(text)), initial=0))
    return min(depths) == depths[-1] == 0


def _nested(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """(bracket, nesting depth after it) for each bracket of any kind."""
    depth = 0
    for m in _BRACKET.finditer(text):
        depth += 1 if m.group() in _CLOSE or m.group().startswith(r"\begin") else -1
        yield m, depth


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """`text` split at `separator` where no bracket is open; empty parts are dropped."""
    start, parts = 0, []
    cuts = list(separator.finditer(text))
    depths = [(-1, 0), *((m.start(), depth) for m, depth in _nested(text))] if cuts else []
    for cut in cuts:
        if depths[bisect_left(depths, (cut.start(),)) - 1][1] == 0:
            parts.append(text[start : cut.start()])
            start = cut.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


@lru_cache(maxsize=256)  # several rules unwrap the same text: 400 nested brackets took a second
def unwrap(text: str) -> tuple[str, str, str] | None:
    r"""(opening, inside, closing) if one pair of brackets encloses all of `text`, else None.

    The pair may mix round and square, as in `(1,2]`.
    """
    first = next((mark for mark in _CLOSE if text.startswith(mark)), "")
    last = next((m for m, depth in _nested(text) if depth == 0), None) if first else None
    if last is None or last.end() != len(text) or last.group() not in _CLOSE[first]:
        return None
    return first, text[len(first) : last.start()].strip(), last.group()
