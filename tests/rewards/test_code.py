"""The code reward: outcomes, values, details, limits; honest programs pass, and equal work is done once."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards
from rewards import RewardError
from rewards.processes.slots import slot
from rewards.sandbox import Program, Sandbox
from tests.rewards.test_code_tests import pack

SUM = {"kind": "stdio", "cases": [{"input": f"{n} 1\n", "output": f"{n + 1}\n", "weight": n} for n in (1, 2, 3, 4)]}
ADD = "print(sum(map(int, input().split())))"
CALL = {"kind": "call", "function": "f", "cases": [{"args": [[1, 2]], "expected": [2, 1]}]}


def score(code: str, tests: Any = SUM, mark: str = "python", **params: Any) -> rewards.Score:
    return rewards.load("code", **params).score({"tests": tests}, f"```{mark}\n{code}\n```")


def status(code: str, tests: Any = SUM, mark: str = "python", **params: Any) -> str:
    found = score(code, tests, mark, **params)
    assert found.outcome == "scored", found
    return str(found.details["status"])


def test_values() -> None:
    low = "a, b = map(int, input().split())\nprint(a + b if a < 3 else 0)"
    assert score(ADD).value == 1.0
    assert score(low).value == 0.5
    assert score(low, value="all").value == 0.0
    assert score(ADD, value="all").value == 1.0
    assert score(low, value="weighted").value == pytest.approx(0.3)
    assert score(low, max_tests=2).value == 1.0


def test_details() -> None:
    found = score("a, b = map(int, input().split())\nassert a != 2\nprint(a + b)")
    details = found.details
    assert [one["status"] for one in details["tests"]] == ["passed", "runtime_error", "passed", "passed"]
    assert (details["status"], details["passed"], details["total"]) == ("runtime_error", 3, 4)
    assert details["tests"][1]["message"] == "AssertionError"
    assert details["sandbox"]
    assert details["run_cpu_s"] > 0
    json.dumps(found.as_json(), allow_nan=False)
    many = {"kind": "stdio", "cases": [{"input": str(n), "output": str(n % 50)} for n in range(60)]}
    shown = score("print(input())", many).details["tests"]
    assert (len(shown), [one["test"] for one in shown[:10]]) == (32, list(range(50, 60)))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ADD, "passed"),
        ("print(0)", "failed"),
        ("x = (", "compile_error"),
        ("1 / 0", "runtime_error"),
        ("import sys; sys.exit(3)", "runtime_error"),
        (ADD + "\nimport sys; sys.exit(0)", "passed"),
        (ADD + "\nraise SystemExit", "passed"),
        ("while True: pass", "timeout"),
        ("x = bytearray(10 ** 9)", "memory"),
        ("x = []\nwhile True: x.append(' ' * 10 ** 6)", "memory"),
        ("while True: print('x' * 1000)", "output_limit"),
        ("import time; time.sleep(60)", "timeout"),
    ],
)
def test_statuses_are_distinguished(code: str, expected: str) -> None:
    limits: dict[str, Any] = {"cpu_s": 0.5, "wall_s": 2.0, "memory_mb": 128, "output_kb": 64}
    assert status(code, value="all", **limits) == expected


def test_a_sleeping_program_stops_after_one_timeout() -> None:
    slept = score("import time; time.sleep(60)", wall_s=0.5)
    assert [test["status"] for test in slept.details["tests"]] == ["timeout", "not_run", "not_run", "not_run"]


def test_the_remote_engine_was_removed() -> None:
    with pytest.raises(RewardError, match="parameter 'engine' was removed: programs run in the local sandbox only"):
        rewards.load("code", engine="http://127.0.0.1:9")


def test_a_program_continues_the_prompt_of_humaneval() -> None:
    prompt = 'import math\n\n\ndef root(x: float) -> float:\n    """The square root of x."""\n'
    row = {"prompt": prompt, "test": "def check(candidate):\n    assert candidate(4) == 2", "entry_point": "root"}
    tests = rewards.code.suites.from_humaneval(row)
    reward = rewards.load("code", no_fence="accept")
    for completion, value in (
        ("    return math.sqrt(x)\n", 1.0),
        ("    return x\n", 0.0),
        ("```python\n    return math.sqrt(x)\n```", 1.0),
        ("```python\ndef root(x):\n    return math.sqrt(x)\n```", 1.0),
    ):
        assert reward.score({"tests": tests}, completion).value == value, completion


def _most_at_once(folder: str) -> int:
    """How many programs ran at once over 8 threads with one call each."""
    running, most, lock = 0, 0, threading.Lock()

    def hold() -> None:
        nonlocal running, most
        with slot(2):
            with lock:
                running, most = running + 1, max(most, running + 1)
                Path(folder, f"{os.getpid()}-{threading.get_ident()}").touch()
                most = max(most, len(os.listdir(folder)))
            time.sleep(0.05)
            with lock:
                running -= 1
                os.remove(Path(folder, f"{os.getpid()}-{threading.get_ident()}"))

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(hold) for _ in range(16)]:
            future.result()
    return most


def test_workers_limit_the_process(tmp_path: Path) -> None:
    assert _most_at_once(str(tmp_path)) == 2


def test_processes_share_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDS_SLOTS", str(tmp_path / "slots"))
    (tmp_path / "running").mkdir()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert max(pool.map(_most_at_once, [str(tmp_path / "running")] * 3)) <= 2


def test_few_hanging_tests_are_enough() -> None:
    found = score("while True: pass", cpu_s=0.2, most_timeouts=2)
    assert [one["status"] for one in found.details["tests"]] == ["timeout", "timeout", "not_run", "not_run"]
    found = score("while True: pass", cpu_s=0.2, most_timeouts=0)
    assert [one["status"] for one in found.details["tests"]] == ["timeout"] * 4
    stopped = score("print(0)", value="all").details["tests"]
    assert [one["status"] for one in stopped] == ["failed", "not_run", "not_run", "not_run"]
    everything = score("print(0)", value="all", stop_early=False).details["tests"]
    assert [one["status"] for one in everything] == ["failed"] * 4


@pytest.mark.parametrize(
    ("completion", "meta", "params", "outcome"),
    [
        (f"```python\n{ADD}\n```", {}, {}, "scored"),
        (f"```python\n{ADD}", {}, {}, "scored"),
        ("no code", {}, {}, "no_answer"),
        ("```python\n\n```", {}, {}, "bad_format"),
        (f"<think>```python\n{ADD}\n```</think> done", {}, {}, "no_answer"),
        (f"<think>```python\n{ADD}\n```", {}, {}, "no_answer"),
        (f"<think>```python\nx\n```</think>```python\n{ADD}\n```", {}, {}, "scored"),
        (f"<think>```python\n{ADD}\n```", {}, {"thinking": "none"}, "scored"),
        ("let me", {"finish_reason": "length"}, {}, "truncated"),
        ("```python\nfor x in", {"finish_reason": "length"}, {}, "truncated"),
        (f"```python\n{ADD}\n```\nor ```python\nfor", {"finish_reason": "length"}, {}, "scored"),
        (f"```python\n{ADD}\n```", {"finish_reason": "length"}, {"truncated": "always"}, "truncated"),
        (f"```python\n{ADD}", {"finish_reason": "length"}, {"truncated": "never"}, "scored"),
        (f"```cpp\n{ADD}\n```", {}, {"fences": "require"}, "no_answer"),
        (ADD, {}, {}, "no_answer"),
        (ADD, {}, {"no_fence": "accept"}, "scored"),
        (f"<think>hm</think>\n{ADD}\n", {}, {"no_fence": "accept"}, "scored"),
        (f"So:\n```python\n{ADD}\n```", {}, {"no_fence": "accept"}, "scored"),
        (" \n", {}, {"no_fence": "accept"}, "no_answer"),
        (ADD, {"finish_reason": "length"}, {"no_fence": "accept"}, "truncated"),
    ],
)
def test_outcomes(completion: str, meta: dict[str, Any], params: dict[str, Any], outcome: str) -> None:
    found = rewards.load("code", **params).score({"tests": SUM, "meta": meta}, completion)
    assert found.outcome == outcome, found
    assert found.value == (1.0 if outcome == "scored" else 0.0)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, "they are None, not an object"),
        ({"tests": {"kind": "stdin"}}, "did you mean 'stdio'?"),
        ({"tests": {"kind": "asserts", "source": "f(1)"}}, "no assert statement"),
    ],
)
def test_rows_that_cannot_be_graded(row: dict[str, Any], says: str) -> None:
    found = rewards.load("code").score(row, f"```python\n{ADD}\n```")
    assert (found.outcome, found.value) == ("error", 0.0)
    assert says in found.details["problem"]
    assert "\n" not in found.details["problem"]


def test_completions_of_another_type() -> None:
    wrong: Any = None
    assert rewards.load("code").score({"tests": SUM}, wrong).outcome == "error"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["stdio", "call", "asserts"]))
def test_no_text_raises(text: str, kind: str) -> None:
    tests = {"stdio": SUM, "call": CALL, "asserts": {"kind": "asserts", "source": "assert f(1) == 7123"}}[kind]
    for completion in (text, f"```python\n{text}\n```"):
        found = rewards.load("code", cpu_s=1.0).score({"tests": tests}, completion)
        assert found.value == 0.0
        assert found.outcome in ("scored", "no_answer", "bad_format"), found


HONEST: dict[str, tuple[str, Any]] = {
    "read all": ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", SUM),
    "read by line": ("import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))", SUM),
    "open(0)": ("print(sum(map(int, open(0).read().split())))", SUM),
    "input as a default": (
        "import sys\ninput = sys.stdin.readline\ndef main():\n    print(sum(map(int, input().split())))\nmain()",
        SUM,
    ),
    "main guard": ("def main():\n    " + ADD + "\nif __name__ == '__main__':\n    main()", SUM),
    "write": ("import sys\nsys.stdout.write(str(sum(map(int, input().split()))))", SUM),
    "bytes": (
        "import sys\nn = sum(map(int, sys.stdin.buffer.readline().split()))\nsys.stdout.buffer.write(b'%d' % n)",
        SUM,
    ),
    "two solutions of one name": ("def f(x): return x\ndef f(x): return x[::-1]", CALL),
    "a method": ("class Solution:\n    def f(self, x): return x[::-1]", CALL),
    "typing names": ("from typing import List\nclass Solution:\n    def f(self, x: List[int]): return x[::-1]", CALL),
    "tuples are lists": ("def f(x): return tuple(x[::-1])", CALL),
    "printing in a call": ("def f(x):\n    print('looking at', x)\n    return x[::-1]", CALL),
    "recursion": (
        "import sys\nsys.setrecursionlimit(10 ** 6)\ndef g(n): return 0 if n == 0 else 1 + g(n - 1)\n"
        "assert g(20_000) == 20_000\n" + ADD,
        SUM,
    ),
    "late imports": ("def f(x):\n    import itertools, collections\n    return list(collections.deque(x))[::-1]", CALL),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass(name: str) -> None:
    code, tests = HONEST[name]
    found = score(code, tests)
    assert found.value == 1.0, found


USES = {  # text after the program, and the value of its function for 3
    "usage": ("Usage:\n```python\nprint(f(2))\n```", 9.0),
    "an example with a main guard": ("```python\nif __name__ == '__main__':\n    print(f(3))\n```", 9.0),
    "another version": ("Better:\n```python\ndef f(x): return x + 1\n```\n```python\nassert f(3) == 4\n```", 4.0),
    "a name in a comment": ("```python\n# calls f\nprint(1)\n```", 9.0),
}


@pytest.mark.parametrize("name", USES)
def test_an_example_of_its_use_may_follow_the_function(name: str) -> None:
    after, value = USES[name]
    completion = f"```python\ndef f(x):\n    return x * x\n```\n{after}"
    call = {"kind": "call", "function": "f", "cases": [{"args": [3], "expected": int(value)}]}
    for tests in (call, {"kind": "asserts", "source": f"assert f(3) == {value}"}):
        assert rewards.load("code").score({"tests": tests}, completion).value == 1.0, tests


def test_the_last_block_is_graded_if_no_function_is_called() -> None:
    completion = "```python\ndef f(): return 1\n```\n```python\nprint(input())\n```"
    tests = {"kind": "stdio", "cases": [{"input": "7\n", "output": "7\n"}]}
    assert rewards.load("code").score({"tests": tests}, completion).value == 1.0


def test_comparison_is_strict_by_default() -> None:
    tests = {"kind": "stdio", "cases": [{"input": "", "output": "1\n2\n0.5"}]}
    for code, params, value in (
        ("print('1\\n2\\n0.5\\n\\n')", {}, 1.0),
        ("print(1)", {}, 0.0),
        ("print('2\\n1\\n0.5')", {}, 0.0),
        ("print('2\\n1\\n0.5')", {"compare": "unordered"}, 1.0),
        ("print('1 2 0.5')", {"compare": "tokens"}, 1.0),
        ("print('1\\n2\\n0.50001')", {}, 0.0),
        ("print('1\\n2\\n0.50001')", {"tolerance": 1e-3}, 1.0),
    ):
        assert score(code, tests, **params).value == value, (code, params)
    strict = {"kind": "call", "function": "f", "cases": [{"args": [], "expected": 1}]}
    assert score("def f(): return 1", strict).value == 1.0
    assert score("def f(): return True", strict).value == 0.0
    assert score("def f(): return 1.0", strict).value == 0.0


def test_other_formats_are_graded() -> None:
    apps = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    assert score(ADD, json.dumps(apps)).value == 1.0
    calls = {"fn_name": "f", "inputs": [[[1, 2]]], "outputs": [[[2, 1]]]}
    assert score("class Solution:\n    def f(self, x): return x[::-1]", calls).value == 1.0
    row = {
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3", "testtype": "stdin"}]),
        "private_test_cases": pack(json.dumps([{"input": "2 2\n", "output": "4", "testtype": "stdin"}])),
    }
    assert score("print(3)", rewards.code.suites.from_livecodebench(row)).value == 0.5


def test_gold_solutions() -> None:
    reward = rewards.load("code")
    assert reward.gold_problem({"tests": SUM, "solution": ADD}) == ""
    assert reward.gold_problem({"tests": CALL, "solutions": json.dumps(["def f(x): return x[::-1]"])}) == ""
    assert reward.gold_problem({"tests": SUM, "answer": f"So:\n```python\n{ADD}\n```"}) == ""
    assert "failed, 0 of 4 tests passed" in reward.gold_problem({"tests": SUM, "solution": "print(0)"})
    assert "compile_error" in reward.gold_problem({"tests": SUM, "solution": "print("})
    assert "no solution" in reward.gold_problem({"tests": SUM})
    assert "not an object with a kind" in reward.gold_problem({"tests": 3, "solution": ADD})


def test_the_same_program_runs_once_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    python = Sandbox.python

    def counted(self: Sandbox, code: str, *args: Any, **kwargs: Any) -> Program:
        seen.append(code)
        return python(self, code, *args, **kwargs)

    monkeypatch.setattr(Sandbox, "python", counted)
    texts = [f"```python\n{ADD}\n```", f"Here:\n```py\n{ADD}\n```", "```python\nprint(0)\n```", "none"] * 3
    scores = rewards.load("code").score_many([{"tests": SUM}] * 12, texts, workers=2)
    assert [one.value for one in scores] == [1.0, 1.0, 0.0, 0.0] * 3
    assert sorted(seen) == ["print(0)", ADD]
    scores[0].details["tests"][0]["status"] = "changed"
    assert scores[1].details["tests"][0]["status"] == "passed"


class Lazy(Mapping[str, Any]):
    """A row that creates its values on access, like rows of Arrow tables."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getitem__(self, key: str) -> Any:
        if key != "tests":
            raise KeyError(key)
        return {"kind": "stdio", "cases": [{"input": "", "output": str(self.number)}]}

    def __iter__(self) -> Iterator[str]:
        return iter(["tests"])

    def __len__(self) -> int:
        return 1


