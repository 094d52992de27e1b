"""The supervisor: starts zygotes, hands out cases, collects what came back. It never runs a candidate's code.

It holds no expected output either: callers compare. A zygote or job that is killed from outside is replaced and
the case it was on is run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rewards.sandbox.inside import interpreter
from rewards.sandbox.levels import Start
from rewards.sandbox.types import Built, Case, Limits, Program, Ran, TestRun

_START_SECONDS = 60.0
_TRIES = 3  # of which a zygote that takes a moment to end can cost one
_SLACK_SECONDS = 60.0  # over a job's wall limit, before it counts as lost
_LAST_MS = 1000  # for a program to end after its tests; what it does then changes no verdict
_MESSAGE_CHARS = 500
_SEAL_ALL, _MFD_EXEC = 0xF, 0x10  # linux/fcntl.h, linux/memfd.h
_COMPILER_OUT_OF_MEMORY = ("virtual memory exhausted", "out of memory", "Cannot allocate memory")
_OUT_OF_MEMORY = ("MemoryError", "what():  std::bad_alloc")


KeepGoing = Callable[[int, Ran], bool]


class Lost(Exception):
    """A zygote or job ended although nothing in it should have ended it."""


class ZygoteLost(Lost):
    """The zygote itself is gone, or about to be: bubblewrap ends a moment after it."""


class Zygote:
    """A running zygote, and the jobs it forks. Thread-safe."""

    def __init__(self, start: Start) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the zygote
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        started = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(start, theirs, started), daemon=True, name="sandbox")
        keeper.start()
        started.wait()
        theirs.close()
        try:
            self.control.settimeout(_START_SECONDS)
            self.control.send(json.dumps(start.settings).encode(), socket.MSG_NOSIGNAL)
            ready = self.control.recv(4096)
        except OSError:
            ready = b""
        if not ready:
            error_text = self.errors()
            self.close()
            raise Lost(error_text or f"{start.command[0]} did not start")

    def _keep(self, start: Start, theirs: socket.socket, started: threading.Event) -> None:
        # A child's death signal comes when the *thread* that started it ends: this one stays as long as the child.
        try:
            self._process = subprocess.Popen(
                start.command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self._errors, env={}, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as problem:
            self._errors.write(f"{start.command[0]}: {problem.strerror}".encode())
            self._errors.flush()
        started.set()
        if self._process is not None:
            self._process.wait()

    def errors(self) -> str:
        """The last line that the zygote wrote before it ended."""
        with contextlib.suppress(ValueError):
            return os.pread(self._errors.fileno(), 1 << 16, 0).decode(errors="replace").strip()[-_MESSAGE_CHARS:]
        return ""

    def job(self, request: Mapping[str, Any], payload: int) -> socket.socket:
        """A socket to a new job. Raises Lost."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            try:
                socket.send_fds(self.control, [json.dumps(request).encode()], [theirs.fileno(), payload])
            except OSError as problem:
                ours.close()
                raise ZygoteLost(f"the zygote is gone: {problem}") from None
        return ours

    def gone(self) -> bool:
        return self._process is None or self._process.returncode is not None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # copies of the socket in forks of this process do not count
        if self._process is not None:
            self._process.kill()
        self.forget()

    def forget(self) -> None:
        """Close what is ours without ending the process (another process owns it)."""
        self.control.close()
        self._errors.close()


