"""Isolation levels, and the command that starts a zygote at each of them.

    namespaces  bubblewrap's user, pid, mount, network and ipc namespaces and read-only root, Landlock, seccomp
    landlock    Landlock and seccomp, for machines that forbid user namespaces
    none        rlimits only; refused unless the user turns it on by hand

A user process keeps its user id; started as root, each job gets an unprivileged user id of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewards.errors import RewardError
from rewards.sandbox import environment, filters
from rewards.sandbox.inside import restrict

Level = Literal["namespaces", "landlock", "none"]
LEVELS: tuple[Level, ...] = ("namespaces", "landlock", "none")
UNSAFE = "REWARDS_SANDBOX_UNSAFE"  # set to 1: run programs even where no isolation is available

_CODE = str(Path(__file__).resolve().parent)
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from inside import forks; forks.hold(); "
    "from inside.zygote import main; main()"
)
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_NOBODY = 65534
_FIRST_UID, _UIDS = 1 << 30, 1 << 12
_SPARE_THREADS = 1024  # of test processes that run at once, where they share a count


@dataclass(frozen=True)
class Start:
    """How to start a zygote: its command, and the first message to it."""

    command: list[str]
    settings: dict[str, Any]


def python_start(level: Level) -> Start:
    """For Python solutions and compiled programs: system libraries, the standard library and our pinned packages."""
    library = os.path.realpath(os.path.dirname(os.__file__))
    packages = environment.packages()
    shown = [*_LIBRARIES, library, os.path.dirname(library)]
    hidden = environment.masked(tuple(shown))
    paths = _rules(level, shown, restrict.READ, hidden)
    readable = shown + ([packages] if packages else [])
    paths += [(packages, restrict.READ)] if packages else []
    paths += [(path, restrict.READ_FILE | restrict.EXECUTE) for path in _LOADERS]
    paths += [("/dev/null", restrict.READ_FILE | restrict.WRITE_FILE), ("/dev/urandom", restrict.READ_FILE)]
    settings = _settings(level, paths, ("python", "binary")) | {"packages": packages or ""}
    if level == "landlock" and os.geteuid() == 0:
        settings["library"] = library
    return Start(_command(level, readable, _masks(hidden)), settings)


def _rules(level: Level, paths: list[str], rights: int, hidden: frozenset[str]) -> list[tuple[str, int]]:
    """Landlock rules for all below `paths` but `hidden`; namespaces cover that already, and few rules are faster."""
    if level == "namespaces":
        return [(path, rights) for path in paths]
    real = dict.fromkeys(os.path.realpath(path) for path in paths if os.path.isdir(path))
    return [rule for path in real for rule in environment.readable(path, rights, restrict.READ_DIR, hidden)]


def _masks(hidden: frozenset[str]) -> list[str]:
    """bwrap's options that put an empty folder over each of these."""
    return [word for path in sorted(hidden) for word in ("--tmpfs", path)]


