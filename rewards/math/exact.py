"""Rewards `exact` (the same text) and `numeric` (the same number, for golds such as GSM8K's `#### 18`).

    python -m rewards score --reward numeric --input rows.jsonl --output scored.jsonl

`exact` compares what stands in the box, or all of the answer part, after folding what its parameters name.
`numeric` compares exact rationals: separators, signs of currency and units are understood, no rounding passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from rewards.base import Reward, Row, Score
from rewards.extract import Fallback, cut_short, find_answer, has_box, reduce_gold, with_format
from rewards.math.latex import MAX_CHARS, clean, join_thousands, rational
from rewards.math.quantity import Quantity, quantity, same_unit
from rewards.params import RewardParams
from rewards.thinking import thinking

_SHOWN = 200  # characters of an answer kept in details
Truncated = Literal["unanswered", "always", "never"]  # which completions at the length limit get that outcome


class _TextReward(Reward):
    """What both share: the answer part, where the answer stands in it, and typed outcomes."""

    needs = ("answer",)

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: Any) -> None:
        super().__init__(name, params)
        self._format = thinking(params.thinking)

    def grade(self, row: Row, completion: str) -> Score:
        problem = self._problem(row.get("answer"))
        if problem:
            return Score(0.0, "error", {"problem": problem})
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        part = self._format.answer_of(completion)
        found, by = find_answer(part, self.params.fallbacks)
        how = self.params.truncated
        if how != "never" and cut_short(row) and (how == "always" or found is None):
            return Score(0.0, "truncated")
        if found is None:
            return Score(0.0, "bad_format" if has_box(part) else "no_answer")
        return self._compare(row["answer"], found.strip(), by)

    def _problem(self, answer: Any) -> str:
        """Why the row cannot be graded, empty if it can."""
        raise NotImplementedError

    def _compare(self, answer: Any, found: str, by: str) -> Score:
        raise NotImplementedError

    def _refused(self, row: Row, spellings: list[str]) -> str:
        """The first of these completions that does not get full marks, as a problem."""
        for text in spellings:
            score = self.grade({**row, "meta": None}, text)
            if score.value != 1:
                return (
                    f"gold {str(row.get('answer'))[:80]!r}: {text[:80]!r} is {score.details.get('problem', 'refused')}"
                )
        return ""


class ExactParams(RewardParams):
    """fallbacks: where to look when there is no box, in this order. thinking: a format's name or fields.

    case, punctuation, articles: whether capitals, punctuation, and the words a, an, the make a difference. White
    space and Unicode's compatibility forms (NFKC) never do. truncated: which completions with meta.finish_reason
    "length" get outcome "truncated": "unanswered" ones, all ("always"), none ("never").
    """

    fallbacks: tuple[Fallback, ...] = ("whole",)
    thinking: str = "think"
    case: bool = False
    punctuation: bool = False
    articles: bool = True
    truncated: Truncated = "unanswered"


class ExactReward(_TextReward):
    """1 if the answer's text is the row's, else 0. The row's answer may be a list of texts that are all right.

    details: answer, found (where it stood)."""

    Params = ExactParams
    params: ExactParams

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kinds: "text", and "texts" for a list."""
        problem = self._problem(row.get("answer"))
        if problem:
            return "", problem
        for gold in _golds(row["answer"]):
            spellings = [rf"\boxed{{{gold}}}"] if gold.count("{") == gold.count("}") else []
            if "whole" in self.params.fallbacks and not has_box(gold):
                spellings += [f"\n {gold} \n"] + ([f"{gold.upper()}"] if not self.params.case else [])
            if problem := self._refused(row, spellings):
                return "", problem
        return ("texts" if isinstance(row["answer"], (list, tuple)) else "text"), ""

    def _problem(self, answer: Any) -> str:
        golds = _golds(answer)
        if not golds or not all(map(self._key, golds)):
            return f"the row's answer is {str(answer)[:80]!r}, not a text or a list of texts with something in it"
        return ""

    def _compare(self, answer: Any, found: str, by: str) -> Score:
        key = self._key(found)
        same = any(key == self._key(gold) for gold in _golds(answer))
        return Score(float(same), "scored", {"answer": found[:_SHOWN], "found": by})

    def _key(self, text: str) -> str:
        return _folded(text, self.params.case, self.params.punctuation, self.params.articles)


def _golds(answer: Any) -> list[str]:
    """The texts that are right, none if the answer is not of that shape."""
    given = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    usable = all(isinstance(one, (str, int, float)) and not isinstance(one, bool) for one in given)
    return [str(one) for one in given] if usable else []