class Runner:
    """Runs jobs on a zygote that it starts when needed and starts again when it was killed."""

    def __init__(self, start: Callable[[], Start]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self.last_problem = ""  # why a zygote did not start
        _runners.add(self)

    def python(
        self, code: str, cases: Sequence[Case], limits: Limits, keep_going: KeepGoing | None, preamble: str = ""
    ) -> Program:
        request = {"kind": "python", "compile_cpu_s": limits.compile_cpu_s, "preamble": preamble}
        with memfd(code.encode("utf-8", "surrogatepass")) as payload:
            return self._each(request, payload, limits, cases, {}, keep_going)

    def execute(
        self,
        binary: bytes,
        argv: Sequence[str],
        cases: Sequence[Case],
        limits: Limits,
        channels: Mapping[int, bytes | None],
        keep_going: KeepGoing | None,
    ) -> list[Ran]:
        with memfd(binary, executable=True) as payload:
            request = {"kind": "binary", "argv": list(argv)}
            return self._each(request, payload, limits, cases, channels, keep_going).runs

    def _each(
        self,
        request: Mapping[str, Any],
        payload: int,
        limits: Limits,
        cases: Sequence[Case],
        channels: Mapping[int, bytes | None],
        keep_going: KeepGoing | None,
    ) -> Program:
        """Every case in order; where the job is lost, a second one goes on from the case that it was on."""
        runs: list[Ran] = []
        lost = ""
        for _ in range(_TRIES):
            try:
                with self.job(request, payload) as sock:
                    problem = _compile_error(ask(sock, limits.wall_s)) if request["kind"] == "python" else None
                    if problem:
                        return Program(problem, [])
                    while len(runs) < len(cases):
                        ran = run_case(sock, cases[len(runs)], limits, channels)
                        runs.append(ran if ran.status == "ok" else replace(ran, result=b""))
                        if keep_going is not None and not keep_going(len(runs) - 1, runs[-1]):
                            break
                    return Program(None, runs)
            except Lost as reason:
                lost = str(reason)
        return Program(None, runs + [Ran("error", message=lost)] * (len(cases) - len(runs)))

    def run_tests(
        self, program: str, tests: str, settings: Mapping[str, Any], limits: Limits, judging: Limits, processes: int,
        again: Callable[[Sequence[Ran]], bool],
    ) -> TestRun:  # fmt: skip
        """See Sandbox.run_tests."""
        request = {"kind": "python", "compile_cpu_s": limits.compile_cpu_s}
        lost = ""
        with memfd(program.encode("utf-8", "surrogatepass")) as code, memfd(tests.encode()) as source:
            for _ in range(_TRIES):
                try:
                    with self.job(request, code) as candidate, self.job(request, source) as judging_job:
                        if problem := _compile_error(ask(candidate, limits.wall_s)):
                            return TestRun(problem, Ran("ok"), [])
                        if problem := _compile_error(ask(judging_job, limits.wall_s)):
                            return TestRun(None, Ran("exit", message=problem), [])
                        with contextlib.ExitStack() as files:
                            test_run = _TestRun(files, candidate, judging_job, settings, limits, judging, processes)
                            return test_run.run(again)
                except Lost as reason:
                    lost = str(reason)
        return TestRun(None, Ran("error", message=lost), [])

    def build(self, files: Mapping[str, bytes], argv: Sequence[str], limits: Limits, outputs: Sequence[str]) -> Built:
        header = {"files": [[n, len(data)] for n, data in files.items()], "argv": list(argv), "outputs": list(outputs)}
        packed = json.dumps(header).encode()
        lost = ""
        with memfd(len(packed).to_bytes(8, "little") + packed, *files.values()) as payload:
            for _ in range(_TRIES):
                try:
                    with self.job({"kind": "build"} | asdict(limits), payload) as sock:
                        return _built(*ask_fds(sock, limits.wall_s), limits)
                except Lost as reason:
                    lost = str(reason)
        return Built("error", "", {}, message=lost)

    @contextlib.contextmanager
    def job(self, request: Mapping[str, Any], payload: int) -> Iterator[socket.socket]:
        """A socket to a new job; the job ends with the block. Raises Lost."""
        zygote = self._running()
        try:
            with zygote.job(request, payload) as sock:
                try:
                    yield sock
                finally:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
        except ZygoteLost:
            self._drop(zygote)  # the next try must not meet it again
            raise

    def _drop(self, zygote: Zygote) -> None:
        with self._lock:
            if self._zygote is zygote:
                zygote.close()
                self._zygote = None

    def _running(self) -> Zygote:
        with self._lock:
            if self._zygote is not None and self._zygote.gone():
                self._zygote.close()
                self._zygote = None
            if self._zygote is None:
                try:
                    self._zygote = Zygote(self._start())
                except Lost as problem:
                    self.last_problem = str(problem)
                    raise
            return self._zygote

    def close(self) -> None:
        with self._lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def forget(self) -> None:
        """After fork, in the child: the parent's zygote is left alone, this process will start its own."""
        self._lock = threading.Lock()
        if self._zygote is not None:
            self._zygote.forget()
            self._zygote = None


_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


def _after_fork() -> None:
    for runner in _runners:
        runner.forget()


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def memfd(*parts: bytes, executable: bool = False) -> Iterator[int]:
    """An anonymous file that holds `parts`, at its start; nobody can change an executable one."""
    fd = _executable_memfd() if executable else os.memfd_create("case", os.MFD_CLOEXEC)
    try:
        at = 0
        for part in parts:
            rest = memoryview(part)
            while rest:
                written = os.pwrite(fd, rest, at)
                at, rest = at + written, rest[written:]
        if executable:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL_ALL)
        yield fd
    finally:
        os.close(fd)


def _executable_memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("program", flags | _MFD_EXEC)
    except OSError:  # a kernel before 6.3: all are executable
        return os.memfd_create("program", flags)


def ask(sock: socket.socket, seconds: float) -> dict[str, Any]:
    """The job's next message. Raises Lost if it died or says nothing for far longer than it may take."""
    return ask_fds(sock, seconds)[0]


