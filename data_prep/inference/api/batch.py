"""OpenAI's Batch API: requests go out in one file, and come back within a day, for less.

A batch is written down before it is handed in, with a tag that it bears as metadata, and again with its id before
anything waits for it. A killed step finds it by either and submits nothing twice. What came of each line is a reply as
any other: samples, or an outcome. (https://platform.openai.com/docs/api-reference/batch)
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError
from data_prep.inference.api.journal import Batch, Memory, reply_json
from data_prep.inference.api.pace import LONGEST_WAIT_S, Key
from data_prep.inference.api.replies import PASSING, Failed, Reply, is_final, read_answer, refusal
from data_prep.inference.api.requests import Call
from data_prep.inference.api.spend import Spend

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

MOST_REQUESTS = 50_000  # per batch, the API's limit
MOST_BYTES = 100_000_000  # per file; the API's limit is 200 MB
ROUNDS = 3  # batches that a request is in before what failed stays failed
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass
class Batches:
    """The Batch API of one endpoint."""

    http: AsyncClient
    base_url: str
    model: str
    journal: Memory
    spend: Spend
    keys: list[Key]
    refused: Callable[[Response, Key], Failed]  # what an error status means; raises DataError for what cannot pass
    hide: Callable[[str], str]  # takes keys out of a message
    timeout: float
    tries: int
    wait: float
    done: dict[str, Reply] = field(default_factory=dict)  # of batches that an earlier process handed in

    async def answer(self, calls: Mapping[str, Call]) -> dict[str, Reply]:
        """Replies to calls by their names. Raises DataError, and LimitPassed at the spend cap."""
        for batch in list(self.journal.batches.values()):
            self.done.update(await self._resume(batch))
        replies = {name: self.done[name] for name in calls if name in self.done}
        for turn in range(ROUNDS):
            if turn:
                await asyncio.sleep(self.wait)
            todo = {name: one for name, one in calls.items() if self._open(replies.get(name), name, replies)}
            if not todo:
                break
            for part in self._parts(todo):
                replies.update(await self._hand_in(part))
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

    async def _hand_in(self, calls: Mapping[str, Call]) -> dict[str, Reply]:
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
        form: dict[str, Any] = {
            "data": {"purpose": "batch"},
            "files": {"file": ("requests.jsonl", content, "application/jsonl")},
        }
        file = await self._call(key, "POST", "/files", **form)
        order = {
            "input_file_id": str(file["id"]),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"tag": batch.tag},
        }
        wait = self.wait
        for attempt in range(1, self.tries + 1):
            made = await self._try(key, "POST", "/batches", json=order)
            if not isinstance(made, Failed):
                return await self._identified(batch, str(made["id"]))
            if made.failure not in PASSING or attempt == self.tries:
                raise self._gone("/batches", made)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
            if found := await self._find(batch.tag, key):  # it was made, and the answer was lost
                return await self._identified(batch, found)
        raise AssertionError("tries is at least 1")

    async def _identified(self, batch: Batch, found: str) -> Batch:
        await self.journal.keep({"batch": found, "tag": batch.tag})
        return replace(batch, id=found)

    async def _resume(self, batch: Batch) -> dict[str, Reply]:
        """What came of a batch that an earlier process handed in, or was about to."""
        key = next((one for one in self.keys if one.name == batch.key), self.keys[0])
        if batch.id is None:
            found = await self._find(batch.tag, key)
            if found is None:  # it never arrived
                await self.journal.keep(*({"free": number} for number in batch.names.values()), {"over": batch.tag})
                return {}
            batch = await self._identified(batch, found)
        return await self._collect(batch, key)

    async def _find(self, tag: str, key: Key) -> str | None:
        """The id of the batch that bears a tag."""
        after = ""
        while True:
            page = await self._call(key, "GET", f"/batches?limit=100{after}")
            for one in page.get("data") or ():
                if (one.get("metadata") or {}).get("tag") == tag:
                    return str(one["id"])
            if not page.get("has_more") or not page.get("data"):
                return None
            after = f"&after={page['data'][-1]['id']}"

    async def _collect(self, batch: Batch, key: Key) -> dict[str, Reply]:
        """Wait for a batch's end; its replies by name, on disk. Raises DataError for a batch that was not taken."""
        wait = self.wait
        while (about := await self._call(key, "GET", f"/batches/{batch.id}")).get("status") not in ENDED:
            await asyncio.sleep(wait)
            wait = min(1.5 * wait, LONGEST_WAIT_S)
        replies: dict[str, Reply] = {}
        records: list[dict[str, Any]] = []
        for file in filter(None, (about.get("output_file_id"), about.get("error_file_id"))):
            content = await self._bytes(key, "GET", f"/files/{file}/content")
            for line in content.splitlines():
                name, reply, record = self._read(line, batch.names)
                if name:
                    replies[name] = reply
                    records.append(record)
        missing = [name for name in batch.names if name not in replies]
        why = self._why(about) if missing else Failed("server_error")
        for name in missing:
            replies[name] = why
            records.append({"free": batch.names[name]})
        await self.journal.keep(*(one for one in records if one), {"over": batch.tag})
        return replies

    def _why(self, about: Mapping[str, Any]) -> Failed:
        """Why a batch left requests without a line. Raises DataError for what no other batch would mend."""
        errors = (about.get("errors") or {}).get("data") or [{}]
        code, message = str(errors[0].get("code")), self.hide(str(errors[0].get("message")))[:300]
        if about.get("status") == "failed" and code != "token_limit_exceeded":
            raise DataError(f"{self.base_url}: batch {about.get('id')} was not taken: {code}: {message}")
        return Failed("rate_limited" if code == "token_limit_exceeded" else "timeout", f"batch {about.get('status')}")

    def _read(self, line: bytes, names: Mapping[str, int]) -> tuple[str, Reply, dict[str, Any]]:
        """Of a line of results: the request's name ('' if it is none of ours), its reply and what to write down."""
        try:
            found = json.loads(line)
        except ValueError:
            return "", Failed("malformed"), {}
        if not isinstance(found, dict) or found.get("custom_id") not in names:
            return "", Failed("malformed"), {}
        name = str(found["custom_id"])
        number, answer = names[name], found.get("response")
        if not isinstance(answer, dict) or not isinstance(answer.get("status_code"), int):
            detail = self.hide(json.dumps(found.get("error")))[:300]
            return name, Failed("timeout" if "expired" in detail else "server_error", detail), {"free": number}
        body = json.dumps(answer.get("body")).encode()
        if answer["status_code"] != 200:
            failed, _ = refusal(answer["status_code"], {}, body)
            return name, replace(failed, detail=self.hide(failed.detail)), {"free": number}
        reply, used = read_answer(body, self.model)
        end: dict[str, Any] = {"used": [used.prompt, used.completion]} if used else {}
        if (paid := self.spend.paid(used, self.journal.totals.open.get(number))) is not None and self.spend.price:
            end["usd"] = paid
        if is_final(reply):
            return name, reply, {"got": number, "name": name, "reply": reply_json(reply), **end}
        return name, reply, {"paid": number, **end} if used else {}

    async def _call(self, key: Key, method: str, path: str, **content: Any) -> dict[str, Any]:
        """The JSON object that a call answers with. Raises DataError when it has not in all tries."""
        return _object(await self._bytes(key, method, path, **content)) or {}

    async def _bytes(self, key: Key, method: str, path: str, **content: Any) -> bytes:
        wait = self.wait
        for attempt in range(1, self.tries + 1):
            answer = await self._send(key, method, path, **content)
            if isinstance(answer, bytes):
                return answer
            if answer.failure not in PASSING or attempt == self.tries:
                raise self._gone(path, answer)
            await asyncio.sleep(wait if answer.wait is None else answer.wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
        raise AssertionError("tries is at least 1")

    async def _try(self, key: Key, method: str, path: str, **content: Any) -> dict[str, Any] | Failed:
        answer = await self._send(key, method, path, **content)
        return answer if isinstance(answer, Failed) else _object(answer) or Failed("malformed", "no JSON object")

    async def _send(self, key: Key, method: str, path: str, **content: Any) -> bytes | Failed:
        from httpx2 import HTTPError

        bearer = key if key in self.keys or not self.keys else self.keys[0]  # refused since: another of the account
        headers = {"authorization": f"Bearer {bearer.secret}"}
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self.http.request(method, f"{self.base_url}{path}", headers=headers, **content)
        except TimeoutError:
            return Failed("timeout", f"no answer within {self.timeout:g} s")
        except HTTPError as error:
            return Failed("connection", type(error.__cause__ or error).__name__)
        if answer.is_success:
            return answer.content
        if answer.status_code == 404 and path == "/files":
            raise DataError(f"{self.base_url} has no Batch API (no {path} there): leave `batch` out")
        return self.refused(answer, bearer)

    def _gone(self, path: str, failed: Failed) -> DataError:
        return DataError(
            f"{self.base_url}{path}: {failed.failure} after {self.tries} tries ({failed.detail}); what was handed in "
            "is written down: run the same command again"
        )


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
