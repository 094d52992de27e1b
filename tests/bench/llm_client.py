"""Requests per second of the API client against a server that answers at once, beside the openai package.

PYTHONPATH=. python tests/bench/llm_client.py [REQUESTS]

The server is a process of its own, and where there are two cores each has its own. Our client runs as in a step: four
keys with limits on requests and tokens, a spend cap, and a journal that has each answer on disk before it counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.prices import find_price
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sampling
from tests.bench.tables import show

MODEL = "gpt-4o-mini"
SAMPLING = Sampling(max_tokens=512)
AT_ONCE = 64
WANTED = 500  # requests/s


class Null(asyncio.Protocol):
    """Answers each request with the same completion, reading no more of it than its length."""

    def __init__(self) -> None:
        message = {"role": "assistant", "content": "An answer of a few words. " * 12}
        body = {
            "id": "x", "object": "chat.completion", "created": 0, "model": MODEL,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 130, "completion_tokens": 72, "total_tokens": 202},
        }  # fmt: skip
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self.answer = head.encode() + content
        self.read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.read += data
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            length = int(self.read[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self.read) < end + 4 + length:
                return
            self.read = self.read[end + 4 + length :]
            self.transport.write(self.answer)


async def serve() -> None:
    """Say the port, and answer until killed."""
    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def null_server() -> Iterator[str]:
    """The base_url of a server on a core that is not ours."""
    cores = sorted(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        os.sched_setaffinity(process.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()
            os.sched_setaffinity(0, cores)


def prompts(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"{i}: " + "some words of a prompt " * 25}], i) for i in range(count)]


def ours(url: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        client = ChatClient(
            url, MODEL, ["a", "b", "c", "d"], concurrency=AT_ONCE, journal=Path(folder) / "journal",
            requests_per_minute=1_000_000, tokens_per_minute=10**9, price=find_price(MODEL), spend_cap=1000.0,
        )  # fmt: skip
        replies = client.ask(prompts(count), SAMPLING)
        assert all(isinstance(reply, tuple) for reply in replies)
        kept = (Path(folder) / "journal").read_bytes().count(b'"got"')
        assert kept == count, "every answer is on disk"


def openai_many(url: str, count: int) -> None:
    from openai import AsyncOpenAI

    async def run() -> None:
        todo = iter(prompts(count))
        async with AsyncOpenAI(api_key="a", base_url=url) as client:

            async def work() -> None:
                for one in todo:
                    await client.chat.completions.create(model=MODEL, messages=list(one.messages), max_tokens=512)  # type: ignore[arg-type]

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    asyncio.run(run())


def openai_sequential(url: str, count: int) -> None:
    from openai import OpenAI

    with OpenAI(api_key="a", base_url=url) as client:
        for one in prompts(count):
            client.chat.completions.create(model=MODEL, messages=list(one.messages), max_tokens=512)  # type: ignore[arg-type]


def measure(work: Callable[[str, int], None], url: str, count: int) -> tuple[float, float]:
    """Requests per second of the clock, and per second of our CPU; imports and first connections come before."""
    work(url, AT_ONCE)
    clock, cpu = time.perf_counter(), time.process_time()
    work(url, count)
    return count / (time.perf_counter() - clock), count / (time.process_time() - cpu)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    contenders: dict[str, tuple[Callable[[str, int], None], int]] = {
        f"ours, {AT_ONCE} at a time: limits, cap and journal on": (ours, count),
        f"openai package, {AT_ONCE} at a time": (openai_many, count // 4),
        "openai package, one after another": (openai_sequential, count // 4),
    }
    with null_server() as url:
        found = {name: measure(work, url, most) for name, (work, most) in contenders.items()}
    last = list(found.values())[-1]
    rows = [
        {
            "what": name,
            "requests/s": f"{clock:,.0f}",
            "per CPU second": f"{cpu:,.0f}",
            "× sequential": f"{clock / last[0]:.3g}",
        }
        for name, (clock, cpu) in found.items()
    ]
    show(f"Requests to a null server, one core for the client ({WANTED} requests/s wanted)", rows)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
