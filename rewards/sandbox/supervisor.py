"""The supervisor: starts zygotes, sends cases, collects results. It never runs a candidate's code.

Runs in the caller's process. It trusts what zygotes and jobs report, but not what test processes write. Expected
outputs do not pass through it: callers compare. A zygote or job that is killed from outside is replaced.
"""

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from rewards import forks
from rewards.errors import NotGraded
from rewards.sandbox.inside import interpreter
from rewards.sandbox.levels import Start
from rewards.sandbox.types import Built, Case, Limits, Program, Ran

_START_SECONDS = 120.0  # enough for a cold import of sympy from a slow disk under load
_TRIES = 3  # one may fail because the zygote is about to end
_SLACK_SECONDS = 60.0  # beyond a job's wall limit, before it counts as lost
_LAST_SECONDS = 1.0  # for a program to end after its tests; the verdicts are complete by then
_MESSAGE_CHARS = 500
_SEAL_ALL, _MFD_EXEC = 0xF, 0x10  # linux/fcntl.h, linux/memfd.h
_COMPILER_OUT_OF_MEMORY = ("virtual memory exhausted", "out of memory", "Cannot allocate memory")
_OUT_OF_MEMORY = ("MemoryError", "what():  std::bad_alloc")

T = TypeVar("T")
_lock = forks.lock()  # serialises starting and closing zygotes of all runners


class Lost(Exception):
    """A zygote or job ended unexpectedly."""


class ZygoteLost(Lost):
    """The zygote has ended or is about to: bubblewrap ends a moment after it."""


class Zygote:
    """A running zygote. ready: its reply to the first message. Raises Lost if it does not start."""

    def __init__(self, start: Start, environment: Mapping[str, str] | None = None) -> None:
        command, settings = start
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the zygote
        self.control, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        started = threading.Event()

        def keep() -> None:
            # PR_SET_PDEATHSIG fires when the *thread* that started the child ends, so this one waits for the child.
            try:
                self._process = subprocess.Popen(
                    command, stdin=child_end.fileno(), stdout=subprocess.DEVNULL, stderr=self._errors, cwd="/",
                    env=environment or {}, start_new_session=True,
                )  # fmt: skip
            finally:
                started.set()
            self._process.wait()

        self._keeper = threading.Thread(target=keep, daemon=True, name="sandbox")
        self._keeper.start()
        started.wait()
        child_end.close()
        try:
            self.control.settimeout(_START_SECONDS)
            self.control.send(json.dumps(settings).encode())
            self.ready = self.control.recv(4096)
        except OSError:
            self.ready = b""
        if not self.ready:
            problem = os.pread(self._errors.fileno(), 1 << 16, 0).decode(errors="replace").strip()[-_MESSAGE_CHARS:]
            self.close()
            raise Lost(problem or f"{command[0]} did not start")

    @property
    def is_own(self) -> bool:
        """Whether this process started the zygote; forks of that process must not end it."""
        return self._owner == os.getpid()

    def close(self) -> None:
        """End the zygote if this process started it, and close this process's descriptors."""
        if self.is_own:
            with contextlib.suppress(OSError):
                self.control.shutdown(socket.SHUT_RDWR)  # works even if forks hold copies of the socket
            if self._process is not None:
                self._process.kill()
            self._keeper.join()
        self.control.close()
        self._errors.close()


class Runner:
    """Runs jobs on a zygote, started on demand and restarted after a kill or in a fork. Thread-safe."""

    def __init__(self, start: Callable[[], Start]) -> None:
        self._start = start
        self._zygote: Zygote | None = None

    def retry(self, work: Callable[[], T]) -> T:
        """The result of `work`, retried if its job is lost. Raises NotGraded after _TRIES lost jobs."""
        reason = ""
        for _ in range(_TRIES):
            try:
                return work()
            except Lost as problem:
                reason = str(problem)
        raise NotGraded(f"the sandbox: {reason}")

    @contextlib.contextmanager
    def job(self, request: Mapping[str, Any], payload: int) -> Iterator[socket.socket]:
        """A socket to a new job that ends with the block. Raises Lost."""
        ours, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, child_end:
            with _lock:
                if self._zygote is not None and not self._zygote.is_own:
                    self._zygote.close()
                    self._zygote = None
                self._zygote = zygote = self._zygote or Zygote(self._start())
            try:
                try:
                    socket.send_fds(zygote.control, [json.dumps(request).encode()], [child_end.fileno(), payload])
                except OSError as problem:
                    raise ZygoteLost(f"the zygote is gone: {problem}") from None
                child_end.close()
                yield ours
            except ZygoteLost:
                self.close(zygote)  # so that the next try starts another one
                raise
            finally:
                with contextlib.suppress(OSError):
                    ours.shutdown(socket.SHUT_RDWR)

    def close(self, only: Zygote | None = None) -> None:
        """End the zygote; with `only`, unless it has been replaced by another one."""
        with _lock:
            if self._zygote is not None and only in (None, self._zygote):
                self._zygote.close()
                self._zygote = None


