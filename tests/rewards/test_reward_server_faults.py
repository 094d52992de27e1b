"""The reward server under hostile, broken and absent clients, and rewards that raise: each request is answered, each
bound holds, and the next client is served.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fakes.serving import Running, post, received, serving

FAULTY = ["--reward", "faulty", "--max-errors", "1", "--max-timeouts", "1"]
BOUNDS = ["--read-timeout", "1", "--timeout", "3", "--max-body-mb", "1", "--max-completions", "100", "--workers", "4"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("faulty")
    module = "tests.fakes.faulty_reward"
    with serving(folder, *FAULTY, *BOUNDS, module=module, stderr=subprocess.DEVNULL) as running:
        yield running
        assert running.score("fine") == (200, [4.0]), "after all of it the server still scores"


@pytest.fixture(autouse=True)
def healthy_afterwards(server: Running) -> Iterator[None]:
    yield
    assert server.ask("/health")[0] == 200


def status_lines(answer: str) -> list[str]:
    return re.findall(r"HTTP/1.1 (\d+)", answer)


# Requests that are not requests.


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [{}], "completions": ["\xff"]}',
        b'{"rows": [{"answer": NaN}], "completions": ["x"]}',
        b'{"rows": [{"answer": -Infinity}], "completions": ["x"]}',
        b'{"rows": [{}], "completions": ["x"]} {}',
        b'{"rows": [{}], "completions": ["x"]',
        b'{"rows": [{"answer": ' + b"9" * 100_000 + b'}], "completions": ["x"]}',
        b'{"rows": [{"answer": ' + b"[" * 100_000 + b"]" * 100_000 + b'}], "completions": ["x"]}',
        b'{"rows": ' + b'{"a":' * 100_000,
        b"\x00" * 1000,
        b"",
    ],
    ids=[
        "bytes",
        "NaN",
        "infinity",
        "two values",
        "no end",
        "a long number",
        "deep lists",
        "deep objects",
        "zeros",
        "empty",
    ],
)
def test_invalid_json_is_rejected_in_one_line(server: Running, body: bytes) -> None:
    status, answer, _ = server.ask("/score", body)
    assert status == 400
    assert re.fullmatch("not JSON: .+", answer["error"])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",  # TLS to a port without it
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["TLS", "one word", "a large header", "a negative length", "two lengths", "a broken chunk"],
)
def test_invalid_http_is_rejected_and_counted(server: Running, request_bytes: bytes) -> None:
    before = server.metric('rewards_answers_total{status="400"}')
    answer = server.send(request_bytes)
    assert status_lines(answer) == ["400"]
    assert "error" in json.loads(answer.rpartition("\r\n")[2])
    assert server.metric('rewards_answers_total{status="400"}') == before + 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/score"), ("PUT", "/score"), ("POST", "/health"), ("GET", "/x")])
def test_wrong_methods_and_paths_list_the_available_ones(server: Running, method: str, path: str) -> None:
    answer = httpx2.request(method, server.url + path, trust_env=False)
    assert answer.status_code in (404, 405)
    assert f"no {method} {path}: available: POST /get_reward" in answer.json()["error"]


def test_the_body_of_a_get_is_not_the_next_request(server: Running) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    get = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    answer = server.send(get + smuggled)
    assert status_lines(answer) == ["200"]
    assert "rewards_outcomes" not in answer


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    def of(text: str, *headers: str) -> bytes:
        return post({"rows": [{}], "completions": [text]}, "/score", *headers)

    answer = server.send(of("sleep 0.3") + post(b"{") + of("four") + of("sixsix", "Connection: close"))
    assert status_lines(answer) == ["200", "400", "200", "200"]
    assert re.findall(r'"value": ([\d.]+)', answer) == ["9.0", "4.0", "6.0"]


def test_a_chunked_request_is_read(server: Running) -> None:
    body = json.dumps({"rows": [{}], "completions": ["four"]}).encode()
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))
    answer = httpx2.post(server.url + "/score", content=pieces, trust_env=False)
    assert answer.json()["scores"][0]["value"] == 4.0


# Sizes.


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413_without_being_stored(server: Running, chunked: bool) -> None:
    def megabytes() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * (1 << 20)

    def memory() -> int:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())[0])

    before = memory()
    content: Any = megabytes() if chunked else b" " * (64 << 20)
    answer = httpx2.post(server.url + "/score", content=content, trust_env=False)
    assert answer.status_code == 413
    assert "more than 1048576 bytes" in answer.json()["error"]
    assert memory() - before < 20_000  # kB


def test_a_hundred_thousand_completions_are_413(server: Running) -> None:
    for completions in (["x"] * 100_000, [["x"] * 100_000]):
        rows = [{}] * len(completions)
        status, answer, _ = server.ask("/score", {"rows": rows, "completions": completions})
        assert (status, answer["error"]) == (413, "100000 completions; send at most 100 per request")


def test_the_total_size_of_bodies_is_limited(tmp_path: Path) -> None:
    with serving(tmp_path, "--reward", "length", "--max-body-mb", "3", "--max-bodies-mb", "4") as running:
        half = post(b" " * (3 << 20))[:-100]
        with running.connect() as first:
            first.sendall(half)
            while running.metric("rewards_body_bytes") < (3 << 20) - 200:
                time.sleep(0.01)
            status, answer, headers = running.ask("/score", b" " * (3 << 20))
            assert (status, headers["retry-after"]) == (503, "1")
            assert "exceed 4194304 bytes" in answer["error"]
            assert running.ask("/score", b" " * (1 << 19))[0] == 400
        while running.metric("rewards_body_bytes"):
            time.sleep(0.01)
        assert running.ask("/score", b" " * (3 << 20))[0] == 400


def test_a_million_wrong_items_are_one_error(server: Running) -> None:
    rows = b'{"rows": [{}], "completions": '
    for body in [
        rows + b"[[" + b"1," * 400_000 + b"1]]}",
        b'{"completions": ["x"], "rows": [' + b"1," * 400_000 + b"1]}",
    ]:
        status, answer, _ = server.ask("/score", body)
        assert status == 400
        assert re.fullmatch(r"(completions\.0|rows)\.0: Input should be a .{4,30}", answer["error"])


def test_ids_are_unique_in_a_request(server: Running) -> None:
    twice = {"rows": [{"id": "a", "answer": "1"}, {"id": "a", "answer": "2"}], "completions": ["x", "y"]}
    for body in (
        twice,
        {"ids": ["a", "b", "a"], "completions": ["x"] * 3},
        {**twice, "rows": [{"id": 1}, {"id": "1"}]},
    ):
        status, answer, _ = server.ask("/score", body)
        assert status == 400
        assert re.match("two rows have the id '[a1]': send several completions of a row as a list", answer["error"])
    status, answer, _ = server.ask("/score", {"ids": ["a", "b"], "completions": [["x", "yy"], "zzz"]})
    assert status == 200
    values = [
        [s["value"] for s in scores] if isinstance(scores, list) else scores["value"] for scores in answer["scores"]
    ]
    assert values == [[1.0, 2.0], 3.0]


# Slow and absent clients.


def test_slow_clients_get_408_and_do_not_delay_others(server: Running) -> None:
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    starts = [b"", b"POST /sc", head, head + b"\r\n", head + b"\r\n{"]
    clients = [server.connect() for _ in range(8) for _ in starts]
    for number, client in enumerate(clients):
        client.sendall(starts[number % len(starts)])
    ends = time.monotonic() + 0.9
    while time.monotonic() < ends:
        for number, client in enumerate(clients):
            client.sendall(b"x" * bool(number % len(starts)))  # a byte now and then does not start the clock again
        assert server.score("four") == (200, [4.0])
        time.sleep(0.1)
    answers = [received(client) for client in clients]
    assert {tuple(status_lines(answer)) for answer in answers} == {("408",)}
    assert all("was not complete after 1 s" in answer for answer in answers)
    for client in clients:
        client.close()


def test_a_client_that_does_not_read_is_disconnected(tmp_path: Path) -> None:
    with serving(tmp_path, "--reward", "length", "--read-timeout", "1", "--max-completions", "100000") as running:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", running.port))
            client.sendall(post({"rows": [{}], "completions": [["x"] * 100_000]}) * 3)  # answers of some MB
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                for _ in range(400):
                    client.send(b"x")
                    time.sleep(0.05)
                pytest.fail("the connection is still open")
        assert running.metric('rewards_answers_total{status="200"}') < 5  # not all three, and the metrics


def test_a_disconnecting_client_costs_nothing(server: Running) -> None:
    whole = post({"rows": [{}], "completions": ["sleep 0.5"]})
    for length in (10, len(whole) - 5, len(whole)):
        with server.connect() as client:
            client.sendall(whole[:length])
    while server.metric("rewards_requests_inside"):
        time.sleep(0.05)
    assert server.score("four") == (200, [4.0])


def test_a_waiting_request_of_a_disconnected_client_is_not_graded(tmp_path: Path) -> None:
    with serving(tmp_path, *FAULTY, "--workers", "1", module="tests.fakes.faulty_reward") as running:
        with running.connect() as busy, running.connect() as waiting:
            busy.sendall(post({"rows": [{}], "completions": ["sleep 1"]}, "/score", "Connection: close"))
            while running.metric("rewards_requests_inside") < 1:
                time.sleep(0.01)
            waiting.sendall(post({"rows": [{}], "completions": ["sleep 60"]}))
            while running.metric("rewards_requests_inside") < 2:
                time.sleep(0.01)
            waiting.close()
            assert status_lines(received(busy)) == ["200"]
        assert running.score("four") == (200, [4.0])
        assert running.metric('rewards_answers_total{status="499"}') == 1


def test_more_connections_than_allowed_get_503(tmp_path: Path) -> None:
    with serving(tmp_path, "--reward", "length", "--connections", "10") as running:
        clients = [running.connect() for _ in range(10)]
        clients[0].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in clients[0].recv(1000)
        answer = running.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_lines(answer) == ["503"]
        assert "the limit of 10 connections is reached" in answer
        for client in clients:
            client.close()
        time.sleep(0.2)
        assert running.ask("/health")[0] == 200


# Rewards that fail.


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ("raise", r"reward 'faulty' raised KeyError: 'no such\ncolumn'"),
        ("recurse", "reward 'faulty' raised RecursionError:"),
        ("type", "reward 'faulty' raised AttributeError: "),
        ("unserialisable", "reward 'faulty' raised TypeError: Object of type set is not JSON serializable"),
    ],
)
def test_a_reward_that_raises_is_500_and_counted(server: Running, completion: str, message: str) -> None:
    answers, errors = 'rewards_answers_total{status="500"}', 'rewards_outcomes_total{outcome="error"}'
    before = server.metric(answers), server.metric(errors)
    status, problem = server.score("fine", completion)
    assert status == 500
    assert problem.startswith(message)
    assert "\n" not in problem
    assert (server.metric(answers), server.metric(errors)) == (before[0] + 1, before[1] + 2)
    assert server.score("fine") == (200, [4.0])


def test_a_value_that_is_not_finite_is_an_error(server: Running) -> None:
    _, answer, _ = server.ask("/score", {"rows": [{}, {}], "completions": ["nan", "four"]})
    assert [(score["value"], score["outcome"]) for score in answer["scores"]] == [(0.0, "error"), (4.0, "scored")]


def test_a_slow_request_is_504_and_frees_its_slot(server: Running) -> None:
    assert server.score("sleep 4") == (504, "no score in 3 s")
    with ThreadPoolExecutor(4) as clients:  # as many as there are workers, one of which is still asleep
        assert list(clients.map(server.score, ["four"] * 4)) == [(200, [4.0])] * 4


def test_two_hundred_clients_at_once_are_all_answered(server: Running) -> None:
    def ask(number: int) -> tuple[int, Any]:
        return server.score("x" * (number + 1), "x")

    with ThreadPoolExecutor(200) as clients:
        jobs = [clients.submit(ask, number) for number in range(200)]
        while not all(job.done() for job in jobs):
            assert server.ask("/metrics")[0] == 200
    assert [job.result() for job in jobs] == [(200, [number + 1.0, 1.0]) for number in range(200)]


def test_unusual_text_is_preserved(server: Running) -> None:
    texts = ["\x00", "ééé", "\U0001f600", '"\\']
    assert server.score(*texts) == (200, [1.0, 3.0, 1.0, 2.0])
    lone_surrogate = b'{"rows": [{}], "completions": ["\\ud800"]}'
    assert server.ask("/score", lone_surrogate)[1]["scores"][0]["value"] == 1.0


def test_sigterm_drops_incomplete_requests_and_answers_complete_ones(tmp_path: Path) -> None:
    with serving(tmp_path, *FAULTY, module="tests.fakes.faulty_reward") as running:
        half, idle, whole = running.connect(), running.connect(), running.connect()
        half.sendall(post({"rows": [{}], "completions": ["x"]})[:-3])
        whole.sendall(post({"rows": [{}], "completions": ["sleep 0.5"]}))
        while running.metric("rewards_requests_inside") < 1:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        assert status_lines(received(whole)) == ["200"]
        assert (received(half), received(idle)) == ("", "")
        assert running.process.wait(10) == 0
        for client in (half, idle, whole):
            client.close()
