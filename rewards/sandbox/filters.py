"""The allowed system calls of each kind of process, compiled to BPF by libseccomp (x86-64 and aarch64).

Only the supervisor calls libseccomp; the sandboxed processes install the bytes. A call that is not listed fails
with EPERM, so that the program gets an error it can report instead of being killed.
"""

import ctypes
import ctypes.util
import errno
import os
import tomllib
from functools import lru_cache
from pathlib import Path

from rewards.errors import RewardError

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000  # linux/seccomp.h
_ATTRIBUTE_BAD_ARCH, _ATTRIBUTE_OPTIMIZE = 2, 8
_MASKED_EQUAL = 7
_CLONE_THREAD, _AF_UNIX, _RLIMIT_STACK = 0x10000, 1, 3
_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_TCGETS, _HARMLESS_IOCTLS = 0x5401, (0x5421, 0x5450, 0x5451)  # FIONBIO, FIONCLEX, FIOCLEX
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, locks, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1034)

# Kind of process -> calls allowed with any arguments.
KINDS: dict[str, str] = tomllib.loads(Path(__file__).with_name("syscalls.toml").read_text("utf-8"))
KINDS["binary"] += KINDS["python"]
KINDS["build"] += KINDS["binary"]


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libseccomp. Raises RewardError if it is not installed."""
    try:
        seccomp = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    except OSError as problem:
        raise RewardError(f"sandbox: {problem}: install libseccomp (Debian: libseccomp2)") from None
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    seccomp.seccomp_init.restype = pointer
    seccomp.seccomp_init.argtypes = [number]
    seccomp.seccomp_attr_set.argtypes = [pointer, number, number]
    seccomp.seccomp_rule_add_array.argtypes = [pointer, number, ctypes.c_int, number, ctypes.POINTER(_Compare)]
    seccomp.seccomp_export_bpf.argtypes = [pointer, ctypes.c_int]
    seccomp.seccomp_release.argtypes = [pointer]
    return seccomp


def _bits(arg: int, value: int, mask: int = (1 << 64) - 1) -> _Compare:
    """The condition that argument number `arg`, masked, has this value."""
    return _Compare(arg, _MASKED_EQUAL, mask, value)


@lru_cache(maxsize=8)
def write(kind: str) -> bytes:
    """The BPF program for a kind of process: other calls fail with EPERM, calls of another architecture kill it.

    Raises RewardError.
    """
    seccomp = library()

    def check(code: int, what: str) -> None:
        if code < 0:
            raise RewardError(f"sandbox: libseccomp rejects the rule for {what}: {os.strerror(-code)}")

    def rule(action: int, name: str, *conditions: _Compare) -> None:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        array = (_Compare * max(1, len(conditions)))(*conditions)
        # negative: this architecture lacks the call (fork on aarch64), or this libseccomp does: not allowed
        if number >= 0:
            check(seccomp.seccomp_rule_add_array(context, action, number, len(conditions), array), name)

    with open(os.memfd_create("filter", os.MFD_CLOEXEC), "rb") as file:
        context = seccomp.seccomp_init(_ERRNO | errno.EPERM)
        check(seccomp.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCH, _KILL_PROCESS), "bad arch")
        # a binary tree instead of a list; ignored by libseccomp < 2.5
        seccomp.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, 2)
        for name in KINDS[kind].split():
            rule(_ALLOW, name)
        rule(_ALLOW, "prlimit64", _bits(2, 0))  # reading limits
        # Programs with deep recursion raise their stack limit; the address space stays bounded.
        rule(_ALLOW, "prlimit64", _bits(0, 0), _bits(1, _RLIMIT_STACK))
        rule(_ALLOW, "socketpair", _bits(0, _AF_UNIX))  # asyncio wakes itself up through one
        rule(_ALLOW, "sendto", _bits(4, 0))  # without an address, so only over a socketpair
        for command in _FCNTLS:  # not F_SETOWN and F_SETSIG, which make the kernel send signals
            rule(_ALLOW, "fcntl", _bits(1, command))
        rule(_ERRNO | errno.ENOTTY, "ioctl", _bits(1, _TCGETS))  # used by isatty
        for number in _HARMLESS_IOCTLS:
            rule(_ALLOW, "ioctl", _bits(1, number))
        rule(_ERRNO | errno.ENOSYS, "clone3")  # its flags cannot be filtered; libc falls back to clone
        required, mask = (0, _CLONE_NAMESPACES) if kind == "build" else (_CLONE_THREAD, _CLONE_THREAD)
        rule(_ALLOW, "clone", _bits(0, required, mask))
        check(seccomp.seccomp_export_bpf(context, file.fileno()), "export")
        seccomp.seccomp_release(context)
        return os.pread(file.fileno(), 1 << 20, 0)
