r"""Reward `math`: 1 if the completion's boxed answer equals `row["answer"]`, else 0.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl

Stages, cheapest first: extraction (last balanced box after the thought), exact equality of strings and
rationals, screen, structure (mathematics/equivalence.py), cache, and for what needs algebra math-verify in
worker processes with a deadline that this process keeps. No answer is evaluated in this process.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Reward, Row, Score
from rewards.extract import Fallback, cut_short, find_answer, has_box, reduce_gold, with_format
from rewards.math.equivalence import equal, is_prose
from rewards.math.latex import MAX_CHARS, clean, join_thousands, rational, screen
from rewards.params import RewardParams
from rewards.processes.pool import DeadlineError, WorkerError, shared
from rewards.thinking import thinking

_WORKER = "rewards.math.worker"
_SHOWN = 200  # characters of an answer kept in details


class MathParams(RewardParams):
    """fallbacks: where to look when there is no box, in this order. thinking: a format's name or fields.

    truncated: which completions with meta.finish_reason "length" get outcome "truncated": those without a box
    ("unboxed"), all ("always"), none ("never"). deadline: seconds for one answer. workers: processes.
    """

    fallbacks: tuple[Fallback, ...] = ()
    thinking: str = "think"
    truncated: Literal["unboxed", "always", "never"] = "unboxed"
    deadline: Annotated[float, Field(ge=0.01, le=600.0)] = 2.0
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    cache: Annotated[int, Field(ge=0, le=1 << 24)] = 65536


@lru_cache(maxsize=4096)
def gold_text(answer: str | int | float) -> str:
    """The final answer of a row's `answer` (see extract.reduce_gold); numbers in the shortest exact form."""
    if isinstance(answer, float) and answer.is_integer():
        return str(int(answer))
    return reduce_gold(str(answer))


_exact = lru_cache(maxsize=4096)(rational)
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")


def fast(gold: str, answer: str) -> bool | None:
    """Equal strings and rationals as they stand, else None."""
    if gold == answer:
        return True
    if len(answer) > 100:
        return None
    wanted = _exact(gold)
    if wanted is None:
        return None
    if "," in answer and _GROUPED.fullmatch(answer):
        answer = answer.replace(",", "")
    given = rational(answer)
    return None if given is None else wanted == given


@dataclass(frozen=True)
class _Open:
    """A pair that only algebra can decide; its score goes to `index`."""

    index: int
    gold: str
    answer: str
    found_by: str


def _neighbours(items: Iterable[_Open]) -> Iterator[list[_Open]]:
    return (list(group) for _, group in groupby(items, key=lambda item: item.gold))


