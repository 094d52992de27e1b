"""The sandbox's interface: results, limits independent of load, kills, forks."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launchers import envs
from rewards import RewardError
from rewards.sandbox import Case, Level, Limits, Ran, Sandbox, environment, filters, probe, selfcheck, shared
from rewards.sandbox.inside import restrict

ECHO = "print(input())"


def one(box: Sandbox, code: str, case: Case = Case(), limits: Limits = Limits()) -> Ran:  # noqa: B008
    program = box.python(code, [case], limits)
    assert program.compile_error is None
    return program.runs[0]


def test_results(box: Sandbox) -> None:
    ran = one(box, "import sys\nx = bytearray(40 << 20)\nprint(input())\nsys.exit(3)", Case(b"hello\n"))
    assert (ran.status, ran.message, ran.stdout) == ("exit", "exit code 3", b"hello\n")
    assert 0 < ran.cpu_s < 1
    assert 40 < ran.peak_mb < 100
    failed = one(box, "print(1)\nint('x')")
    assert failed.message == "ValueError: invalid literal for int() with base 10: 'x'"
    assert (failed.status, failed.stdout) == ("exit", b"1\n")
    assert one(box, "import sys; sys.exit('no way')").message == "no way"
    assert one(box, "import ctypes; ctypes.string_at(8)").status == "signal"


def test_invalid_programs(box: Sandbox) -> None:
    program = box.python("def f(:\n", [Case(), Case()])
    assert program.runs == []
    assert program.compile_error == "SyntaxError: invalid syntax (solution.py, line 1)"
    assert box.python("", []).compile_error is None
    assert one(box, "").status == "ok"


def test_keep_going_stops_after_a_case(box: Sandbox) -> None:
    cases = [Case(str(i).encode()) for i in range(5)]
    program = box.python(ECHO, cases, keep_going=lambda index, ran: ran.stdout != b"2\n")
    assert [ran.stdout for ran in program.runs] == [b"0\n", b"1\n", b"2\n"]


def test_call_with_large_arguments(box: Sandbox) -> None:
    values = list(range(300_000))
    ran = one(box, "def f(x): return x[::-1]", Case(call=("f", [values])))
    assert ran.status == "ok"
    assert ran.result.startswith(b"[299999,299998,")
    assert one(box, "def g(): pass", Case(call=("f", []))).message == "NameError: the program defines no function 'f'"


def test_threads_get_their_own_results(box: Sandbox) -> None:
    def work(number: int) -> list[bytes]:
        return [ran.stdout for ran in box.python(ECHO, [Case(f"{number}-{i}".encode()) for i in range(5)]).runs]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [[f"{n}-{i}\n".encode() for i in range(5)] for n in range(40)]


def test_load_changes_no_score(box: Sandbox) -> None:
    """0.3 s of work with a limit of 0.6 s, next to more busy loops than cores."""
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint('done')"
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        ran = one(box, code, limits=Limits(cpu_s=0.6))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert (ran.status, ran.stdout) == ("ok", b"done\n")


def test_cpu_limit_is_finer_than_a_second(box: Sandbox) -> None:
    for limit in (0.1, 0.25):
        ran = one(box, "while True: pass", limits=Limits(cpu_s=limit))
        assert ran.status == "timeout"
        assert limit <= ran.cpu_s < limit + 0.1


def children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def below(pid: int) -> list[int]:
    found = [pid]
    for one_of in found:
        found += children(one_of)
    return found[1:]


def processes(box: Sandbox) -> list[int]:
    """The sandbox's processes for programs, outermost first: bubblewrap's two, zygote, job, test process."""
    zygote = box._programs._zygote
    assert zygote is not None
    assert zygote._process is not None
    return [zygote._process.pid, *below(zygote._process.pid)]


@pytest.mark.parametrize("victim", [0, -3, -2, -1], ids=["outermost", "zygote", "job", "test process"])
def test_process_killed_from_outside_costs_one_retry(box: Sandbox, victim: int) -> None:
    def keep_going(index: int, ran: Ran) -> bool:
        if index == 1:
            threading.Timer(0.15, lambda: os.kill(processes(box)[victim], signal.SIGKILL)).start()
        return True

    cases = [Case(str(i).encode()) for i in range(5)]
    runs = box.python("import time\nprint(input())\ntime.sleep(0.3)", cases, keep_going=keep_going).runs
    good = [ran.stdout for ran in runs if ran.status == "ok"]
    if victim == -1:  # that looks like a program that ended so, and is not run again
        assert sorted(ran.status for ran in runs) == ["ok", "ok", "ok", "ok", "signal"]
    else:
        assert good == [f"{i}\n".encode() for i in range(5)]


def test_nothing_is_left_open(box: Sandbox) -> None:
    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(below(os.getpid()))

    one(box, ECHO, Case(b"1"))
    time.sleep(0.2)
    before = state()
    for _ in range(60):
        box.python(ECHO, [Case(b"1")] * 2)
        box.python("(", [Case()])
        one(box, "def f(): return 1", Case(call=("f", [])))
    time.sleep(0.2)
    assert state() == before


@pytest.mark.full
def test_memory_stays_flat(box: Sandbox) -> None:
    """Resident memory of this process and of the zygote, in kB, over 3000 solutions."""

    def resident() -> list[int]:
        pids = [os.getpid(), *processes(box)[: 3 if box.level == "namespaces" else 1]]  # not the jobs
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return [int(text.split("VmRSS:")[1].split()[0]) for text in texts]

    for round_ in range(6):
        for _ in range(500):
            one(box, ECHO, Case(b"1"))
        if round_ == 0:
            before = resident()  # after the first 500
    assert all(after < start + 1024 for start, after in zip(before, resident(), strict=True))


@pytest.mark.parametrize("level", ["namespaces", "landlock"])
def test_the_starting_thread_may_end(level: Level) -> None:
    """The kernel sends a child's death signal when the thread that started it ends."""
    with ThreadPoolExecutor(1) as pool:
        box = pool.submit(Sandbox, level).result()
    with box:
        first = processes(box)[0]
        assert one(box, ECHO, Case(b"1")).status == "ok"
        assert processes(box)[0] == first


