"""Batches distributed over processes: the same scores in the same order, whatever happens to a worker."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rewards
from rewards import Reward
from rewards.processes.fanout import ParallelReward
from rewards.processes.pool import shared

WORDS = [*"abcdefgh", "cat", "sat", "12", "3.5", "away,", "never!", "(be)", "seen"]


def batch(size: int) -> tuple[list[dict], list[str]]:
    draw = random.Random(size)
    texts = [" ".join(draw.choices(WORDS, k=60)) for _ in range(2 * size)]
    return [{"id": i // 4, "references": [texts[i // 4]], "unused": object()} for i in range(size)], texts[size:]


def workers_of(module: str) -> list[int]:
    """Processes that run workers of `module`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry.name.isdecimal() and module.encode() in words:
            found.append(int(entry.name))
    return found


SPREAD = [
    name
    for name in rewards.REGISTRY
    if issubclass(kind := rewards.reward_class(name), ParallelReward) and kind.parallel
]


@pytest.mark.parametrize("name", SPREAD)
def test_results_equal_those_of_one_process(name: str) -> None:
    rows, texts = batch(50)
    one, two = rewards.load(name), rewards.load(name)
    assert two.score_many(rows, texts, workers=2) == one.score_many(rows, texts, workers=1)
    assert one.counts == two.counts


def test_lone_surrogates_and_invalid_references() -> None:
    rows = [{"references": 5 if i % 10 == 0 else ["a b \ud800"]} for i in range(40)]
    scores = rewards.load("rouge_l").score_many(rows, ["a \ud800 b"] * 40, workers=2)
    assert [(s.value, s.outcome) for s in scores] == [(0, "error") if i % 10 == 0 else (1, "scored") for i in range(40)]


def test_parameters_reach_the_workers() -> None:
    rows, texts = batch(20)
    reward = rewards.load("bleu", variant="sacrebleu", max_order=2)
    assert reward.score_many(rows, texts, workers=2) == [reward.score(*pair) for pair in zip(rows, texts, strict=True)]


def test_a_killed_worker_costs_one_retry() -> None:
    rows, texts = batch(6000)
    reward = rewards.load("bleu")
    expected = reward.score_many(rows, texts)
    killed: list[int] = []

    def kill_one() -> None:
        end = time.monotonic() + 60
        while not killed and time.monotonic() < end:
            if len(found := workers_of("rewards.processes.fanout")) > 1:  # the fork server and its workers
                time.sleep(0.1)
                os.kill(max(found), signal.SIGKILL)
                killed.append(max(found))

    killer = threading.Thread(target=kill_one)
    killer.start()
    scores = reward.score_many(rows, texts, workers=2)
    killer.join()
    assert killed
    assert scores == expected


def test_from_several_threads_at_once() -> None:
    rows, texts = batch(40)
    reward: Reward = rewards.load("rouge_l")
    expected = rewards.load("rouge_l").score_many(rows, texts)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: reward.score_many(rows, texts, workers=2), range(8)))
    assert found == [expected] * 8
    assert sum(reward.counts.values()) == 8 * 40


def test_in_a_forked_child() -> None:
    rows, texts = batch(40)
    reward = rewards.load("bleu")
    expected = reward.score_many(rows, texts, workers=2)
    child = os.fork()
    if child == 0:
        same = reward.score_many(rows, texts, workers=2) == expected
        shared("rewards.processes.fanout", 2).close()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
