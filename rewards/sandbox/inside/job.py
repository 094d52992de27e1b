"""A job: one solution's process. It restricts itself, compiles, forks a test process per case and enforces the limits.

It parses the candidate's program but never executes it, and the supervisor trusts its reports. The main limit is CPU
time, read from the test process's clock, which that process cannot stop. RLIMIT_CPU (whole seconds) is a second bound,
and the wall limit a fallback.
"""

import contextlib
import fcntl
import gc
import json
import math
import os
import resource
import select
import shutil
import signal
import socket
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType
from typing import Any, NoReturn

from . import interpreter, restrict

_SHORTEST_WAIT = 0.002  # seconds between two readings of the CPU clock
_SELF_MB = 1024  # address space for compiling
_LOG_BYTES = 64 << 10
_SEAL_GROW = 0x0004
_ABOVE = 512  # duplicates of descriptors get numbers from here on, which collide with no other


class Restrictions:
    """The restrictions of all jobs of this zygote. settings: see rewards/sandbox/levels.py."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.filters = {kind: restrict.Filter(bytes.fromhex(bpf)) for kind, bpf in settings["filters"].items()}
        self.rules = restrict.landlock_rules(map(tuple, settings["paths"]))

    def uid(self, number: int) -> int | None:
        """The user id of a job by its number: jobs cannot signal or inspect each other, and each has its own thread
        count. None: the user id stays the same.
        """
        first = self.settings["first_uid"]
        return None if first is None else int(first + number % self.settings["uid_count"])

    def enter(self, folder: str = "") -> None:
        """Apply the restrictions that a job shares with its test processes. folder: a writable one."""
        rules = self.rules
        if folder and rules is not None:
            os.close(rules)
            rules = restrict.landlock_rules([*map(tuple, self.settings["paths"]), (folder, restrict.READ_WRITE)])
        restrict.give_up_rights(rules)
        restrict.undumpable()


def run_python(request: dict[str, Any], sock: socket.socket, payload: int, restrictions: Restrictions) -> None:
    """Serve a Python solution until its socket closes. The payload is its source."""
    source = os.pread(payload, os.fstat(payload).st_size, 0)
    os.close(payload)
    scratch = restrictions.settings["scratch"]
    folder = tempfile.mkdtemp(dir=scratch) if scratch and b"tempfile" in source else ""
    if folder:
        os.environ["TMPDIR"] = folder
    restrictions.enter(folder)
    code = _compiled(source, request["compile_cpu_s"], sock)
    if code is not None:
        names: dict[str, Any] = {}
        if preamble := request.get("preamble"):
            exec(preamble, names)  # noqa: S102 - the supervisor's own text
        gc.freeze()  # a collection in a test process would write to, and so copy, the pages of existing objects
        start = lambda case: interpreter.run(code, case["call"], names, case["role"])  # noqa: E731
        _serve(sock, start, restrictions, "python", folder=folder)
    if folder:
        os.rmdir(folder)


def run_binary(request: dict[str, Any], sock: socket.socket, payload: int, restrictions: Restrictions) -> None:
    """Serve a compiled program until its socket closes. The payload is the executable, in a sealed memfd."""
    restrictions.enter()
    program = fcntl.fcntl(payload, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    os.close(payload)
    _serve(sock, lambda _: os.execve(program, request["argv"], {}), restrictions, "binary", [program])  # noqa: S606


def _compiled(source: bytes, cpu_s: int, sock: socket.socket) -> CodeType | None:
    """The compiled program; None if it does not compile, after reporting the error. If the source exhausts the parser,
    this process ends, which the zygote reports.
    """
    limits = {which: resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS)}
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, limits[resource.RLIMIT_CPU][1]))
    resource.setrlimit(resource.RLIMIT_AS, (_SELF_MB << 20, limits[resource.RLIMIT_AS][1]))
    try:
        code = compile(source.decode("utf-8", "surrogatepass"), "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as problem:
        _send(sock, {"compile_error": f"{type(problem).__name__}: {problem}"[:2000]})
        return None
    for which, value in limits.items():
        resource.setrlimit(which, value)
    _send(sock, {"compiled": True})
    return code


def _serve(
    sock: socket.socket, start: Callable[[dict[str, Any]], Any], restrictions: Restrictions, kind: str,
    kept: Sequence[int] = (), folder: str = "",
) -> None:  # fmt: skip
    """Fork a test process for each message, and report how it ended. start(case): runs in the test process. kept:
    descriptors that stay open there. folder: for its temporary files.
    """
    monitor = os.getpid()

    def run(fds: list[int], case: dict[str, Any]) -> None:
        confine(fds, case, monitor, restrictions, kind, kept)
        start(case)

    while message := (received := socket.recv_fds(sock, 1 << 17, 32))[0]:
        fds, case, began = received[1], json.loads(message), time.monotonic()
        pid = restrict.fork(partial(run, fds, case), failed=127)
        for fd in fds:
            os.close(fd)
        report = watch(pid, case, began, sock, lambda pid=pid: _abort(pid, folder))  # type: ignore[misc]
        _clear(folder)
        _send(sock, report)


def _abort(pid: int, folder: str) -> NoReturn:
    """Kill the test process, remove its files and end the job."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _clear(folder)
    if folder:
        os.rmdir(folder)
    os._exit(0)


