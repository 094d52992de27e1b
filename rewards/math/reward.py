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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Outcome, Reward, Row, Score
from rewards.extract import Fallback, cut_short, find_answer, has_box, reduce_gold, with_format
from rewards.math.equivalence import equal, is_prose
from rewards.math.latex import MAX_CHARS, clean, join_thousands, rational, screen
from rewards.params import RewardParams
from rewards.processes.pool import Answer, DeadlineError, WorkerError, shared
from rewards.thinking import thinking

_WORKER = "rewards.math.worker"
_LARGE_BATCH = 512  # rows
_FRAME = 32  # pairs sent to a worker at once
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
    """A pair that a worker has to decide."""

    gold: str
    answer: str
    found_by: str


@dataclass(frozen=True)
class _Verdict:
    """What a worker decided. by: the deciding stage."""

    value: float
    by: str = "algebra"
    outcome: Outcome = "scored"
    problem: str = ""


class MathReward(Reward):
    """1 if the boxed answer equals the row's, as a mathematician would judge, else 0.

    details: answer, by (the deciding stage), found (where the answer stood), problem."""

    Params = MathParams
    needs = ("answer",)
    batch_rows = 256
    params: MathParams

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        return super().create(name, with_format(params))

    def __init__(self, name: str, params: MathParams) -> None:
        super().__init__(name, params)
        self._format = thinking(params.thinking)
        self._cache: OrderedDict[tuple[str, str], _Verdict] = OrderedDict()

    def grade(self, row: Row, completion: str) -> Score:
        item = self._cheap(row, completion)
        return (
            item
            if isinstance(item, Score)
            else _scored(item, self._decide([(item.gold, item.answer)], self.params.workers)[0])
        )

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        workers = workers or self.params.workers
        # Workers also compare structures if there are several of them and the batch is worth their start.
        cheap_only = workers > 1 and len(rows) >= _LARGE_BATCH
        graded = [self._cheap(row, text, cheap_only) for row, text in zip(rows, completions, strict=True)]
        pairs = sorted({(item.gold, item.answer) for item in graded if isinstance(item, _Open)})
        verdicts = dict(zip(pairs, self._decide(pairs, workers), strict=True)) if pairs else {}
        return [item if isinstance(item, Score) else _scored(item, verdicts[item.gold, item.answer]) for item in graded]

    def check_gold(self, row: Row) -> tuple[str, str]:
        """Kinds: "number", "words", "algebra", and "text" for golds that only the same text can match.

        A gold must equal itself and its other spellings: the same text would pass without being understood.
        """
        if not _is_gold(row.get("answer")):
            return "", f"gold {row.get('answer')!r} is no answer: give a number or a text that is not blank"
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

    def _cheap(self, row: Row, completion: str, cheap_only: bool = False) -> Score | _Open:
        """Everything but algebra."""
        answer = row.get("answer")
        if not _is_gold(answer):
            return Score(0.0, "error", {"problem": f"the row's answer is {answer!r:.80}, not an answer"})
        if not isinstance(completion, str):
            return Score(0.0, "error", {"problem": f"the completion is {type(completion).__name__}, not a text"})
        p = self.params
        part = self._format.answer_of(completion)
        found, found_by = find_answer(part, p.fallbacks)
        if p.truncated != "never" and cut_short(row) and (p.truncated == "always" or found is None):
            return Score(0.0, "truncated")
        if found is None:
            return Score(0.0, "bad_format" if has_box(part) else "no_answer", {})
        return self._compare(gold_text(answer), found.strip(), found_by, cheap_only)

    def _compare(self, gold: str, answer: str, found_by: str, cheap_only: bool) -> Score | _Open:
        verdict, by = fast(gold, answer), "exact"
        if verdict is None:
            if not answer:
                return Score(0.0, "bad_format", {"answer": "", "problem": "the box is empty"})
            item = _Open(gold, answer, found_by)
            with self._lock:
                known = self._cache.get((gold, answer))
            if known is not None:
                return _scored(item, known)
            if len(gold) > MAX_CHARS:
                return Score(0.0, "error", {"problem": f"the row's answer is longer than {MAX_CHARS} characters"})
            problem = screen(answer)
            if problem is not None:
                return Score(0.0, "bad_format", _details(answer, "screen", found_by, problem))
            verdict, by = None if cheap_only else equal(gold, answer), "structure"
            if verdict is None:
                return item
        return Score(float(verdict), "scored", _details(answer, by, found_by))

    def _decide(self, pairs: Sequence[tuple[str, str]], workers: int) -> list[_Verdict]:
        """Verdicts of workers on (gold, answer) pairs, sorted so that most golds are parsed by one worker only."""
        size = max(1, min(_FRAME, len(pairs) // (8 * workers)))
        requests = [{"gold": gold, "answer": answer} for gold, answer in pairs]
        frames = [requests[start : start + size] for start in range(0, len(requests), size)]
        verdicts: list[_Verdict] = []
        try:
            for replies in shared(_WORKER, workers).ask_all(frames, self.params.deadline, min(workers, len(frames))):
                verdicts += map(_verdict, replies)
        except WorkerError as problem:  # none can be started
            verdicts += [_verdict(problem)] * (len(pairs) - len(verdicts))
        with self._lock:
            for pair, verdict in zip(pairs, verdicts, strict=True):
                if verdict.outcome != "error":
                    self._cache[pair] = verdict
            while len(self._cache) > self.params.cache:
                self._cache.popitem(last=False)
        return verdicts


def _verdict(reply: Answer) -> _Verdict:
    if isinstance(reply, DeadlineError):
        return _Verdict(0.0, outcome="timeout", problem=str(reply))
    if isinstance(reply, WorkerError):
        return _Verdict(0.0, outcome="error", problem=str(reply))
    return _Verdict(float(reply["equal"]), reply["by"])


def _scored(item: _Open, verdict: _Verdict) -> Score:
    details = _details(item.answer, verdict.by, item.found_by, verdict.problem)
    return Score(verdict.value, verdict.outcome, details)


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
        return reduce_gold(answer).casefold() not in ("", "nan")
    return type(answer) is int or (isinstance(answer, float) and math.isfinite(answer))


def _details(answer: str, by: str, found_by: str, problem: str = "") -> dict[str, Any]:
    details = {"answer": answer[:_SHOWN], "by": by}
    if found_by != "box":
        details["found"] = found_by
    if problem:
        details["problem"] = problem
    return details
