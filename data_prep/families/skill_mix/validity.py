"""Whether a question is valid, found out by running it in the rewards' sandbox.

Valid is: the gold passes all tests, every time; no test takes long; an empty solution and a stub of the right
signature fail; and at least two of three mutants of the gold fail. Times are CPU time, so that a busy machine
changes no verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from pydantic import Field, model_validator

from data_prep.core.step import Drop, Params, Row
from data_prep.families.skill_mix.mutants import mutants, stub
from data_prep.families.skill_mix.signatures import Language
from rewards.code.grade import Terms, grade_program
from rewards.code.results import Graded, Tested
from rewards.code.suites import Suite, read
from rewards.sandbox import Sandbox

MOST_TRIED = 12  # mutants of one gold; of C++'s some do not compile
LEAST_CPU_S = 0.25  # for a mutant's test: programs need some to start
SLOWER = 10  # times the gold's slowest test that a mutant may take before it counts as one that never ends


class Demands(Params):
    """What a valid question is."""

    least_tests: int = Field(5, ge=1)
    runs: int = Field(3, ge=1, le=20)  # of the gold
    test_cpu_s: float = Field(1.0, gt=0, le=600)  # the longest that a test of the gold may take
    mutants: int = Field(3, ge=0, le=10)  # tried at most
    killed: int = Field(2, ge=0, le=10)  # of so many mutants must fail, in proportion where fewer are made
    memory_mb: int = Field(512, ge=16)
    workers: int | None = Field(None, ge=1)  # processes at once; by default what the executor has

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.killed > self.mutants:
            raise ValueError(f"killed: {self.killed} of {self.mutants} mutants cannot be asked for")
        return self


@dataclass
class Verdict:
    """refusal: why the question is not valid, "" if it is. evidence: what showed it. report: what was found.

    times: CPU seconds, which differ from run to run and have no place in a row.
    """

    refusal: str = ""
    evidence: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    broken: bool = False  # the sandbox could not say

    def refuse(self, why: str, evidence: str) -> Verdict:
        self.refusal, self.evidence = why, evidence
        return self


def verify(row: Row, demands: Demands, engine: Sandbox) -> Verdict:
    """The verdict on a question's row. Raises RewardError where this machine cannot run its language."""
    return _Trial(row, demands, engine).verdict()


