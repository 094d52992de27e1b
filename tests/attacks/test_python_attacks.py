"""Hostile Python programs: none gets through on the two upper levels, as an unprivileged user and as root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rewards.sandbox import Case, Limits, Ran, Sandbox
from tests.attacks import programs


def run(box: Sandbox, code: str, case: Case = Case(), limits: Limits = Limits(cpu_s=5, wall_s=20)) -> Ran:  # noqa: B008
    program = box.python(code, [case], limits)
    assert program.compile_error is None
    return program.runs[0]


@pytest.mark.parametrize("name", [*programs.ATTACKS, "the sandbox afterwards"])
def test_attack_is_stopped(attacked: dict[str, Any], name: str) -> None:
    outcome = attacked["attacks"][name]
    assert not outcome["through"], outcome
    assert outcome["hits"] == [], outcome
    # it ran and was refused: "signal" is the filter's answer to calls of another architecture
    assert outcome["status"] == ("signal" if name == "x32_call" else outcome["status"])
    assert outcome["status"] in ("ok", "exit", "signal"), outcome


@pytest.mark.parametrize("name", [*programs.OUTSIDE, *programs.IN_A_FORK])
def test_same_attack_works_without_isolation(without_isolation: dict[str, Any], name: str) -> None:
    assert without_isolation["attacks"][name]["through"], without_isolation["attacks"][name]


def test_the_leaf_is_nobody_special(box: Sandbox) -> None:
    ran = run(box, "import os; print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())")
    uid, effective, gid, *groups = ran.stdout.decode().split()
    assert uid == effective != "0"
    assert os.geteuid() != 0 or (gid != "0" and groups == ["[]"])


# --- what only uses things up


def test_endless_loop(box: Sandbox) -> None:
    ran = run(box, "while True: pass", limits=Limits(cpu_s=0.3))
    assert ran.status == "timeout"
    assert 0.3 <= ran.cpu_s < 0.6


def test_loop_that_ignores_every_signal(box: Sandbox) -> None:
    code = (
        "import signal\nfor s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    )
    assert run(box, code, limits=Limits(cpu_s=0.3)).status == "timeout"


def test_loop_in_many_threads_counts_them_all(box: Sandbox) -> None:
    code = "import threading\nfor _ in range(4): threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()"
    ran = run(box, code, limits=Limits(cpu_s=0.3))
    assert ran.status == "timeout"
    assert ran.cpu_s < 0.8


def test_loop_inside_a_c_function(box: Sandbox) -> None:
    assert run(box, "print(str(7 ** 7 ** 8)[:5])", limits=Limits(cpu_s=0.5)).status == "timeout"


PIPE = "import os; os.read(os.pipe()[0], 1)"


def test_sleep_and_deadlock(box: Sandbox) -> None:
    for code in (
        "import time; time.sleep(99)",
        "import threading; threading.Event().wait()",
        "import os; os.read(os.pipe()[0], 1)",
    ):
        began = time.monotonic()
        assert run(box, code, limits=Limits(wall_s=0.4)).status == "timeout"
        assert time.monotonic() - began < 30


def test_memory(box: Sandbox) -> None:
    patient = Limits(cpu_s=30)  # half a gigabyte of new pages costs a busy machine more than an idle one
    assert run(box, "x = bytearray(1_200_000_000)", limits=patient).status == "memory"
    assert run(box, "x = []\nwhile True: x.append(bytearray(1 << 20))", limits=patient).status == "memory"
    swallowed = run(box, "try:\n  x = bytearray(1_200_000_000)\nexcept MemoryError:\n  print('caught')")
    assert swallowed.stdout == b"caught\n"


def test_threads(box: Sandbox) -> None:
    code = """
import threading, time
threading.stack_size(1 << 15)
made = 0
try:
    for made in range(3000): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