def ask_fds(sock: socket.socket, seconds: float) -> tuple[dict[str, Any], list[int]]:
    """As `ask`, with the descriptors that came beside the message."""
    sock.settimeout(seconds + _SLACK_SECONDS)
    try:
        message, fds, _, _ = socket.recv_fds(sock, 1 << 17, 64)
    except OSError as problem:
        raise Lost(f"the job does not answer: {problem}") from None
    if not message:
        raise ZygoteLost("the zygote was killed")
    report = json.loads(message)
    assert isinstance(report, dict)
    if report.get("ended") == -signal.SIGKILL:
        raise Lost("the job was killed")
    return report, fds


def _built(report: Mapping[str, Any], fds: Sequence[int], limits: Limits) -> Built:
    if "ended" in report:
        raise Lost(f"the job {_ending(report['ended'])}")
    try:
        log = os.pread(fds[0], report["log"], 0).decode("utf-8", "replace")
        names = zip(report["outputs"], fds[1:], strict=True)
        outputs = {name: read(fd, limits.output_kb << 10) for name, fd in names}
    finally:
        for fd in fds:
            os.close(fd)
    code = report["code"]
    if report["why"] or code == -signal.SIGXCPU or (code and "CPU time limit exceeded" in log):
        return Built("timeout", log, {}, report["cpu_s"], "the compiler took too long")
    if code and any(words in log for words in _COMPILER_OUT_OF_MEMORY):
        return Built("memory", log, {}, report["cpu_s"], f"the compiler needs over {limits.memory_mb} MB of memory")
    if code:
        return Built("signal" if code < 0 else "exit", log, {}, report["cpu_s"], f"the compiler {_ending(code)}")
    return Built("ok", log, outputs, report["cpu_s"])


def _compile_error(report: Mapping[str, Any]) -> str | None:
    if "ended" in report:
        return f"the compiler {_ending(report['ended'])}"
    return report.get("compile_error")


def _ending(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "used up its CPU time"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def run_case(sock: socket.socket, case: Case, limits: Limits, channels: Mapping[int, bytes | None]) -> Ran:
    """One test process's run. Raises Lost."""
    called = case.call is not None or case.result
    fed = case.stdin if case.call is None else json.dumps(case.call[1]).encode()
    with contextlib.ExitStack() as files:
        pipes: dict[int, Pipe] = {}
        fds: dict[int, int] = {}
        for at, data in channels.items():
            if data is None:
                pipes[at] = files.enter_context(Pipe())
            fds[at] = pipes[at].write_end if data is None else files.enter_context(memfd(data))
        ran = CaseProcess(files, sock, limits, fed, fds, call=case.call and case.call[0], result=called).end()
        return replace(ran, channels={at: pipe.drain() for at, pipe in pipes.items()}) if pipes else ran


class CaseProcess:
    """A test process that was started: its files, and how it ended. result: it writes one on descriptor 3.

    Raises Lost.
    """

    def __init__(
        self,
        files: contextlib.ExitStack,
        sock: socket.socket,
        limits: Limits,
        fed: bytes,
        fds: Mapping[int, int],
        call: str | None = None,
        role: str = "",
        result: bool = False,
    ) -> None:
        self.sock, self._limits = sock, limits
        stdin, self._stdout, self._stderr = (files.enter_context(memfd(part)) for part in (fed, b"", b""))
        placed = {0: stdin, 1: self._stdout, 2: self._stderr, **fds}
        self._result = files.enter_context(memfd()) if result else None
        if self._result is not None:
            placed[interpreter.RESULT_FD] = self._result
        send(sock, asdict(limits) | {"at": list(placed), "call": call, "role": role}, list(placed.values()))

    def end(self) -> Ran:
        """Wait for it."""
        report = ask(self.sock, self._limits.wall_s)
        if "ended" in report:
            raise Lost(f"the job {_ending(report['ended'])}")
        most = self._limits.output_kb << 10
        value = read(self._result, most) if self._result is not None else b""
        error_text = read(self._stderr, most)[-4096:]
        return judge(report, self._limits, read(self._stdout, most), error_text, value, self._result is not None)


class _TestRun:
    """The tests' process and the program's, one after another, with a channel of its own for each."""

    def __init__(
        self, files: contextlib.ExitStack, candidate: socket.socket, judge: socket.socket, settings: Mapping[str, Any],
        limits: Limits, judging: Limits, processes: int,
    ) -> None:  # fmt: skip
        self._files, self._candidate, self._limits = files, candidate, limits
        pairs = [socket.socketpair() for _ in range(processes)]
        self._ends = [files.enter_context(theirs) for _, theirs in pairs]
        fds = {interpreter.CHANNEL_FD + at: ours.fileno() for at, (ours, _) in enumerate(pairs)}
        own = {"most": limits.output_kb << 10}
        self._declared = json.dumps(own | {"declarations": settings["declarations"]}).encode()
        fed = json.dumps({**settings, **own, "fds": list(fds)}).encode()
        limits = replace(judging, wall_s=judging.wall_s * (processes + 1))
        self._judge = CaseProcess(files, judge, limits, fed, fds, role="judge", result=True)
        for ours, _ in pairs:
            ours.close()
        self._seconds = limits.wall_s + _SLACK_SECONDS
        self._runs: list[Ran] = []

    def run(self, again: Callable[[Sequence[Ran]], bool]) -> TestRun:
        """Until the tests are done. Raises Lost."""
        poll = select.poll()
        for sock in (self._judge.sock, self._candidate, *self._ends[1:]):
            poll.register(sock, select.POLLIN)
        running: CaseProcess | None = self._start()
        while ready := dict(poll.poll(1000 * self._seconds)):
            if self._candidate.fileno() in ready and running is not None:
                self._end(running)
                running = None
            elif self._judge.sock.fileno() in ready:
                judge = self._judge.end()
                if running is not None:
                    self._ends[len(self._runs)].shutdown(socket.SHUT_RDWR)
                    if _readable(self._candidate):  # else it is killed with its job
                        self._end(running)
                return TestRun(None, judge, self._runs)
            else:  # the tests ask a process that has not been started
                fd, event = ready.popitem()
                poll.unregister(fd)
                if event & select.POLLHUP:
                    continue  # the tests' process has ended, as its job will say
                if running is not None:  # they have given up on the one before
                    self._ends[len(self._runs)].shutdown(socket.SHUT_RDWR)
                    self._end(running)
                end = self._ends[len(self._runs)]
                if again(self._runs):
                    running = self._start()
                else:
                    end.shutdown(socket.SHUT_RDWR)
        raise Lost("the tests do not end")

    def _start(self) -> CaseProcess:
        fds = {interpreter.CHANNEL_FD: self._ends[len(self._runs)].fileno()}
        return CaseProcess(self._files, self._candidate, self._limits, self._declared, fds, role="candidate")

    def _end(self, running: CaseProcess) -> None:
        at = len(self._runs)
        self._runs.append(running.end())
        self._ends[at].shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it open


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(_LAST_MS))


