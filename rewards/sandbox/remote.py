"""A SandboxFusion server as the engine: the same `python` and results as the sandbox of this machine.

    engine = remote("http://sandbox:8080")
    engine.check()                       # RemoteError if nobody is there
    engine.python("print(input())", [Case(b"1\\n")])

API: POST /run_code and GET /v1/ping of github.com/bytedance/SandboxFusion. One request a case, programs in fresh
processes there. What it cannot say, we cannot know: it measures wall time and not CPU time, so the limit sent is
`wall_s` or `cpu_s` with room to spare, and a busy server can fail a slow program; it reads output only after the
program has ended, so a program that fills a pipe (64 kB) blocks until its time is up; walls are the server's own.
Standard output is text there: bytes that are no UTF-8 come back changed.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rewards.errors import RewardError
from rewards.sandbox.types import Case, Limits, Program, Ran

ATTEMPTS = 5
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
LONGEST_RETRY_AFTER_S = 60.0
CONNECT_S = 10.0
SLACK_S = 30.0  # for queueing at the server, over the program's own limits
WALL_PER_CPU = 3.0  # the server's clock is wall time; a busy server must not fail a program at once
MOST_BYTES = 1 << 28  # of one reply
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class RemoteError(RewardError):
    """A request to the server that gave no usable reply, after every attempt."""


@dataclass(frozen=True)
class _Failed(Exception):
    """One attempt. wait: what the server asked for, in seconds; again: whether another attempt may help."""

    why: str
    again: bool = True
    wait: float | None = None


class RemoteSandbox:
    """Runs programs on a SandboxFusion server. Thread-safe: each thread keeps a connection of its own."""

    rung = "remote"

    def __init__(self, url: str, attempts: int = ATTEMPTS) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RemoteError(f"engine {url!r} is neither 'local' nor an address such as http://host:8080")
        self.url, self._parts, self._attempts = url, parts, attempts
        self._mine = threading.local()

    def check(self) -> None:
        """Raise RemoteError if the server does not answer its health check."""
        self._request("GET", "/v1/ping", None, CONNECT_S)

    def python(
        self,
        code: str,
        cases: Sequence[Case],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        keep_going: Callable[[int, Ran], bool] | None = None,
    ) -> Program:
        """Run a Python solution on each case. What the server cannot run has status "error", never an exception."""
        return self._program("python", code, cases, limits, keep_going)

    def cpp(
        self,
        code: str,
        cases: Sequence[Case],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        keep_going: Callable[[int, Ran], bool] | None = None,
    ) -> Program:
        """Compile and run a C++ program on each case (the server compiles it every time)."""
        return self._program("cpp", code, cases, limits, keep_going)

    def _program(
        self,
        language: str,
        code: str,
        cases: Sequence[Case],
        limits: Limits,
        keep_going: Callable[[int, Ran], bool] | None,
    ) -> Program:
        runs: list[Ran] = []
        for number, case in enumerate(cases):
            try:
                found = self._run(language, code, case, limits)
            except RemoteError as problem:
                found = Ran("error", message=str(problem))
            if isinstance(found, str):
                return Program(found, [])
            runs.append(found)
            if keep_going is not None and not keep_going(number, found):
                break
        return Program(None, runs)

    def _run(self, language: str, code: str, case: Case, limits: Limits) -> Ran | str:
        mark = secrets.token_hex(16)
        wall_s = min(limits.wall_s, WALL_PER_CPU * limits.cpu_s + 1)
        body: dict[str, Any] = {
            "language": language,
            "code": code if language != "python" else _python_program(mark, limits),
            "stdin": case.stdin.decode("utf-8", "surrogateescape"),
            "compile_timeout": WALL_PER_CPU * limits.compile_cpu_s,
            "run_timeout": wall_s,
            "memory_limit_MB": -1 if language == "python" else limits.memory_mb,  # python: the runner sets it
        }
        if language == "python":
            order = {"code": code, "call": case.call}
            body["files"] = {"solution.json": base64.b64encode(json.dumps(order).encode()).decode()}
        seconds = wall_s + body["compile_timeout"] + SLACK_S
        return _ran(self._request("POST", "/run_code", body, seconds), mark, case, limits)

    def _request(self, method: str, path: str, body: Any, seconds: float) -> Any:
        """The reply as JSON. Raises RemoteError after the last attempt."""
        sent = None if body is None else json.dumps(body).encode()
        failed = _Failed("not tried")
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(_pause(attempt, failed.wait))
            try:
                return self._once(method, path, sent, seconds)
            except _Failed as problem:
                failed = problem
                if not problem.again:
                    break
        raise RemoteError(f"sandbox {self.url}: {failed.why}")

    def _once(self, method: str, path: str, body: bytes | None, seconds: float) -> Any:
        link = self._connection(seconds)
        done = False
        try:
            link.request(method, self._parts.path.rstrip("/") + path, body, {"content-type": "application/json"})
            reply = link.getresponse()
            content = reply.read(MOST_BYTES + 1)
            if reply.length and len(content) <= MOST_BYTES:
                raise http.client.IncompleteRead(content, reply.length)
            done = not reply.will_close and len(content) <= MOST_BYTES
        except TimeoutError:
            raise _Failed(f"no reply within {seconds:g} s") from None
        except (OSError, http.client.HTTPException) as problem:
            raise _Failed(f"{type(problem).__name__}: {problem}") from None
        finally:
            if not done:
                link.close()
                self._mine.link = None
        return _content(reply, content)

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        link: http.client.HTTPConnection | None = getattr(self._mine, "link", None)
        if link is None:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            link = self._mine.link = kind(self._parts.hostname or "", self._parts.port, timeout=seconds)
        link.timeout = seconds
        if link.sock is not None:
            link.sock.settimeout(seconds)
        return link


@lru_cache(maxsize=16)
def remote(url: str) -> RemoteSandbox:
    """This process's engine for a server, known to answer. Raises RemoteError."""
    engine = RemoteSandbox(url)
    engine.check()
    return engine


