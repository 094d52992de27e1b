"""HTTP server for rewards, for trainers that query a server.

    python -m rewards serve --reward math --input rows.jsonl --value truncated=-1 --port 8000

    POST /get_reward {"query": [text, …]}                     -> {"rewards": [float, …], "outcomes": [str, …]}
    POST /score {"rows": [{…}, …], "completions": [text, …]}  -> {"scores": [{"value", "outcome", "details"}, …]}
    GET /health, GET /metrics (Prometheus text)

/get_reward follows min-O1 and OpenRLHF: a text is prompt plus completion, decoded with the chat format's
control tokens. Its row is the row of --input with that prompt, and a completion without an end token counts as
truncated. /score accepts `ids` of --input's rows instead of `rows`. Each id may occur once per request: send several
completions of one row as a list; their scores are returned as a list.

Errors are {"error": message}: 400 malformed, 408 sent too slowly, 413 too large, 503 too many requests (see
Retry-After), 504 not graded in time, 500 grading raised an exception or the failure limit is exceeded. After a 500
every response is 500 with the reason, so that a trainer stops instead of training on zeros. On SIGTERM the server
accepts no more requests, completes the accepted ones, and exits.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, FailFast, Field, ValidationError

from rewards.base import OUTCOMES, FailureLimit, FailureMonitor, Outcome, Reward, Score, finite
from rewards.errors import RewardError, TooManyFailures
from rewards.params import Count, RewardParams, Seconds, Share
from rewards.serving.transcript import Prompts

_LOG = logging.getLogger("uvicorn.error")
CLIENT_GONE = 499  # nginx's status for a closed client connection; used only in metrics
SMALL = 1 << 16  # bytes; larger JSON is parsed in a thread
PATHS = "available: POST /get_reward, POST /score, GET /health, GET /metrics"
Item = Score | tuple[dict[str, Any], str]  # one completion: (row, text), or its score if it cannot be graded
Read = tuple[list[Item], Callable[[Sequence[Score]], dict[str, Any]]]  # a parsed request: items; scores to response
Receive = Callable[[], Any]


class ServerSettings(RewardParams):
    """The options of `python -m rewards serve`."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0: any free port")
    workers: Count = Field(4, description="requests graded in parallel")
    queue: int = Field(256, ge=0, le=1 << 24, description="requests waiting to be graded; more get 503")
    connections: Count = Field(512, description="open connections; more get 503")
    max_body_mb: Count = Field(64, description="size limit of a request in MiB; larger ones get 413")
    max_bodies_mb: Count = Field(256, description="total size of concurrent requests in MiB; more get 503")
    max_completions: Count = Field(4096, description="completions per request; more get 413")
    timeout: Seconds = Field(600.0, description="seconds for waiting and grading; then 504")
    read_timeout: Seconds = Field(60.0, description="seconds to send a request or receive a response; then 408")
    grace: int = Field(30, ge=0, le=86400, description="seconds to finish requests after SIGTERM")
    max_errors: Share = Field(FailureLimit.error, description="failure limit: share of outcome `error`")
    max_timeouts: Share = Field(FailureLimit.timeout, description="failure limit: share of outcome `timeout`")
    values: dict[Outcome, float] = {}  # value that /get_reward returns for an outcome, instead of the reward's


class GetReward(BaseModel, strict=True):
    query: Annotated[list[str], FailFast()]  # stop at the first error: there could be millions


