"""Rewards `exact` (the same text) and `numeric` (the same number, for references such as GSM8K's `#### 18`).

    python -m rewards score --reward numeric --input rows.jsonl --output scored.jsonl

`exact` compares the box, or the whole answer, after removing differences that its parameters ignore. `numeric` compares
exact rationals as reward `math` does (units, currency, percent, `x = 6`), never rounds, and needs no algebra.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from rewards.base import Row, Score
from rewards.extract import Fallback, gold_text, has_box
from rewards.math.answer import SHOWN, Answer, BoxedReward
from rewards.math.equivalence import equal, of_unknown
from rewards.math.latex import MAX_CHARS, clean, join_thousands, rational
from rewards.math.quantity import quantity
from rewards.math.scalars import fast, folded

Truncated = Literal["unanswered", "always", "never"]  # which completions at the length limit are "truncated"


class ExactReward(BoxedReward):
    """1 if the answer's text equals the row's, else 0. The row's answer may be a list of accepted texts.

    details: answer, found (the source of the answer).

    case, punctuation, articles: whether capitals, punctuation, and the words a, an, the are compared. White space and
    Unicode compatibility forms (NFKC) never are; signs of a value (-5, 5!, 50%, 1/2, C#) always are.
    """

    fallbacks: tuple[Fallback, ...] = ("whole",)
    case: bool = False
    punctuation: bool = False
    articles: bool = True
    truncated: Truncated = "unanswered"

    def spellings(self, row: Row) -> list[str]:
        texts = []
        for gold in _golds(row["answer"]):
            texts += [rf"\boxed{{{gold}}}"] if gold.count("{") == gold.count("}") else []
            if "whole" in self.fallbacks and not has_box(gold):
                texts += [f"\n {gold} \n"] + ([gold.upper()] if not self.case else [])
        return texts

    def problem(self, row: Row) -> str:
        golds = _golds(row.get("answer"))
        if not golds or not all(map(self._key, golds)):
            return f"the row's answer is {str(row.get('answer'))[:80]!r}, not a text or a list of non-empty texts"
        return ""

    def compare(self, row: Row, answer: Answer) -> Score:
        text, source = answer
        same = self._key(text) in map(self._key, _golds(row["answer"]))
        return Score(float(same), "scored", {"answer": text[:SHOWN], "found": source})

    def _key(self, text: str) -> str:
        return folded(text, self.case, self.punctuation, self.articles)


def _golds(answer: Any) -> list[str]:
    """The accepted texts, empty if the answer is not a text, a number or a list of them."""
    golds = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    usable = all(isinstance(gold, (str, int, float)) and not isinstance(gold, bool) for gold in golds)
    return [str(gold) for gold in golds] if usable else []


class NumericReward(BoxedReward):
    """1 if the answer is exactly the row's number, else 0. The fallback "last_number" accepts any number in the text.

    details: answer, found (the source of the answer), problem."""

    fallbacks: tuple[Fallback, ...] = ("hashes", "answer_is")
    truncated: Truncated = "unanswered"

    def spellings(self, row: Row) -> list[str]:
        gold = quantity(clean(gold_text(row["answer"]))).value
        value = rational(join_thousands(gold))
        assert value is not None
        spelled = [gold, f"{value.numerator:,}" if value.denominator == 1 else str(value)]
        texts = [text for s in spelled for text in (rf"\boxed{{{s}}}", rf"So $\boxed{{\text{{{s}}}}}$.")]
        texts += [f"#### {gold}"] if "hashes" in self.fallbacks else []
        return texts + ([f"The answer is {gold}."] if "answer_is" in self.fallbacks else [])

    def problem(self, row: Row) -> str:
        answer = row.get("answer")
        usable = isinstance(answer, (str, int, float)) and not isinstance(answer, bool)
        if usable and answer is not None and is_number(gold_text(answer)):
            return ""
        return f"the row's answer is {str(answer)[-80:]!r}, not a number"

    def compare(self, row: Row, answer: Answer) -> Score:
        text, source = answer
        gold, details = gold_text(row["answer"]), {"answer": text[:SHOWN], "found": source}
        verdict, number = fast(gold, text), ""
        if verdict is None:
            text = re.sub(r"^(?:minus|negative) (?=[0-9$])", "-", _AROUND.sub("", text))
            number = _only_number(text) if source == "answer_is" or "=" in text else ""
            verdict = fast(gold, number)
        if verdict is None and len(text) <= MAX_CHARS:
            verdict = bool(equal(gold, text) or equal(gold, number))
            if not verdict and not is_number(text) and not is_number(number):
                verdict = None
        if verdict is None:
            return Score(0.0, "bad_format", details | {"problem": "not one number"})
        return Score(float(verdict), "scored", details)


@lru_cache(maxsize=4096)
def is_number(text: str) -> bool:
    """Whether a text is one rational number, with or without a unit: `1,234`, `$18`, `3/4 cup`, `1.2e5`."""
    if len(text) > MAX_CHARS:
        return False
    return rational(quantity(join_thousands(clean(text))).value) is not None


_AROUND = re.compile(r"^=\s*|(?<=[0-9])\s*\\?\$$")  # `= 72`, `880$`
_FIRST_CLAUSE = re.compile(r".*?(?=[;:!?](?:\s|$)|,\s|\s(?:because|since|as|so|which|per|and not|not)\s|$)", re.DOTALL)
# Letters directly after a number are part of the match: `18km`, `3rd`, `2x`. `CO2` and `x7` do not match.
_ANY_NUMBER = re.compile(
    r"[-+−]?(?<![\w^])[$€£¥]?\s?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?(?:[½⅓⅔¼¾]|\s?[%万亿]|[A-Za-z^]+"
    r"|\s(?:and a half|dozen|hundred|[a-z]*illion|thousand)s?\b)?"
)
_SUM = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?: ?[-+*×x] ?[0-9]+(?:\.[0-9]+)?)+")
_ANOTHER_VALUE = re.compile(
    r"(?i)\b(?:not|never|neither|less|fewer|more|greater|smaller|larger|between|at (?:least|most))\b|n['’]t\b"
    r"|(?:√|\b(?:twice|double|triple|over|under|above|below|div\w+ by"
    r"|(?:multiple|divisor|factor|half|third|quarter|square|cube|root) of)) ?$"
)
_CHANGED = re.compile(  # after a number: "7 or more", "12 squared", "12 + x", "3, 4 and 5"
    r"\s*(?:or (?:more|less|fewer)\b|(?:squared|cubed|factorial|halves|thirds|quarters)\b|[-+*×÷^] ?(?:[b-z]\b|[(\\])"
    r"|, ?[0-9][0-9.]*(?:, |$| (?:and|or)\b))"
)
_NEXT_NAME = re.compile(r"(?:[,;]|\band)\s+[A-Za-z]\w*\s*$")  # x = 3 and y = 2


def _only_number(text: str) -> str:
    """The only number in the first clause: 18 in "18 dollars a day, since 9 x 2 = 18". "" if there are several numbers,
    if the clause negates, bounds or changes the number ("not 18", "less than 18", "twice 18"), or if a side before `=`
    has another value or an unknown ("2x = 18").
    """
    *sides, text = text[:MAX_CHARS].split("=")  # "10 + 5 = 15"
    text = re.sub(r"([0-9][^()]*)\([^()]*\)", r"\1", text).strip()  # "20 (14 yellow + 6 green)"
    clause = _FIRST_CLAUSE.match(text)
    numbers = list(_ANY_NUMBER.finditer(clause[0])) if clause else []
    if clause is None or len(numbers) != 1 or _ANOTHER_VALUE.search(clause[0], 0, numbers[0].start()):
        return ""
    if numbers[0].group().endswith(("st", "nd", "rd", "th")) or _CHANGED.match(text, numbers[0].end()):
        return ""
    if clause[0].count("(") > clause[0].count(")") or any(of_unknown(clean(_arithmetic(side))) for side in sides):
        return ""
    if any(map(_NEXT_NAME.search, sides[1:])):
        return ""
    number = numbers[0].group().strip(" ,")
    exact = [value for value in map(_arithmetic, sides) if is_number(value) and "/" not in value]
    return "" if any(equal(value, number) is False for value in exact) else number


def _arithmetic(text: str) -> str:
    """The value of a sum or product of decimals as text; other texts, also quotients (often rounded), unchanged."""
    plain = join_thousands(text.strip().replace("\\times", "*").replace("$", ""))
    if not _SUM.fullmatch(plain):
        return text
    terms = [re.split("[*×x]", term) for term in plain.replace(" ", "").replace("-", "+-").split("+")]
    return str(sum(math.prod(map(Fraction, factors)) for factors in terms if factors != [""]))