def _pause(attempt: int, asked: float | None) -> float:
    if asked is not None:
        return min(asked, LONGEST_RETRY_AFTER_S)
    grown: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))
    return grown * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing


def _content(reply: http.client.HTTPResponse, content: bytes) -> Any:
    if reply.status != 200:
        said = content[:200].decode("utf-8", "replace")
        wait = reply.headers.get("retry-after", "")
        again = reply.status in _PASSING
        raise _Failed(f"status {reply.status}: {said}", again, float(wait) if wait.isdecimal() else None)
    if len(content) > MOST_BYTES:
        raise _Failed(f"a reply of more than {MOST_BYTES} bytes", again=False)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise _Failed(f"a reply that is no JSON: {problem}") from None


def _python_program(mark: str, limits: Limits) -> str:
    """What the server runs: a runner that reads the solution beside it and tells, behind `mark`, how it ended."""
    settings = {"mark": mark, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb}
    return _RUNNER.replace("SETTINGS", repr(json.dumps(settings)))


# The last line of stderr is the runner's report. A program can imitate it, since both share a process: it can lie
# about the value it returns, which is compared here, and about its CPU time, and about nothing else that counts.
_RUNNER = r"""
import json, os, resource, sys, traceback
settings = json.loads(SETTINGS)
order = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "solution.json")))
seconds = int(settings["cpu_s"]) + 1
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # at the second it is SIGKILL, which says nothing
resource.setrlimit(resource.RLIMIT_AS, (settings["memory_mb"] << 20,) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
def tell(**what):
    sys.stdout.flush()
    used = resource.getrusage(resource.RUSAGE_SELF)
    what.update(cpu_s=used.ru_utime + used.ru_stime, peak_mb=used.ru_maxrss / 1024)
    sys.stderr.write("\n" + settings["mark"] + json.dumps(what) + "\n")
    sys.stderr.flush()
try:
    code = compile(order["code"], "solution.py", "exec", dont_inherit=True)
except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as problem:
    tell(compile_error="%s: %s" % (type(problem).__name__, problem))
    os._exit(0)
call = order["call"]
module = type(sys)("__main__" if call is None else "solution")
module.__dict__["__builtins__"] = __builtins__
sys.modules[module.__name__] = module
sys.argv[:] = ["solution.py"]
status, result, message = 0, None, ""
try:
    exec(code, module.__dict__)
    if call is not None:
        solution = getattr(module, "Solution", None)
        owner = solution() if isinstance(solution, type) and hasattr(solution, call[0]) else module
        result = json.dumps(getattr(owner, call[0])(*call[1]))
except SystemExit as problem:
    status = problem.code if isinstance(problem.code, int) else int(problem.code is not None)
except BaseException as problem:
    status, message = 1, traceback.format_exception_only(type(problem), problem)[-1].strip()
tell(status=status, result=result, message=message[:500])
os._exit(status & 255)
"""


