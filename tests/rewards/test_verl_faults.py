"""A reward in verl that raises, hangs or returns no number: a counted outcome, and the end of the run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from rewards import REGISTRY, Reward, RewardError, Score, TooManyFailures
from rewards.base import Row
from rewards.serving import verl
from rewards.serving.verl import compute_score, compute_score_async

RELEASE = threading.Event()


class Faulty(Reward):
    """Misbehaves on completions that contain "bad"."""

    fault: Literal["raise", "settings", "exit", "hang", "nan", "inf", "type"] = "raise"

    def grade(self, row: Row, completion: str) -> Score:
        if completion != "bad":
            return Score(1.0)
        match self.fault:
            case "raise":
                raise KeyError("no such column")
            case "settings":
                raise RewardError("the server serves another model")
            case "exit":
                raise SystemExit(3)
            case "hang":
                RELEASE.wait(60)
            case "nan" | "inf":
                return Score(float(self.fault))
        return 1.0 if self.fault == "type" else Score(0.5)  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(REGISTRY, "faulty", f"{__name__}:Faulty")
    verl._built_grader.cache_clear()
    RELEASE.clear()
    yield
    RELEASE.set()
    verl._built_grader.cache_clear()


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(params=["sync", "async", "in a group"])
def ask(request: pytest.FixtureRequest) -> Ask:
    def asked(text: str, **given: Any) -> dict[str, Any]:
        given = {"reward": "faulty", **given}
        if request.param == "sync":
            return compute_score("s", text, None, {"index": 1}, **given)
        size = 2 if request.param == "in a group" else 1

        async def all_of_them() -> list[dict[str, Any]]:
            sample = {
                "data_source": "s",
                "solution_str": text,
                "ground_truth": None,
                "extra_info": {"index": 1},
                **given,
            }
            return await asyncio.gather(*(compute_score_async(**sample, group_size=size) for _ in range(size)))

        return asyncio.run(all_of_them())[-1]

    return asked


@pytest.mark.parametrize("fault", ["raise", "type", "nan", "inf"])
def test_an_exception_is_an_error_with_a_finite_score(ask: Ask, fault: str) -> None:
    results = ask("bad", params={"fault": fault})
    assert (results["score"], results["outcome"], results["is_error"]) == (0.0, "error", 1.0)
    assert ask("good", params={"fault": fault})["outcome"] == "scored"


def test_a_hang_is_a_timeout(ask: Ask) -> None:
    results = ask("bad", params={"fault": "hang"}, deadline=0.2)
    assert (results["score"], results["outcome"], results["is_timeout"]) == (0.0, "timeout", 1.0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"of 50 scores are 'error' .*; the last: reward 'faulty' raised KeyError: 'no such column'"),
        ("nan", r"of 50 scores are 'error' .*; the last: the value of the reward is nan"),
    ],
)
def test_too_many_errors_end_the_run_with_a_one_line_reason(ask: Ask, fault: str, message: str) -> None:
    def repeat(times: int) -> None:
        for _ in range(times):
            ask("bad", params={"fault": fault})

    with pytest.raises(TooManyFailures, match=message) as caught:
        repeat(60)
    assert "\n" not in str(caught.value)


def test_many_hangs_end_the_run() -> None:
    async def main() -> None:
        given = {"reward": "faulty", "params": {"fault": "hang"}, "deadline": 0.5}
        # more than there are threads: those that wait for one are given up, too
        await asyncio.gather(*(compute_score_async("s", "bad", None, {}, **given) for _ in range(verl.THREADS + 20)))

    with pytest.raises(TooManyFailures, match=r"'timeout' .*; the last: no score after 0.5 s"):
        asyncio.run(main())


@pytest.mark.parametrize(("fault", "error"), [("settings", RewardError), ("exit", SystemExit)])
def test_errors_not_caused_by_a_sample_end_the_run_at_once(fault: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        compute_score("s", "bad", None, {}, reward="faulty", params={"fault": fault})


def test_the_traceback_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        compute_score("s", "bad", None, {}, reward="faulty", params={"fault": "raise"})
    printed = capsys.readouterr().err
    assert printed.count("Traceback") == 1
    assert 'raise KeyError("no such column")' in printed


def test_a_part_with_a_non_finite_value_is_an_error_of_the_result() -> None:
    parts = [{"reward": "format"}, {"reward": "faulty", "params": {"fault": "nan"}}]
    given = {"reward": "combine", "params": {"parts": parts, "mode": "gate", "clip": [0, 1]}}
    assert compute_score("s", "bad", None, {}, **given)["outcome"] == "bad_format"  # never computed
    results = compute_score("s", "bad", None, {}, reward="combine", params={"parts": parts[1:], "clip": [0, 1]})
    assert (results["outcome"], results["score"], results["part_faulty"]) == ("error", 0.0, None)
