r"""Reward `math`: 1 if the completion's boxed answer equals `row["answer"]`, else 0.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl

Stages, cheapest first: extraction (last balanced box after the thought), exact equality of strings and rationals,
screen, structure (equivalence.py), cache, and for what needs algebra worker processes (worker.py) with a deadline that
this process keeps. No answer is evaluated in this process.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from rewards.base import Outcome, Row, Score, error
from rewards.extract import gold_text
from rewards.forks import lock
from rewards.math.answer import SHOWN, Answer, BoxedReward
from rewards.math.equivalence import equal, fast
from rewards.math.latex import MAX_CHARS, screen
from rewards.processes.pool import Answer as Reply
from rewards.processes.pool import DeadlineError, WorkerError, shared

_WORKER = "rewards.math.worker"
_LARGE_BATCH = 512  # rows
_FRAME = 32  # pairs sent to a worker at once
_lock = lock()  # of all caches


class Pair(NamedTuple):
    """An answer that a worker has to decide."""

    gold: str
    answer: str
    source: str


class MathReward(BoxedReward):
    """1 if the boxed answer equals the row's, as a mathematician would judge, else 0.

    details: answer, by (the deciding stage), found (where the answer stood), problem.

    deadline: CPU seconds for one answer. workers: processes. cache: verdicts of workers that are kept.
    """

    batch_rows = 256
    truncated: Literal["unboxed", "always", "never"] = "unboxed"
    deadline: Annotated[float, Field(ge=0.01, le=600.0)] = 2.0
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    cache: Annotated[int, Field(ge=0, le=1 << 24)] = 65536

    @cached_property
    def _known(self) -> OrderedDict[tuple[str, str], Score]:
        """Workers' verdicts by gold and answer."""
        return OrderedDict()

    def compare(self, row: Row, answer: Answer) -> Score:
        item = self._cheap(row, answer)
        return item if isinstance(item, Score) else _of(self._decide([item[:2]], self.workers)[0], item)

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        workers = workers or self.workers
        # Workers also compare structures if there are several of them and the batch is worth their start.
        cheap_only = workers > 1 and len(rows) >= _LARGE_BATCH
        graded: list[Score | Pair] = []
        for row, text in zip(rows, completions, strict=True):
            answer = self.extracted(row, text)
            graded.append(answer if isinstance(answer, Score) else self._cheap(row, answer, cheap_only))
        pairs = sorted({item[:2] for item in graded if isinstance(item, Pair)})
        verdicts = dict(zip(pairs, self._decide(pairs, workers), strict=True)) if pairs else {}
        return [item if isinstance(item, Score) else _of(verdicts[item[:2]], item) for item in graded]

    def spellings(self, row: Row) -> list[str]:
        gold = gold_text(row["answer"])
        texts = [gold, f"${gold}$", f" {gold} .", rf"\displaystyle {gold}", rf"\boxed{{{gold}}}"]
        if "$" in gold or "\\[" in gold:
            texts.remove(f"${gold}$")
        if "frac" in gold:
            texts.append(re.sub(r"\\[dt]?frac(?![a-zA-Z])", r"\\dfrac", gold))
        if "\\left" not in gold and gold.count("(") == gold.count(")"):
            texts.append(gold.replace("(", r"\left(").replace(")", r"\right)"))
        if gold.isdecimal():
            texts += [f"{int(gold):,}", f"{gold}.0", rf"\text{{{gold}}}"]
        return [rf"\boxed{{{text}}}" for text in texts]

    def problem(self, row: Row) -> str:
        answer = row.get("answer")
        if isinstance(answer, str):
            usable = gold_text(answer).casefold() not in ("", "nan")
        else:
            usable = type(answer) is int or (isinstance(answer, float) and math.isfinite(answer))
        return "" if usable else f"the row's answer is {answer!r:.80}, not a number or a text that is not blank"

    def _cheap(self, row: Row, answer: Answer, cheap_only: bool = False) -> Score | Pair:
        """Everything but algebra."""
        gold, (text, source) = gold_text(row["answer"]), answer
        verdict, by = fast(gold, text), "exact"
        if verdict is None:
            if not text:
                return Score(0.0, "bad_format", {"answer": "", "problem": "the box is empty"})
            pair = Pair(gold, text, source)
            if (known := self._known.get(pair[:2])) is not None:
                return _of(known, pair)
            if len(gold) > MAX_CHARS:
                return error(f"the row's answer is longer than {MAX_CHARS} characters")
            if problem := screen(text):
                return _of(Score(0.0, "bad_format", {"by": "screen", "problem": problem}), pair)
            verdict, by = None if cheap_only else equal(gold, text), "structure"
            if verdict is None:
                return pair
        return Score(float(verdict), "scored", _details(text, by, source))

    def _decide(self, pairs: Sequence[tuple[str, str]], workers: int) -> list[Score]:
        """Verdicts of workers on (gold, answer) pairs, sorted so that most golds are parsed by one worker only."""
        size = max(1, min(_FRAME, len(pairs) // (8 * workers)))
        requests = [{"gold": gold, "answer": answer} for gold, answer in pairs]
        frames = [requests[start : start + size] for start in range(0, len(requests), size)]
        verdicts: list[Score] = []
        try:
            for replies in shared(_WORKER, workers).ask_all(frames, self.deadline, min(workers, len(frames))):
                verdicts += map(_verdict, replies)
        except WorkerError as problem:  # none can be started
            verdicts += [_verdict(problem)] * (len(pairs) - len(verdicts))
        decided = ((pair, own) for pair, own in zip(pairs, verdicts, strict=True) if own.outcome != "error")
        with _lock:
            self._known.update(decided)
            while len(self._known) > self.cache:
                self._known.popitem(last=False)
        return verdicts


def _verdict(reply: Reply) -> Score:
    if isinstance(reply, (DeadlineError, WorkerError)):
        outcome: Outcome = "timeout" if isinstance(reply, DeadlineError) else "error"
        return Score(0.0, outcome, {"by": "algebra", "problem": str(reply)})
    return Score(float(reply["equal"]), "scored", {"by": reply["by"]})


def _of(verdict: Score, pair: Pair) -> Score:
    """A verdict on a pair as the score of a completion."""
    return Score(verdict.value, verdict.outcome, _details(pair.answer, source=pair.source, **verdict.details))


def _details(answer: str, by: str, source: str, **others: str) -> dict[str, Any]:
    details = {"answer": answer[:SHOWN], "by": by, **others}
    if source != "box":
        details["found"] = source
    return details
