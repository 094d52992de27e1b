"""Scoring candidates of C++ questions, beside compile-and-run from scratch for each, and under a heavy load.

PYTHONPATH=. python tests/bench/skill_mix.py [number of questions [of them under load, by default 8]]

The questions are those of SKILL_MIX_QUESTIONS (or where the file lies beside the repository), else our own; of each
the gold, a stub and six mutants are scored, two at a time. From scratch: g++ on tests that include the solution, and
one run of all tests, without isolation, as the original did; first with a bound of 4 s of CPU for the run alone, then
as it was, 4 s of wall time for compiler, linker and tests. The two take turns by question, so that a busy spell of the
machine falls on both. Under load means beside processes that only burn CPU, four for each core.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from data_prep.core.step import Row
from data_prep.steps.score_cache import ScoreCache
from rewards import Score
from rewards.code.reward import CodeReward
from tests.bench.cpp_reward import whole
from tests.bench.tables import show
from tests.rewards.test_skill_mix_questions import OURS, as_question, programs, real

Question = dict[str, Any]

CANDIDATES, AT_ONCE, BURNERS_PER_CORE = 8, 2, 4
ORIGINAL_S = 4.0  # its limit, of wall time
PARAMS = {"cpu_s": 1.0, "workers": AT_ONCE}  # of one test; a whole program has ORIGINAL_S from scratch


@dataclass
class Cost:
    """Seconds."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        began, used = time.monotonic(), whole()
        yield
        self.wall += time.monotonic() - began
        self.cpu += whole() - used


def candidates(name: str, one: Question) -> list[str]:
    """The gold, a stub, mutants; of a short gold perhaps fewer."""
    gold, wrong, _, *mutated = programs(name, as_question(name, one), CANDIDATES - 2)
    return [gold, wrong, *mutated]


def rows(one: Question, codes: list[str]) -> tuple[list[Row], list[str]]:
    tests = as_question("", one).tests
    return [{"tests": tests}] * len(codes), [f"```cpp\n{code}\n```" for code in codes]