def test_a_forked_host_starts_its_own_processes(box: Sandbox) -> None:
    assert one(box, ECHO, Case(b"parent")).stdout == b"parent\n"
    pid = os.fork()
    if pid == 0:
        good = one(box, ECHO, Case(b"child")).stdout == b"child\n"
        box.close()
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert one(box, ECHO, Case(b"parent")).stdout == b"parent\n"


def _shared_echo(word: str) -> bytes:
    return one(shared(), ECHO, Case(word.encode())).stdout


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(method: str) -> None:
    assert _shared_echo("here") == b"here\n"
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_shared_echo, ["a", "b", "c"]) == [b"a\n", b"b\n", b"c\n"]
    shared().close()


def test_asyncio(box: Sandbox) -> None:
    async def main() -> list[Ran]:
        return await asyncio.gather(*(asyncio.to_thread(one, box, ECHO, Case(b"%d" % i)) for i in range(10)))

    assert [ran.stdout for ran in asyncio.run(main())] == [b"%d\n" % i for i in range(10)]


def test_signals_and_alarms_of_the_host_are_untouched(box: Sandbox) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        one(box, "while True: pass", limits=Limits(cpu_s=0.1))
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


# --- isolation levels


def test_lower_level_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sleep").symlink_to("/bin/sleep")  # the probe's victim
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RewardError, match="bwrap is missing: install bubblewrap"):
        Sandbox("namespaces")
    with Sandbox() as box:
        assert box.level == "landlock"


def test_a_machine_without_isolation_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RewardError, match="best: unknown isolation level"):
        Sandbox("best")  # type: ignore[arg-type]
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(restrict, "landlock_version", lambda: 0)
    with pytest.raises(RewardError, match=r"cannot isolate untrusted code \(.*bwrap is missing.*no Landlock"):
        Sandbox()


