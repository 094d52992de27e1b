"""Rewards over HTTP, for trainers that ask a server.

    python -m rewards serve --reward math --input rows.jsonl --value truncated=-1 --port 8000

    POST /get_reward {"query": [text, …]}                     -> {"rewards": [float, …], "outcomes": [str, …]}
    POST /score {"rows": [{…}, …], "completions": [text, …]}  -> {"scores": [{"value", "outcome", "details"}, …]}
    GET /health, GET /metrics (Prometheus text)

/get_reward is min-O1's and OpenRLHF's contract: prompt and completion decoded with their chat marks; the row is
the one of --input with that prompt, and a completion without its end token is truncated. /score takes `ids` of
--input's rows instead of rows, too. When `queue` requests wait, more get 503 with Retry-After. On SIGTERM the
server takes no more requests, answers those it has, and ends. Too many errors or timeouts among the last scores
turn every answer into 500 with the reason: a trainer should stop, not learn from zeros.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rewards.base import OUTCOMES, FailureLimit, Reward, Score
from rewards.errors import RewardError, TooManyFailures, nearest
from rewards.serving.failure_monitor import Watch
from rewards.serving.transcript import Prompts

READ_TIMEOUT_S = 60.0  # for a request to arrive, and a kept connection to be used again
BACKLOG = 256
LARGEST_SKIPPED = 1 << 20  # bytes of a refused request


@dataclass(frozen=True)
class Options:
    """workers: requests graded at once. queue: requests that may wait. max_body: bytes. grace: seconds that
    requests under way have to end after SIGTERM. values: what /get_reward says for an outcome, where not the
    reward's own value. limit: see FailureLimit.
    """

    workers: int = 4
    queue: int = 256
    max_body: int = 64 << 20
    grace: float = 30.0
    values: Mapping[str, float] = field(default_factory=dict)
    limit: FailureLimit = field(default_factory=FailureLimit)


class Problem(Exception):
    """An answer that is no score: a status, one line, and headers."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class Service:
    """What requests share: the reward, the rows, the places, the counts."""

    def __init__(self, reward: Reward, rows: list[dict[str, Any]], options: Options) -> None:
        self.reward, self.options = reward, options
        self.by_id = {str(row["id"]): row for row in rows if "id" in row}
        self.prompts = Prompts(rows) if all("prompt" in row for row in rows) else None
        self.stopping = threading.Event()
        self.failure = ""
        self.answers: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self._watch = Watch(options.limit)
        self.running = threading.Semaphore(options.workers)
        self._changed = threading.Condition()
        self.inside = 0  # requests that run or wait

    @contextmanager
    def place(self) -> Iterator[None]:
        """Held by a request until its answer is sent. Raises Problem when too many are here, or none may come."""
        with self._changed:
            if self.stopping.is_set():
                raise Problem(503, "the server is stopping", Connection="close")
            if self.inside >= self.options.workers + self.options.queue:
                raise Problem(503, f"{self.options.queue} requests are waiting already", **{"Retry-After": "1"})
            self.inside += 1
        try:
            yield
        finally:
            with self._changed:
                self.inside -= 1
                self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until no request is inside; False if some still are."""
        self.stopping.set()
        with self._changed:
            return self._changed.wait_for(lambda: self.inside == 0, seconds)

    def get_reward(self, body: Mapping[str, Any]) -> dict[str, Any]:
        query = _texts(body, "query")
        if self.prompts is None or not len(self.prompts):
            raise Problem(400, "/get_reward needs the rows that have the prompts: start the server with --input")
        scores: list[Any] = []
        found: list[tuple[dict[str, Any], str]] = []
        for text in query:
            try:
                found.append(self.prompts.find(text))
                scores.append(None)
            except RewardError as problem:
                scores.append(Score(0.0, "error", {"problem": str(problem)}))
        graded = iter(self.reward.score_many([row for row, _ in found], [text for _, text in found]))
        scores = [next(graded) if score is None else score for score in scores]
        self._saw(scores)
        values = [float(self.options.values.get(score.outcome, score.value)) for score in scores]
        return {"rewards": values, "outcomes": [score.outcome for score in scores]}

    def score(self, body: Mapping[str, Any]) -> dict[str, Any]:
        completions = _texts(body, "completions")
        rows = self._rows(body)
        if len(rows) != len(completions):
            raise Problem(400, f"{len(rows)} rows but {len(completions)} completions")
        scores = self.reward.score_many(rows, completions)
        self._saw(scores)
        return {"scores": [score.as_json() for score in scores]}

    def _rows(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "ids" in body:
            ids = body["ids"]
            if not isinstance(ids, list):
                raise Problem(400, "ids must be a list")
            for one in ids:
                if str(one) not in self.by_id:
                    raise Problem(400, f"no row has the id {str(one)[:80]!r}")
            return [self.by_id[str(one)] for one in ids]
        rows = body.get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Problem(400, "rows must be a list of objects")
        return rows

    def _saw(self, scores: list[Score]) -> None:
        with self._changed:
            self.outcomes.update(score.outcome for score in scores)
        try:
            self._watch.saw(scores)
        except TooManyFailures as problem:
            self.failure = str(problem)
            raise Problem(500, self.failure) from None

    def told(self, status: int) -> None:
        with self._changed:
            self.answers[status] += 1

    def metrics(self) -> str:
        lines = [f'rewards_outcomes_total{{outcome="{name}"}} {self.outcomes[name]}' for name in OUTCOMES]
        lines += [f'rewards_answers_total{{status="{code}"}} {count}' for code, count in sorted(self.answers.items())]
        return "\n".join([*lines, f"rewards_requests_inside {self.inside}", ""])


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    given = body.get(name)
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise Problem(400, f"{name} must be a list of texts")
    return given


class Handler(BaseHTTPRequestHandler):
    """One connection. `service` is set by `make_server`."""

    service: Service
    protocol_version = "HTTP/1.1"
    timeout = READ_TIMEOUT_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/health":
            service = self.service
            state = "stopping" if service.stopping.is_set() else service.failure or "ok"
            self._json(200 if state == "ok" else 503, {"status": state, "reward": service.reward.name})
        elif self.path == "/metrics":
            self._send(200, self.service.metrics().encode(), "text/plain; version=0.0.4", {})
        else:
            self._json(404, {"error": f"no {self.path[:80]}; there is /health and /metrics"})

    def do_POST(self) -> None:
        work: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]]
        work = {"/get_reward": self.service.get_reward, "/score": self.service.score}
        self._unread = True  # the body, which must be read before the connection serves another request
        try:
            if self.path not in work:
                raise Problem(404, f"no {self.path[:80]}{nearest(self.path, work)}; there is {', '.join(work)}")
            body = self._body()  # before it takes a place: who sends slowly keeps nobody waiting
            with self.service.place():
                self._json(200, self._work(work[self.path], body))
        except Problem as problem:
            self._json(problem.status, {"error": problem.message}, problem.headers)

    def _work(self, work: Callable[[Mapping[str, Any]], dict[str, Any]], body: Mapping[str, Any]) -> dict[str, Any]:
        if self.service.failure:
            raise Problem(500, self.service.failure)
        with self.service.running:
            try:
                return work(body)
            except RewardError as problem:
                raise Problem(500, str(problem)) from None

    def _body(self) -> Mapping[str, Any]:
        """The request's JSON object. Raises Problem."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Problem(411, "a request needs Content-Length")
        if int(length) > self.service.options.max_body:
            raise Problem(413, f"a request of {length} bytes; the largest is {self.service.options.max_body}")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise Problem(400, f"the request ended after {len(content)} of {length} bytes")
        self._unread = False
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as problem:
            raise Problem(400, f"not JSON: {str(problem)[:100]}") from None
        if not isinstance(body, dict):
            raise Problem(400, f"a JSON {type(body).__name__}, not an object")
        return body

    def _skip_body(self) -> None:
        """A refused client reads the answer only once its request is taken in; a large one is cut off instead."""
        length = self.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= LARGEST_SKIPPED:
            self.rfile.read(int(length))
        else:
            self.close_connection = True
        self._unread = False

    def _json(self, status: int, answer: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json", headers or {})

    def _send(self, status: int, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
        if getattr(self, "_unread", False):
            self._skip_body()
        self.service.told(status)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection and "Connection" not in headers:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass  # counted in /metrics


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # those are clients that went away
            super().handle_error(request, client_address)


def make_server(service: Service, host: str, port: int) -> ThreadingHTTPServer:
    """Bound and listening, not yet serving. Raises RewardError, in one line, for a port that cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        kind = type("Server", (_Server,), {"address_family": family})
        made = kind((host, port), type("BoundHandler", (Handler,), {"service": service}))
    except OSError as problem:
        raise RewardError(f"{host} port {port}: {problem.strerror}; choose another, or 0 for a free one") from None
    assert isinstance(made, ThreadingHTTPServer)
    return made


def serve(reward: Reward, args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns 0, or 1 if requests were still under way when `grace` was over."""
    options = Options(
        args.workers, args.queue, args.max_body_mb << 20, args.grace, dict(args.value),
        FailureLimit(args.max_errors, args.max_timeouts),
    )  # fmt: skip
    service = Service(reward, _read(args.input) if args.input else [], options)
    reward.check_ready()
    server = make_server(service, args.host, args.port)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    url = f"http://{args.host}:{server.server_address[1]}"
    print(json.dumps({"serving": url, "reward": reward.name, "rows": len(service.by_id)}), flush=True)
    while not told.wait(1.0):
        pass
    service.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()
    done = service.drain(options.grace)
    print(json.dumps({"outcomes": dict(service.outcomes)}), flush=True)
    return 0 if done else 1


def _read(path: Path) -> list[dict[str, Any]]:
    from rewards.scorer import read_rows

    rows = []
    for number, row, problem in read_rows(path):
        if problem:
            raise RewardError(f"{path}:{number}: {problem}")
        rows.append(row)
    return rows


def add_parser(verbs: Any) -> None:
    """Add the verb `serve` to the command line's verbs."""
    parser = verbs.add_parser("serve", help="score over HTTP: POST /get_reward and /score")
    parser.add_argument("--reward", required=True)
    parser.add_argument("--param", action="append", default=[], metavar="K=V", help="V is JSON or a string")
    parser.add_argument("--input", type=Path, metavar="JSONL", help="rows that /get_reward finds by their prompt")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_whole(0), default=8000, help="0: a free one")
    parser.add_argument("--workers", type=_whole(1), default=Options.workers, help="requests graded at once")
    parser.add_argument("--queue", type=_whole(0), default=Options.queue, help="requests that may wait; then 503")
    parser.add_argument("--max-body-mb", type=_whole(1), default=Options.max_body >> 20)
    parser.add_argument("--grace", type=float, default=Options.grace, metavar="S", help="to end after SIGTERM")
    parser.add_argument(
        "--value", type=_value, action="append", default=[], metavar="OUTCOME=NUMBER",
        help="what /get_reward says for an outcome, e.g. truncated=-1",
    )  # fmt: skip
    share = FailureLimit()
    parser.add_argument("--max-errors", type=_share, default=share.error, metavar="SHARE")
    parser.add_argument("--max-timeouts", type=_share, default=share.timeout, metavar="SHARE")


def _whole(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= 65535:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to 65535")
        return int(text)

    return read


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return share


def _value(text: str) -> tuple[str, float]:
    outcome, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if outcome not in OUTCOMES or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: write OUTCOME=NUMBER, outcomes: {', '.join(OUTCOMES)}")
    return outcome, value