def from_scratch(one: Question, codes: list[str], by_wall: bool) -> list[float]:
    """The share of tests that pass, of each candidate."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda code: scratched(one, code, by_wall), codes))


def scratched(one: Question, code: str, by_wall: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place, text in (("solution/solution.cpp", code), ("tests/test.cpp", one["unit_tests"])):
            (folder / place).parent.mkdir()
            (folder / place).write_text(text)
        build = ["g++", "-std=c++17", "tests/test.cpp", "-lgtest", "-lgtest_main", "-pthread", "-o", "run"]
        left = ORIGINAL_S if by_wall else 600.0
        began = time.monotonic()
        if not ended(build, folder, left, by_wall):
            return 0.0
        if by_wall:
            left = max(0.01, ORIGINAL_S - (time.monotonic() - began))
        if not ended(["./run", "--gtest_output=xml:report.xml"], folder, left, by_wall):
            return 0.0
        return share(folder / "report.xml")


def ended(command: list[str], folder: Path, seconds: float, by_wall: bool) -> bool:
    """Whether a command did its work: a compiler that succeeds, tests that end by themselves."""
    bound = None if by_wall or command[0] == "g++" else (int(ORIGINAL_S), int(ORIGINAL_S))

    def limited() -> None:
        if bound:
            resource.setrlimit(resource.RLIMIT_CPU, bound)

    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=seconds, preexec_fn=limited)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 if command[0] == "g++" else done.returncode in (0, 1)


def share(report: Path) -> float:
    if not report.exists():
        return 0.0
    suites = ElementTree.parse(report).getroot()
    count, failed = int(suites.get("tests", 0)), int(suites.get("failures", 0)) + int(suites.get("errors", 0))
    return (count - failed) / count if count else 0.0


def burn() -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # not for ever, should the benchmark be killed
        sum(range(1_000_000))


@contextmanager
def load() -> Iterator[None]:
    burners = [
        multiprocessing.Process(target=burn, daemon=True) for _ in range(BURNERS_PER_CORE * (os.cpu_count() or 1))
    ]
    for one in burners:
        one.start()
    try:
        yield
    finally:
        for one in burners:
            one.kill()
            one.join()


def verdict(score: Score) -> tuple[object, ...]:
    """What a score says, without times and memory."""
    tests = tuple((test.get("name"), test["status"]) for test in score.details.get("tests", ()))
    return score.value, score.outcome, score.details.get("status"), tests


def fresh(one: Question, mark: str) -> Question:
    """The question with tests that have not been compiled yet."""
    return {**one, "unit_tests": f"{one['unit_tests']}\n// {mark}\n"}


def line(what: str, cost: Cost, count: int, against: Cost | None = None) -> dict[str, str]:
    ratio = (f"{against.wall / cost.wall:.2f}", f"{against.cpu / cost.cpu:.2f}") if against else ("", "")
    return {
        "what": what, "wall": f"{cost.wall:.1f} s", "CPU": f"{cost.cpu:.1f} s",
        "CPU per candidate": f"{1000 * cost.cpu / count:.0f} ms", "wall, × less": ratio[0], "CPU, × less": ratio[1],
    }  # fmt: skip


def by_question(questions: dict[str, Question], work: Callable[[Question, list[str]], list[float]]) -> list[float]:
    return [value for name, one in questions.items() for value in work(one, candidates(name, one))]


def main(count: int | None, loaded_count: int) -> None:
    """Print the tables."""
    found = real() or OURS
    names = sorted(found) if count is None else random.Random(5).sample(sorted(found), min(count, len(found)))
    questions = {name: found[name] for name in names}
    reward = CodeReward.create("code", PARAMS)
    assert isinstance(reward, CodeReward)
    reward.score_many(*rows(OURS["box"], ["int x;"]))  # what is made once per machine and process

    ours, theirs, scores, scratch = Cost(), Cost(), list[Score](), list[float]()
    for name, one in questions.items():
        codes = candidates(name, one)
        with ours.counted():
            scores += reward.score_many(*rows(one, codes), AT_ONCE)
        with theirs.counted():
            scratch += from_scratch(one, codes, by_wall=False)
    again = Cost()
    with tempfile.TemporaryDirectory() as folder:
        asked = [rows(one, candidates(name, one)) for name, one in questions.items()]
        keys = [key for pair in asked for key in reward.identities(*pair)]
        ScoreCache(Path(folder)).put({key: score for key, score in zip(keys, scores, strict=True) if key})
        with again.counted():
            cache = ScoreCache(Path(folder))
            hits = sum(cache.get(str(key)) is not None for pair in asked for key in reward.identities(*pair))
    total = len(scores)
    show(
        f"{total} candidates of {len(questions)} questions{'' if real() else ' of ours'}, {AT_ONCE} at a time",
        [
            line("from scratch for each", theirs, total),
            line("the reward code", ours, total, theirs),
            line(f"again, {hits} of them from the score cache", again, total, theirs),
        ],
    )
    values = [score.value for score in scores]
    lower = sum(b < a - 1e-9 for a, b in zip(values, scratch, strict=True))
    higher = sum(b > a + 1e-9 for a, b in zip(values, scratch, strict=True))
    ends = Counter(str(score.details.get("status", score.outcome)) for score in scores)
    print(f"ended: {', '.join(f'{n} {end}' for end, n in ends.most_common())}")
    # A mutant that reads outside of its arrays finds what happens to be there, which is another in another process.
    print(
        f"from scratch scores {lower} lower (a crash or hang ends all tests of a program), {higher} higher (chance)\n"
    )

    if not loaded_count:
        return
    few = dict(list(questions.items())[:loaded_count])
    calm = by_question(few, lambda one, codes: from_scratch(one, codes, by_wall=True))
    with load():
        loaded = [
            score
            for name, one in few.items()
            for score in reward.score_many(*rows(fresh(one, "loaded"), candidates(name, one)), AT_ONCE)
        ]
        hurried = by_question(few, lambda one, codes: from_scratch(one, codes, by_wall=True))
    total = len(loaded)
    ours_changed = sum(verdict(a) != verdict(b) for a, b in zip(scores[:total], loaded, strict=True))
    theirs_changed = sum(a != b for a, b in zip(calm, hurried, strict=True))
    burners = BURNERS_PER_CORE * (os.cpu_count() or 1)
    show(
        f"candidates of {len(few)} of the questions, beside {burners} processes that burn CPU",
        [
            {"what": "the reward code: verdicts that change", "of": total, "changed": ours_changed},
            {"what": f"{ORIGINAL_S:g} s of wall time: scores that change", "of": total, "changed": theirs_changed},
            {"what": f"{ORIGINAL_S:g} s of wall time: already other than without a limit", "of": total,
             "changed": sum(a != b for a, b in zip(calm, scratch[:total], strict=True))},
        ],
    )  # fmt: skip


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    main(given[0] if given else None, given[1] if given[1:] else 8)