except RuntimeError: pass
print(made)
"""
    ran = run(box, code, limits=Limits(cpu_s=4, memory_mb=2048))
    assert ran.status == "ok", ran
    assert int(ran.stdout) < 2900


def test_endless_output(box: Sandbox) -> None:
    ran = run(box, "while True: print('x' * 1000)", limits=Limits(output_kb=100))
    assert ran.status == "output_limit"
    assert len(ran.stdout) == 100 << 10
    stubborn = "import os\nwhile True:\n  try: os.write(1, b'x' * 9999)\n  except OSError: pass"
    assert run(box, stubborn, limits=Limits(output_kb=100, cpu_s=0.3)).status == "timeout"
    error = run(box, "import os\nfor _ in range(999): os.write(2, b'x' * 9999)", limits=Limits(output_kb=100))
    assert error.status == "exit"
    assert len(error.message) < 1000


GREEDY = """
import sys, threading, time
try:
    while True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
except RuntimeError: print("full")
sys.stdout.flush()
time.sleep(1)
"""
MODEST = "from concurrent.futures import ThreadPoolExecutor as P\nprint(sum(P(8).map(abs, range(-9, 9))))"


def test_one_program_cannot_starve_another(box: Sandbox) -> None:
    with ThreadPoolExecutor(2) as pool:
        hungry = pool.submit(run, box, GREEDY, Case(), Limits(wall_s=20))
        time.sleep(0.5)
        assert run(box, MODEST).stdout == b"81\n"
        assert hungry.result().stdout == b"full\n"


BOMBS = {
    "nested brackets": "(" * 100_000 + ")" * 100_000,
    "nested lists": "x = " + "[" * 5000 + "]" * 5000,
    "unary minus": "x = " + "-" * 1_000_000 + "1",
    "folding": "x = ((((1 << 9999) << 9999) << 9999) * 'a') * 9999",
    "power folding": "x = 9 ** 9 ** 9 ** 9",
    "long expression": "x = " + "+".join(["1"] * 200_000),
    "nested functions": "\n".join(" " * i + f"def f{i}():" for i in range(500)),
    "nested comprehensions": "x = " + "[" * 300 + "0" + " for a in b]" * 300,
    "null bytes": "x = 1\0",
    "lone surrogates": "x = '\ud800'",
    "not text": "\x00\x01\x02",
    "f-strings": "x = " + "f'{" * 200 + "1" + "}'" * 200,
}


@pytest.mark.parametrize("name", BOMBS)
def test_compile_bomb(box: Sandbox, name: str) -> None:
    """Each ends as an error of the program's own, cheaply; folding that Python declines to do may run out of time."""
    began = time.monotonic()
    program = box.python(BOMBS[name], [Case()], Limits(cpu_s=0.5, compile_cpu_s=2))
    assert program.compile_error or program.runs[0].status in ("exit", "timeout", "memory", "ok")
    assert time.monotonic() - began < 20
    assert run(box, "print(1)").stdout == b"1\n"


# --- what tries to look right


def test_leaving_early_gives_nothing(box: Sandbox) -> None:
    for code in ("import os; os._exit(0)", "import sys; sys.exit(0)", "raise SystemExit", "quit()"):
        assert run(box, code).stdout == b""
        called = run(box, f"def f(): pass\n{code}", Case(call=("f", [])))
        assert called.result == b""
        assert called.status == "exit"


def test_state_does_not_pass_from_test_to_test(box: Sandbox) -> None:
    code = """
import builtins, json, math, os, random, sys, threading
seen = [hasattr(builtins, "left"), hasattr(math, "left"), "left" in os.environ, "left" in sys.modules, sys.argv[1:]]
builtins.left = math.left = 1
os.environ["left"] = "1"; sys.modules["left"] = sys; sys.argv.append("left")
builtins.print = lambda *a: sys.stdout.write("patched\\n")
json.dumps = json.loads = json.encoder.encode_basestring_ascii = lambda *a, **k: '"patched"'
os._exit, sys.exit, threading._shutdown = (lambda *a: None,) * 3
sys.stdout.write(repr(any(seen)))
sys.stdout.flush()
"""
    runs = box.python(code, [Case()] * 3, Limits()).runs
    assert [ran.stdout for ran in runs] == [b"False"] * 3