class Pipe:
    """What goes in cannot be taken back by whoever wrote it. Holds 64 KiB; then its writer waits."""

    def __enter__(self) -> Pipe:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)  # a fork of this process may hold the other end open
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read_end)
        os.close(self.write_end)

    def drain(self) -> bytes:
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._read_end, 1 << 16):
                parts.append(part)
        return b"".join(parts)


def send(sock: socket.socket, order: Mapping[str, Any], fds: Sequence[int]) -> None:
    try:
        socket.send_fds(sock, [json.dumps(order).encode()], fds, socket.MSG_NOSIGNAL)
    except OSError as problem:
        raise Lost(f"the job is gone: {problem}") from None


def read(fd: int, most: int) -> bytes:
    """All that a test process wrote, at most `most` bytes. The test process has ended."""
    size = min(os.fstat(fd).st_size, most)
    return os.pread(fd, size, 0) if size else b""


def judge(report: Mapping[str, Any], limits: Limits, stdout: bytes, stderr: bytes, result: bytes, called: bool) -> Ran:
    """How a test process's run ended, from what its job saw; its own words (stderr) only fill the message."""
    code, cpu_s = report["code"], report["cpu_s"]
    error_text = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2].strip()[:_MESSAGE_CHARS]
    status, message = "ok", ""
    if report["why"] == "wall":
        status, message = "timeout", f"still running after {limits.wall_s:g} s of wall time"
    elif report["why"] == "cpu" or cpu_s > limits.cpu_s or code == -signal.SIGXCPU:
        status, message = "timeout", f"over {limits.cpu_s:g} s of CPU time"
    elif code == -signal.SIGXFSZ or max(len(stdout), len(result)) >= limits.output_kb << 10:
        status, message = "output_limit", f"more than {limits.output_kb} kB of output"
    elif report["peak_mb"] > limits.memory_mb or (code and error_text.startswith(_OUT_OF_MEMORY)):
        status, message = "memory", f"over {limits.memory_mb} MB of memory"
    elif code < 0:
        status, message = "signal", f"{signal.Signals(-code).name}{': ' if error_text else ''}{error_text}"
    elif code:
        status, message = "exit", error_text or f"exit code {code}"
    elif called and not result:
        status, message = "exit", "ended without a result"
    return Ran(status, code if code >= 0 else None, stdout, result, cpu_s, report["wall_s"], report["peak_mb"], message)  # type: ignore[arg-type]