@lru_cache(maxsize=4096)
def _folded(text: str, case: bool, punctuation: bool, articles: bool) -> str:
    text = unicodedata.normalize("NFKC", text)
    if not case:
        text = text.casefold()
    if not punctuation:
        kept = (" " if unicodedata.category(c).startswith("P") else c for c in text)
        text = "".join(kept) if any(c.isalnum() for c in text) else text  # an answer may be a sign
    words = text.split()
    return " ".join(words if articles else [word for word in words if word.lower() not in ("a", "an", "the")])


class NumericParams(RewardParams):
    """fallbacks: where to look when there is no box, in this order; "last_number" takes any number. thinking: a
    format's name or fields. truncated: as for `exact`.
    """

    fallbacks: tuple[Fallback, ...] = ("hashes", "answer_is")
    thinking: str = "think"
    truncated: Truncated = "unanswered"


class NumericReward(_TextReward):
    """1 if the answer is the row's number, exactly, else 0.

    details: answer, found (where it stood), problem."""

    Params = NumericParams
    params: NumericParams

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kinds: "integer", "decimal or fraction"."""
        problem = self._problem(row.get("answer"))
        if problem:
            return "", problem
        gold = number(_gold_text(row["answer"]))
        assert gold is not None
        value = rational(gold.value)
        assert value is not None
        spelled = [gold.value, f"{value.numerator:,}" if value.denominator == 1 else str(value)]
        spellings = [text for s in spelled for text in (rf"\boxed{{{s}}}", rf"So $\boxed{{\text{{{s}}}}}$.")]
        spellings += [f"#### {gold.value}"] if "hashes" in self.params.fallbacks else []
        spellings += [f"The answer is {gold.value}."] if "answer_is" in self.params.fallbacks else []
        if problem := self._refused(row, spellings):
            return "", problem
        return ("integer" if value.denominator == 1 else "decimal or fraction"), ""

    def _problem(self, answer: Any) -> str:
        usable = isinstance(answer, (str, int, float)) and not isinstance(answer, bool)
        if usable and number(_gold_text(answer)) is not None:
            return ""
        return f"the row's answer is {str(answer)[-80:]!r}, not a number"

    def _compare(self, answer: Any, found: str, by: str) -> Score:
        gold, given = number(_gold_text(answer)), number(found) or (_only_number(found) if by == "answer_is" else None)
        details = {"answer": found[:_SHOWN], "found": by}
        if given is None or gold is None:
            return Score(0.0, "bad_format", details | {"problem": "not one number"})
        same = _value(gold) == _value(given) or rational(gold.value) == rational(given.value)  # "%" may be understood
        return Score(float(same and same_unit(gold.unit, given.unit)), "scored", details)


def _gold_text(answer: str | int | float) -> str:
    return reduce_gold(str(answer))


@lru_cache(maxsize=4096)
def number(text: str) -> Quantity | None:
    """A text that is one rational number, with or without a unit: `1,234`, `$18`, `3/4 cup`, `1.2e5`; else None."""
    if len(text) > MAX_CHARS:
        return None
    found = quantity(join_thousands(clean(text)))
    return found if rational(found.value) is not None else None


def _value(found: Quantity) -> Fraction | None:
    value = rational(found.value)
    return value / 100 if found.percent and value is not None else value


_FIRST_CLAUSE = re.compile(r".*?(?=[.;:!?](?:\s|$)|,\s|\s(?:because|since|as|so|which|per)\s|$)", re.DOTALL)
# Letters that follow at once belong to it: `18km`, `3rd` and `2x` are for `number` to judge; `CO2` and `x7` are none.
_ANY_NUMBER = re.compile(
    r"[-+−]?(?<![\w^])[$€£¥]?\s?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?(?:\s?%|[A-Za-z^]+|\s(?:dozen|hundred|[a-z]*illion|thousand)s?\b)?"
)
_ANOTHER_VALUE = re.compile(
    r"(?i)\b(?:not|never|neither|less|fewer|more|greater|smaller|larger|between|at (?:least|most))\b|n['’]t\b"
)


def _only_number(text: str) -> Quantity | None:
    """The number of "18 dollars a day, since 9 x 2 = 18": the one in the first clause, None if it holds several, or
    says that the value is another ("not 18", "less than 18").
    """
    clause = _FIRST_CLAUSE.match(text[:MAX_CHARS])
    found = list(_ANY_NUMBER.finditer(clause[0])) if clause else []
    if clause is None or len(found) != 1 or _ANOTHER_VALUE.search(clause[0], 0, found[0].start()):
        return None
    return number(found[0].group().strip(" ,"))