class _Trial:
    """One question under its demands; the verdict grows as it goes."""

    def __init__(self, row: Row, demands: Demands, engine: Sandbox) -> None:
        self._row, self._demands, self._engine = row, demands, engine
        self._gold: str = row["references"][0]
        self._suite: Suite = read(row["tests"])
        self._language: Language = self._suite.language
        self._found = Verdict()

    def verdict(self) -> Verdict:
        """Each trial in turn, until one refuses."""
        for trial in (self._of_gold, self._of_empty, self._of_stub, self._of_mutants):
            trial()
            if self._found.refusal or self._found.broken:
                break
        return self._found

    def _run(self, code: str, cpu_s: float, stop_early: bool = False, most_timeouts: int = 0) -> Graded:
        memory_mb = self._demands.memory_mb
        terms = Terms(cpu_s=cpu_s, memory_mb=memory_mb, stop_early=stop_early, most_timeouts=most_timeouts)
        graded = grade_program(code, self._suite, terms, self._engine)
        if graded.failure and not graded.failure.startswith("the tests:"):
            self._found.broken = True
            self._found.refuse("not verified", graded.failure)
        return graded

    def _of_gold(self) -> None:
        d, found = self._demands, self._found
        runs: list[Graded] = []
        for _ in range(d.runs):
            graded = self._run(self._gold, self._longest(), most_timeouts=1)
            if found.broken:
                return
            if graded.failure:
                found.refuse("tests do not compile", graded.failure.removeprefix("the tests: "))
                return
            if graded.compile_error is not None:
                found.refuse("gold does not compile", graded.compile_error)
                return
            runs.append(graded)
            if any(test.status == "timeout" for test in graded.tests):
                break  # once more would cost as much and tell nothing new
        tests = runs[0].tests
        if len({tuple(test.status == "passed" for test in run.tests) for run in runs}) > 1:
            found.refuse("flaky test", _differing([run.tests for run in runs]))
        elif not passed(runs[0]):
            found.refuse("gold fails its tests", _failed(tests))
        elif len(tests) < d.least_tests:
            found.refuse("too few tests", f"{len(tests)}, and at least {d.least_tests} are wanted")
        else:
            self._time(runs)
        own_main = self._suite.kind == "gtest" and re.search(r"\bint\s+main\s*\(", self._suite.source)
        found.report = {"tests": len(tests), "gold_runs": d.runs, **({"own_main": True} if own_main else {})}

    def _time(self, runs: Sequence[Graded]) -> None:
        """Asserts of one program share processes, so that only their sum is known."""
        slowest = max(max([test.cpu_s for test in run.tests] + [run.run_cpu_s / len(run.tests)]) for run in runs)
        self._found.times = {
            "gold_cpu_s": round(sum(run.run_cpu_s for run in runs) / len(runs), 4),
            "slowest_test_cpu_s": round(slowest, 4),
            "compile_cpu_s": round(runs[-1].compile_cpu_s, 4),
        }
        if slowest > self._demands.test_cpu_s:
            limit = self._demands.test_cpu_s
            self._found.refuse("slow test", f"a test of the gold takes {slowest:.2f} s of CPU, more than {limit:g} s")

    def _of_empty(self) -> None:
        graded = self._run("", self._short())
        if not self._found.broken and not graded.failure and passed(graded):
            self._found.refuse("an empty solution passes", f"{len(graded.tests)} of {len(graded.tests)} tests")

    def _of_stub(self) -> None:
        meta = self._row.get("meta", {})
        code = stub(self._gold, self._language, str(meta.get("function", "")), str(meta.get("signature", "")))
        if code is None:
            self._found.report["stub"] = "not made"  # no plain function of that name
            return
        graded = self._run(code, self._short())
        self._found.report["stub"] = ending(graded)
        if not self._found.broken and passed(graded):
            self._found.refuse("a stub passes", code[:400])

    def _of_mutants(self) -> None:
        d = self._demands
        tried: list[tuple[str, bool]] = []
        for one in islice(mutants(self._gold, self._language, self._row["id"]), MOST_TRIED if d.mutants else 0):
            graded = self._run(one.code, self._short(), stop_early=True)
            if self._found.broken:
                return
            if graded.compile_error is None and not graded.failure:
                tried.append((one.change, not passed(graded)))
            if len(tried) == d.mutants:
                break
        self._found.report["mutants"] = [{"change": change, "killed": died} for change, died in tried]
        killed = sum(died for _, died in tried)
        alive = "; ".join(change for change, died in tried if not died)
        if not tried and d.mutants:
            self._found.refuse("no mutant to try", "nothing in the gold that a simple mutation changes")
        elif killed * d.mutants < d.killed * len(tried):
            self._found.refuse("mutants survive", f"{len(tried) - killed} of {len(tried)} pass all tests: {alive}")

    def _short(self) -> float:
        """The CPU seconds for a test of what is no gold: most of these that need more never end."""
        slowest = self._found.times.get("slowest_test_cpu_s", 0.0)
        return min(max(LEAST_CPU_S, SLOWER * slowest), self._longest())

    def _longest(self) -> float:
        """The CPU seconds after which a test of the gold has ended or never will."""
        return max(2 * self._demands.test_cpu_s, 2 * LEAST_CPU_S)


def passed(graded: Graded) -> bool:
    return bool(graded.tests) and all(test.status == "passed" for test in graded.tests)


def ending(graded: Graded) -> str:
    """What became of a program in a few words that are the same every time."""
    if graded.compile_error is not None or graded.failure:
        return "does not compile"
    return "passes" if passed(graded) else "fails"


def _failed(tests: Sequence[Tested]) -> str:
    said = []
    for number, test in enumerate(tests, 1):
        if test.status != "passed":
            message = f" ({' '.join(test.message.split())[:120]})" if test.message else ""
            said.append(f"{test.name or f'test {number}'}: {test.status}{message}")
    return f"{len(said)} of {len(tests)}: " + "; ".join(said)


def _differing(runs: Sequence[Sequence[Tested]]) -> str:
    said = []
    for number, statuses in enumerate(zip(*runs, strict=True), 1):
        if len({test.status for test in statuses}) > 1:
            said.append(f"{statuses[0].name or f'test {number}'}: {', '.join(test.status for test in statuses)}")
    return "; ".join(said)


def refused(row: Row, verdict: Verdict) -> Drop:
    """The row as a drop; a bad gold or bad tests are the row's fault."""
    return Drop(verdict.refusal, str(row["id"]), verdict.evidence[:500], bad=verdict.broken)
