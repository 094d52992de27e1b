"""The workers: deadlines for hostile answers, all calling contexts, no leftover processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rewards
from rewards.processes import forkserver
from rewards.processes.pool import DeadlineError, Pool, WorkerError, shared

MATH = rewards.load("math", deadline=20.0)  # CPU seconds
ROOT = Path(rewards.__file__).parent.parent
PROVE = ({"answer": r"\frac{\sqrt{2}}{2}"}, r"\boxed{\frac{1}{\sqrt{2}}}")  # needs algebra


def ask(pool: Pool, request: dict[str, Any], deadline: float) -> dict[str, Any]:
    """The reply to one request. Raises DeadlineError, WorkerError."""
    reply = pool.ask_each([request], deadline)[0]
    if isinstance(reply, Exception):
        raise reply
    return reply


ENDLESS = ({"answer": r"\sqrt{2}+x"}, r"\boxed{\int_0^{\infty} \frac{\sin(x^3) e^{-x^2}}{1+x^7} dx}")


def test_a_non_terminating_answer_times_out_and_the_next_is_graded() -> None:
    reward = rewards.load("math", deadline=0.5)
    score = reward.score(*ENDLESS)
    assert (score.outcome, score.value) == ("timeout", 0.0), score
    assert reward.score({"answer": "x+1"}, r"\boxed{1+x}").value == 1.0


def test_many_threads() -> None:
    results: list[float] = []
    rows = [({"answer": f"x+{i}"}, rf"\boxed{{{i}+x}}") for i in range(40)]
    threads = [
        threading.Thread(target=lambda part=rows[i::8]: results.extend(MATH.score(*p).value for p in part))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1.0] * 40


def test_asyncio_and_an_alarm_of_the_host() -> None:
    async def grade() -> list[float]:
        here = MATH.score({"answer": "y+1"}, r"\boxed{1+y}").value
        there = await asyncio.gather(
            *(asyncio.to_thread(MATH.score, {"answer": f"y+{i}"}, rf"\boxed{{{i}+y}}") for i in range(5))
        )
        return [here, *(score.value for score in there)]

    old = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        assert asyncio.run(grade()) == [1.0] * 6
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 200  # still set
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_workers_of_score_many_give_the_same_scores_in_order() -> None:
    rows = [{"answer": f"z+{i % 7}"} for i in range(60)]
    completions = [rf"\boxed{{{i % 5}+z}}" for i in range(60)]
    one, two = (rewards.load("math").score_many(rows, completions, workers=n) for n in (1, 2))
    assert [s.value for s in one] == [float(i % 7 == i % 5) for i in range(60)]
    assert [s.as_json() for s in one] == [s.as_json() for s in two]


def _grade_in_child(reward: rewards.Reward, queue: Any) -> None:
    queue.put(reward.score({"answer": "w+1"}, r"\boxed{1+w}").value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_child_processes(method: str) -> None:
    MATH.score(*PROVE)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=_grade_in_child, args=(MATH, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=120) for _ in children] == [1.0, 1.0]
    for child in children:
        child.join()
    assert MATH.score({"answer": "v+1"}, r"\boxed{1+v}").value == 1.0


def _descendants(pid: int) -> list[int]:
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in children] + [grand for child in children for grand in _descendants(int(child))]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_worker_outlives_a_killed_host() -> None:
    code = r"""
import rewards, sys, threading
reward = rewards.load("math", deadline=600.0)
reward.score({"answer": "x+1"}, r"\boxed{1+x}")
endless = {"answer": r"\sqrt{2}+x"}, r"\boxed{\int_0^{\infty} \frac{\sin(x^3) e^{-x^2}}{1+x^7} dx}"
threading.Thread(target=reward.score, args=endless).start()
print("up", flush=True)
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as host:
        try:
            assert host.stdout is not None
            assert host.stdout.readline() == "up\n"
            time.sleep(1)  # the worker is busy by now and would not notice a closed socket
            left = _descendants(host.pid)
            assert len(left) == 2  # the fork server and the busy worker
        finally:
            host.kill()
    until = time.monotonic() + 2
    while any(map(_alive, left)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in left if _alive(pid)]


