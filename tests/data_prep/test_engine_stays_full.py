"""Utilisation: decode steps of a simulated engine for a real step's requests, compared with the ideal number."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path

import making
import pytest
from httpx2 import AsyncBaseTransport, AsyncClient, Request, Response

from data_prep.inference.api import client
from data_prep.steps import generate

SLOTS = 16  # sequences that are decoded at once
ROWS = 1280
TOKENS = 32  # a step of the simulation
QUIET_S = 0.3  # the engine goes on with free slots when no request has come for so long


def lengths() -> list[int]:
    """Lognormal lengths with a long tail, like reasoning models' completions: mean 500, at most 2,048."""
    at_random = random.Random(1)
    drawn = [max(50, min(2048, int(at_random.lognormvariate(0, 0.8) * 365))) for _ in range(ROWS)]
    return [TOKENS, *(math.ceil(one / TOKENS) * TOKENS for one in drawn[1:])]


class SimulatedEngine(AsyncBaseTransport):
    """Decodes `TOKENS` tokens of all sequences in its slots per step; other requests wait in order."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.steps, self.arrived = tokens, 0, 0
        self.left: dict[int, int] = {}  # row to tokens that it still needs, in order of arrival
        self.ends: dict[int, asyncio.Event] = {}
        self.came = asyncio.Event()
        self.decoding: asyncio.Task[None] | None = None

    async def handle_async_request(self, request: Request) -> Response:
        body = json.loads(await request.aread())
        row = int(body["messages"][-1]["content"].split()[-1])
        self.left[row], self.ends[row] = self.tokens[row], asyncio.Event()
        self.arrived += 1
        self.came.set()
        self.decoding = self.decoding or asyncio.ensure_future(self.decode())
        await self.ends[row].wait()
        choice = {"message": {"content": f"answer {row}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": self.tokens[row]}
        return Response(200, json={"model": body["model"], "choices": [choice], "usage": usage})

    async def decode(self) -> None:
        while True:
            while len(self.left) < SLOTS and self.arrived < len(self.tokens):
                self.came.clear()
                try:
                    await asyncio.wait_for(self.came.wait(), QUIET_S)
                except TimeoutError:
                    break
            self.steps += TOKENS if self.left else 0
            for row in list(self.left)[:SLOTS]:
                self.left[row] -= TOKENS
                if self.left[row] <= 0:
                    del self.left[row]
                    self.ends[row].set()
            await asyncio.sleep(0)


@pytest.mark.parametrize("rows_a_shard", [256, 8], ids=["one GPU: 4,096 rows, 256 slots", "eight: 4,096 and 8,192"])
def test_decode_steps_are_at_most_1_1_times_the_ideal(
    rows_a_shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SimulatedEngine(lengths())
    monkeypatch.setattr(client, "http_client", lambda urls: AsyncClient(transport=engine))
    monkeypatch.setattr(generate, "SHARD_SAMPLES", rows_a_shard)
    making.write_jsonl(tmp_path / "in.jsonl", [{"id": str(n), "prompt": f"problem {n}"} for n in range(ROWS)])
    asked = {"model": "m", "base_url": "http://engine/v1", "concurrency": 4 * SLOTS}
    manifest, rows = making.run(tmp_path, ("load", {"path": "in.jsonl"}), ("generate", asked))
    assert manifest.shards == ROWS / rows_a_shard
    assert [row["completion"] for row in rows] == [f"answer {n}" for n in range(ROWS)]
    ideal = sum(engine.tokens) / SLOTS
    assert engine.steps <= 1.1 * ideal, f"{engine.steps / ideal:.2f} times the ideal number of decode steps"
