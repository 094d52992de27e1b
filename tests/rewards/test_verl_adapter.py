"""verl's custom reward function: keyword arguments, one flat dict with fixed keys, groups, aborts, no blocking."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards import RewardError, TooManyFailures
from rewards.serving import verl
from rewards.serving.verl import compute_score, compute_score_async
from tests.fakes.openai_server import Slow, Status
from tests.fakes.reward_server import RewardServer

RIGHT, WRONG = r"so \boxed{4}", r"so \boxed{5}"
PROMPT = [{"role": "user", "content": "2+2?"}]
GATED = {
    "reward": "combine",
    "params": {"mode": "gate", "parts": [{"reward": "format"}, {"reward": "math"}]},
    "acc": "math",
}


@pytest.fixture(autouse=True)
def fresh() -> None:
    verl._built_grader.cache_clear()


def sync(text: str, truth: Any = "4", info: Any = None, **given: Any) -> dict[str, Any]:
    return compute_score("src", text, truth, info if info is not None else {"index": 0}, **given)


def repeat(times: int, text: str, **given: Any) -> None:
    for _ in range(times):
        sync(text, **given)


def test_a_rule_based_reward() -> None:
    results = sync(RIGHT, reward="math")
    flags = {f"is_{o}": 0.0 for o in ("error", "timeout", "truncated", "no_answer", "bad_format")}
    assert results == {"score": 1.0, "acc": 1.0, "outcome": "scored", "id": "0", **flags}
    assert sync("no idea", reward="math")["is_no_answer"] == 1.0
    assert asyncio.run(compute_score_async("src", WRONG, "4", {}, reward="math"))["score"] == 0.0


def test_verl_loads_sync_and_async_functions_by_path() -> None:
    module = __import__("importlib").import_module("pkg://rewards.serving.verl".removeprefix("pkg://"))
    assert not inspect.iscoroutinefunction(module.compute_score)
    assert inspect.iscoroutinefunction(module.compute_score_async)
    # all keywords, as verl's reward managers call it
    results = module.compute_score(data_source="s", solution_str=RIGHT, ground_truth="4", extra_info={}, reward="math")
    assert results["score"] == 1.0


def test_every_sample_has_the_same_keys_for_every_outcome() -> None:
    texts = [r"<think>a</think>\boxed{4}", "no format", r"<think>a</think>no box"]
    results = [sync(text, **GATED) for text in texts] + [sync(texts[0], truth=None, **GATED)]
    assert len({tuple(sample) for sample in results}) == 1  # verl reads the keys of a batch's first sample
    assert [sample["score"] for sample in results] == [1.0, 0.0, 0.0, 0.0]
    assert [sample["part_math"] for sample in results] == [
        1.0,
        None,
        0.0,
        0.0,
    ]  # None: the gate kept it from being computed
    assert [sample["outcome"] for sample in results] == ["scored", "bad_format", "no_answer", "error"]
    assert results[0]["acc"] == results[0]["part_math"]
    for key in results[0]:
        np.array([sample[key] for sample in results])
    json.dumps(results)


class Config(Mapping[str, Any]):
    """Like OmegaConf's DictConfig: a mapping that is not a dict."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def test_settings_come_as_mappings_of_any_library() -> None:
    results = sync("so the answer is 4", reward="math", params=Config({"fallbacks": ("answer_is",), "workers": 1}))
    assert results["score"] == 1.0


def test_settings_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "reward.json"
    file.write_text(json.dumps(GATED))
    assert sync(RIGHT, config=str(file)) == sync(RIGHT, **GATED)
    assert sync(RIGHT, config=str(file), reward="math", params={}, acc="")["score"] == 1.0  # keywords come first
    for text, message in (
        ("{", "not JSON: "),
        ("[]", "not a JSON object"),
        ('{"rewards": 1}', "'rewards', did you mean"),
    ):
        file.write_text(text)
        verl._built_grader.cache_clear()
        with pytest.raises(RewardError, match=message):
            sync(RIGHT, config=str(file))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "reward: Field required"),
        ({"reward": "maths"}, "did you mean 'math'"),
        ({"reward": "math", "params": {"fallback": []}}, "did you mean 'fallbacks'"),
        ({"reward": "math", "group_sizes": 8}, "unknown parameter 'group_sizes', did you mean 'group_size'"),
        ({"reward": "math", "max_errors": 2}, "max_errors: Input should be less than or equal to 1, not 2"),
        ({"reward": "math", "deadline": "soon"}, "deadline: Input should be a valid number, not 'soon'"),
        ({"reward": "math", "acc": "math"}, "acc: no part 'math'"),
        ({"config": "/no/such.json"}, "No such file"),
    ],
)
def test_wrong_settings_are_a_one_line_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        sync(RIGHT, **given)
    assert "\n" not in str(caught.value)


