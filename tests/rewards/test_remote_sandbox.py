"""The remote engine: the same verdicts as here, and every way a server can fail is a typed error."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

import rewards
from rewards.sandbox import Case, Limits, remote
from rewards.sandbox.remote import RemoteError, RemoteSandbox
from tests.fakes.openai_server import Cut, Raw, Slow, Status
from tests.fakes.sandbox_fusion import SandboxFusion

ECHO = "import sys\nsys.stdout.write(sys.stdin.read())"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    remote.remote.cache_clear()


def grade(url: str, tests: Any, code: str, **params: Any) -> rewards.Score:
    mark = "cpp" if tests.get("language") == "cpp" else "python"
    return rewards.load("code", engine=url, **params).score({"tests": tests}, f"```{mark}\n{code}\n```")


STDIO = {"kind": "stdio", "cases": [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2\n", "output": "4\n"}]}
CALL = {
    "kind": "call",
    "function": "f",
    "cases": [{"args": [[1, 2]], "expected": [2, 1]}, {"args": ["ab"], "expected": "ba"}],
}
ASSERTS = {"kind": "asserts", "source": "assert f([1, 2]) == [2, 1]\nassert f('ab') == 'ab'"}


def test_programs_are_graded_there() -> None:
    with SandboxFusion() as server:
        found = grade(server.url, STDIO, "print(sum(map(int, input().split())))")
        assert (found.value, found.outcome) == (1.0, "scored")
        assert (found.details["rung"], found.details["passed"]) == ("remote", 2)
        assert found.details["run_cpu_s"] > 0
        assert grade(server.url, STDIO, "print(3)").value == 0.5
        assert grade(server.url, CALL, "def f(x): return x[::-1]").value == 1.0
        assert grade(server.url, CALL, "class Solution:\n    def f(self, x): return x[::-1]").value == 1.0
        assert grade(server.url, ASSERTS, "def f(x): return x[::-1]").value == 0.5
        # What the server is told holds no expected output.
        assert not any("expected" in json.dumps(body) or "4\\n" in body["stdin"] for body in server.bodies[:2])
        assert server.pings == 1


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("x = (", "compile_error"),
        ("1 / 0", "runtime_error"),
        ("import sys; sys.exit(3)", "runtime_error"),
        ("import os; os._exit(0)", "failed"),
        ("import os; os.abort()", "runtime_error"),
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("x = bytearray(2 ** 40)", "memory"),
        ("print('x' * 50_000)", "output_limit"),
        ("print(4)", "failed"),
    ],
)
def test_failures_of_programs_are_told_apart(code: str, status: str) -> None:
    with SandboxFusion() as server:
        tests = {"kind": "stdio", "cases": [{"input": "", "output": "3\n"}]}
        found = grade(server.url, tests, code, cpu_s=0.5, wall_s=3.0, output_kb=20, memory_mb=256)
        assert (found.value, found.outcome, found.details["status"]) == (0.0, "scored", status), found


def test_a_call_that_ends_its_process_has_no_result() -> None:
    forged = "import os, sys, json\ndef f(x):\n    print(json.dumps([2, 1]))\n    os._exit(0)"
    with SandboxFusion() as server:
        assert grade(server.url, CALL, forged).details["status"] == "runtime_error"


def test_cpp_programs() -> None:
    tests = {**STDIO, "language": "cpp"}
    code = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }"
    with SandboxFusion() as server:
        assert grade(server.url, tests, code).value == 1.0
        assert grade(server.url, tests, "int main() {").details["status"] == "compile_error"
        found = grade(server.url, {"kind": "gtest", "source": "TEST(A, B) {}"}, "int f();")
        assert (found.outcome, "need the local engine" in found.details["problem"]) == ("error", True)


@pytest.mark.parametrize(
    "fault",
    [Status(429, {"Retry-After": "0"}), Status(503), Cut(0.0), Cut(0.5), Raw(b"<html>"), Raw(b"")],
    ids=repr,
)
def test_what_may_pass_is_tried_again(fault: Any) -> None:
    with SandboxFusion([fault, fault, None]) as server:
        ran = RemoteSandbox(server.url).python(ECHO, [Case(b"a\xc3\xa9\n"), Case(b"b")]).runs
        assert [(one.status, one.stdout) for one in ran] == [("ok", b"a\xc3\xa9\n"), ("ok", b"b")]
        assert len(server.bodies) == 4


@pytest.mark.parametrize(
    ("fault", "tries", "says"),
    [
        (Status(503), 3, "status 503"),
        (Status(422), 1, "status 422"),
        (Cut(0.5), 3, "IncompleteRead"),
        (Raw(b"{}"), 1, "could not run it"),
        (Raw(b'{"status": "SandboxError", "message": "no space left"}'), 1, "no space left"),
        (Raw(b'{"status": "Success", "run_result": null}'), 1, "without a run_result"),
        (Raw(b"[" * 10_000), 3, "no JSON"),
    ],
    ids=repr,
)
def test_what_does_not_pass_is_an_error(fault: Any, tries: int, says: str) -> None:
    with SandboxFusion([fault] * 3) as server:
        program = RemoteSandbox(server.url, attempts=3).python(ECHO, [Case()])
        assert [one.status for one in program.runs] == ["error"]
        assert says in program.runs[0].message
        assert len(server.bodies) == tries


def test_a_server_that_fails_is_an_error_of_the_row() -> None:
    with SandboxFusion([Status(422)]) as server:
        found = grade(server.url, STDIO, "print(3)")
        assert (found.outcome, "status 422" in found.details["problem"]) == ("error", True)


def test_silence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SLACK_S", 0.1)
    limits = Limits(cpu_s=0.1, wall_s=0.2, compile_cpu_s=0)
    with SandboxFusion([Slow(30.0)] * 2) as server:
        ran = RemoteSandbox(server.url, attempts=2).python(ECHO, [Case()], limits).runs[0]
        assert (ran.status, "no reply within" in ran.message) == ("error", True)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(RemoteError, match="ConnectionRefusedError"):
        RemoteSandbox(url, attempts=2).check()
    found = grade(url, STDIO, "print(3)")
    assert (found.outcome, "ConnectionRefused" in found.details["problem"]) == ("error", True)
    with SandboxFusion(alive=False) as server:
        for check in (RemoteSandbox(server.url).check, rewards.load("code", engine=server.url).check_ready):
            with pytest.raises(RemoteError, match="status 404"):
                check()
    with pytest.raises(rewards.RewardError, match="engine 'nowhere' is neither 'local' nor"):
        rewards.load("code", engine="nowhere")


def test_a_batch_runs_at_once() -> None:
    with SandboxFusion() as server:
        reward = rewards.load("code", engine=server.url)
        texts = [f"```python\n# {n}\nprint(sum(map(int, input().split())))\n```" for n in range(6)]
        scores = reward.score_many([{"tests": STDIO}] * 6, texts, workers=3)
        assert [score.value for score in scores] == [1.0] * 6