def test_selfcheck() -> None:
    began = time.monotonic()
    _, attacks = selfcheck()
    assert all(stopped for _, stopped in attacks), attacks
    assert len(attacks) > 15
    assert time.monotonic() - began < 10


def test_the_attacks_of_the_probe_succeed_without_isolation(tmp_path: Path) -> None:
    """Aimed at the victim process instead of this one."""
    with probe.world() as targets:
        program = tmp_path / "probe.py"
        program.write_text(probe.PROGRAM)
        aimed = {name: attack.replace("os.getppid()", "world['victim']") for name, attack in probe.ATTACKS.items()}
        targets["attacks"] = aimed
        command = [sys.executable, program]
        done = subprocess.run(command, input=json.dumps(targets), capture_output=True, text=True, env={"TOKEN": "x"})
    through = json.loads(done.stdout)
    assert sum(through.values()) > 10, through


@pytest.mark.parametrize("kind", filters.KINDS)
def test_another_architecture_is_killed(kind: str) -> None:
    steps = list(struct.iter_unpack("HBBI", filters.write(kind)))
    assert steps[0] == (0x20, 0, 0, 4)  # load the architecture
    assert steps[1][3] == {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[os.uname().machine]  # linux/audit.h
    assert any(code == 6 and value == 0x80000000 for code, _, _, value in steps)


# --- files

WRITES = """
import os, tempfile
folder = tempfile.gettempdir()
print(os.listdir(folder))
with open(folder + "/notes.txt", "w") as file: file.write("a")
with open(folder + "/notes.txt") as file: print(file.read())
with tempfile.TemporaryFile() as file: file.write(b"b"); file.seek(0); print(file.read())
with tempfile.NamedTemporaryFile("w+") as file: print(os.path.exists(file.name))
for path in ("x", "/x", "/tmp/x", "/scratch/x", folder + "/../x", "/usr/x"):
    try:
        open(path, "w")
        print(path)
    except OSError:
        pass
try: os.mkdir(folder + "/deep"); print("deep")
except OSError: pass
"""


def test_temporary_files_are_private_and_last_for_one_test() -> None:
    with Sandbox("namespaces") as box:
        runs = box.python(WRITES, [Case(), Case()]).runs
        assert [ran.stdout for ran in runs] == [b"[]\na\nb'b'\nTrue\n"] * 2, runs
        assert one(box, "import os\nprint(os.listdir('/scratch'))  # tempfile").message.startswith("PermissionError")
        endless = (
            "import tempfile\nfiles = []\nwhile True:\n    with tempfile.NamedTemporaryFile(delete=False) as file:"
        )
        endless += "\n        file.write(bytes(1 << 20))"
        assert one(box, endless, limits=Limits(cpu_s=2)).status in ("exit", "timeout")
        assert box.python(WRITES, [Case()]).runs[0].stdout == runs[0].stdout


# --- what Python programs may import

FIND_PACKAGES = """
import glob, sys
sys.path += [path + "/" + name for path in sys.path for name in ("site-packages", "dist-packages")]
sys.path += glob.glob("/usr/l*/**/*-packages", recursive=True)
for name in ("pip", "setuptools", "pydantic", "yaml", "apt"):
    try:
        __import__(name)
        print(name)
    except ImportError:
        pass
"""


def test_other_packages_of_the_machine_are_not_readable(box: Sandbox) -> None:
    assert one(box, FIND_PACKAGES).stdout == b""


def test_the_environment_for_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = envs.env_dir("sandbox")
    assert environment.packages() == os.path.realpath(folder / "lib" / "python3.11" / "site-packages")
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    with pytest.raises(RewardError, match=r"run `python3 -m launchers\.envs sandbox`"):
        environment.packages()
    with Sandbox() as box:  # which has the standard library alone
        assert one(box, "print(1)").stdout == b"1\n"
        assert one(box, "import numpy").message == "ModuleNotFoundError: No module named 'numpy'"