def test_a_worker_killed_from_outside_costs_one_retry() -> None:
    pool = Pool("rewards.math.worker", 1)
    request = {"gold": "x+1", "answer": "1+x"}
    assert ask(pool, request, 10)["equal"] is True
    os.kill(pool._idle[0].pid, signal.SIGKILL)
    assert ask(pool, request, 10)["equal"] is True
    assert pool.server is not None
    os.kill(pool.server._process.pid, signal.SIGKILL)
    pool.server._process.wait()
    assert ask(pool, request, 10)["equal"] is True
    pool.close()


def test_a_retry_runs_on_a_fresh_worker_since_idle_ones_may_be_dead_too() -> None:
    pool = Pool("rewards.math.worker", 2)
    request = {"gold": "x+1", "answer": "1+x"}
    workers = [pool._take(fresh=False) for _ in range(2)]
    for worker in workers:
        pool._return(worker, kept=True)
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    assert ask(pool, request, 10)["equal"] is True
    pool.close()


def test_workers_killed_mid_batch_are_retried() -> None:
    reward = rewards.load("math", workers=2, deadline=10.0)
    golds = [f"(x+{i})(x-{i})" for i in range(400)]
    rows, texts = [{"answer": gold} for gold in golds], [rf"\boxed{{x^2-{i * i}}}" for i in range(400)]
    scores: list[rewards.Score] = []
    batch = threading.Thread(target=lambda: scores.extend(reward.score_many(rows, texts)))
    batch.start()
    killed = 0
    while batch.is_alive():
        time.sleep(0.02)
        parent = shared("rewards.math.worker", 2).server
        workers = _descendants(parent._process.pid) if parent else []
        if len(workers) == 2 and not killed:  # both at once: a request that costs two workers is an error
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
                killed += 1
    batch.join()
    assert killed
    assert [score.value for score in scores] == [1.0] * 400


def test_without_landlock_other_mechanisms_are_active_and_it_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forkserver.restrict, "landlock_version", lambda: 0)  # a kernel before 5.13
    isolation = forkserver.Isolation(str(ROOT), 512)
    assert isolation.problems == ["this kernel has no Landlock: workers can read files"]


def test_workers_that_cannot_start_say_why() -> None:
    with pytest.raises(WorkerError, match="No module named 'rewards\\.absent'"):
        ask(Pool("rewards.absent", 1), {}, 1.0)


def test_a_deadline_counts_cpu_time_of_the_worker_not_the_time_that_it_waits(hostile: Pool) -> None:
    assert ask(hostile, {"deed": "sleep", "what": "1.0"}, 0.3) == {"done": "1.0"}
    with pytest.raises(DeadlineError, match=r"no reply within 0\.3 s of CPU time"):
        ask(hostile, {"deed": "compute", "what": "30"}, 0.3)


def test_a_stopped_worker_is_not_a_timeout() -> None:
    """A worker that is suspended for longer than its deadline, as under load, does not time out."""
    pool = Pool("tests.rewards.hostile_worker", 1)
    assert ask(pool, {"deed": "sleep", "what": "0"}, 1)
    pid = pool._idle[0].pid
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
    timer.start()
    assert ask(pool, {"deed": "sleep", "what": "0"}, 0.2) == {"done": "0"}
    timer.join()
    pool.close()


def test_workers_limit_the_process_not_the_call() -> None:
    pool = shared("tests.rewards.hostile_worker", 2)
    assert shared("tests.rewards.hostile_worker", 1) is pool
    batches = [[{"deed": "process", "what": "0.05"}] for _ in range(12)]

    def pids(_: int) -> set[str]:
        return {reply["done"] for (reply,) in pool.ask_all(batches, 5.0, 2) if isinstance(reply, dict)}

    with ThreadPoolExecutor(6) as threads:
        assert len(set().union(*threads.map(pids, range(6)))) == 2
    assert len({reply["done"] for (reply,) in pool.ask_all(batches, 5.0, 1) if isinstance(reply, dict)}) == 1
    pool.close()