def test_rows_come_from_extra_info() -> None:
    grader = verl._grader({"reward": "math"})
    info = {"index": 3, "split": "train", "prompt": np.array(PROMPT, dtype=object), "num_turns": 2, "tests": None}
    assert grader.row("src", np.int64(4), info) == {
        "id": "train3", "index": 3, "split": "train", "prompt": PROMPT, "answer": 4, "source": "src",
    }  # fmt: skip
    whole = {"row": json.dumps({"id": "a", "answer": "5"}), "index": 9}
    assert grader.row("src", "4", whole) == {"id": "a", "answer": "5", "source": "src"}
    assert grader.row("src", "4", None) == {"answer": "4", "source": "src"}
    assert grader.row("src", "4", {"id": "b", "index": 9, "row": '{"meta": 1}'})["id"] == "b"
    assert sync(RIGHT, info={"row": "{broken"}, truth=None, reward="math")["outcome"] == "error"


def test_ground_truth_is_the_gold_that_the_reward_needs() -> None:
    assert verl._grader({"reward": "bleu"}).row("s", ["a b", "c"], {})["references"] == ["a b", "c"]
    assert verl._grader({"reward": "bleu"}).row("s", '["a b", "c"]', {})["references"] == ["a b", "c"]
    assert verl._grader({"reward": "bleu"}).row("s", "2024", {})["references"] == "2024"
    tests = {"kind": "stdio", "cases": []}
    assert verl._grader({"reward": "code"}).row("s", json.dumps(tests), {})["tests"] == tests


@pytest.mark.parametrize("outcome", ["error", "timeout"])
def test_a_run_ends_after_too_many_failures(outcome: str) -> None:
    def fault(body: dict[str, Any]) -> Slow | Status:
        return Slow(5) if outcome == "timeout" else Status(400)

    with RewardServer(fault) as server:
        given: dict[str, Any] = {"reward": "model", "params": {"url": server.url, "timeout": 0.2, "retries": 0}}
        sample = sync("x", info={"prompt": PROMPT}, **given)
        assert (sample["score"], sample["outcome"], sample[f"is_{outcome}"]) == (0.0, outcome, 1.0)
        with pytest.raises(TooManyFailures, match=f"of 50 scores are '{outcome}'"):
            repeat(60, "x", info={"prompt": PROMPT}, **given)


def test_late_failures_are_not_hidden_by_early_successes() -> None:
    given: dict[str, Any] = {"reward": "math", "window": 100}
    repeat(2000, RIGHT, **given)
    with pytest.raises(TooManyFailures, match="3 of 100"):
        repeat(10, RIGHT, truth=None, **given)


def test_the_event_loop_is_not_blocked_by_concurrent_grading() -> None:
    async def main(url: str) -> tuple[list[dict[str, Any]], int]:
        given = {"reward": "model", "params": {"url": url}}
        jobs = [
            asyncio.create_task(compute_score_async("s", "x" * n, None, {"prompt": PROMPT}, **given))
            for n in range(1, 31)
        ]
        ticks = 0
        while not all(job.done() for job in jobs):
            await asyncio.sleep(0.01)
            ticks += 1
        return await asyncio.gather(*jobs), ticks

    with RewardServer(lambda body: Slow(0.5)) as server:
        results, ticks = asyncio.run(main(server.url))
        assert [sample["score"] for sample in results] == [results[0]["score"] + n for n in range(30)]
        assert server.most_at_once > 10
        assert ticks > 10


def test_the_event_loop_is_not_blocked_by_building_the_reward(tmp_path: Path) -> None:
    settings, both_asked = tmp_path / "reward.json", threading.Event()
    os.mkfifo(settings)

    def write() -> bool:
        asked = both_asked.wait(20)
        settings.write_text('{"reward": "math"}')  # until now the settings could not be read
        return asked

    async def main() -> list[dict[str, Any]]:
        jobs = [asyncio.create_task(compute_score_async("s", RIGHT, "4", {}, config=str(settings))) for _ in "ab"]
        for _ in range(10):
            await asyncio.sleep(0.02)
        both_asked.set()
        return await asyncio.gather(*jobs)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        assert [sample["score"] for sample in asyncio.run(main())] == [1.0, 1.0]
        assert writing.result()


