"""The system calls that each kind of process may make, written as BPF by libseccomp (x86-64 and aarch64).

Only the supervisor calls libseccomp; the processes inside install the bytes. A call that is not listed fails
with EPERM, so that a program sees an error it can report instead of dying silently.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
from collections.abc import Iterable
from functools import lru_cache

from rewards.errors import RewardError

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_ATTRIBUTE_BAD_ARCH, _ATTRIBUTE_OPTIMIZE = 2, 8
_EQUAL, _MASKED_EQUAL = 4, 7
_CLONE_THREAD, _AF_UNIX, _RLIMIT_STACK = 0x10000, 1, 3
_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_TCGETS, _HARMLESS_IOCTLS = 0x5401, (0x5421, 0x5450, 0x5451)  # FIONBIO, FIONCLEX, FIOCLEX
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, locks, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1034)
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h, AUDIT_ARCH_*

# No socket, no fork, no exec, no kill, no prctl, no mount, ptrace, bpf, perf, keyctl, io_uring, memfd, SysV.
_LEAF = """
read write readv writev pread64 pwrite64 preadv pwritev lseek close close_range dup dup2 dup3 flock
fstat newfstatat stat lstat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd chdir
open openat getdents64 fadvise64 ftruncate fsync fdatasync umask pipe pipe2 poll ppoll select pselect6
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd eventfd2 recvfrom shutdown getsockname getpeername
mmap munmap mprotect mremap madvise brk membarrier mincore msync
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack restart_syscall
setitimer getitimer alarm pause timerfd_create timerfd_settime timerfd_gettime
futex futex_waitv set_robust_list get_robust_list rseq set_tid_address arch_prctl
sched_yield sched_getaffinity sched_getparam sched_getscheduler getcpu getpriority
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage getrlimit
getpid getppid gettid getuid geteuid getgid getegid getpgrp getpgid getsid getgroups getresuid getresgid
uname sysinfo getrandom exit exit_group
"""
_BINARY = _LEAF + " execve execveat"
_BUILD = (
    _BINARY
    + """
fork vfork wait4 waitid rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir link linkat symlink
symlinkat chmod fchmod fchmodat utimensat utime truncate fallocate creat sendfile copy_file_range
"""
)
KINDS = {"python": _LEAF, "binary": _BINARY, "build": _BUILD}


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libseccomp. Raises RewardError where it is not installed."""
    try:
        seccomp = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2", use_errno=True)
    except OSError as problem:
        raise RewardError(f"sandbox: {problem}: install libseccomp (Debian: libseccomp2)") from None
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_init.argtypes = [ctypes.c_uint32]
    for name in ("seccomp_release", "seccomp_arch_add", "seccomp_arch_remove", "seccomp_attr_set"):
        getattr(seccomp, name).argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32]
    seccomp.seccomp_release.argtypes = [ctypes.c_void_p]
    seccomp.seccomp_arch_add.argtypes = seccomp.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    seccomp.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare)
    ]  # fmt: skip
    seccomp.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return seccomp


def version() -> str:
    class Version(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint) for name in ("major", "minor", "micro")]

    library().seccomp_version.restype = ctypes.POINTER(Version)
    version = library().seccomp_version().contents
    return f"{version.major}.{version.minor}.{version.micro}"


class _Filter:
    """A filter being written; everything not allowed fails with EPERM, another architecture kills."""

    def __init__(self, arch: str | None) -> None:
        self._lib = library()
        self._context = self._lib.seccomp_init(_ERRNO | errno.EPERM)
        if not self._context:
            raise RewardError("sandbox: libseccomp cannot make a filter on this machine")
        if arch is not None and arch != os.uname().machine:
            self._check(self._lib.seccomp_arch_add(self._context, ARCHES[arch]), arch)
            self._check(self._lib.seccomp_arch_remove(self._context, 0), arch)  # 0: the native one
        self._check(self._lib.seccomp_attr_set(self._context, _ATTRIBUTE_BAD_ARCH, _KILL_PROCESS), "bad arch")
        # a tree instead of a list; libseccomp < 2.5 does not know it and writes the list
        self._lib.seccomp_attr_set(self._context, _ATTRIBUTE_OPTIMIZE, 2)

    def allow(self, names: Iterable[str], *conditions: _Compare) -> None:
        for name in names:
            self.rule(_ALLOW, name, *conditions)

    def rule(self, action: int, name: str, *conditions: _Compare) -> None:
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            return  # a libseccomp from before this call: it stays forbidden
        array = (_Compare * max(1, len(conditions)))(*conditions)
        code = self._lib.seccomp_rule_add_array(self._context, action, number, len(conditions), array)
        # calls that another architecture lacks (open, fork on aarch64) have negative numbers, and nothing to allow
        if number >= 0:
            self._check(code, name)

    def export(self) -> bytes:
        fd = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            self._check(self._lib.seccomp_export_bpf(self._context, fd), "export")
            return os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)
            self._lib.seccomp_release(self._context)

    def _check(self, code: int, what: str) -> None:
        if code < 0:
            raise RewardError(f"sandbox: libseccomp refuses the rule for {what}: {os.strerror(-code)}")


def _is(arg: int, value: int) -> _Compare:
    return _Compare(arg, _EQUAL, value, 0)


def _bits(arg: int, mask: int, value: int) -> _Compare:
    return _Compare(arg, _MASKED_EQUAL, mask, value)


@lru_cache(maxsize=8)
def write(kind: str, arch: str | None = None) -> bytes:
    """The BPF program for a process of `kind`, for this machine or another architecture. Raises RewardError."""
    rules = _Filter(arch)
    rules.allow(KINDS[kind].split())
    rules.allow(["prlimit64"], _is(2, 0))  # reading limits
    # Programs that recurse deeply raise their stack; the address space stays bounded.
    rules.allow(["prlimit64"], _is(0, 0), _is(1, _RLIMIT_STACK))
    rules.allow(["socketpair"], _is(0, _AF_UNIX))  # asyncio wakes itself up through one
    rules.allow(["sendto"], _is(4, 0))  # over that pair, to no other address
    for command in _FCNTLS:  # not F_SETOWN and F_SETSIG, by which the kernel sends signals for a process
        rules.allow(["fcntl"], _is(1, command))
    rules.rule(_ERRNO | errno.ENOTTY, "ioctl", _is(1, _TCGETS))  # isatty asks
    for number in _HARMLESS_IOCTLS:
        rules.allow(["ioctl"], _is(1, number))
    rules.rule(_ERRNO | errno.ENOSYS, "clone3")  # its flags cannot be seen here; libc falls back to clone
    if kind == "build":
        rules.allow(["clone"], _bits(0, _CLONE_NAMESPACES, 0))
    else:
        rules.allow(["clone"], _bits(0, _CLONE_THREAD, _CLONE_THREAD))
    return rules.export()
