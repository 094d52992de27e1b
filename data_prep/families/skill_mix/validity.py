"""Keeps the questions that pass verification in the rewards' sandbox.

- verify_questions
- verify_questions: {least_tests: 5, runs: 3, test_cpu_s: 1.0, mutants: 3, killed: 2, workers: 2}

A question is valid if the gold solution passes all tests in every run, no test is slow, an empty solution and a stub
with the right signature fail, and at least two of three mutants of the gold fail. Times are CPU times, so that
verdicts do not depend on the machine's load. An invalid question is dropped with a reason (`gold fails its tests`,
`flaky test`, `mutants survive` …) and evidence; the results for a valid one are stored in `meta.verified`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

import rewards
from data_prep.core.step import Apply, Context, Drop, Params, Row, Step
from data_prep.errors import reward_errors
from data_prep.families.skill_mix.mutants import mutants, stub
from data_prep.sources.messages import Unfit
from rewards.code.grade import Terms, grade_program
from rewards.code.results import Graded, Tested
from rewards.code.suites import Suite, read
from rewards.errors import NotGraded
from rewards.sandbox import Sandbox, shared

MOST_TRIED = 12  # mutants tried per gold; some C++ mutants do not compile
LEAST_CPU_S = 0.25  # minimum for a mutant's test: programs need time to start
SLOWER = 10  # a mutant slower than this multiple of the gold's slowest test counts as non-terminating


class VerifyQuestionsParams(Params):
    """Requirements for a valid question."""

    least_tests: int = Field(5, ge=1)
    runs: int = Field(3, ge=1, le=20)  # runs of the gold
    test_cpu_s: float = Field(1.0, gt=0, le=600)  # maximum for a test of the gold
    mutants: int = Field(3, ge=0, le=10)  # maximum number of mutants
    killed: int = Field(2, ge=0, le=10)  # mutants that must fail; scaled down if there are fewer mutants
    memory_mb: int = Field(512, ge=16)
    workers: int | None = Field(None, ge=1)  # parallel processes; default: the executor's

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.killed > self.mutants:
            raise ValueError(f"killed: {self.killed} is more than mutants: {self.mutants}")
        return self


class VerifyQuestions(Step):
    """Maps questions to verified questions."""

    kind = "verify_questions"
    needs: ClassVar[tuple[str, ...]] = ("references", "tests")
    unkeyed: ClassVar[tuple[str, ...]] = ("workers",)
    shard_rows = 8  # a question takes seconds, and a kill loses the shards in flight
    Params = VerifyQuestionsParams
    params: VerifyQuestionsParams

    def processes(self) -> int | None:
        return self.params.workers

    def fingerprint(self, base: Path) -> dict[str, Any]:
        return {"rewards": rewards.code_hash()}

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Check once for all shards that programs can be run (isolation, compiler). Raises DataError."""
        with reward_errors():
            shared()
        yield lambda rows, shard: [self._judged(row) for row in rows]

    def _judged(self, row: Row) -> Row | Drop:
        row_id = str(row["id"])
        try:
            suite = read(row["tests"])
        except rewards.RewardError as problem:
            return Drop("unusable tests", row_id, str(problem), bad=True)
        try:
            with reward_errors():
                report = _Trial(row, suite, self.params, shared()).report()
        except Unfit as unfit:
            return Drop(unfit.reason, row_id, unfit.detail[:500], bad=unfit.reason == NOT_VERIFIED)
        return {**row, "meta": {**row.get("meta", {}), "verified": report}}


NOT_VERIFIED = "not verified"  # the sandbox could not decide
TESTS = "the tests: "  # prefix of errors in the tests