def test_rows_may_create_tests_on_access() -> None:
    scores = rewards.load("code").score_many([Lazy(n) for n in range(8)], ["```\nprint(3)\n```"] * 8)
    assert [one.value for one in scores] == [float(n == 3) for n in range(8)]


def _value(reward: rewards.Reward) -> float:
    return reward.score({"tests": SUM}, f"```python\n{ADD}\n```").value


def test_threads_forks_spawned_processes_and_loops() -> None:
    reward = rewards.load("code", value="all")
    assert _value(reward) == 1.0
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_value, [reward] * 12)) == [1.0] * 12
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map(_value, [pickle.loads(pickle.dumps(reward))]) == [1.0]

    async def twice() -> list[float]:
        return await asyncio.gather(*(asyncio.to_thread(_value, reward) for _ in range(2)))

    assert asyncio.run(twice()) == [1.0, 1.0]
    assert _value(reward) == 1.0


CPP = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }"


def test_cpp_programs() -> None:
    tests = {**SUM, "language": "cpp"}
    found = score(CPP, tests, "cpp")
    assert (found.value, found.details["language"]) == (1.0, "cpp"), found
    assert found.details["compile_cpu_s"] > 0
    judged = '#ifndef ONLINE_JUDGE\nfreopen("input.txt", "r", stdin);\n#endif\n'
    assert score(CPP.replace("int a, b;", f"int a, b;\n{judged}"), tests, "cpp").value == 1.0
    assert status("int main() {", tests, "cpp") == "compile_error"
    assert status("int main() { for (volatile int x = 0;; ) x; }", tests, "cpp", cpu_s=0.3, value="all") == "timeout"
    assert status("int main() { return 3; }", tests, "cpp") == "runtime_error"


def test_cpp_suites() -> None:
    suite = "TEST(F, One) { EXPECT_EQ(f(1), 2); }\nTEST(F, Two) { EXPECT_EQ(f(2), 5); }"
    found = score("int f(int x) { return x + 1; }", {"kind": "gtest", "source": suite}, "cpp")
    assert (found.value, [one["status"] for one in found.details["tests"]]) == (0.5, ["passed", "failed"]), found
    assert score("int f(int x) { return x * x + 1; }", {"kind": "gtest", "source": suite}, "cpp").value == 1.0
