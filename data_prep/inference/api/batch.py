"""OpenAI's Batch API: requests go out in one file, and come back within a day, for less.

A batch is written down before it is submitted, with a tag that it carries as metadata, and again with its id before
anything waits for it. A killed step finds it by either and submits nothing twice. Each line of its results is a reply
as any other: samples, or an outcome. (https://platform.openai.com/docs/api-reference/batch)
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from data_prep.errors import DataError
from data_prep.inference.api.journal import Batch, Memory, reply_json
from data_prep.inference.api.pace import LONGEST_WAIT_S, Key
from data_prep.inference.api.replies import PASSING, Failed, Refusal, Reply, is_final, read_answer, read_refusal
from data_prep.inference.api.requests import Call
from data_prep.inference.api.spend import Spend

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types import Batch as Status

MOST_REQUESTS = 50_000  # per batch, the API's limit
MOST_BYTES = 100_000_000  # per file; the API's limit is 200 MB
ROUNDS = 3  # batches that a request is in before what failed stays failed
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
Result = TypeVar("Result")


@dataclass
class Batches:
    """The Batch API of one endpoint."""

    sdk: Callable[[Key], AsyncOpenAI]
    base_url: str
    journal: Memory
    spend: Spend
    keys: list[Key]
    refused: Callable[[APIStatusError, Key], tuple[Refusal, Failed]]  # raises DataError for what cannot succeed
    check_model: Callable[[str | None], None]  # whether the name of the model that answered is in order
    hide: Callable[[str], str]  # takes keys out of a message
    timeout: float
    tries: int
    wait: float
    done: dict[str, Reply] = field(default_factory=dict)  # of batches that an earlier process submitted
    own: set[str] = field(default_factory=set)  # tags of the batches that this process waits for
    resuming: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, calls: Mapping[str, Call]) -> dict[str, Reply]:
        """Replies to calls by their names. Raises DataError, and LimitPassed at the spend cap."""
        async with self.resuming:
            for batch in list(self.journal.batches.values()):
                if batch.tag not in self.own:
                    self.own.add(batch.tag)
                    self.done.update(await self._resume(batch))
        replies = {name: self.done[name] for name in calls if name in self.done}
        for turn in range(ROUNDS):
            if turn:
                await asyncio.sleep(self.wait)
            todo = {name: one for name, one in calls.items() if self._open(replies.get(name), name, replies)}
            if not todo:
                break
            for part in self._parts(todo):
                replies.update(await self._submit_and_wait(part))
        return replies

    def _open(self, reply: Reply | None, name: str, replies: dict[str, Reply]) -> bool:
        """Whether a call is still to be asked; what the journal has is taken from there."""
        if reply is None and (kept := self.journal.get(name)) is not None:
            replies[name] = reply = kept
        return reply is None or (isinstance(reply, Failed) and reply.failure in PASSING)

    def _parts(self, calls: Mapping[str, Call]) -> Iterator[dict[str, Call]]:
        """Calls in batches that the API takes and the cap has room for. Raises LimitPassed where it has none."""
        part: dict[str, Call] = {}
        size, room = 0, self.spend.room
        for name, one in calls.items():
            most = self.spend.most(one) or 0.0
            if part and (len(part) == MOST_REQUESTS or size + len(one.body) > MOST_BYTES or most > room):
                yield part
                part, size, room = {}, 0, self.spend.room
            if most > room:
                raise self.spend.reached(most)
            part[name] = one
            size, room = size + len(one.body) + 200, room - most
        yield part

    async def _submit_and_wait(self, calls: Mapping[str, Call]) -> dict[str, Reply]:
        """One batch, from the file to its replies."""
        if not self.keys:
            raise DataError(f"{self.base_url}: every API key was refused; check api_key_env")
        key = min(self.keys, key=lambda one: one.used)
        key.used = time.monotonic()
        names: dict[str, int] = {}
        records: list[dict[str, Any]] = []
        for name, one in calls.items():
            number = names[name] = self.journal.number()
            sent = {"sent": number, "at": round(time.time(), 3), "key": "", "most": one.tokens}
            usd = self.spend.most(one)
            records.append(sent if usd is None else {**sent, "usd": usd})
        batch = Batch(uuid.uuid4().hex, names, key.name)
        self.own.add(batch.tag)
        async with self.spend.reserved(sum(one.get("usd", 0.0) for one in records)) as written:
            await self.journal.keep(*records, {"hand": batch.tag, "names": names, "key": key.name})
            written()
            lines = (
                b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":%s}\n'
                % (name.encode(), one.body)
                for name, one in calls.items()
            )
            return await self._collect(await self._submit(batch, b"".join(lines), key), key)

    async def _submit(self, batch: Batch, content: bytes, key: Key) -> Batch:
        """The batch with its id, which is on disk. Raises DataError."""
        file = await self._call(
            key, "/files", lambda sdk: sdk.files.create(file=("requests.jsonl", content), purpose="batch")
        )
        wait = self.wait
        for attempt in range(1, self.tries + 1):
            # The SDK does not retry this one: the answer may be lost of a batch that was made.
            made = await self._try(
                key,
                lambda sdk: sdk.with_options(max_retries=0).batches.create(
                    input_file_id=file.id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={"tag": batch.tag},
                ),
            )
            if not isinstance(made, Failed):
                return await self._identified(batch, made.id)
            if made.failure not in PASSING or attempt == self.tries:
                raise self._gone("/batches", made)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
            if number := await self._find(batch.tag, key):
                return await self._identified(batch, number)
        raise AssertionError("tries is at least 1")

    async def _identified(self, batch: Batch, number: str) -> Batch:
        await self.journal.keep({"batch": number, "tag": batch.tag})
        return replace(batch, id=number)

    async def _resume(self, batch: Batch) -> dict[str, Reply]:
        """Replies of a batch that an earlier process submitted, or was about to."""
        key = next((one for one in self.keys if one.name == batch.key), self.keys[0])
        if batch.id is None:
            number = await self._find(batch.tag, key)
            if number is None:  # it never arrived
                await self.journal.keep(*({"free": number} for number in batch.names.values()), {"over": batch.tag})
                return {}
            batch = await self._identified(batch, number)
        return await self._collect(batch, key)

    async def _find(self, tag: str, key: Key) -> str | None:
        """The id of the batch that carries a tag."""

        async def search(sdk: AsyncOpenAI) -> str | None:
            async for one in sdk.batches.list(limit=100):
                if (one.metadata or {}).get("tag") == tag:
                    return one.id
            return None

        return await self._call(key, "/batches", search)

    async def _collect(self, batch: Batch, key: Key) -> dict[str, Reply]:
        """Wait for a batch's end; its replies by name, on disk. Raises DataError for a batch that was refused."""
        wait, number = self.wait, batch.id or ""
        while (
            state := await self._call(key, "/batches", lambda sdk: sdk.batches.retrieve(number))
        ).status not in ENDED:
            await asyncio.sleep(wait)
            wait = min(1.5 * wait, LONGEST_WAIT_S)
        replies: dict[str, Reply] = {}
        records: list[dict[str, Any]] = []
        for file in filter(None, (state.output_file_id, state.error_file_id)):
            content = await self._call(key, "/files", lambda sdk, file=file: sdk.files.content(file))  # type: ignore[misc]
            for line in content.content.splitlines():
                name, reply, record = self._read(line, batch.names)
                if name:
                    replies[name] = reply
                    records.append(record)
        missing = [name for name in batch.names if name not in replies]
        why = self._why(state) if missing else Failed("server_error")
        for name in missing:
            replies[name] = why
            records.append({"free": batch.names[name]})
        await self.journal.keep(*(one for one in records if one), {"over": batch.tag})
        return replies

    def _why(self, state: Status) -> Failed:
        """Why a batch left requests without a line. Raises DataError for what no other batch would change."""
        first = state.errors.data[0] if state.errors and state.errors.data else None
        code, message = str(first and first.code), self.hide(str(first and first.message))[:300]
        if state.status == "failed" and code != "token_limit_exceeded":
            raise DataError(f"{self.base_url}: batch {state.id} was refused: {code}: {message}")
        return Failed("rate_limited" if code == "token_limit_exceeded" else "timeout", f"batch {state.status}")

    def _read(self, line: bytes, names: Mapping[str, int]) -> tuple[str, Reply, dict[str, Any]]:
        """Of a line of results: the request's name ('' if it is none of ours), its reply and what to write down."""
        try:
            result = json.loads(line)
        except ValueError:
            return "", Failed("malformed"), {}
        if not isinstance(result, dict) or result.get("custom_id") not in names:
            return "", Failed("malformed"), {}
        name = str(result["custom_id"])
        number, answer = names[name], result.get("response")
        if not isinstance(answer, dict) or not isinstance(answer.get("status_code"), int):
            detail = self.hide(json.dumps(result.get("error")))[:300]
            return name, Failed("timeout" if "expired" in detail else "server_error", detail), {"free": number}
        if answer["status_code"] != 200:
            failed = read_refusal(answer["status_code"], answer.get("body")).failed()
            return name, replace(failed, detail=self.hide(failed.detail)), {"free": number}
        read = read_answer(json.dumps(answer.get("body")).encode())
        self.check_model(read.model)
        reply, used = read.reply, read.usage
        end: dict[str, Any] = {"used": [used.prompt, used.completion]} if used else {}
        if (paid := self.spend.paid(used, self.journal.totals.open.get(number))) is not None and self.spend.price:
            end["usd"] = paid
        if is_final(reply):
            return name, reply, {"got": number, "name": name, "reply": reply_json(reply), **end}
        return name, reply, {"paid": number, **end} if used else {}

    async def _call(self, key: Key, path: str, work: Callable[[AsyncOpenAI], Awaitable[Result]]) -> Result:
        """The result of a call that the SDK may repeat. Raises DataError when all tries fail."""
        result = await self._try(key, work)
        if isinstance(result, Failed):
            raise self._gone(path, result)
        return result

    async def _try(self, key: Key, work: Callable[[AsyncOpenAI], Awaitable[Result]]) -> Result | Failed:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        used = key if key in self.keys or not self.keys else self.keys[0]  # refused since: another of the account
        sdk = self.sdk(used).with_options(max_retries=self.tries - 1, timeout=self.timeout)
        try:
            return await work(sdk)
        except APITimeoutError:
            return Failed("timeout", f"no answer within {self.timeout:g} s")
        except APIStatusError as error:
            if error.status_code == 404 and error.request.url.path.endswith("/files"):
                raise DataError(f"{self.base_url} has no Batch API (no /files there): leave `batch` out") from error
            return self.refused(error, used)[1]
        except APIConnectionError as error:
            return Failed("connection", self.hide(f"{type(error.__cause__ or error).__name__} {error.__cause__ or ''}"))

    def _gone(self, path: str, failed: Failed) -> DataError:
        return DataError(
            f"{self.base_url}{path}: {failed.failure} after {self.tries} tries ({failed.detail}); what was submitted "
            "is written down: run the same command again"
        )