class _Trial:
    """The verification of one question. Raises RewardError if this machine cannot run its language."""

    def __init__(self, row: Row, suite: Suite, required: VerifyQuestionsParams, engine: Sandbox) -> None:
        self._row, self._suite, self._required, self._engine = row, suite, required, engine
        self._gold: str = row["references"][0]
        self._longest = max(2 * required.test_cpu_s, 2 * LEAST_CPU_S)  # CPU seconds, then a test never ends

    def report(self) -> dict[str, Any]:
        """The results for a valid question. Raises Unfit."""
        tests, slowest = self._of_gold()
        # Tests of other programs that need more CPU seconds than this mostly never end.
        short = min(max(LEAST_CPU_S, SLOWER * slowest), self._longest)
        if passed(empty := self._run("", short)):
            raise Unfit("an empty solution passes", f"{len(empty.tests)} of {len(empty.tests)} tests")
        return {"tests": tests, "stub": self._of_stub(short), "mutants": self._of_mutants(short)}

    def _run(self, code: str, cpu_s: float, stop_early: bool = False, most_timeouts: int = 0) -> Graded:
        memory_mb = self._required.memory_mb
        terms = Terms(cpu_s=cpu_s, memory_mb=memory_mb, stop_early=stop_early, most_timeouts=most_timeouts)
        try:
            return grade_program(code, self._suite, terms, self._engine)
        except NotGraded as problem:
            if not str(problem).startswith(TESTS):
                raise Unfit(NOT_VERIFIED, str(problem)) from None
            return Graded(compile_error=str(problem))

    def _of_gold(self) -> tuple[int, float]:
        """The number of tests and the CPU seconds of the slowest."""
        required = self._required
        runs: list[Graded] = []
        for _ in range(required.runs):
            graded = self._run(self._gold, self._longest, most_timeouts=1)
            if graded.compile_error is not None:
                whose = "tests do" if graded.compile_error.startswith(TESTS) else "gold does"
                raise Unfit(f"{whose} not compile", graded.compile_error.removeprefix(TESTS))
            runs.append(graded)
            if any(test.status == "timeout" for test in graded.tests):
                break  # another run would cost as much without new information
        tests = runs[0].tests
        if len({tuple(test.status == "passed" for test in run.tests) for run in runs}) > 1:
            raise Unfit("flaky test", _differing(runs))
        if not passed(runs[0]):
            raise Unfit("gold fails its tests", _failed(tests))
        if len(tests) < required.least_tests:
            raise Unfit("too few tests", f"{len(tests)} of at least {required.least_tests}")
        # Asserts of one program share processes, so only their total time is known.
        slowest = max(max([test.cpu_s for test in run.tests] + [run.run_cpu_s / len(run.tests)]) for run in runs)
        if slowest > required.test_cpu_s:
            limit = required.test_cpu_s
            raise Unfit("slow test", f"a test of the gold takes {slowest:.2f} s of CPU, more than {limit:g} s")
        return len(tests), round(slowest, 4)

    def _of_stub(self, cpu_s: float) -> str:
        """How the stub fails, as a short deterministic text."""
        meta = self._row.get("meta", {})
        code = stub(self._gold, self._suite.language, str(meta.get("function", "")), str(meta.get("signature", "")))
        if code is None:
            return "not made"  # no plain function with that name
        graded = self._run(code, cpu_s)
        if passed(graded):
            raise Unfit("a stub passes", code[:400])
        return "does not compile" if graded.compile_error is not None else "fails"

    def _of_mutants(self, cpu_s: float) -> list[dict[str, Any]]:
        required = self._required
        tried: list[tuple[str, bool]] = []
        made = mutants(self._gold, self._suite.language, self._row["id"])
        for mutant in islice(made, MOST_TRIED if required.mutants else 0):
            graded = self._run(mutant.code, cpu_s, stop_early=True)
            if graded.compile_error is None:
                tried.append((mutant.change, not passed(graded)))
            if len(tried) == required.mutants:
                break
        killed = sum(died for _, died in tried)
        if not tried and required.mutants:
            raise Unfit("no mutant to try", "nothing in the gold that a simple mutation changes")
        if killed * required.mutants < required.killed * len(tried):
            alive = "; ".join(change for change, died in tried if not died)
            raise Unfit("mutants survive", f"{len(tried) - killed} of {len(tried)} pass all tests: {alive}")
        return [{"change": change, "killed": died} for change, died in tried]


def passed(graded: Graded) -> bool:
    return bool(graded.tests) and all(test.status == "passed" for test in graded.tests)


def _failed(tests: Sequence[Tested]) -> str:
    lines = []
    for number, test in enumerate(tests, 1):
        if test.status != "passed":
            message = f" ({' '.join(test.message.split())[:120]})" if test.message else ""
            lines.append(f"{test.name or f'test {number}'}: {test.status}{message}")
    return f"{len(lines)} of {len(tests)}: " + "; ".join(lines)


def _differing(runs: Sequence[Graded]) -> str:
    by_test = enumerate(zip(*(run.tests for run in runs), strict=True), 1)
    ends = {tests[0].name or f"test {number}": [test.status for test in tests] for number, tests in by_test}
    return "; ".join(f"{name}: {', '.join(statuses)}" for name, statuses in ends.items() if len(set(statuses)) > 1)
