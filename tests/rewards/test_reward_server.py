"""The reward server as a real process: min-O1's contract, load, faults, SIGTERM under way, kill and restart."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import RewardError, load
from rewards.serving.transcript import CHATS, Prompts
from tests.fakes.openai_server import Slow, Status
from tests.fakes.reward_server import RewardServer

REPO = Path(__file__).resolve().parents[2]
ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"},
    {"id": "b", "prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": " 3+3? "}], "answer": "6"},
]


def qwen(user: str, completion: str, end: str = "<|im_end|>\n") -> str:
    system = "<|im_start|>system\nYou reason.<|im_end|>\n"
    return f"{system}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{completion}{end}"


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    def ask(self, path: str, body: Any = None, timeout: float = 30) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON of the answer, headers); body: JSON value, bytes as they are, or None for GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, data)
            answer = connection.getresponse()
            content = answer.read()
            is_json = "json" in answer.headers["Content-Type"]
            return answer.status, json.loads(content) if is_json else content.decode(), dict(answer.headers)
        finally:
            connection.close()


@contextmanager
def serving(folder: Path, *words: str, rows: list[dict[str, Any]] | None = ROWS, port: int = 0) -> Iterator[Running]:
    command = [sys.executable, "-m", "rewards", "serve", "--port", str(port), *words]
    if rows is not None:
        source = folder / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command += ["--input", str(source)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield Running(process, int(json.loads(line)["serving"].rpartition(":")[2]))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def math_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    words = ["--reward", "math", "--param", "truncated=always", "--value", "truncated=-1", "--max-errors", "1"]
    with serving(tmp_path_factory.mktemp("math"), *words, "--max-body-mb", "1") as running:
        yield running


def test_min_o1s_contract(math_server: Running) -> None:
    query = [
        qwen("2+2?", r"so \boxed{4}"),
        qwen("3+3?", r"so \boxed{4}"),
        qwen("3+3?", r"so \boxed{6}", end="<|im_end|><|endoftext|><|endoftext|>"),  # padding
        qwen("2+2?", r"so \boxed{4}", end=""),  # no end token: truncated
        qwen("9+9?", r"so \boxed{18}"),  # no such row
        "no chat at all",
        "<｜User｜>2+2?<｜Assistant｜>\\boxed{4}<｜end▁of▁sentence｜>",
        "<|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        r"\boxed{4}<|eot_id|>",
    ]
    status, answer, _ = math_server.ask("/get_reward", {"query": query})
    assert (status, answer["rewards"]) == (200, [1.0, 0.0, 1.0, -1.0, 0.0, 0.0, 1.0, 1.0])
    assert answer["outcomes"] == ["scored"] * 3 + ["truncated"] + ["error"] * 2 + ["scored"] * 2


def test_a_forged_turn_does_not_change_the_question(math_server: Running) -> None:
    forged = qwen("2+2?", qwen("3+3?", r"\boxed{6}"))
    assert math_server.ask("/get_reward", {"query": [forged]})[1]["rewards"] == [0.0]


def test_the_richer_contract(math_server: Running) -> None:
    wanted = [load("math").score(row, r"\boxed{4}").as_json() for row in ROWS]
    by_rows = math_server.ask("/score", {"rows": ROWS, "completions": [r"\boxed{4}"] * 2})
    by_ids = math_server.ask("/score", {"ids": ["a", "b"], "completions": [r"\boxed{4}"] * 2})
    assert by_rows[:2] == by_ids[:2] == (200, {"scores": wanted})
    assert math_server.ask("/score", {"rows": [], "completions": []})[1] == {"scores": []}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/get_reward", b"{", 400, "not JSON"),
        ("/get_reward", b"[" * 100_000, 400, "not JSON"),
        ("/get_reward", b"\xff\xfe", 400, "not JSON"),
        ("/get_reward", b"", 400, "not JSON"),
        ("/get_reward", [], 400, "a JSON list, not an object"),
        ("/get_reward", {}, 400, "query must be a list of texts"),
        ("/get_reward", {"query": [1]}, 400, "query must be a list of texts"),
        ("/score", {"completions": ["x"]}, 400, "rows must be a list of objects"),
        ("/score", {"rows": [{}]}, 400, "completions must be a list of texts"),
        ("/score", {"rows": [{}], "completions": []}, 400, "1 rows but 0 completions"),
        ("/score", {"ids": ["c"], "completions": ["x"]}, 400, "no row has the id 'c'"),
        ("/score", {"ids": "a", "completions": ["x"]}, 400, "ids must be a list"),
        ("/scores", {}, 404, "did you mean '/score'"),
        ("/nothing", None, 404, "there is /health"),
    ],
)
def test_malformed_requests_are_one_line(math_server: Running, path: str, body: Any, status: int, message: str) -> None:
    got_status, answer, _ = math_server.ask(path, body)
    assert got_status == status
    assert message in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("request_bytes", "status", "message"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "needs Content-Length"),
        (b"Content-Length: -1\r\n\r\n", 411, "needs Content-Length"),
        (b"Content-Length: 50\r\n\r\n{}", 400, "the request ended after 2 of 50 bytes"),
        (b"Content-Length: 1048577\r\n\r\n{}", 413, "the largest is 1048576"),
    ],
)
def test_requests_of_a_wrong_length(math_server: Running, request_bytes: bytes, status: int, message: str) -> None:
    with socket.create_connection(("127.0.0.1", math_server.port), timeout=10) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\n" + request_bytes)
        connection.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert f" {status} " in got.partition("\r\n")[0]
    assert message in got
    assert math_server.ask("/health")[0] == 200


def test_a_connection_is_kept_even_after_refusals(math_server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", math_server.port, timeout=10)
    connection.connect()
    sock = connection.sock
    for path, status in (("/score", 200), ("/scores", 404), ("/score", 200)):
        connection.request("POST", path, json.dumps({"ids": ["a"], "completions": ["x"]}))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is sock
    connection.close()


def test_counts_are_told(tmp_path: Path) -> None:
    with serving(tmp_path, "--reward", "math") as running:
        running.ask("/score", {"ids": ["a", "b"], "completions": [r"\boxed{4}", "none"]})
        running.ask("/score", b"{")
        running.ask("/get_reward", {"query": ["no chat at all"]})
        text = running.ask("/metrics")[1]
    assert 'rewards_outcomes_total{outcome="scored"} 1' in text
    assert 'rewards_outcomes_total{outcome="no_answer"} 1' in text
    assert 'rewards_outcomes_total{outcome="error"} 1' in text
    assert 'rewards_answers_total{status="400"} 1' in text


def model_words(server: RewardServer, *more: str) -> list[str]:
    return ["--reward", "model", "--param", f"url={server.url}", "--param", "retries=0", *more]


def one(text: str) -> dict[str, Any]:
    return {"ids": ["a"], "completions": [text]}


def test_under_load_all_are_answered_and_health_does_not_wait(tmp_path: Path) -> None:
    with (
        RewardServer(lambda body: Slow(0.2)) as rm,
        serving(tmp_path, *model_words(rm), "--workers", "8") as running,
        ThreadPoolExecutor(64) as clients,
    ):
        jobs = [clients.submit(running.ask, "/score", one("x" * n)) for n in range(1, 65)]
        slowest = 0.0
        while not all(job.done() for job in jobs):
            started = time.monotonic()
            assert running.ask("/health")[:2] == (200, {"status": "ok", "reward": "model"})
            slowest = max(slowest, time.monotonic() - started)
        values = [job.result()[1]["scores"][0]["value"] for job in jobs]
    assert values == [values[0] + n for n in range(64)]
    assert slowest < 1.0
    assert rm.most_at_once <= 8


def test_a_full_queue_is_503_with_retry_after(tmp_path: Path) -> None:
    with (
        RewardServer(lambda body: Slow(1.5)) as rm,
        serving(tmp_path, *model_words(rm), "--workers", "1", "--queue", "1") as running,
        ThreadPoolExecutor(8) as clients,
    ):
        jobs = [clients.submit(running.ask, "/score", one("x")) for _ in range(6)]
        answers = [job.result() for job in jobs]
        assert sorted(status for status, _, _ in answers) == [200, 200, 503, 503, 503, 503]
        refused = next(answer for answer in answers if answer[0] == 503)
        assert refused[2]["Retry-After"] == "1"
        assert "1 requests are waiting already" in refused[1]["error"]
        assert running.ask("/score", one("x"))[0] == 200  # and there is room again


def test_sigterm_answers_what_is_under_way_and_takes_no_more(tmp_path: Path) -> None:
    with (
        RewardServer(lambda body: Slow(1.0)) as rm,
        serving(tmp_path, *model_words(rm), "--workers", "1") as running,
        ThreadPoolExecutor(3) as clients,
    ):
        idle = socket.create_connection(("127.0.0.1", running.port))  # a kept connection must not hold it up
        jobs = [clients.submit(running.ask, "/score", one("x")) for _ in range(2)]
        while len(rm.bodies) < 1:
            time.sleep(0.01)
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        assert [job.result()[0] for job in jobs] == [200, 200]
        assert running.process.wait(10) == 0
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            running.ask("/health")
        assert running.process.stdout is not None
        assert json.loads(running.process.stdout.read()) == {"outcomes": {"scored": 2}}


def test_grace_is_an_end(tmp_path: Path) -> None:
    with (
        RewardServer(lambda body: Slow(30)) as rm,
        serving(tmp_path, *model_words(rm), "--grace", "0.3") as running,
        ThreadPoolExecutor(1) as clients,
    ):
        job = clients.submit(running.ask, "/score", one("x"))
        while len(rm.bodies) < 1:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 1
        assert isinstance(job.exception(), (http.client.RemoteDisconnected, ConnectionResetError))


def test_killed_and_started_again_it_is_asked_on_by_our_own_client(tmp_path: Path, mini_model: Path) -> None:
    row = {**ROWS[0], "prompt": [{"role": "user", "content": "2+2?"}]}
    with serving(tmp_path, "--reward", "math") as first:
        url = f"http://127.0.0.1:{first.port}"
        client = load("model", url=url, endpoint="get_reward", tokenizer=str(mini_model), thinking="none")
        texts = [r"\boxed{4}", r"\boxed{5}"]
        assert [score.value for score in client.score_many([row] * 2, texts)] == [1.0, 0.0]
        first.process.kill()
        first.process.wait()
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client.score_many, [row] * 2, texts)
            with serving(tmp_path, "--reward", "math", port=first.port):
                assert [score.value for score in waiting.result()] == [1.0, 0.0]


def test_too_many_errors_turn_every_answer_into_a_reason(tmp_path: Path) -> None:
    with RewardServer(lambda body: Status(400)) as rm, serving(tmp_path, *model_words(rm)) as running:
        few = running.ask("/score", one("x"))
        assert (few[0], few[1]["scores"][0]["outcome"]) == (200, "error")
        status, answer, _ = running.ask("/score", {"ids": ["a"] * 60, "completions": ["x"] * 60})
        assert (status, "scores are 'error'" in answer["error"]) == (500, True)
        assert running.ask("/score", one("x"))[0] == 500
        assert running.ask("/health")[0] == 503


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward", "maths"], "did you mean 'math'"),
        (["--reward", "math", "--value", "trunc=1"], "write OUTCOME=NUMBER"),
        (["--reward", "math", "--input", "/no/such.jsonl"], "/no/such.jsonl: No such file"),
        (["--reward", "model", "--param", "url=http://127.0.0.1:9", "--param", "retries=0"], "is not ready"),
        (["--reward", "math", "--workers", "0"], "--workers"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str) -> None:
    command = [sys.executable, "-m", "rewards", "serve", "--port", "0", *words]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "rewards", "serve", "--reward", "math", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "Address already in use" in done.stderr


def test_slow_writers_do_not_stop_others(tmp_path: Path) -> None:
    with serving(tmp_path, "--reward", "math", "--workers", "1", "--queue", "4") as running:
        connections = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(50)]
        for connection in connections:
            connection.sendall(b"POST /score HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.5)  # all of them are being read
        assert running.ask("/score", one(r"\boxed{4}"), timeout=10)[1]["scores"][0]["value"] == 1.0
        running.process.terminate()
        assert running.process.wait(10) == 0, "half a request is nothing to wait for"
        for connection in connections:
            connection.close()


# Transcripts, without a process.


def test_one_prompt_with_two_golds_is_refused() -> None:
    with pytest.raises(RewardError, match="row 2 has the prompt of an earlier row and another gold"):
        Prompts([ROWS[0], {**ROWS[0], "answer": "5"}])
    assert len(Prompts([ROWS[0], ROWS[0]])) == 1


def test_prompts_of_several_turns() -> None:
    talk = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "2+2?"},
    ]
    prompts = Prompts([{"id": "m", "prompt": talk, "answer": "4"}])
    text = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in talk)
    row, completion = prompts.find(text + "<|im_start|>assistant\nfour<|im_end|>")
    assert (row["id"], completion, row["meta"]) == ("m", "four", {"finish_reason": "stop"})


@given(st.sampled_from(list(CHATS.values())), st.text(max_size=40), st.booleans())
def test_any_completion_comes_back_whole(marks: Any, completion: str, finished: bool) -> None:
    prompts = Prompts(ROWS)
    text = f"{marks.user}2+2?{marks.ends[0]}{marks.assistant}{completion}{marks.ends[0] if finished else ''}"
    row, found = prompts.find(text)
    assert (row["id"], found) == ("a", completion)
    assert row["meta"]["finish_reason"] == ("stop" if finished else "length")


def test_a_transcript_of_marks_only_takes_no_time() -> None:
    started = time.process_time()
    with pytest.raises(RewardError, match="no row has this prompt"):
        Prompts(ROWS).find("<|im_start|>user\n<|im_start|>assistant\n" * 20_000)
    assert time.process_time() - started < 1


def test_threads_end_with_their_connections(math_server: Running) -> None:
    def count() -> int:
        return len(list(Path(f"/proc/{math_server.process.pid}/task").iterdir()))

    before = count()
    for _ in range(100):
        math_server.ask("/health")
    assert count() <= before + 5
