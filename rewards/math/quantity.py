"""Numbers with a unit, percent sign, currency or number base.

A unit may be missing on one side. Two different units of measurement never match; two descriptions match if the words
of one include those of the other ("9 eggs", "9 duck eggs"). A word such as "million" belongs to the value.
"""

import math
import re
from fractions import Fraction
from typing import NamedTuple

from rewards.math.latex import COMMAND, NOTATION, inverted, rational

_NAMES = [entry.split(":") for entry in NOTATION["units"].split()]
_CANONICAL: dict[str, str] = {name: names[0] for names in _NAMES for name in names}
_MEASURES = frozenset(_CANONICAL.values()) - {"unit", "percent"}
_SCALES = {word: Fraction(factor) for word, factor in inverted(NOTATION["scales"]).items()}
_NO_UNITS = frozenset(NOTATION["no_units"].split())
_NO_UNIT = re.compile(NOTATION["no_unit_pattern"])
_RATE = re.compile(rf"(?:\bper|/)\s*(?:{'|'.join(_SCALES)})")  # `5 per thousand`
# Chinese units, scales and measure words. Other words (倍, 分之) may change the value.
_FOREIGN = [name for name in (*_CANONICAL, *_SCALES) if name.isalpha() and not name.isascii()]
_CHINESE = "|".join(sorted([*_FOREIGN, *NOTATION["measure_words"].split()], key=len, reverse=True))
# Single letters that are units after a number; any other letter is a variable.
_LETTERS = frozenset("mgsLlhVWJNKCFTA")
_GENERIC = frozenset({"unit", "unit^2", "unit^3"})
_PER_BRACKETS = re.compile(r"(?<=[A-Za-z]) ?/ ?\(([A-Za-zµ·\s⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)\)$")  # `J/(mol·K)`
_RATES = {"km per h": ["kph"], "mi per h": ["mph"], "Nm": ["n", "m"]}
_FILLER = frozenset({"of", "the", "a", "an", "total", "in", "about", "approx", "exactly", "only", "altogether", "us"})

_CURRENCY = re.compile(r"(-?)\s*(\\\$|[€£¥₹]|(?:USD|EUR|Rs\.?)(?=[\s\d])|US\\\$)\s*(?=[-\d.\\])")
# The end of a value, then only characters of units. Matches in linear time: no repeated group.
_TRAILING = re.compile(
    r"(?P<value>.*(?:[0-9})!]|\\(?:pi|infty)(?![A-Za-z])))(?P<gap>\s*)"
    rf"(?P<unit>(?:[A-Za-zµ$€£¥¢%./·\s⁰¹²³⁴⁵⁶⁷⁸⁹⁻-]|{_CHINESE})+)"
)
_MODULUS = re.compile(r"(-?[0-9]{1,100}) ?(\(?) ?(?:\\b|\b)mod ?(\w+) ?\)?")
_POWER = re.compile(r"(?<=[A-Za-z])\s?\^\s?(?:\{\s?(-?[0-9])\s?\}|([0-9]))")
_IN_BRACKETS = re.compile(r"(.*[^\s(\[]) ?[(\[] ?([^()\[\]0-9]+|[^()\[\]]+\^[0-9{}]+) ?[)\]]")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_WORD = re.compile(rf"[A-Za-zµ$€£¥₹¢%]+|{_CHINESE}|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+|/")
_BASE = re.compile(
    r"\(?([0-9A-Fa-f]{1,60})\)?_\s*\{?\s*\(?(?:base\s*)?(\w{1,7})\)?\s*\}?|([0-9A-F]{1,60}) \(?base (\w{1,7})\)?"
)
_HEXADECIMAL = re.compile(r"0x([0-9A-Fa-f]{2,60})")


class Quantity(NamedTuple):
    """value: the text without unit, percent and currency sign. unit: canonical words, empty without a unit."""

    value: str
    unit: frozenset[str] = frozenset()
    percent: bool = False