def toolchain_folder() -> Path:
    """Where what is compiled once per machine is kept for builds to read, e.g. precompiled headers; nothing secret.

    $REWARDS_CACHE, else a folder in the user's cache; root's own would be closed to the user ids that jobs run as.
    Raises RewardError where it cannot be made.
    """
    given = os.environ.get("REWARDS_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(given or Path("/var/cache" if os.geteuid() == 0 else user) / "posttrain-recipes").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as problem:
        raise RewardError(f"{folder}: {problem.strerror}: set REWARDS_CACHE to a folder of yours") from None
    return folder


def build_start(level: Level, scratch: str) -> Start:
    """For compilers: the toolchain and headers readable, `scratch` writable (behind namespaces a tmpfs)."""
    library = os.path.realpath(os.path.dirname(os.__file__))
    made = []
    with contextlib.suppress(RewardError):  # builds work without; the error is raised where the folder is used
        made = [str(toolchain_folder())]
    readable = ["/usr", "/bin", "/lib", "/lib64"]
    hidden = environment.masked(("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"))
    paths = _rules(level, readable, restrict.READ | restrict.EXECUTE, hidden)
    paths += [(path, restrict.READ) for path in made]
    paths += [("/dev/null", restrict.READ_FILE | restrict.WRITE_FILE), ("/dev/urandom", restrict.READ_FILE)]
    settings = _settings(level, paths, ("build",)) | {"scratch": scratch}
    own = [] if library.startswith("/usr/") else [library, os.path.dirname(library)]
    return Start(_command(level, [*readable, *made, *own], ["--tmpfs", scratch, *_masks(hidden)]), settings)


def _settings(level: Level, paths: list[tuple[str, int]], kinds: tuple[str, ...]) -> dict[str, Any]:
    root = os.geteuid() == 0
    first, count = uids() if root else (None, 1)
    return {
        "parent": 0 if level == "namespaces" else os.getpid(),
        "code": _CODE,
        "library": "",
        "packages": "",
        "scratch": "",
        "filters": {} if level == "none" else {kind: filters.write(kind).hex() for kind in kinds},
        "landlock": level != "none",
        "paths": paths,
        "first_uid": first,
        "uid_count": count,
        "base_threads": _threads_around(level, own_uids=count > 1),
    }


def _command(level: Level, readable: list[str], extra: list[str]) -> list[str]:
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    python = [interpreter, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT, _CODE]
    if level != "namespaces":
        return python
    inside = os.path.join(_CODE, "inside")
    return [*bubblewrap(), *mounts([*readable, interpreter, inside]), *extra, "--remount-ro", "/", "--", *python]


def bubblewrap() -> list[str]:
    """bwrap with its namespaces. Root needs no user namespace, and keeps what it takes to change user ids."""
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:
        caps = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        caps = ["--unshare-user", "--cap-drop", "ALL"]
    path = shutil.which("bwrap") or "bwrap"
    return [path, *caps, *spaces, "--die-with-parent", "--new-session", "--hostname", "sandbox", "--chdir", "/"]


def mounts(readable: list[str]) -> list[str]:
    """bwrap's options that make a read-only root of these paths, with null and urandom as the only devices."""
    parents = {str(parent) for path in [*readable, "/dev/null"] for parent in Path(path).parents}
    options = []
    for path in sorted(parents - {"/", "/usr"} - set(readable)):
        options += ["--dir", path]  # passable for all, where the machine's own may be root's alone
    for device in ("/dev/null", "/dev/urandom"):
        options += ["--dev-bind", device, device]
    for path in sorted(set(readable)):  # parents first
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            options += ["--ro-bind", path, path]
    return options


def uids() -> tuple[int, int]:
    """First id and number of ids for jobs started by root: a range of our own, or nobody where ids are scarce."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= _FIRST_UID and inside + count > (1 << 31):
            return _FIRST_UID + (os.getpid() % (1 << 17)) * _UIDS, _UIDS
    return _NOBODY, 1


def _threads_around(level: Level, own_uids: bool) -> int:
    """RLIMIT_NPROC counts all that a user runs; a job's own threads come on top of this."""
    if own_uids:
        return 8
    if level == "namespaces" and os.geteuid() != 0:
        return _SPARE_THREADS  # a user namespace counts on its own
    mine = _NOBODY if os.geteuid() == 0 else os.geteuid()
    return _SPARE_THREADS + sum(_threads_of(entry) for entry in os.scandir("/proc") if _owned(entry, mine))


def _owned(entry: os.DirEntry[str], uid: int) -> bool:
    try:
        return entry.name.isdecimal() and entry.stat().st_uid == uid
    except OSError:
        return False  # it ended meanwhile


def _threads_of(entry: os.DirEntry[str]) -> int:
    try:
        return len(os.listdir(f"{entry.path}/task"))
    except OSError:
        return 0