def _clear(folder: str) -> None:
    """Remove all files in the folder; it has no subfolders, because test processes cannot create any."""
    for entry in os.scandir(folder) if folder else ():
        os.unlink(entry.path)


def confine(
    fds: list[int], case: dict[str, Any], monitor: int, restrictions: Restrictions, kind: str, kept: Sequence[int] = ()
) -> None:
    """Set the descriptors and limits of a test process, and last its seccomp filter. Called in that process, before it
    runs anything untrusted. kept: further descriptors to keep.
    """
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in fds]
    for fd, number in zip(high, case["at"], strict=True):
        os.dup2(fd, number)
    restrict.close_all_but([*case["at"], *kept])
    restrict.die_with_parent(monitor)
    for which, value in (
        (resource.RLIMIT_AS, case["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, case["output_kb"] << 10),
        (resource.RLIMIT_NOFILE, case["open_files"]),
        (resource.RLIMIT_NPROC, restrictions.settings["base_threads"] + case["threads"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        restrict.limit(which, value)
    # A compiler gets SIGXCPU first, which its driver reports. For test processes `watch` has the first bound.
    seconds = math.ceil(case["cpu_s"]) + (kind != "build")
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if kind == "binary":  # glibc gives every thread a stack of this size, or 2 MiB if there is no limit
        resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    elif hard == -1 or hard > interpreter.STACK_BYTES:
        resource.setrlimit(resource.RLIMIT_STACK, (interpreter.STACK_BYTES, hard))
    if kind != "python":  # Python ignores these signals, and exec inherits that: no program would end at its limits
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    restrictions.filters[kind].install()


def watch(
    pid: int, limits: dict[str, Any], began: float, sock: socket.socket, abort: Callable[[], NoReturn]
) -> dict[str, Any]:
    """Wait for a test process, kill it at its limits, and report how it ended. began: when it started (monotonic
    clock). abort: called if the supervisor closes the socket.
    """
    cpu_s, wall_s = limits["cpu_s"], limits["wall_s"]
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(sock, select.POLLHUP)
    why = ""
    cores = len(os.sched_getaffinity(0))
    wait = cpu_s / cores
    while not why:
        ready = poll.poll(1000 * max(_SHORTEST_WAIT, min(wait, began + wall_s - time.monotonic())))
        if any(fd == pidfd for fd, _ in ready):
            break
        if ready:
            abort()
        used = time.clock_gettime((~pid << 3) | 2)  # CPU time of all its threads: clock_getcpuclockid(3)
        wait = (cpu_s - used) / cores
        why = "cpu" if used >= cpu_s else "wall" if time.monotonic() - began >= wall_s else ""
    if why:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    os.close(pidfd)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "why": why,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def _send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send a message to the supervisor; ends the job if it has closed the socket."""
    try:
        sock.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)
    except OSError:
        os._exit(0)


def run_build(request: dict[str, Any], sock: socket.socket, payload: int, restrictions: Restrictions) -> None:
    """Run a compiler in a new directory, and send its result with descriptors of the log and the outputs. The directory
    is removed.

    The payload is a tar archive of the directory's files. The compiler may fork, execute the toolchain's programs and
    write in its directory; it has no network and no /etc.
    """
    restrict.adopt_orphans()
    folder = tempfile.mkdtemp(dir=restrictions.settings["scratch"])
    compiler = 0

    def abort(*_: object) -> NoReturn:
        if compiler:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(compiler, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    # SIGTERM when the zygote ends: after SIGKILL the compiler's children would continue.
    signal.signal(signal.SIGTERM, abort)
    restrict.die_with_parent(request["zygote"], signal.SIGTERM)
    os.chdir(folder)
    with tarfile.open(fileobj=open(payload, "rb"), mode="r:") as files:
        files.extractall()  # noqa: S202 - the supervisor made the archive
    restrictions.enter(folder)
    # The log is a file of fixed size; its shared offset is the number of bytes written.
    log = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(log, _LOG_BYTES)
    fcntl.fcntl(log, fcntl.F_ADD_SEALS, _SEAL_GROW)
    monitor, began = os.getpid(), time.monotonic()

    def compile_it() -> None:
        os.setpgid(0, 0)
        null, argv = os.open(os.devnull, os.O_RDONLY), request["argv"]
        confine([null, log, log], request | {"at": [0, 1, 2]}, monitor, restrictions, "build")
        os.execve(argv[0], argv, {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": "."})  # noqa: S606

    compiler = restrict.fork(compile_it, failed=127)
    with contextlib.suppress(PermissionError):  # it has called setpgid itself, and then exec
        os.setpgid(compiler, compiler)
    report = watch(compiler, request, began, sock, abort)
    with contextlib.suppress(ProcessLookupError):  # processes that the compiler left running
        os.killpg(compiler, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    report["cpu_s"] = children.ru_utime + children.ru_stime
    report["log"] = min(_LOG_BYTES, os.lseek(log, 0, os.SEEK_CUR))
    outputs = {name: fd for name in request["outputs"] if (fd := _output(name, request["output_kb"] << 10)) is not None}
    report["outputs"] = list(outputs)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the supervisor may have closed it
        socket.send_fds(sock, [json.dumps(report).encode()], [log, *outputs.values()], socket.MSG_NOSIGNAL)


def _output(name: str, most: int) -> int | None:
    """A descriptor of an output of the compiler; None if it is not a regular file of at most `most` bytes."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # e.g. it was not created
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return fd
    os.close(fd)
    return None
