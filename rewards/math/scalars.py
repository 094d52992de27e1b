"""Rules for answers of one part: option letters, times of day, ratios, numbers in a base, words.

A rule compares two cleaned texts, gold and answer. It returns True or False, or None if it does not apply.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from rewards.extract import TEXT_COMMAND
from rewards.math.latex import rational, squeeze
from rewards.math.parts import top_items
from rewards.math.quantity import based, compound

_exact = lru_cache(maxsize=4096)(rational)
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOICES = re.compile("A?B?C?D?E?F?")
_CHOICE_ANSWER = re.compile(  # a letter, or a letter with the option's text, which is not another letter
    r"(?:(?:[Oo]ption|[Cc]hoice) )?(?:([A-Z])|\(([A-Z])\)[.:]?|([A-Z])[).:])"
    r"(?(1)|(?: ?(?![,;&]|and\b|or\b|\(?[A-Z]\)?[.:]?$).+)?)"
)
_TIME = re.compile(r"(?i)([0-9]{1,2})(?: ?: ?([0-9]{2})|(?= ?[ap]\.? ?m\.?)) ?(?:([ap])\.? ?m\.?)?")
_THOUSANDS = re.compile(r"(?:\\\$ ?)?(-?[0-9]{1,9}(?:\.[0-9]{1,9})?) ?[kK]")
_LETTERS_ONLY = re.compile(r"[^\W\d_]+(?:[ '\-./]+[^\W\d_]+)*[.!]?")


def fast(gold: str, answer: str) -> bool | None:
    """Compares equal strings and plain rationals; None for other texts."""
    if gold == answer:
        return True
    gold_value = _exact(gold) if len(answer) <= 100 else None
    if gold_value is None:
        return None
    if "," in answer and _GROUPED.fullmatch(answer):
        answer = answer.replace(",", "")
    value = rational(answer)
    return None if value is None else value == gold_value


def choices(g: str, a: str) -> bool | None:
    """`(C) 42` equals `C`; `A, C` equals `AC`."""
    letter, option = _CHOICE.fullmatch(g), _CHOICE_ANSWER.fullmatch(a)
    if letter and option:
        return letter[1] in option.groups()
    several = _CHOICES.fullmatch(g) and [_CHOICE.fullmatch(item) for item in top_items(a)]
    if several and len(several) > 1 and [m and m[1] for m in several] == list(g):
        return True
    return None


def times(g: str, a: str) -> bool | None:
    """`5:00 PM` equals `5:00 p.m.`, `17:00` and also `5:00`. Ratios such as `2:30` are compared here too."""
    gold, answer = _TIME.fullmatch(g), _TIME.fullmatch(a)
    if not gold or not answer:
        return None
    halves = {m[3].lower() if m[3] else "ap"[int(m[1]) > 12] for m in (gold, answer) if m[3] or not 0 < int(m[1]) < 13}
    hours = [int(m[1]) % 12 if gold[3] or answer[3] else int(m[1]) for m in (gold, answer)]
    return hours[0] == hours[1] and (gold[2] or "00") == (answer[2] or "00") and len(halves) < 2  # halves: a.m. or p.m.


def ratios(g: str, a: str) -> bool | None:
    """`2:3`, `2 to 3`, `2 out of 3` and `2/3` are equal; a ratio of three terms does not equal a shorter one."""
    parts = [[part.strip() for part in re.split(":| (?:to|in|out of) ", text)] for text in (g, a)]
    xs, ys = ([x for part in terms if (x := rational(part)) is not None] for terms in parts)
    if [len(xs), len(ys)] != list(map(len, parts)) or len(xs + ys) < 3:
        return None
    if len(xs + ys) == 3:
        xs, ys = ([*terms, Fraction(1)][:2] for terms in (xs, ys))
    return len(xs) == len(ys) and all(xs[0] * y == ys[0] * x for x, y in zip(xs, ys, strict=True))


_PHRASES = {"dne": "does not exist"} | dict.fromkeys(
    ("no solutions", "no real solution", "no real solutions", "no solution exists", "none"), "no solution"
)
_PHRASES |= dict.fromkeys(("infinitely many solutions", "infinite solutions"), "infinitely many") | {"充分必要": "充要"}

_EXISTENCE = re.compile("^(?:there (?:is|are|exists?) (?=no |infinite)|(?:the )?limit (?=does not exist))|条件$")

# Punctuation that changes a value: -5, 5!, C#, 50%, 1/2, 3.14, 3-5, 10:30, x_1, 15'.
_VALUE_SIGN = re.compile(
    r"(?<!\w)-(?=[(.]?\d)|(?<=[\d)])!|(?<=\b[^\W\d])!|(?<=\w)#|(?<=\d)\s?%|(?<=[\w)])/(?=[\w(])|(?<=\d)[-.*:](?=\d)"
    r"|(?<=\w)_(?=\w)|(?<=[\d)'])'|(?<=\b[^\W\d])'(?!\w)"
)


@lru_cache(maxsize=4096)
def folded(text: str, case: bool = False, punctuation: bool = False, articles: bool = False) -> str:
    """A text in lower case, without punctuation and articles. Each flag keeps what it names."""
    text = TEXT_COMMAND.sub(r"\1", unicodedata.normalize("NFKC", text)).replace("−", "-")
    if not case:
        text = text.casefold()
    if not punctuation:
        # signs of a value become private-use characters, which are not punctuation
        marked = _VALUE_SIGN.sub(lambda m: f" {chr(0xE000 + ord(m[0].strip()))} ", text)
        kept = (" " if unicodedata.category(c).startswith("P") else c for c in marked)
        text = "".join(kept) if any(c.isalnum() for c in text) else text  # an answer may be a sign
    words = text.split()
    return " ".join(words if articles else [word for word in words if word.lower() not in ("a", "an", "the")])


def plain_words(text: str) -> str:
    """A text folded, with phrases of the same meaning unified ("no real solutions" is "no solution")."""
    text = _EXISTENCE.sub("", folded(text))
    return _PHRASES.get(text, text)


def words(g: str, a: str) -> bool | None:
    """Compares prose as words. As products of letters, `even` would equal `neve`."""
    if is_prose(g) or is_prose(a):
        return bool(plain_words(g)) and plain_words(g) == plain_words(a)
    capital = len(g) > 2 and g.isalpha() and g[0].lower() + g[1:] == a[0].lower() + a[1:]  # `Odd`, `odd`
    return capital or None


def is_prose(text: str) -> bool:
    """Whether a cleaned text is language rather than mathematics."""
    if text.casefold() in ("yes", "no"):
        return True
    if _LETTERS_ONLY.fullmatch(text):
        return bool(re.search(r"[^\W\d_]{4,}|[A-Z]{3,}|[^\W\d_]{3,} ", text))
    bare = re.sub(r"\\[A-Za-z]+|\{[^{}]*matrix\}", " ", text)
    return bool(re.search(r"[^\W\d_]{5,}", bare))


def amounts(g: str, a: str) -> bool | None:
    """Compares amounts in several units: `2 hours 30 minutes`, `2 h 30 min`."""
    gold, answer = compound(g), compound(a)
    return gold == answer if gold and answer else None


def thousands(g: str, a: str) -> bool | None:
    """`70k` equals 70000; None if the values differ, since the letter may also be a unit or a variable."""
    short, value = _THOUSANDS.fullmatch(a), rational(g.removeprefix(r"\$"))
    return True if short and value == 1000 * Fraction(short[1]) else None


def bases(g: str, a: str) -> bool | None:
    """`101_2` equals `5`. For a gold with a base the answer may omit the base."""
    based_g, based_a = based(g), based(a)
    if based_g and not based_a:
        return squeeze(a).upper() == based_g[0]
    if based_g and based_a and based_g[1] != based_a[1]:
        return False
    value = int(*based_g) if based_g else rational(g)
    return value == int(*based_a) if based_a and value is not None else None
