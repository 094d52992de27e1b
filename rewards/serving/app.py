"""Rewards over HTTP, for trainers that ask a server.

    python -m rewards serve --reward math --input rows.jsonl --value truncated=-1 --port 8000

    POST /get_reward {"query": [text, …]}                     -> {"rewards": [float, …], "outcomes": [str, …]}
    POST /score {"rows": [{…}, …], "completions": [text, …]}  -> {"scores": [{"value", "outcome", "details"}, …]}
    GET /health, GET /metrics (Prometheus text)

/get_reward is the contract of min-O1 and OpenRLHF: a text is prompt and completion, decoded with the chat format's
marks; its row is the row of --input with that prompt, and a completion without an end token is truncated. /score takes
`ids` of --input's rows in place of `rows`. An id may appear once in a request: several completions of one row are a
list in its place, and so are their scores.

Errors are {"error": message}: 400 malformed, 408 sent too slowly, 413 too large, 503 too many requests (retry after
Retry-After), 504 not graded in time, 500 grading raised an exception or the failure limit is exceeded. From then on
every answer is 500 with the reason, so that a trainer stops and does not learn from zeros. On SIGTERM the server
accepts no more requests, answers those it has, and exits.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, FailFast, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rewards.base import OUTCOMES, FailureLimit, FailureMonitor, Reward, Score, finite
from rewards.errors import RewardError, TooManyFailures
from rewards.serving.settings import ServerSettings
from rewards.serving.transcript import Prompts

_LOG = logging.getLogger("uvicorn.error")
RETRY = {"Retry-After": "1"}
CLIENT_GONE = 499  # nginx's status for a request whose client closed the connection; it is only counted
PATHS = "there is POST /get_reward, POST /score, GET /health and GET /metrics"
Item = Score | tuple[dict[str, Any], str]  # one completion: what to grade, or the score of one that cannot be graded
Read = tuple[list[Item], Callable[[Sequence[Score]], dict[str, Any]]]  # a request: its items, and scores to an answer


class GetReward(BaseModel, strict=True):
    query: Annotated[list[str], FailFast()]  # a list may hold millions of errors


class ScoreRows(BaseModel, strict=True):
    completions: list[Any]
    rows: Annotated[list[dict[str, Any]], FailFast()] = []
    ids: Annotated[list[str | int], FailFast()] = []


class App:
    """The ASGI application. Only JSON and grading run in threads; the event loop does all counting."""

    def __init__(self, reward: Reward, rows: Sequence[dict[str, Any]], settings: ServerSettings) -> None:
        """Raises RewardError for two rows with one id, or one prompt with two reference answers."""
        self.reward, self.settings = reward, settings
        self.by_id = _by_id(rows)
        self.prompts = Prompts(rows) if all("prompt" in row for row in rows) else Prompts([])
        self.answers: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.failure = ""
        self._monitor = FailureMonitor(FailureLimit(settings.max_errors, settings.max_timeouts))
        self._requests = self._bytes = 0  # being answered, those that wait included
        self._running: set[Future[Any]] = set()
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="grading")
        routes = [
            Route("/get_reward", partial(self._answer, self._read_query), methods=["POST"]),
            Route("/score", partial(self._answer, self._read_rows), methods=["POST"]),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]
        self._starlette = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
        self._starlette.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        await self._starlette(scope, receive, counted)

    def close(self) -> bool:
        """Start no more gradings. Whether all are finished."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not self._running

    async def _health(self, _: Request) -> Response:
        return _json(503 if self.failure else 200, {"status": self.failure or "ok", "reward": self.reward.name})

    async def _metrics(self, _: Request) -> Response:
        lines = [f'rewards_outcomes_total{{outcome="{name}"}} {self.outcomes[name]}' for name in OUTCOMES]
        lines += [f'rewards_answers_total{{status="{code}"}} {count}' for code, count in sorted(self.answers.items())]
        lines += [f"rewards_requests_inside {self._requests}", f"rewards_body_bytes {self._bytes}", ""]
        return PlainTextResponse("\n".join(lines))

    async def _answer(self, read: Callable[[Any], Read], request: Request) -> Response:
        content = bytearray()
        try:
            await self._receive(request, content)
            items, answer = await asyncio.to_thread(_read, content, read)
            if len(items) > (most := self.settings.max_completions):
                raise HTTPException(413, f"{len(items)} completions; send at most {most} in a request")
            if self.failure:
                raise HTTPException(500, self.failure)
            if self._requests >= self.settings.workers + self.settings.queue:
                raise HTTPException(503, f"{self._requests} requests are waiting or graded already", RETRY)
            self._requests += 1
            try:
                return await self._graded(request, items, answer)
            finally:
                self._requests -= 1
        finally:
            self._bytes -= len(content)

    async def _receive(self, request: Request, content: bytearray) -> None:
        """Append the request's body to `content`, which counts as held until the request is answered."""
        limit, total = self.settings.max_body_mb << 20, self.settings.max_bodies_mb << 20
        too_large = HTTPException(413, f"the request has more than {limit} bytes; split it")
        if int(request.headers.get("content-length", 0)) > limit:  # h11 has checked that it is a number
            raise too_large
        try:
            async for chunk in request.stream():
                content += chunk
                self._bytes += len(chunk)
                if len(content) > limit:
                    raise too_large
                if self._bytes > total:
                    raise HTTPException(503, f"the requests under way hold more than {total} bytes", RETRY)
        except ClientDisconnect:
            raise HTTPException(CLIENT_GONE) from None

    async def _graded(self, request: Request, items: list[Item], answer: Callable[..., Any]) -> Response:
        """Grade in a thread. When time is up or the client is gone, a request that waits is never graded; a grading
        that runs cannot be stopped: it keeps its thread until it ends, and its scores are dropped.
        """
        grading = self._threads.submit(self._grade, items, answer)
        self._running.add(grading)
        grading.add_done_callback(self._running.discard)
        result: asyncio.Future[Any] = asyncio.wrap_future(grading)
        gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait([result, gone], timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and gone.done():
                raise HTTPException(CLIENT_GONE)
            if not result.done():
                raise HTTPException(504, f"no score in {self.settings.timeout:g} s")
        except asyncio.CancelledError:  # by uvicorn, when `grace` is over
            raise HTTPException(503, "the server stopped before this was graded") from None
        finally:
            gone.cancel()
            result.cancel()
        failure = result.exception()
        if failure is None:
            self._count(result.result()[0])
            return Response(result.result()[1], media_type="application/json")
        problem = f"reward {self.reward.name!r} raised {type(failure).__name__}: {failure}"
        if not isinstance(failure, RewardError):
            _LOG.error(problem, exc_info=failure)
        self._count([Score(0.0, "error") for _ in items])
        raise HTTPException(500, problem[:1000])

    def _grade(self, items: list[Item], answer: Callable[..., Any]) -> tuple[list[Score], bytes]:
        """In a thread: the scores and the encoded answer."""
        pairs = [item for item in items if not isinstance(item, Score)]
        graded = iter(self.reward.score_many([row for row, _ in pairs], [text for _, text in pairs]))
        scores = [item if isinstance(item, Score) else finite(next(graded)) for item in items]
        return scores, json.dumps(answer(scores)).encode()

    def _count(self, scores: Sequence[Score]) -> None:
        self.outcomes.update(score.outcome for score in scores)
        try:
            self._monitor.add(scores)
        except TooManyFailures as problem:
            self.failure = str(problem)
            raise HTTPException(500, self.failure) from None

    def _read_query(self, body: Any) -> Read:
        """A /get_reward request. An unknown prompt is an `error` outcome of its own text only."""
        if not len(self.prompts):
            raise HTTPException(400, "/get_reward finds rows by their prompts: start the server with --input")
        values = self.settings.values
        return [self._row_of(text) for text in GetReward.model_validate(body).query], lambda scores: {
            "rewards": [float(values.get(score.outcome, score.value)) for score in scores],
            "outcomes": [score.outcome for score in scores],
        }

    def _row_of(self, text: str) -> Item:
        try:
            return self.prompts.find(text)
        except RewardError as problem:
            return Score(0.0, "error", {"problem": str(problem)})

    def _read_rows(self, body: Any) -> Read:
        """A /score request."""
        asked = ScoreRows.model_validate(body)
        rows = asked.rows
        if "ids" in asked.model_fields_set:
            if rows:
                raise HTTPException(400, "give rows or ids, not both")
            if unknown := [given for given in asked.ids if str(given) not in self.by_id]:
                raise HTTPException(400, f"no row has the id {str(unknown[0])[:80]!r}")
            rows = [self.by_id[str(given)] for given in asked.ids]
        if len(rows) != len(asked.completions):
            raise HTTPException(400, f"{len(rows)} rows but {len(asked.completions)} completions")
        try:
            _by_id(rows)
        except RewardError as problem:
            raise HTTPException(400, f"{problem}: send several completions of a row as a list in its place") from None
        lists = [[given] if isinstance(given, str) else given for given in asked.completions]
        for place, texts in enumerate(lists):
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise HTTPException(400, f"completions.{place}: must be a text or a list of texts")

        def answer(scores: Sequence[Score]) -> dict[str, Any]:
            left = (score.as_json() for score in scores)
            return {
                "scores": [next(left) if isinstance(c, str) else [next(left) for _ in c] for c in asked.completions]
            }

        return [(row, text) for row, texts in zip(rows, lists, strict=True) for text in texts], answer


def _read(content: bytearray, read: Callable[[Any], Read]) -> Read:
    """`read` of a request's JSON. Raises HTTPException."""
    try:
        return read(json.loads(content, parse_constant=_not_json))
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        raise HTTPException(400, f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None
    except (ValueError, RecursionError) as problem:
        raise HTTPException(400, f"not JSON: {str(problem)[:100]}") from None


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(status: int, answer: dict[str, Any], headers: Any = None) -> Response:
    return Response(json.dumps(answer), status, headers, "application/json")


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    missing = problem.status_code in (404, 405)
    message = f"no {request.method} {request.url.path[:80]}: {PATHS}" if missing else " ".join(problem.detail.split())
    return _json(problem.status_code, {"error": message}, problem.headers)


def _by_id(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by id, those without one left out. Raises RewardError for two rows with one id."""
    by_id: dict[str, dict[str, Any]] = {}
    for key, row in ((str(row["id"]), row) for row in rows if "id" in row):
        if key in by_id:
            raise RewardError(f"two rows have the id {key[:80]!r}")
        by_id[key] = row
    return by_id
