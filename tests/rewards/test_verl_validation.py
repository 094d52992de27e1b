"""verl's validation is graded by each benchmark's own reward, with one set of keys; training is unaffected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import rewards
from rewards import RewardError, TooManyFailures
from rewards.serving import verl
from rewards.serving.verl import compute_score, compute_score_async

TRAINED = {
    "reward": "combine",
    "params": {"parts": [{"reward": "math"}, {"reward": "length", "weight": 0.1, "params": {"high": 4, "margin": 8}}]},
    "acc": "math",
}
BENCHMARKS = {
    "aime": {"reward": "math"},
    "gsm8k": {"reward": "math", "params": {"fallbacks": ["answer_is"]}},
    "gpqa": {"reward": "choice"},
    "ifshape": {"reward": "combine", "params": {"parts": [{"reward": "format"}, {"reward": "length"}]}},
}
SCALED = {"reward": "length", "scale": "zscore"}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    def asked(source: str, text: str, gold: str, info: dict[str, Any], **more: Any) -> dict[str, Any]:
        given = {**TRAINED, "validation": BENCHMARKS, **more}
        if request.param == "sync":
            return compute_score(source, text, gold, info, **given)
        return asyncio.run(compute_score_async(source, text, gold, info, **given))

    return asked


@pytest.mark.parametrize(
    ("source", "text", "gold"),
    [
        ("aime", r"\boxed{4}", "4"),
        ("aime", "the answer is 4", "4"),  # no box: nothing in AIME, an answer in GSM8K
        ("gsm8k", "the answer is 4", "4"),
        ("gpqa", "The answer is (B).", "B"),
        ("ifshape", "<think>a</think>b", "x"),
    ],
)
def test_validation_grades_like_the_evaluation(ask: Ask, source: str, text: str, gold: str) -> None:
    results = ask(
        source, text, gold, {"split": "validation", "index": 1, "row": json.dumps({"id": "q", "answer": gold})}
    )
    entry = BENCHMARKS[source]
    later = rewards.load(entry["reward"], **entry.get("params", {})).score({"answer": gold}, text)
    assert (results["score"], results["outcome"], results["id"]) == (later.value, later.outcome, "q")
    assert results["acc"] == results["score"]


def test_one_batch_of_many_benchmarks_has_one_set_of_keys(ask: Ask) -> None:
    info = {"split": "test", "index": 0}
    results = [
        ask(name, text, gold, info) for name in BENCHMARKS for text in ("", r"\boxed{4}") for gold in ("4", None)
    ]
    assert len({tuple(sample) for sample in results}) == 1  # verl takes the first sample's keys for all
    assert not [key for key in results[0] if key.startswith("part_")]
    assert {type(sample["acc"]) for sample in results} == {float}


def test_training_samples_use_the_training_reward(ask: Ask) -> None:
    row = json.dumps({"id": "q", "answer": "4", "split": "test"})  # the row's own split is its dataset's
    results = ask("aime", r"\boxed{4}", "4", {"split": "train", "index": 1, "row": row})
    assert (results["acc"], results["part_math"], results["part_length"]) == (1.0, 1.0, 1.0)
    assert results["score"] == pytest.approx(1.1)
    assert results == {**ask("nobody knows", r"\boxed{4}", "4", {"split": "train", "row": row})}


def test_without_benchmarks_the_trained_reward_validates(ask: Ask) -> None:
    results = ask("aime", r"\boxed{4}", "4", {"split": "validation"}, validation={})
    assert (results["score"], results["part_math"]) == (pytest.approx(1.1), 1.0)


def test_an_unknown_benchmark_ends_the_run(ask: Ask) -> None:
    with pytest.raises(RewardError, match="no reward for data_source 'gsm8', did you mean 'gsm8k'"):
        ask("gsm8", "x", "4", {"split": "validation"})


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({"aime": "math"}, "validation.aime: Input should be a valid dictionary .*, not 'math'"),
        ({"aime": {"params": {}}}, "validation.aime.reward: Field required"),
        ({"aime": {"reward": "maths"}}, "did you mean 'math'"),
        ({"aime": {"reward": "math", "param": {}}}, "aime: unknown parameter 'param', did you mean 'params'"),
        ({"aime": {"reward": "math", "params": []}}, "validation.aime.params: Input should be a valid dictionary"),
        ({"aime": {"reward": "combine", "params": {"parts": [SCALED]}}}, "compares completions"),
        (["aime"], "validation: Input should be a valid dictionary"),
    ],
)
def test_wrong_benchmarks_are_a_one_line_error(validation: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        compute_score("s", "x", "4", {}, reward="math", validation=validation)
    assert "\n" not in str(caught.value)


def test_equal_rewards_share_their_workers() -> None:
    same = {name: {"reward": "math"} for name in ("a", "b", "c")}
    grader = verl._grader({"reward": "math", "validation": same})
    graders = {id(grader.of(name, {"split": "val"}).reward) for name in same} | {id(grader.reward)}
    assert len(graders) == 1


def test_benchmarks_that_cannot_be_graded_end_the_run(ask: Ask) -> None:
    def repeat(times: int) -> None:
        for _ in range(times):
            ask("aime", r"\boxed{4}", None, {"split": "validation"})  # type: ignore[arg-type]

    with pytest.raises(TooManyFailures, match=r"the last: .*answer"):
        repeat(60)