def _canonical(word: str) -> str:
    """The canonical name of a unit (`metres` is `m`), else the word in lower case and singular."""
    for name in (word, word.lower()):
        if short := _CANONICAL.get(name) or _CANONICAL.get(_singular(name)):
            return short
    return _singular(word.lower())


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def _unit_words(text: str) -> frozenset[str] | None:
    """Canonical words of a unit: `cm^2` of `square cm`, `m` and `/s` of `m/s`; None if a word is not one (`x`)."""
    words: list[str] = []
    power, filled = "", False
    for word in _WORD.findall(text):
        if word[0] in "⁰¹²³⁴⁵⁶⁷⁸⁹⁻":
            name, exponent = words.pop() if words else "", word.translate(_PLAIN_DIGITS)
            per = exponent.startswith("-") and bool(words)  # m s^-2 is m/s^2
            words += ["per"] * per + [
                f"{name}^{exponent.lstrip('-')}" if per and exponent != "-1" else name if per else f"{name}^{exponent}"
            ]
            continue
        name = _canonical(word)
        if (len(word) == 1 and word.isascii() and word.isalpha() and word not in _LETTERS) or word.lower() in _NO_UNITS:
            return None
        if name not in _SCALES and _NO_UNIT.fullmatch(name):
            return None
        if name in ("square", "cubic"):
            power = "^2" if name == "square" else "^3"
        elif name in _FILLER and (name != "in" or len(words) + filled == 0):
            filled = True
        else:
            words.append(name + power)
            power = ""
    if set(words) <= {"per"}:
        return None if words or not filled else frozenset()
    words = _RATES.get(" ".join(words), words)
    divided = words.index("per") if "per" in words else len(words)
    return frozenset(words[:divided] + [f"/{word}" for word in words[divided:] if word != "per"])


def _stem(word: str) -> str:
    """The name of a unit without its power and division: `s` for `/s^2`."""
    return word.lstrip("/").partition("^")[0]


def _is_unit(word: str, apart: bool, value: str, letters: str) -> bool:
    """Whether this canonical word after a value is a unit and not a product of variables.

    apart: whether a space separates them. `5 m`, `5cm`, `5g`, `9 men` are quantities, `(x+5) m`, `5xy`, `5 xy`
    products. letters: single letters that are units directly after a digit.
    """
    name = _stem(word)
    if name not in _MEASURES and name != "percent":
        return not name.isascii() or (apart and len(name) > 2 and bool(re.search(r"[aeiou]", name)))
    if len(name) > 1 or not name.isalpha():
        return True
    variables = re.search(r"(?!(?<=[0-9])[eE][-+]?[0-9])[a-zA-Z]", COMMAND.sub("", value))
    return not variables and (apart or (name in letters and value[-1].isdecimal()))


def quantity(text: str, letters: str = "gmslvw") -> Quantity:
    """Split a cleaned text into value and unit. Without a recognised unit the whole text is the value.

    letters: single letters that are units directly after a digit, as in `5g`; others are variables.
    """
    unit: frozenset[str] = frozenset()
    money = _CURRENCY.match(text)
    if money:
        unit = frozenset({_canonical(money[2].lstrip("\\").rstrip("."))})
        text = money[1] + text[money.end() :]
    m = _MODULUS.fullmatch(text) if "mod" in text else None
    if m:  # `17 \bmod 5` is 2, `17 (\bmod 5)` is a residue class
        computed = not m[2] and m[3].isdecimal() and int(m[3])
        return Quantity(str(int(m[1]) % int(m[3])) if computed else m[1], frozenset({f"mod {m[3]}"}))
    if text.endswith("%%") or text.startswith(r"\$"):
        return Quantity(text, unit)
    if text.endswith("%"):
        return Quantity(text[:-1].rstrip(), unit, percent=True)
    if m := _IN_BRACKETS.fullmatch(text):  # `5 [m/s]`
        names = _unit_words(m[2])
        if names and all(_stem(name) in _MEASURES for name in names):
            text = f"{m[1]} {m[2]}"
    marked = _POWER.sub(lambda m: (m[1] or m[2]).translate(_SUPERSCRIPT), text)
    marked = marked.replace(r"\cdot", "·").replace(r"\$", "$").replace(r"\mu ", "µ")
    marked = _PER_BRACKETS.sub(r"/\1", marked.replace(r"\Omega", "ohm").replace("k ohm", "kohm"))
    m = _TRAILING.fullmatch(marked)
    if not m or not _looks_like_value(m["value"]):
        return Quantity(text, unit)
    words, name, number = _unit_words(m["unit"]), m["unit"].strip(), m["value"].rstrip().replace("·", r"\cdot")
    apart = bool(m["gap"]) or name[0] == "%" or not name.isascii() or (len(name) > 1 and _canonical(name) in _MEASURES)
    if words is None or not (apart or words) or not all(_is_unit(word, apart, m["value"], letters) for word in words):
        return Quantity(text, unit)
    if "percent" in words:
        return Quantity(number, unit | words - {"percent"}, percent=True)
    scales = [word for word in words if word in _SCALES]
    if not scales or _RATE.search(m["unit"]):
        return Quantity(number, unit | words)
    value = rational(number)
    if value is None:
        return Quantity(text, unit)
    return Quantity(str(value * math.prod(map(_SCALES.__getitem__, scales))), unit | words.difference(scales))


