"""Functions by which a process restricts itself: Landlock, seccomp, rlimits, user id, end with its parent.

Called in zygotes, jobs and test processes before they run untrusted code. Landlock's three system calls are made
directly (glibc has no wrappers); struct and flag values are those of linux/landlock.h, and the system call numbers are
the same on x86-64 and aarch64.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterable, Sequence

LIBC = ctypes.CDLL(None, use_errno=True)

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_AND_REMOVE = 0b1111111110000  # REMOVE_DIR … MAKE_SYM
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
READ_WRITE = READ | WRITE_FILE | _MAKE_AND_REMOVE | _REFER | _TRUNCATE
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_PR_SET_CHILD_SUBREAPER = 36
_SECCOMP_MODE_FILTER = 2
M_ARENA_MAX = -8  # malloc.h


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


class Filter:
    """A seccomp filter in memory, so that installing it is a single system call."""

    def __init__(self, bpf: bytes) -> None:
        self._code = ctypes.create_string_buffer(bpf, len(bpf))
        self._program = _Program(len(bpf) // 8, ctypes.addressof(self._code))

    def install(self) -> None:
        _check(LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(self._program), 0, 0), "seccomp")


def landlock_version() -> int:
    """The version of the kernel's Landlock ABI; 0 without Landlock."""
    return max(0, int(LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def landlock_rules(allowed: Iterable[tuple[str, int]]) -> int | None:
    """A descriptor of the ruleset that allows only these (path, rights); None without Landlock.

    Paths that do not exist are skipped. From ABI 4 on TCP is forbidden as well, from ABI 6 on abstract sockets and
    signals to processes outside.
    """
    version = landlock_version()
    if version == 0:
        return None
    handled = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL)):
        handled |= right if version >= since else 0
    words = [handled, *([0b11] if version >= 4 else []), *([0b11] if version >= 6 else [])]
    attributes = struct.pack(f"{len(words)}Q", *words)
    rules = int(LIBC.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0))
    _check(rules, "landlock_create_ruleset")
    for path, rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # e.g. /lib64 on aarch64
        rights &= handled if os.path.isdir(path) else handled & _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, fd)
        _check(LIBC.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0), f"landlock rule for {path}")
        os.close(fd)
    return rules


def give_up_rights(rules: int | None) -> None:
    """Irrevocably: no new privileges, and only the paths of the Landlock ruleset, whose descriptor is closed."""
    _check(LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if rules is not None:
        _check(LIBC.syscall(_RESTRICT, rules, 0), "landlock_restrict_self")
        os.close(rules)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _check(LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "child subreaper")


def fork(run: Callable[[], object], failed: int) -> int:
    """Fork a process that calls `run` and ends; if `run` raises, with exit code `failed` and a line on stderr. Returns
    its process id.
    """
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException as problem:  # noqa: BLE001 - the child must never return into its parent's code
            os.write(2, f"{type(problem).__name__}: {problem}\n".encode())
        finally:
            os._exit(failed)
    return pid


def die_with_parent(parent: int, by: int = signal.SIGKILL) -> None:
    """Send this process the signal `by` when `parent` ends; exit at once if it has ended already."""
    LIBC.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become(uid: int | None) -> None:
    """Irrevocably change to this user and group id, without other groups; drops every capability."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def undumpable() -> None:
    """Forbid core files, and access of the user's other processes to this one's memory."""
    LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(which: int, value: int) -> None:
    """Set soft and hard limit to `value`, or to the inherited hard limit if that is lower."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def close_all_but(kept: Sequence[int]) -> None:
    """Close every descriptor that is not in `kept`."""
    before = -1
    for fd in sorted(kept):
        if fd > before + 1:  # for an empty range close_range fails, and Python then closes all descriptors
            os.closerange(before + 1, fd)
        before = fd
    os.closerange(before + 1, 1 << 20)


def _check(result: int, what: str) -> None:
    """Raise OSError with the C library's errno if `result` is negative. what: for the message."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