def test_batches_come_in_order_and_few_are_in_memory() -> None:
    made = []
    pool = Pool("tests.rewards.hostile_worker", 2)

    def batches() -> Iterator[list[dict[str, str]]]:
        for number in range(200):
            made.append(number)
            yield [{"deed": "sleep", "what": f"0.0{number % 3}"}] * (number % 3 + 1)

    for number, replies in enumerate(pool.ask_all(batches(), 5.0, 2)):
        assert replies == [{"done": f"0.0{number % 3}"}] * (number % 3 + 1)
        assert len(made) - number <= 33
    assert number == 199
    pool.close()


def test_several_requests_at_once_fail_one_by_one(hostile: Pool) -> None:
    deeds = [("sleep", "0"), ("compute", "30"), ("sleep", "0"), ("defect", ""), ("die", ""), ("sleep", "0.01")]
    replies = hostile.ask_each([{"deed": deed, "what": what} for deed, what in deeds], 0.3)
    problems = [str(reply) for reply in replies if isinstance(reply, Exception)]
    assert [reply for reply in replies if isinstance(reply, dict)] == [{"done": "0"}, {"done": "0"}, {"done": "0.01"}]
    assert problems == [
        "no reply within 0.3 s of CPU time",
        "the worker failed: KeyError: 'missing'",
        "this request killed two workers",
    ]


def test_workers_see_no_environment_and_no_files_of_the_host(tmp_path: Path) -> None:
    pool = Pool("rewards.math.worker", 1)
    with (tmp_path / "secret").open("w"):
        ask(pool, {"gold": "x", "answer": "y"}, 10)
        for pid in (pool._idle[0].pid, pool.server._process.pid):
            assert Path(f"/proc/{pid}/environ").read_bytes() == b"PYTHONHASHSEED=0\0"
        fds = [os.readlink(fd) for fd in Path(f"/proc/{pool._idle[0].pid}/fd").iterdir()]
    assert sorted({fd.partition(":")[0] for fd in fds}) == ["/dev/null", "socket"]
    pool.close()


@pytest.fixture(scope="module")
def hostile() -> Iterator[Pool]:
    pool = Pool("tests.rewards.hostile_worker", 1, memory_mb=1024)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    "deed", ["tcp", "udp", "unix", "write", "read", "list", "delete", "rename", "exec", "shell", "fork", "kill", "proc",
             "ptrace", "memory", "memfd", "limits"]
)  # fmt: skip
def test_code_in_a_worker_cannot_reach_files_processes_or_the_network(deed: str, hostile: Pool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    victim = subprocess.Popen(["sleep", "60"])
    about = {"list": str(tmp_path), "write": str(tmp_path / "new")}
    what = str(victim.pid) if deed in ("kill", "proc", "ptrace") else about.get(deed, str(secret))
    try:
        reply = ask(hostile, {"deed": deed, "what": what}, 10)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    assert "refused" in reply, reply
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_code_in_a_worker_may_import_and_sees_no_environment(hostile: Pool) -> None:
    assert ask(hostile, {"deed": "late import"}, 10) == {"done": "wave"}
    names = ask(hostile, {"deed": "environment"}, 10)["done"].split()
    assert set(names) <= {"PYTHONHASHSEED", "LC_CTYPE"}  # the second is Python's own, for a C locale


def test_a_bug_in_a_worker_is_an_error_with_its_message(hostile: Pool) -> None:
    with pytest.raises(WorkerError, match="KeyError: 'missing'"):
        ask(hostile, {"deed": "defect"}, 10)
    assert ask(hostile, {"deed": "late import"}, 10) == {"done": "wave"}


def test_importing_is_cheap_and_loads_no_sympy() -> None:
    code = (
        "import rewards\n"
        r"assert rewards.load('math').score({'answer': 'x+1'}, r'\boxed{1+x}').value == 1" "\n"
        "import sys; assert not {'sympy', 'math_verify'} & set(sys.modules)"
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
