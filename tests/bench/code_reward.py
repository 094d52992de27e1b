"""How fast the code reward grades Python solutions with ten stdio tests, beside a subprocess per test and verl.

PYTHONPATH=. "$(python3 -m launchers.envs bench --device cpu)" tests/bench/code_reward.py

Half of the solutions are wrong. Ours isolates each test; the others do not isolate at all. Our sandbox is started
and ended inside the measured time, and all that it leaves behind is waited for: bubblewrap ends before its children
have, and their CPU seconds would be lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import rewards
from rewards.code.compare import same_output
from rewards.sandbox import shared
from tests.bench.tables import cpu_seconds, show, versus

SOLUTIONS, TESTS = 48, 10
PR_SET_CHILD_SUBREAPER = 36

# Each reads its input as programs in the data sets do; every second one is wrong in some or all tests.
PROGRAMS = [
    """
n = int(input())
a = list(map(int, input().split()))
print(sum(a))
print(max(a))
""",
    """
n = int(input())
a = list(map(int, input().split()))
print(sum(a) + (n > 8))
print(max(a))
""",
    """
import sys
data = sys.stdin.read().split()
total, best = 0, -1
for x in map(int, data[1:]):
    total += x
    best = x if x > best else best
print(total, best, sep="\\n")
""",
    """
import sys
data = sys.stdin.read().split()
a = [int(x) for x in data[1:-1]]
print(sum(a))
print(a[0])
""",
    """
from collections import Counter
from functools import reduce
import heapq

def main():
    input()
    a = list(map(int, input().split()))
    heap = [-x for x in a]
    heapq.heapify(heap)
    print(reduce(lambda x, y: x + y, a))
    print(-heap[0])

if __name__ == "__main__":
    main()
""",
    """
def main():
    input()
    a = list(map(int, input().split()))
    print(sum(a[1:]))
    print(min(a))

main()
""",
]


def cases() -> list[dict[str, str]]:
    made = []
    for number in range(TESTS):
        values = [(7 * k * k + number) % 101 for k in range(5 + number)]
        text = f"{len(values)}\n{' '.join(map(str, values))}\n"
        made.append({"input": text, "output": f"{sum(values)}\n{max(values)}\n"})
    return made


def solutions(count: int) -> list[str]:
    """A comment makes each another text, so that none is graded once for several."""
    return [f"{PROGRAMS[k % len(PROGRAMS)]}\n# {k}\n" for k in range(count)]


def ours(codes: Sequence[str], value: str) -> int:
    """Solutions that pass everything."""
    row = {"tests": {"kind": "stdio", "cases": cases()}}
    texts = [f"```python\n{code}\n```" for code in codes]
    scores = rewards.load("code", value=value, workers=1).score_many([row] * len(texts), texts)
    end_sandbox()
    return sum(score.value == 1 for score in scores)


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def end_sandbox() -> None:
    """Let the sandbox end by itself: the kernel forgets the CPU seconds of a process namespace that is killed."""
    zygote = shared()._programs._zygote
    assert zygote is not None
    assert zygote._process is not None
    zygote.control.shutdown(socket.SHUT_RDWR)
    zygote._process.wait()
    shared().close()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def subprocesses(codes: Sequence[str]) -> int:
    """The same by `python` once a test."""
    right = 0
    with TemporaryDirectory() as folder:
        for number, code in enumerate(codes):
            path = os.path.join(folder, f"{number}.py")
            with open(path, "w") as file:
                file.write(code)
            passed = [passes([sys.executable, path], case) for case in cases()]
            right += all(passed)
    return right


def passes(command: Sequence[str], case: dict[str, str]) -> bool:
    run = subprocess.run(command, input=case["input"].encode(), capture_output=True)
    return run.returncode == 0 and same_output(run.stdout, case["output"])


def verls_tests() -> dict[str, list[str]]:
    return {"inputs": [case["input"] for case in cases()], "outputs": [case["output"] for case in cases()]}


def prime_code(codes: Sequence[str]) -> int:
    """The same by verl's prime_code, called as verl's default_compute_score does.

    It runs all tests in one process up to the first that fails, and where one failed, each in a process once more.
    """
    from verl.utils.reward_score.prime_code import compute_score

    tests = json.dumps(verls_tests())
    return sum(compute_score(f"```python\n{code}\n```", tests, continuous=True)[0] == 1 for code in codes)


def prime_code_once(codes: Sequence[str]) -> int:
    """Only the first half of that: all or nothing, one process for all tests."""
    from verl.utils.reward_score.prime_code.utils import check_correctness

    results = [check_correctness(in_outs=verls_tests(), generation=code, timeout=5, debug=False)[0] for code in codes]
    return sum(all(passed is True for passed in result) for result in results)


def main() -> None:
    """Print the table. Raises ImportError where verl is not installed: without it there is nothing to compare."""
    import verl.utils.reward_score.prime_code  # noqa: F401

    adopt_orphans()
    codes = solutions(SOLUTIONS)
    contenders = {
        "code, value fraction": lambda: ours(codes, "fraction"),
        "code, value all": lambda: ours(codes, "all"),
        "python per test": lambda: subprocesses(codes),
        "prime_code": lambda: prime_code(codes),
        "prime_code, all or nothing": lambda: prime_code_once(codes),
    }
    right = {name: grade() for name, grade in contenders.items()}
    seconds = cpu_seconds(contenders, repeats=3)
    rows = versus("python per test", seconds, len(codes))
    for row in rows:
        for other in ("prime_code", "prime_code, all or nothing"):
            row[f"× {other}"] = f"{seconds[other] / seconds[row['what']]:.3g}"
        row["right"] = str(right[row["what"]])
    show(f"code: {SOLUTIONS} Python solutions, half of them right, {TESTS} stdio tests each", rows)


if __name__ == "__main__":
    main()