def group_kwargs(url: str, **more: Any) -> dict[str, Any]:
    part = {"reward": "model", "params": {"url": url}, "scale": "zscore"}
    return {"reward": "combine", "params": {"parts": [part]}, **more}


def test_a_group_is_scored_when_complete() -> None:
    async def main(url: str) -> list[dict[str, Any]]:
        given = group_kwargs(url, group_size=3)

        async def scored(index: int, length: int) -> dict[str, Any]:
            await asyncio.sleep(0.01 * length)
            return await compute_score_async("s", "x" * length, None, {"index": index, "prompt": PROMPT}, **given)

        return await asyncio.gather(*(scored(index, length) for length in (1, 3, 5) for index in (0, 1)))

    with RewardServer() as server:
        results = asyncio.run(main(server.url))
        again = asyncio.run(main(server.url))  # the next epoch meets the same prompts
    edge = math.sqrt(1.5)
    assert [sample["score"] for sample in results] == pytest.approx([-edge, -edge, 0, 0, edge, edge])
    assert again == results


def test_validation_samples_are_scored_alone() -> None:
    async def main(url: str) -> dict[str, Any]:
        info = {"index": 0, "split": "test", "prompt": PROMPT}
        return await compute_score_async("s", "x", None, info, **group_kwargs(url, group_size=3))

    with RewardServer() as server:
        assert asyncio.run(main(server.url))["score"] == 0.0  # alone: its own mean


def test_an_incomplete_group_is_an_error_with_a_reason() -> None:
    async def main(url: str) -> list[dict[str, Any]]:
        given = group_kwargs(url, group_size=3, group_wait=0.1)
        return await asyncio.gather(
            *(compute_score_async("s", "x", None, {"index": 0, "prompt": PROMPT}, **given) for _ in range(2))
        )

    with RewardServer() as server:
        assert [sample["outcome"] for sample in asyncio.run(main(server.url))] == ["error", "error"]


def test_a_sample_without_a_group_is_an_error_at_once() -> None:
    async def main(**given: Any) -> dict[str, Any]:
        return await asyncio.wait_for(compute_score_async("s", "x", None, {"answer": "4"}, **given), 5)

    length = {"reward": "combine", "params": {"parts": [{"reward": "length", "scale": "zscore"}]}}
    alone = asyncio.run(main(**length, group_size=3))
    assert (alone["score"], alone["outcome"], alone["is_error"]) == (0.0, "error", 1.0)

    async def many() -> list[dict[str, Any]]:
        return await asyncio.gather(*(main(**length, group_size=2) for _ in range(60)))

    with pytest.raises(TooManyFailures, match=r"the last: the row has none of group, meta.prompt_id, id, prompt"):
        asyncio.run(many())


def test_a_grouped_reward_rejects_the_sync_function() -> None:
    with RewardServer() as server:
        with pytest.raises(RewardError, match="use compute_score_async"):
            sync("x", **group_kwargs(server.url))
        with pytest.raises(RewardError, match="set group_size"):
            asyncio.run(compute_score_async("s", "x", None, {}, **group_kwargs(server.url)))


def test_a_missing_reward_model_ends_the_run_at_once() -> None:
    with pytest.raises(RewardError, match=r"127.0.0.1:9 is not ready"):
        sync("x", info={"prompt": PROMPT}, reward="model", params={"url": "http://127.0.0.1:9", "retries": 0})


def test_verls_router_is_the_reward_model_server() -> None:
    with RewardServer() as server:
        address = {"reward_router_address": server.url.removeprefix("http://"), "reward_model_tokenizer": object()}
        info = {"prompt": PROMPT}
        assert sync("x", info=info, reward="model", **address)["outcome"] == "scored"
        parts = [{"reward": "model"}, {"reward": "model", "name": "own", "params": {"url": server.url}}]
        results = sync("x", info=info, reward="combine", params={"parts": parts}, **address)
        assert results["part_model"] == results["part_own"] > 0


def in_a_process(queue: Any) -> None:
    with ThreadPoolExecutor(4) as threads:  # not the main thread, and no signal may be used
        results = list(threads.map(lambda text: sync(text, reward="math"), [RIGHT, WRONG] * 4))
    queue.put([sample["score"] for sample in results])


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_in_worker_processes_and_their_threads(method: str) -> None:
    assert sync(RIGHT, reward="math")["score"] == 1.0  # a grader that a forked child must not share
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=in_a_process, args=(queue,))  # type: ignore[attr-defined]
    process.start()
    assert queue.get(timeout=60) == [1.0, 0.0] * 4
    process.join(30)
    assert process.exitcode == 0