@contextlib.contextmanager
def memfd(*parts: bytes, executable: bool = False) -> Iterator[int]:
    """An anonymous file with `parts`, positioned at the start; an executable one is sealed."""
    flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if executable else 0)
    try:
        fd = os.memfd_create("case", flags | (_MFD_EXEC if executable else 0))
    except OSError:  # kernels before 6.3: all memfds are executable
        fd = os.memfd_create("case", flags)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
        if executable:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL_ALL)
        yield fd
    finally:
        os.close(fd)


def ask(sock: socket.socket, seconds: float, compiling: bool = False) -> tuple[dict[str, Any], list[int]]:
    """The job's next message and its descriptors. Raises Lost if the job ended (except while compiling) or did not
    reply for far longer than its limits allow.
    """
    sock.settimeout(seconds + _SLACK_SECONDS)
    try:
        message, fds, _, _ = socket.recv_fds(sock, 1 << 17, 64)
    except OSError as problem:
        raise Lost(f"the job does not respond: {problem}") from None
    if not message:
        raise ZygoteLost("the zygote was killed")
    report: dict[str, Any] = json.loads(message)
    if "ended" in report and not (compiling and report["ended"] != -signal.SIGKILL):
        raise Lost(f"the job {_ending(report['ended'])}")
    return report, fds


def compile_error(sock: socket.socket, limits: Limits) -> str | None:
    """The compiler's error for the Python program of a new job, None if it compiles. Raises Lost."""
    report, _ = ask(sock, limits.wall_s, compiling=True)
    return f"the compiler {_ending(report['ended'])}" if "ended" in report else report.get("compile_error")


def built(sock: socket.socket, limits: Limits) -> Built:
    """The result of a new job's build. Raises Lost."""
    report, fds = ask(sock, limits.wall_s)
    try:
        log = os.pread(fds[0], report["log"], 0).decode("utf-8", "replace")
        outputs = {name: read(fd, limits) for name, fd in zip(report["outputs"], fds[1:], strict=True)}
    finally:
        for fd in fds:
            os.close(fd)
    code, cpu_s = report["code"], report["cpu_s"]
    if report["why"] or code == -signal.SIGXCPU or (code and "CPU time limit exceeded" in log):
        return Built("timeout", log, {}, cpu_s, "the compiler took too long")
    if code and any(words in log for words in _COMPILER_OUT_OF_MEMORY):
        return Built("memory", log, {}, cpu_s, f"the compiler needs over {limits.memory_mb} MB of memory")
    if code:
        return Built("signal" if code < 0 else "exit", log, {}, cpu_s, f"the compiler {_ending(code)}")
    return Built("ok", log, outputs, cpu_s)


def _ending(code: int) -> str:
    """How a process with this exit code ended, as the predicate of a message."""
    if code == -signal.SIGXCPU:
        return "used up its CPU time"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def run_case(sock: socket.socket, case: Case, limits: Limits) -> Ran:
    """Run one case in a test process. Raises Lost."""
    stdin, call = (case.stdin, None) if case.call is None else (json.dumps(case.call[1]).encode(), case.call[0])
    with contextlib.ExitStack() as files:
        return CaseProcess(files, sock, limits, stdin, {}, case.result or call is not None, call).end()