def test_other_cases_inputs_are_out_of_reach(box: Sandbox) -> None:
    code = """
import os, sys
print(sys.stdin.read())
for fd in range(64):
    for offset in (0, -1):
        try: print(fd, os.pread(fd, 999, 0) if offset == 0 else os.read(fd, 99))
        except OSError: pass
"""
    runs = box.python(code, [Case(b"first-input"), Case(b"second-input")], Limits()).runs
    assert b"second" not in runs[0].stdout
    assert b"first" not in runs[1].stdout


FORGERS = {
    "equal to all": "class E:\n  __eq__ = lambda s, o: True\n  __repr__ = lambda s: '42'\ndef f(): return E()",
    "class that lies": "class E:\n  __class__ = int\n  __int__ = __index__ = lambda s: 42\ndef f(): return E()",
    "json hook": "class E:\n  def __json__(self): return '42'\n  def __str__(self): return '42'\ndef f(): return E()",
    "recursion": "def f():\n  x = []; x.append(x); return x",
    "dies while answering": "class L(list):\n  def __iter__(self): raise SystemExit(0)\ndef f(): return {1, 2}",
}


@pytest.mark.parametrize("name", FORGERS)
def test_forged_result_is_no_result(box: Sandbox, name: str) -> None:
    ran = run(box, FORGERS[name], Case(call=("f", [])))
    assert ran.status == "exit"
    assert ran.result == b""


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (
            "class S(str):\n  __eq__ = lambda s, o: True\n  __repr__ = lambda s: '42'\ndef f(): return S('x')",
            "x",
        ),
        (
            "class I(int):\n  __eq__ = lambda s, o: 1\n  __repr__ = __index__ = lambda s: '42'\ndef f(): return I(7)",
            7,
        ),
        ("class F(float):\n  __repr__ = lambda s: '42'\ndef f(): return F(0.5)", 0.5),
        (
            "class L(list):\n  __iter__ = lambda s: iter([42])\n  __len__ = lambda s: 1\ndef f(): return L([7, 8])",
            [7, 8],
        ),
        ("class D(dict):\n  items = lambda s: [(1, 42)]\ndef f(): return D(a=7)", {"a": 7}),
        ("import json\njson.dumps = lambda *a, **k: '42'\njson.JSONEncoder.encode = json.dumps\ndef f(): return 7", 7),
        ("import builtins\nbuiltins.isinstance = lambda *a: True\ndef f(): return 7", None),
    ],
)
def test_value_is_what_it_holds(box: Sandbox, code: str, value: Any) -> None:
    ran = run(box, code, Case(call=("f", [])))
    if value is None:
        assert ran.status in ("ok", "exit")  # it fools only itself
    else:
        assert (ran.status, json.loads(ran.result)) == ("ok", value)


# --- what happens when the grader is killed

_GRADER = """
import threading, time
from rewards.sandbox import Case, Limits, Sandbox
box = Sandbox({level!r})
slow = "import time\\nwhile True: time.sleep(0.01)"
for code in (slow, "while True: pass"):
    threading.Thread(target=box.python, args=(code, [Case()], Limits(cpu_s=60, wall_s=60)), daemon=True).start()
source = {{"a.cpp": b"constexpr long f(long n) {{ long s = 0; for (long i = 0; i < n; i++) s += i; return s; }}"
          b"constexpr long x = f(1L << 60); int main() {{}}"}}
argv = ["/usr/bin/g++", "-c", "-fconstexpr-ops-limit=999999999999", "-fconstexpr-loop-limit=2147483647", "a.cpp"]
threading.Thread(target=box.build, args=(source, argv), daemon=True).start()
time.sleep(1.5)
print("running", flush=True)
time.sleep(60)
"""


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_killed_grader_leaves_nobody_behind(level: str, launch: Callable[..., subprocess.Popen[str]]) -> None:
    grader = launch("-c", _GRADER.format(level=level))
    assert grader.stdout is not None
    assert grader.stdout.readline() == "running\n"
    started = descendants(grader.pid)
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in started]
    assert "cc1plus" in names
    assert len(started) >= 7, names
    os.kill(grader.pid, signal.SIGKILL)
    grader.wait()
    until = time.monotonic() + 2
    while time.monotonic() < until and any(map(alive, started)):
        time.sleep(0.05)
    assert [name for pid, name in zip(started, names, strict=True) if alive(pid)] == []