def _ran(reply: Any, mark: str, case: Case, limits: Limits) -> Ran | str:
    """The reply to a run as our own result, or the compiler's words. Raises RemoteError for a broken reply."""
    if not isinstance(reply, dict) or reply.get("status") not in ("Success", "Failed"):
        said = reply.get("message") if isinstance(reply, dict) else reply
        raise RemoteError(f"the server could not run it: {str(said)[:200]}")
    compiled, run = reply.get("compile_result"), reply.get("run_result")
    if isinstance(compiled, dict) and (compiled.get("status") != "Finished" or compiled.get("return_code") != 0):
        return str(compiled.get("stderr") or compiled.get("status"))[:2000]
    if not isinstance(run, dict) or run.get("status") not in ("Finished", "TimeLimitExceeded"):
        raise RemoteError(f"a reply without a run_result: {str(reply)[:200]}")
    stdout = str(run.get("stdout") or "").encode("utf-8", "surrogatepass")
    told = _told(str(run.get("stderr") or ""), mark)
    if isinstance(told.get("compile_error"), str):
        return str(told["compile_error"])[:2000]
    return _judged(run, stdout, told, case, limits)


def _told(stderr: str, mark: str) -> dict[str, Any]:
    _, found, last = stderr.rpartition(mark)
    try:
        told = json.loads(last.partition("\n")[0]) if found else {}
    except (ValueError, RecursionError):
        told = {}
    return told if isinstance(told, dict) else {}


def _judged(run: dict[str, Any], stdout: bytes, told: dict[str, Any], case: Case, limits: Limits) -> Ran:
    code = run.get("return_code") if isinstance(run.get("return_code"), int) else None
    wall_s, cpu_s = _number(run.get("execution_time")), _number(told.get("cpu_s"))
    message = str(told.get("message") or str(run.get("stderr") or "").strip().rpartition("\n")[2])[:500]
    result = told["result"].encode() if isinstance(told.get("result"), str) else b""
    status = "ok"
    if run["status"] == "TimeLimitExceeded" or code in (-24, 128 + 24) or cpu_s > limits.cpu_s:
        status, message = "timeout", f"over {limits.cpu_s:g} s of CPU time, or its wall limit at the server"
    elif max(len(stdout), len(result)) > limits.output_kb << 10:
        status, message = "output_limit", f"more than {limits.output_kb} kB of output"
    elif code != 0 and (message.startswith("MemoryError") or "std::bad_alloc" in message):
        status, message = "memory", f"over {limits.memory_mb} MB of memory"
    elif code is None or code < 0 or code > 128:
        status = "signal"
    elif code:
        status, message = "exit", message or f"exit code {code}"
    elif case.call is not None and not result:
        status, message = "exit", "ended without a result"
    return Ran(
        status,  # type: ignore[arg-type]  # one of the above
        code if code is not None and code >= 0 else None,
        stdout,
        result if status == "ok" else b"",
        cpu_s or wall_s,
        wall_s,
        _number(told.get("peak_mb")),
        "" if status == "ok" else message,
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e9 else 0.0
