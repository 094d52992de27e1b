r"""Reward `math`: 1 if the completion's boxed answer equals `row["answer"]`, else 0.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl

Stages, cheapest first: extraction (last balanced box after the thought), exact equality of strings and rationals,
cache, screen, structure (equivalence.py), and algebra in worker processes (worker.py) with a deadline that this process
enforces. No answer is evaluated in this process.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Outcome, Row, Score
from rewards.extract import gold_text
from rewards.forks import lock
from rewards.math.answer import SHOWN, Answer, BoxedReward
from rewards.processes.pool import Answer as Reply
from rewards.processes.pool import DeadlineError, WorkerError, shared

_WORKER = "rewards.math.worker"
_LARGE_BATCH = 512  # rows
_FRAME = 32  # pairs sent to a worker at once
_lock = lock()  # of all caches
_MARKS = re.compile(r"(?<!\\)[\s{}().,;:$-]")


Pair = tuple[str, str]  # gold, answer
Verdict = tuple[float, Outcome, dict[str, Any]]  # of a pair: the fields of its score, details without the answer


class MathReward(BoxedReward):
    """1 if the boxed answer is mathematically equal to the row's, else 0.

    details: answer, by (the deciding stage), found (the source of an answer without box), problem.

    deadline: CPU seconds for one answer. workers: processes. cache: maximum number of cached worker verdicts.
    """

    batch_rows = 256
    truncated: Literal["unboxed", "always", "never"] = "unboxed"
    deadline: Annotated[float, Field(ge=0.01, le=600.0)] = 2.0
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    cache: Annotated[int, Field(ge=0, le=1 << 24)] = 65536

    @cached_property
    def _verdicts(self) -> OrderedDict[Pair, Verdict]:
        """Cached verdicts of workers, oldest first."""
        return OrderedDict()

    def compare(self, row: Row, answer: Answer) -> Score:
        pair = gold_text(row["answer"]), answer[0]
        return _scored(self._cheap(*pair) or self._decide([pair], self.workers)[0], answer)

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        workers = workers or self.workers
        # With several workers, large batches are also compared by structure in the workers.
        structure = workers == 1 or len(rows) < _LARGE_BATCH
        answers = [self.extracted(row, text) for row, text in zip(rows, completions, strict=True)]
        pairs = [
            None if isinstance(answer, Score) else (gold_text(row["answer"]), answer[0])
            for row, answer in zip(rows, answers, strict=True)
        ]
        verdicts = {pair: self._cheap(*pair, structure) for pair in dict.fromkeys(pairs) if pair}
        undecided = sorted(pair for pair, verdict in verdicts.items() if verdict is None)
        verdicts.update(zip(undecided, self._decide(undecided, workers), strict=True))
        return [
            answer if isinstance(answer, Score) else _scored(verdicts[pair], answer)  # type: ignore[index, arg-type]
            for answer, pair in zip(answers, pairs, strict=True)
        ]

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
            usable = not _is_blank(gold_text(answer))
        else:
            usable = type(answer) is int or (isinstance(answer, float) and math.isfinite(answer))
        return "" if usable else f"the row's answer is {answer!r:.80}, not a number or a text that is not blank"

    def _cheap(self, gold: str, answer: str, structure: bool = True) -> Verdict | None:
        """The verdict of all stages before the workers, None if undecided."""
        from rewards.math.equivalence import equal  # imported late: reading parameters does not need it
        from rewards.math.latex import MAX_CHARS, screen
        from rewards.math.scalars import fast

        if (same := fast(gold, answer)) is not None:
            return float(same), "scored", {"by": "exact"}
        if not answer:
            return 0.0, "bad_format", {"problem": "the box is empty"}
        if cached := self._verdicts.get((gold, answer)):
            return cached
        if len(gold) > MAX_CHARS:
            return 0.0, "error", {"problem": f"the row's answer is longer than {MAX_CHARS} characters"}
        if problem := screen(answer):
            return 0.0, "bad_format", {"by": "screen", "problem": problem}
        same = equal(gold, answer) if structure else None
        return None if same is None else (float(same), "scored", {"by": "structure"})

    def _decide(self, pairs: Sequence[Pair], workers: int) -> list[Verdict]:
        """Verdicts of workers on pairs. Pass sorted pairs, so that most golds are parsed by one worker only."""
        if not pairs:
            return []
        size = max(1, min(_FRAME, len(pairs) // (8 * workers)))
        requests = [{"gold": gold, "answer": answer} for gold, answer in pairs]
        frames = [requests[start : start + size] for start in range(0, len(requests), size)]
        verdicts: list[Verdict] = []
        try:
            for replies in shared(_WORKER, workers).ask_all(frames, self.deadline, min(workers, len(frames))):
                verdicts += map(_verdict, replies)
        except WorkerError as problem:  # none can be started
            verdicts += [_verdict(problem)] * (len(pairs) - len(verdicts))
        with _lock:
            self._verdicts.update(
                (pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True) if verdict[1] != "error"
            )
            while len(self._verdicts) > self.cache:
                self._verdicts.popitem(last=False)
        return verdicts


@lru_cache(maxsize=4096)
def _is_blank(gold: str) -> bool:
    r"""Whether a reference is nan or consists only of blanks and marks: `\text{ }`, `$nan$`, `{}`, `.`, `-`."""
    from rewards.math.latex import clean

    return not re.search("[0-9]", gold) and _MARKS.sub("", clean(gold)).casefold() in ("", "nan")


def _verdict(reply: Reply) -> Verdict:
    """The verdict of a worker's reply or of the failure in its place."""
    if isinstance(reply, (DeadlineError, WorkerError)):
        outcome: Outcome = "timeout" if isinstance(reply, DeadlineError) else "error"
        return 0.0, outcome, {"by": "algebra", "problem": str(reply)}
    return float(reply["equal"]), "scored", {"by": reply["by"]}


def _scored(verdict: Verdict, answer: Answer) -> Score:
    """The score of a verdict, with the answer in its details."""
    value, outcome, details = verdict
    text, source = answer
    return Score(value, outcome, {"answer": text[:SHOWN], **details, **({} if source == "box" else {"found": source})})
