"""Reward `code`: the share of a row's `tests` that the program in the completion passes.

    python -m rewards score --reward code --input rows.jsonl --output scored.jsonl --workers 8

The program is taken from the last code block after the thought (fences.py), the tests are parsed by suites.py, and
grade.py runs the program in a sandbox and compares its outputs in this process. The program's process never holds an
expected output, except with C++ tests as source (details.isolation). If a program fails, hangs or does not compile,
the outcome is `scored`, with the reason in `details.status`; outcome `error` means that the grader failed.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.base import Reward, Row, Score, code_hash, error
from rewards.code.cpp.toolchain import toolchain
from rewards.code.fences import blocks, choose
from rewards.code.grade import Terms, grade_program
from rewards.code.results import Graded
from rewards.code.suites import Suite, read
from rewards.errors import RewardError
from rewards.extract import cut_short
from rewards.processes.slots import slot
from rewards.sandbox import environment, shared
from rewards.thinking import PRESETS, ThinkingFormat

_SHOWN_TESTS = 32  # per-test verdicts kept in details: the failed ones first
_SHOWN_CHARS = 500


# id of a row's tests -> (the tests, the suite or the error): rows of a group often share one object. The object is
# kept, because a row may create its tests at each access and the id of a freed object is reused.
_Suites = dict[int, tuple[Any, Suite | Score]]


@dataclass(frozen=True)
class _Job:
    """One program to run. Equal jobs of a batch are run once."""

    code: str
    suite: Suite = field(hash=False, compare=False)
    key: str


class CodeReward(Terms, Reward):
    """Share of the row's tests that the program in the completion passes.

    details: status (passed, failed, runtime_error, timeout, memory, output_limit or compile_error), passed, total,
    tests (a verdict each, at most 32), sandbox, language, isolation, compile_cpu_s, run_cpu_s, problem. isolation is
    "shared" if the tests are C++ source that runs in the program's process, which can then forge verdicts, else "data".

    value: "fraction" of tests passed, "all" (1 if all tests pass, else 0), or "weighted" by each case's weight.
    stop_early: with value "all", stop at the first failure; tests not run count as not passed. max_tests: number of
    cases to use, from the first; 0: all.
    fence: which block to use if there are several; fences: how their language marks are treated (see fences.choose).
    no_fence: "accept": an answer without a code block is the program.
    thinking: a format's name or fields (thinking.py); no code is taken from the thought.
    truncated: which completions with meta.finish_reason "length" get outcome "truncated": those without a closed
    code block ("unfenced"), all ("always"), none ("never").
    allow_shared_isolation: whether online RL may train on rows whose scores have isolation "shared"; scores are the
    same.
    workers: maximum number of programs that run at the same time in this process, for any number of scoring threads;
    so memory is bounded by workers times memory_mb (3 GB for compiling C++). Processes that share slots (slots.py)
    share this maximum.
    """

    needs = ("tests",)
    batch_rows = 1  # a program may take minutes
    removed = {"engine": "programs run in the local sandbox only"}

    value: Literal["fraction", "all", "weighted"] = "fraction"
    stop_early: bool = True
    most_timeouts: Annotated[int, Field(ge=0, le=1 << 20)] = 3
    max_tests: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    fence: Literal["last", "first", "longest"] = "last"
    fences: Literal["prefer", "require", "any"] = "prefer"
    no_fence: Literal["reject", "accept"] = "reject"
    thinking: ThinkingFormat = PRESETS["think"]
    truncated: Literal["unfenced", "always", "never"] = "unfenced"
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    allow_shared_isolation: bool = False

    @property
    def stops_early(self) -> bool:
        """Whether the first failed test ends the run: only if it decides the value."""
        return self.stop_early and self.value == "all"

    def batches_at_once(self, workers: int | None) -> int:
        return workers or self.workers

    def check_ready(self) -> None:
        """Raise RewardError if programs cannot run on this machine: no isolation, or no environment for programs."""
        shared()

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        suites: _Suites = {}
        prepared = [self._job(row, text, suites) for row, text in zip(rows, completions, strict=True)]
        jobs = list(dict.fromkeys(job for job in prepared if isinstance(job, _Job)))
        slots = workers or self.workers
        run = partial(self._run, slots=slots)
        if min(slots, len(jobs)) <= 1:
            results = dict(zip(jobs, map(run, jobs), strict=True))
        else:
            with ThreadPoolExecutor(min(slots, len(jobs))) as threads:
                results = dict(zip(jobs, threads.map(run, jobs), strict=True))
        return [deepcopy(results[job]) if isinstance(job, _Job) else job for job in prepared]

    def identities(self, rows: Sequence[Row], completions: Sequence[str]) -> list[str | None]:
        """For each completion a hash of all that its score depends on: code, tests, parameters, and the versions of
        Python, the sandbox's environment, this package and, for C++, the toolchain.

        None if no program would run. Raises RewardError as `check_ready` does.
        """
        terms = {**self.model_dump(), "workers": 0, "level": shared().level}
        machine = {"python": json.dumps([terms, sys.version, environment.digest(), code_hash()]), "cpp": ""}
        suites: _Suites = {}
        hashes: list[str | None] = []
        for row, text in zip(rows, completions, strict=True):
            job = self._job(row, text, suites)
            if not isinstance(job, _Job):
                hashes.append(None)
                continue
            if job.suite.language == "cpp" and not machine["cpp"]:
                machine["cpp"] = machine["python"] + toolchain().version
            parts = [machine[job.suite.language], job.key, job.code]
            hashes.append(hashlib.sha256(json.dumps(parts).encode()).hexdigest())
        return hashes

    def gold_problem(self, row: Row) -> str:
        """Why the row's reference solution fails its tests, "" if it passes. The solution is `solution`, the first of
        `solutions` (a list or its JSON text), or `answer`.
        """
        gold = _gold(row)
        if gold is None:
            return "the row has no solution, solutions or answer to run"
        suite = self._suite(row, {})
        if isinstance(suite, Score):
            return str(suite.details["problem"])
        block = choose(blocks(gold), suite.language)
        score = self._run(_Job(block.code if block else gold, suite, suite.key), self.workers)
        if score.value == 1:
            return ""
        details = score.details
        passed = f", {details['passed']} of {details['total']} tests passed" if "total" in details else ""
        return f"the row's own solution: {details.get('status', score.outcome)}{passed} {details.get('problem', '')}"

    def online_problem(self, row: Row) -> str:
        """Why online RL should not train on this row, "" if it may: its tests cannot be read, or they are source that
        runs in the program's process, so that a policy can learn to forge verdicts.
        """
        suite = self._suite(row, {})
        if isinstance(suite, Score):
            return str(suite.details["problem"])
        if suite.isolation == "data" or self.allow_shared_isolation:
            return ""
        return (
            "C++ tests as source share a process with the program, which can forge their verdicts: use tests of kind "
            "'call', or set allow_shared_isolation: true in the reward's params"
        )

    def _job(self, row: Row, completion: str, suites: _Suites) -> _Job | Score:
        """The program to run, or the score of a completion that has none."""
        suite = self._suite(row, suites)
        if isinstance(suite, Score):
            return deepcopy(suite)
        cut = self.truncated != "never" and cut_short(row)
        answer = self.thinking.answer_of(completion)
        fenced = blocks(answer)
        block = choose(fenced, suite.language, self.fences, self.fence, unclosed=not cut, fits=suite.defines)
        if cut and (block is None or self.truncated == "always"):
            return Score(0.0, "truncated")
        if not fenced and answer.strip() and self.no_fence == "accept":
            return _Job(suite.program(_indented(answer, completion)), suite, suite.key)
        if block is None and fenced and not any(each.code.strip() for each in fenced):
            return Score(0.0, "bad_format", {"problem": "the fence is empty"})
        if block is None:
            return Score(0.0, "no_answer", {"problem": f"no fence is marked as {suite.language}"} if fenced else {})
        return _Job(suite.program(block.code), suite, suite.key)

    def _suite(self, row: Row, suites: _Suites) -> Suite | Score:
        """The row's tests, read once per object, or an `error` score if they cannot be read."""
        tests = row.get("tests")
        if id(tests) not in suites:
            try:
                suite = read(tests)
                result: Suite | Score = replace(suite, items=suite.items[: self.max_tests or None])
            except RewardError as problem:
                result = error(str(problem)[:_SHOWN_CHARS])
            suites[id(tests)] = tests, result
        return suites[id(tests)][1]

    def _run(self, job: _Job, slots: int) -> Score:
        """The score of one program, run while holding one of `slots` slots."""
        details: dict[str, Any] = {"language": job.suite.language, "isolation": job.suite.isolation}
        try:
            details["sandbox"] = (sandbox := shared()).level
            with slot(slots):
                graded = grade_program(job.code, job.suite, self, sandbox)
        except RewardError as problem:
            return Score(0.0, "error", {**details, "problem": str(problem)[:_SHOWN_CHARS]})
        return self._score(graded, job.suite, details)

    def _score(self, graded: Graded, suite: Suite, details: dict[str, Any]) -> Score:
        details |= {"compile_cpu_s": round(graded.compile_cpu_s, 4), "run_cpu_s": round(graded.run_cpu_s, 4)}
        if graded.compile_error is not None:
            problem = graded.compile_error[:_SHOWN_CHARS]
            cause = {"compile_status": graded.compile_status} if graded.compile_status not in ("", "exit") else {}
            return Score(0.0, "scored", {"status": "compile_error", **details, **cause, "problem": problem})
        passed = [test.status == "passed" for test in graded.tests]
        status = next((test.status for test in graded.tests if test.status != "passed"), "passed")
        counts = {"status": status, "passed": sum(passed), "total": len(passed)}
        return Score(self._value(passed, suite), "scored", {**counts, **details, "tests": _shown(graded)})

    def _value(self, passed: Sequence[bool], suite: Suite) -> float:
        if self.value == "all":
            return float(all(passed))
        if self.value == "fraction" or not suite.items:
            return sum(passed) / len(passed)
        weights = [item.weight for item in suite.items]
        return sum(weight for weight, ok in zip(weights, passed, strict=True) if ok) / sum(weights)


def _shown(graded: Graded) -> list[dict[str, Any]]:
    """The verdicts for `details`, each with its test's number: in order, or if there are too many, failures first."""
    numbered = list(enumerate(graded.tests))
    if len(numbered) > _SHOWN_TESTS:
        numbered = sorted(numbered, key=lambda pair: pair[1].status == "passed")[:_SHOWN_TESTS]
    return [{"test": number, **test.as_json()} for number, test in numbered]


def _gold(row: Row) -> str | None:
    """The row's reference solution, None if it has none."""
    solutions = row.get("solutions")
    if isinstance(solutions, str):
        try:
            solutions = json.loads(solutions)
        except (ValueError, RecursionError):
            solutions = None
    first = solutions[0] if isinstance(solutions, list) and solutions else None
    return next((gold for gold in (row.get("solution"), first, row.get("answer")) if isinstance(gold, str)), None)


def _indented(answer: str, completion: str) -> str:
    """`answer` with its first line's indentation, which thinking formats strip: a program that continues its prompt
    needs it.
    """
    at = completion.rfind(answer)
    start = completion.rfind("\n", 0, at) + 1
    return completion[start:at] + answer if completion[start:at].isspace() else answer