_SPELLED = re.compile(
    r"(?i)(-?[0-9][0-9,]*) ?\( ?([a-z][a-z -]*)\)|(?<![a-z])([a-z][a-z -]*?) ?\( ?(-?[0-9][0-9,]*) ?\)"
)
_SMALL_NUMBERS = {word: number for number, word in enumerate(NOTATION["small_numbers"].split())}
_SMALL_NUMBERS |= {word: 10 * number for number, word in enumerate(NOTATION["tens"].split(), start=2)}


def without_spelling(text: str) -> str:
    """Removes the spelling of a number: `5 (five)` as `5`, `five (5) days` as `5 days`."""
    if "(" not in text:
        return text
    return _SPELLED.sub(lambda m: number if _is_spelling(m[2] or m[3], number := m[1] or m[4]) else m[0], text)


def _is_spelling(words: str, number: str) -> bool:
    return spelled(words) == int(number.replace(",", ""))


def spelled(text: str) -> int | None:
    """The value of an integer in English words, None for other words."""
    value = part = 0
    sign, words = -1 if text.lower().startswith(("minus ", "negative ")) else 1, re.findall("[a-z]+", text.lower())
    for word in words[sign < 0 :]:
        scale = _SCALES.get(word, Fraction(0))
        if word in _SMALL_NUMBERS:
            part += _SMALL_NUMBERS[word]
        elif word == "hundred":
            part *= 100
        elif scale >= 1000:
            value, part = value + part * int(scale), 0
        elif word != "and":
            return None
    return sign * (value + part)


_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+|[\u4e00-\u9fff]+)\.?(?:,? and |, ?| ?(?=[0-9])|$)")


def compound(text: str) -> dict[str, Fraction] | None:
    """{unit: number} of an amount in several units of measurement, such as `2 hours 30 minutes`, else None."""
    pieces = _AMOUNT.findall(text) if not _AMOUNT.sub("", text) else []
    amount = {_canonical(unit): Fraction(number) for number, unit in pieces}
    return amount if 1 < len(pieces) == len(amount) and amount.keys() <= _MEASURES else None


def _looks_like_value(text: str) -> bool:
    """Whether a text is a number or expression: a digit or a constant, and no words outside LaTeX commands."""
    bare = COMMAND.sub("", text)
    return not re.search(r"[A-Za-z]{2,}", bare) and bool(re.search(r"\d|\\pi|\\infty", text))


def same_unit(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two units match: they are equal, one is empty, or one adds descriptive words to the other."""
    a, b = a - _GENERIC, b - _GENERIC
    if not a or not b or a == b:
        return True
    return (a <= b or b <= a) and not (set(map(_stem, a ^ b)) & _MEASURES)


def based(text: str) -> tuple[str, int] | None:
    """(digits, base) of `1210_3`, `1F_{16}`, `0x1F` or `101 (base 2)`, None for other texts."""
    if m := _HEXADECIMAL.fullmatch(text):
        return m[1].upper(), 16
    m = _BASE.fullmatch(text.replace(" _", "_").replace(" ", "") if "_" in text else text)
    if not m:
        return None
    digits = (m[1] or m[3]).upper()
    mark = m[2] or m[4]
    base = int(mark) if mark.isdecimal() and len(mark) < 3 else NOTATION["bases"].get(mark, 0)
    if not 2 <= base <= 36 or any(int(d, 36) >= base for d in digits):
        return None
    return digits, base