class MathReward(Reward):
    """1 if the boxed answer equals the row's, as a mathematician would judge, else 0.

    details: answer, by (the deciding stage), found (where the answer stood), problem."""

    Params = MathParams
    needs = ("answer",)
    params: MathParams

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: MathParams) -> None:
        super().__init__(name, params)
        self._format = thinking(params.thinking)
        self._cache: OrderedDict[tuple[str, str], Score] = OrderedDict()

    def grade(self, row: Row, completion: str) -> Score:
        done = self._cheap(row, completion, 0)
        return self._algebra(done) if isinstance(done, _Open) else done

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        scores: list[Any] = []
        jobs: list[tuple[list[_Open], Future[list[Score]]]] = []
        with ThreadPoolExecutor(workers or self.params.workers) as threads:
            # Workers are at the first golds while this thread still looks at the rest; neighbours with one gold go
            # to one worker, which then parses that gold once.
            for group in _neighbours(self._each_cheap(rows, completions, scores)):
                jobs.append((group, threads.submit(self._algebra_group, group, workers)))
            for group, job in jobs:
                for item, score in zip(group, job.result(), strict=True):
                    scores[item.index] = score
        return scores

    def _each_cheap(self, rows: Sequence[Row], completions: Sequence[str], scores: list[Any]) -> Iterator[_Open]:
        """Fills `scores` in order; yields what is left for algebra, which has its place there."""
        for i, (row, completion) in enumerate(zip(rows, completions, strict=True)):
            scores.append(self._cheap(row, completion, i))
            if isinstance(scores[-1], _Open):
                yield scores[-1]

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kinds: "number", "words", "algebra", and "text" for golds that only the same text can match.

        A gold must equal itself and its other spellings: the same text would pass without being understood.
        """
        if not _is_gold(row.get("answer")):
            return "", f"gold {row.get('answer')!r} is not a text or a number"
        for text in _spellings(gold_text(row["answer"])):
            score = self.grade({**row, "meta": None}, rf"\boxed{{{text}}}")
            if score.value != 1:
                problem = score.details.get("problem", score.outcome)
                return "", f"gold {row['answer']!r} does not equal itself, written as {text[:80]!r}: {problem}"
        gold = clean(gold_text(row["answer"]))
        if rational(join_thousands(gold)) is not None:
            return "number", ""
        if is_prose(gold):
            return "words", ""
        try:
            reply = shared(_WORKER, self.params.workers).ask({"parse": gold}, self.params.deadline)
        except DeadlineError as problem:
            return "", f"gold {row['answer']!r} cannot be read: {problem}"
        return ("algebra" if reply["parsed"] else "text"), ""

    def _cheap(self, row: Row, completion: str, index: int) -> Score | _Open:
        """Everything but algebra."""
        answer = row.get("answer")
        if not _is_gold(answer):
            return Score(0.0, "error", {"problem": f"the row's answer is {answer!r:.80}, not a text or a number"})
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        p = self.params
        part = self._format.answer_of(completion)
        found, found_by = find_answer(part, p.fallbacks)
        if p.truncated != "never" and cut_short(row) and (p.truncated == "always" or found is None):
            return Score(0.0, "truncated")
        if found is None:
            return Score(0.0, "bad_format" if has_box(part) else "no_answer", {})
        return self._compare(gold_text(answer), found.strip(), found_by, index)

    def _compare(self, gold: str, answer: str, found_by: str, index: int) -> Score | _Open:
        verdict, by = fast(gold, answer), "exact"
        if verdict is None:
            if not answer:
                return Score(0.0, "bad_format", {"answer": "", "problem": "the box is empty"})
            cached = self._cached(gold, answer)
            if cached is not None:
                return cached
            if len(gold) > MAX_CHARS:
                return Score(0.0, "error", {"problem": f"the row's answer is longer than {MAX_CHARS} characters"})
            problem = screen(answer)
            if problem is not None:
                return Score(0.0, "bad_format", _details(answer, "screen", found_by, problem))
            verdict, by = equal(gold, answer), "structure"
            if verdict is None:
                return _Open(index, gold, answer, found_by)
        return Score(float(verdict), "scored", _details(answer, by, found_by))

    def _algebra_group(self, group: Sequence[_Open], workers: int | None) -> list[Score]:
        return [self._algebra(item, workers) for item in group]

    def _algebra(self, item: _Open, workers: int | None = None) -> Score:
        cached = self._cached(item.gold, item.answer)  # the same answer may have come earlier in this batch
        if cached is not None:
            return cached
        pool = shared(_WORKER, workers or self.params.workers)
        details = _details(item.answer, "algebra", item.found_by)
        try:
            reply = pool.ask({"gold": item.gold, "answer": item.answer}, self.params.deadline)
            score = Score(float(reply["equal"]), "scored", details)
        except DeadlineError as problem:
            score = Score(0.0, "timeout", details | {"problem": str(problem)})
        except WorkerError as problem:
            return Score(0.0, "error", details | {"problem": str(problem)})
        self._remember(item.gold, item.answer, score)
        return score

    def _cached(self, gold: str, answer: str) -> Score | None:
        with self._lock:
            known = self._cache.get((gold, answer))
        return known and replace(known, details=dict(known.details))

    def _remember(self, gold: str, answer: str, score: Score) -> None:
        with self._lock:
            self._cache[gold, answer] = replace(score, details=dict(score.details))
            while len(self._cache) > self.params.cache:
                self._cache.popitem(last=False)


def _spellings(gold: str) -> list[str]:
    """The same answer as a model may write it."""
    wrapped = [gold, f"${gold}$", f" {gold} .", rf"\displaystyle {gold}", rf"\boxed{{{gold}}}"]
    if "$" in gold or "\\[" in gold:
        wrapped.remove(f"${gold}$")
    if "frac" in gold:
        wrapped.append(re.sub(r"\\[dt]?frac(?![a-zA-Z])", r"\\dfrac", gold))
    if "\\left" not in gold and gold.count("(") == gold.count(")"):
        wrapped.append(gold.replace("(", r"\left(").replace(")", r"\right)"))
    if gold.isdecimal():
        wrapped += [f"{int(gold):,}", f"{gold}.0", rf"\text{{{gold}}}"]
    return wrapped


def _is_gold(answer: Any) -> bool:
    if isinstance(answer, str):
        return bool(answer.strip())
    return type(answer) is int or (isinstance(answer, float) and math.isfinite(answer))


def _details(answer: str, by: str, found_by: str, problem: str = "") -> dict[str, Any]:
    details = {"answer": answer[:_SHOWN], "by": by}
    if found_by != "box":
        details["found"] = found_by
    if problem:
        details["problem"] = problem
    return details
