"""How a process restricts itself: Landlock, seccomp, rlimits, user id, death with its parent.

Landlock's three system calls are made here (glibc has no wrappers); struct and flag values are those of
linux/landlock.h, and the numbers are the same on x86-64 and aarch64.
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
    """A seccomp program, laid out so that installing it is one system call."""

    def __init__(self, bpf: bytes) -> None:
        self._code = ctypes.create_string_buffer(bpf, len(bpf))
        self._program = _Program(len(bpf) // 8, ctypes.addressof(self._code))

    def install(self) -> None:
        _check(LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(self._program), 0, 0), "seccomp")


def landlock_version() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    return max(0, int(LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def landlock_rules(allowed: Iterable[tuple[str, int]]) -> int | None:
    """A descriptor of the ruleset that forbids everything but these (path, rights); None without Landlock.

    Paths that do not exist are left out. ABI 4 restricts TCP as well, ABI 6 abstract sockets and signals.
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
    """For good: no new privileges, and no paths but those of the Landlock ruleset, which is closed."""
    _check(LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if rules is not None:
        _check(LIBC.syscall(_RESTRICT, rules, 0), "landlock_restrict_self")
        os.close(rules)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process."""
    _check(LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "child subreaper")


def fork(run: Callable[[], object], failed: int) -> int:
    """The id of a new process, which calls `run` and ends, with this status and a line on stderr where that raises."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException as problem:  # noqa: BLE001 - it must never return into the code of its parent
            os.write(2, f"{type(problem).__name__}: {problem}\n".encode())
        finally:
            os._exit(failed)
    return pid


def die_with_parent(parent: int, by: int = signal.SIGKILL) -> None:
    """Send this process a signal when `parent` ends; leave at once if it has ended already."""
    LIBC.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become(uid: int | None) -> None:
    """Take this user and group id and no other group, for good; this drops every capability."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def undumpable() -> None:
    """No core file, and no other process of this user may read the memory."""
    LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(which: int, value: int) -> None:
    """Set soft and hard limit, or the hard limit of whoever started us if that is lower."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def close_all_but(kept: Sequence[int]) -> None:
    """Close every descriptor that is not in `kept`."""
    before = -1
    for fd in sorted(kept):
        if fd > before + 1:  # an empty range is an error, which Python answers by closing everything
            os.closerange(before + 1, fd)
        before = fd
    os.closerange(before + 1, 1 << 20)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