Texts = Annotated[list[str], FailFast(), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class ScoreRows(BaseModel, strict=True):
    completions: Annotated[list[Texts], FailFast()]
    rows: Annotated[list[dict[str, Any]], FailFast()] = []
    ids: Annotated[list[str | int], FailFast()] = []


class Refused(Exception):
    """A rejected request. status: HTTP status."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(" ".join(message.split())[:1000])
        self.status = status


class App:
    """The ASGI application. Only JSON parsing and grading run in threads; all counters belong to the event loop."""

    def __init__(self, reward: Reward, rows: Sequence[dict[str, Any]], settings: ServerSettings) -> None:
        """Raises RewardError for a duplicate id, or a prompt with two reference answers."""
        self.reward, self.settings = reward, settings
        self.by_id = _by_id(rows)
        self.prompts = Prompts(rows) if all("prompt" in row for row in rows) else Prompts([])
        self.answers: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.failure = ""
        self._monitor = FailureMonitor(FailureLimit(settings.max_errors, settings.max_timeouts))
        self._requests = self._bytes = 0  # in progress or waiting
        self._running: set[Future[Any]] = set()
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="grading")
        self._routes: dict[tuple[str, str], Callable[[Receive], Any]] = {
            ("POST", "/get_reward"): lambda receive: self._answer(self._read_query, receive),
            ("POST", "/score"): lambda receive: self._answer(self._read_rows, receive),
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Callable[[Any], Any]) -> None:
        """The ASGI interface (HTTP only)."""
        headers = [(b"content-type", b"application/json")]
        method, path = scope["method"], scope["path"]
        try:
            if (method, path) not in self._routes:
                path_exists = any(path == other for _, other in self._routes)
                raise Refused(405 if path_exists else 404, f"no {method} {path[:80]}: {PATHS}")
            status, content = await self._routes[method, path](receive)
        except Refused as problem:
            status, content = problem.status, json.dumps({"error": str(problem)}).encode()
            headers += [(b"retry-after", b"1")] * (status == 503)
        if path == "/metrics" and status == 200:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
        self.answers[status] += 1
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def close(self) -> bool:
        """Cancel waiting requests; returns whether all grading has finished."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not self._running

    async def _health(self, _: Receive) -> tuple[int, bytes]:
        answer = {"status": self.failure or "ok", "reward": self.reward.name}
        return 503 if self.failure else 200, json.dumps(answer).encode()

    async def _metrics(self, _: Receive) -> tuple[int, bytes]:
        lines = [f'rewards_outcomes_total{{outcome="{name}"}} {self.outcomes[name]}' for name in OUTCOMES]
        lines += [f'rewards_answers_total{{status="{code}"}} {count}' for code, count in sorted(self.answers.items())]
        lines += [f"rewards_requests_inside {self._requests}", f"rewards_body_bytes {self._bytes}", ""]
        return 200, "\n".join(lines).encode()

    async def _answer(self, read: Callable[[Any], Read], receive: Receive) -> tuple[int, bytes]:
        """(status, response) of a grading request, parsed by `read`. Raises Refused."""
        content = bytearray()
        try:
            await self._receive(receive, content)
            small = len(content) < SMALL
            items, answer = _read(content, read) if small else await asyncio.to_thread(_read, content, read)
            if len(items) > (most := self.settings.max_completions):
                raise Refused(413, f"{len(items)} completions; send at most {most} per request")
            if self.failure:
                raise Refused(500, self.failure)
            if self._requests >= self.settings.workers + self.settings.queue:
                raise Refused(503, f"{self._requests} requests are already waiting or being graded")
            self._requests += 1
            try:
                return 200, await self._graded(items, answer, receive)
            finally:
                self._requests -= 1
        finally:
            self._bytes -= len(content)

    async def _receive(self, receive: Receive, content: bytearray) -> None:
        """Append the request's body to `content`, which counts towards the size limits until the response is sent."""
        limit, total, more = self.settings.max_body_mb << 20, self.settings.max_bodies_mb << 20, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(CLIENT_GONE)
            chunk, more = message["body"], message["more_body"]
            content += chunk
            self._bytes += len(chunk)
            if len(content) > limit:
                raise Refused(413, f"the request has more than {limit} bytes; split it")
            if self._bytes > total:
                raise Refused(503, f"concurrent requests exceed {total} bytes")

    async def _graded(self, items: list[Item], answer: Callable[..., Any], receive: Receive) -> bytes:
        """Grade in a thread. On timeout or if the client disconnects, a waiting request is cancelled; grading that has
        started cannot be stopped: it keeps its thread until it ends, and its scores are discarded.
        """
        grading = self._threads.submit(self._grade, items, answer)
        self._running.add(grading)
        grading.add_done_callback(self._running.discard)
        result: asyncio.Future[Any] = asyncio.wrap_future(grading)
        disconnected = asyncio.ensure_future(_disconnected(receive))
        seconds = self.settings.timeout
        try:
            await asyncio.wait([result, disconnected], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise Refused(CLIENT_GONE) if disconnected.done() else Refused(504, f"no score in {seconds:g} s")
        except asyncio.CancelledError:  # by uvicorn, after `grace`
            raise Refused(503, "the server stopped before the request was graded") from None
        finally:
            result.cancel()
            disconnected.cancel()
        failure = result.exception()
        if failure is None:
            scores, content = result.result()
            self._count(scores)
            return content  # type: ignore[no-any-return]
        problem = f"reward {self.reward.name!r} raised {type(failure).__name__}: {failure}"
        if not isinstance(failure, RewardError):
            _LOG.error(problem, exc_info=failure)
        self._count([Score(0.0, "error") for _ in items])
        raise Refused(500, problem)

    def _grade(self, items: list[Item], answer: Callable[..., Any]) -> tuple[list[Score], bytes]:
        """Runs in a thread: the scores and the encoded response."""
        pairs = [item for item in items if not isinstance(item, Score)]
        graded = iter(self.reward.score_many([row for row, _ in pairs], [text for _, text in pairs]))
        scores = [item if isinstance(item, Score) else finite(next(graded)) for item in items]
        return scores, json.dumps(answer(scores)).encode()

    def _count(self, scores: Sequence[Score]) -> None:
        """Count the outcomes. Raises Refused if the failure limit is exceeded."""
        self.outcomes.update(score.outcome for score in scores)
        try:
            self._monitor.add(scores)
        except TooManyFailures as problem:
            self.failure = str(problem)
            raise Refused(500, self.failure) from None

    def _read_query(self, body: Any) -> Read:
        """Parse a /get_reward request. A text with an unknown prompt gets outcome `error`; the others are graded."""
        if not len(self.prompts):
            raise Refused(400, "/get_reward looks up rows by prompt: start the server with --input")
        values = self.settings.values
        return [self._row_of(text) for text in GetReward.model_validate(body).query], lambda scores: {
            "rewards": [float(values.get(score.outcome, score.value)) for score in scores],
            "outcomes": [score.outcome for score in scores],
        }

    def _row_of(self, text: str) -> Item:
        """Row and completion of a text, or an error score if its prompt is unknown."""
        try:
            return self.prompts.find(text)
        except RewardError as problem:
            return Score(0.0, "error", {"problem": str(problem)})

    def _read_rows(self, body: Any) -> Read:
        """Parse a /score request."""
        request = ScoreRows.model_validate(body)
        rows = request.rows
        if "ids" in request.model_fields_set:
            if rows:
                raise Refused(400, "give rows or ids, not both")
            if unknown := [key for key in request.ids if str(key) not in self.by_id]:
                raise Refused(400, f"no row has the id {str(unknown[0])[:80]!r}")
            rows = [self.by_id[str(key)] for key in request.ids]
        if len(rows) != len(request.completions):
            raise Refused(400, f"{len(rows)} rows but {len(request.completions)} completions")
        try:
            _by_id(rows)
        except RewardError as problem:
            raise Refused(400, f"{problem}: send several completions of a row as a list") from None
        completions = body["completions"]  # texts and lists, as sent

        def answer(scores: Sequence[Score]) -> dict[str, Any]:
            results = (score.as_json() for score in scores)
            shaped = [next(results) if isinstance(c, str) else [next(results) for _ in c] for c in completions]
            return {"scores": shaped}

        return [(row, text) for row, texts in zip(rows, request.completions, strict=True) for text in texts], answer


def _read(content: bytearray, read: Callable[[Any], Read]) -> Read:
    """Parse a request's JSON and apply `read`. Raises Refused."""
    try:
        return read(json.loads(content, parse_constant=_not_json))
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        raise Refused(400, f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None
    except (ValueError, RecursionError) as problem:
        raise Refused(400, f"not JSON: {str(problem)[:100]}") from None


def _not_json(name: str) -> NoReturn:
    """Rejects NaN and Infinity, which Python's json accepts."""
    raise ValueError(f"{name} is not JSON")


async def _disconnected(receive: Receive) -> None:
    """Waits until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _by_id(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by id, without rows that have none. Raises RewardError for a duplicate id."""
    by_id: dict[str, dict[str, Any]] = {}
    for key, row in ((str(row["id"]), row) for row in rows if "id" in row):
        if key in by_id:
            raise RewardError(f"two rows have the id {key[:80]!r}")
        by_id[key] = row
    return by_id