class CaseProcess:
    """A started test process. files: closes its files. stdin: content of descriptor 0. fds: further descriptors, number
    in the process -> descriptor here. result: whether it writes a result to descriptor 3. Raises Lost.
    """

    def __init__(
        self, files: contextlib.ExitStack, sock: socket.socket, limits: Limits, stdin: bytes, fds: Mapping[int, int],
        result: bool = False, call: str | None = None, role: str = "",
    ) -> None:  # fmt: skip
        self.sock, self._limits = sock, limits
        numbers = [0, 1, 2] + [interpreter.RESULT_FD] * result
        self._files = {at: files.enter_context(memfd(stdin if at == 0 else b"")) for at in numbers}
        descriptors = {**self._files, **fds}
        message = {**vars(limits), "at": list(descriptors), "call": call, "role": role}
        try:
            socket.send_fds(sock, [json.dumps(message).encode()], list(descriptors.values()))
        except OSError as problem:
            raise Lost(f"the job is gone: {problem}") from None

    def end(self) -> Ran:
        """Wait until it ends. The status comes from its job; its stderr is used only for the message, except that a
        nonzero exit code with an out-of-memory message counts as `memory`.
        """
        limits = self._limits
        report, _ = ask(self.sock, limits.wall_s)
        stdout, stderr, *results = (read(fd, limits) for at, fd in self._files.items() if at)
        code, cpu_s = report["code"], report["cpu_s"]
        last = stderr[-4096:].decode("utf-8", "replace").strip().rpartition("\n")[2].strip()[:_MESSAGE_CHARS]
        status, message = "ok", ""
        if report["why"] == "wall":
            status, message = "timeout", f"still running after {limits.wall_s:g} s of wall time"
        elif report["why"] == "cpu" or cpu_s > limits.cpu_s or code == -signal.SIGXCPU:
            status, message = "timeout", f"over {limits.cpu_s:g} s of CPU time"
        elif code == -signal.SIGXFSZ or max(map(len, (stdout, *results))) >= limits.output_kb << 10:
            status, message = "output_limit", f"more than {limits.output_kb} kB of output"
        elif report["peak_mb"] > limits.memory_mb or (code and last.startswith(_OUT_OF_MEMORY)):
            status, message = "memory", f"over {limits.memory_mb} MB of memory"
        elif code < 0:
            status, message = "signal", f"{signal.Signals(-code).name}{': ' if last else ''}{last}"
        elif code:
            status, message = "exit", last or f"exit code {code}"
        elif results == [b""]:
            status, message = "exit", "ended without a result"
        return Ran(status, stdout, results[0] if results else b"", cpu_s, report["peak_mb"], message)  # type: ignore[arg-type]


def read(fd: int, limits: Limits) -> bytes:
    """The output of an ended process, up to its limit."""
    return os.pread(fd, min(os.fstat(fd).st_size, limits.output_kb << 10), 0)


def run_tests(
    files: contextlib.ExitStack, candidate: socket.socket, judge: socket.socket, settings: Mapping[str, Any],
    limits: Limits,
) -> Program:  # fmt: skip
    """Run the tests' process and the program's, connected by a channel, until the tests are done. Raises Lost."""
    ends = [files.enter_context(end) for end in socket.socketpair()]
    fds = [{interpreter.CHANNEL_FD: end.fileno()} for end in ends]
    channel = {"most": limits.output_kb << 10}
    # Higher limits: the tests hold expected and actual values, may compute the expected ones, and wait for the program.
    judging = replace(
        limits, cpu_s=2 * limits.cpu_s, memory_mb=2 * limits.memory_mb, output_kb=4 * limits.output_kb,
        wall_s=2 * limits.wall_s,
    )  # fmt: skip
    stdin = json.dumps({**settings, **channel}).encode()
    tests = CaseProcess(files, judge, judging, stdin, fds[0], result=True, role="judge")
    stdin = json.dumps(channel | {"declarations": settings["declarations"]}).encode()
    program = CaseProcess(files, candidate, limits, stdin, fds[1], role="candidate")

    def wait(*socks: socket.socket, seconds: float = judging.wall_s + _SLACK_SECONDS) -> bool:
        """Wait for a process to end, close its side of the channel, which forks of this process may keep open, and
        return whether the program has ended.
        """
        ready = select.select(socks, [], [], seconds)[0]
        ends[0 if judge in ready else 1].shutdown(socket.SHUT_RDWR)
        return candidate in ready

    runs = [program.end()] if wait(judge, candidate) else []
    verdicts = tests.end()
    if not runs and wait(candidate, seconds=_LAST_SECONDS):  # otherwise it is killed with its job
        runs = [program.end()]
    return Program(None, runs, verdicts)
