"""Isolation levels, and the commands that start a zygote at each level.

    namespaces  bubblewrap's user, pid, mount, network and ipc namespaces and read-only root, Landlock, seccomp
    landlock    Landlock and seccomp, for machines without user namespaces

A non-root process keeps its user id; started as root, each job gets its own unprivileged user id.
"""

import contextlib
import glob
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from rewards.errors import RewardError
from rewards.sandbox import environment, filters
from rewards.sandbox.inside import restrict

Level = Literal["namespaces", "landlock"]
LEVELS: tuple[Level, ...] = ("namespaces", "landlock")
Start = tuple[list[str], dict[str, Any]]  # a zygote's command, and the first message to it

_CODE = str(Path(__file__).resolve().parent)
# os.register_at_fork is disabled: modules' hooks in every fork cost up to a tenth of a small test's CPU time.
_BOOT = (
    "import os, sys; sys.path.append(sys.argv[1]); register = os.register_at_fork; "
    "os.register_at_fork = lambda **hooks: None; from inside.zygote import main; main(register)"
)
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_LIBRARY = os.path.realpath(os.path.dirname(os.__file__))  # the standard library
_OWN_LIBRARIES = (_LIBRARY, os.path.dirname(_LIBRARY))
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_NOBODY = 65534
_FIRST_UID, _UIDS = 1 << 30, 1 << 12
_SCRATCH_BYTES = str(1 << 30)  # total size of the files of all programs or compilers
_SPARE_THREADS = 1024  # allowance for concurrent test processes that share a user id


def python_start(level: Level) -> Start:
    """The zygote for Python solutions and compiled programs: system and standard library and packages are readable."""
    packages = ""
    with contextlib.suppress(RewardError):  # programs run without the packages
        packages = environment.packages()
    files = [(path, restrict.READ_FILE | restrict.EXECUTE) for path in _LOADERS]
    files += [(packages, restrict.READ)] if packages else []
    library = _LIBRARY if level == "landlock" and os.geteuid() == 0 else ""
    settings = {"packages": packages, "library": library, "scratch": "/scratch" if level == "namespaces" else ""}
    return _start(level, ("python", "binary"), [*_LIBRARIES, *_OWN_LIBRARIES], restrict.READ, files, settings)


def build_start(level: Level, scratch: str) -> Start:
    """The zygote for compilers: toolchain and headers are readable, `scratch` is writable (with namespaces a tmpfs)."""
    files = []
    with contextlib.suppress(RewardError):  # builds work without the folder; its users raise the error
        files = [(str(toolchain_folder()), restrict.READ)]
    folders, rights = ["/usr", "/bin", "/lib", "/lib64"], restrict.READ | restrict.EXECUTE
    return _start(level, ("build",), folders, rights, files, {"scratch": scratch})


def _start(
    level: Level, kinds: tuple[str, ...], folders: list[str], rights: int, paths: list[tuple[str, int]],
    settings: dict[str, str],
) -> Start:  # fmt: skip
    """folders: accessible with `rights`, except installed packages in them. paths: others, with their own rights."""
    hidden = environment.masked((*_LIBRARIES, "/usr/local/lib64", *_OWN_LIBRARIES))
    paths = [*paths, ("/dev/null", restrict.READ_FILE | restrict.WRITE_FILE), ("/dev/urandom", restrict.READ_FILE)]
    rules = [*paths]
    if level == "namespaces":  # everything else is hidden already, and few rules start jobs faster
        rules += [(folder, rights) for folder in folders]
    else:
        for path in dict.fromkeys(os.path.realpath(folder) for folder in folders if os.path.isdir(folder)):
            rules += environment.readable(path, rights, restrict.READ_DIR, hidden)
    first, count = uids() if os.geteuid() == 0 else (None, 1)
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    command = [interpreter, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT, _CODE]
    if level == "namespaces":
        seen = [*folders, interpreter, f"{_CODE}/inside"]
        seen += [path for path, allowed in paths if allowed & restrict.READ_DIR]
        seen += [] if _LIBRARY.startswith("/usr/") else _OWN_LIBRARIES
        empty = [*sorted(hidden), *filter(None, [settings.get("scratch")])]
        masks = [word for path in empty for word in ("--size", _SCRATCH_BYTES, "--tmpfs", path)]
        command = [*bubblewrap(), *mounts(seen), *masks, "--remount-ro", "/", "--", *command]
    isolation = {
        "parent": 0 if level == "namespaces" else os.getpid(),
        "code": _CODE,
        "filters": {kind: filters.write(kind).hex() for kind in kinds},
        "paths": rules,
        "first_uid": first,
        "uid_count": count,
        "base_threads": _threads_around(level, own_uids=count > 1),
    }
    return command, {"packages": "", "library": "", "scratch": "", **isolation, **settings}


def toolchain_folder() -> Path:
    """Folder for files compiled once per machine and readable by builds, e.g. precompiled headers; nothing secret.

    $REWARDS_CACHE, else a folder in the user's cache (for root in /var/cache: the jobs' user ids cannot read /root).
    Raises RewardError if it cannot be created.
    """
    configured = os.environ.get("REWARDS_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(configured or Path("/var/cache" if os.geteuid() == 0 else user) / "posttrain-recipes").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as problem:
        raise RewardError(f"{folder}: {problem.strerror}: set REWARDS_CACHE to a folder that you own") from None
    return folder


def bubblewrap() -> list[str]:
    """bwrap with its namespaces. Root needs no user namespace and keeps the capabilities to change user ids."""
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:
        caps = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        caps = ["--unshare-user", "--cap-drop", "ALL"]
    path = shutil.which("bwrap") or "bwrap"
    return [path, *caps, *spaces, "--die-with-parent", "--new-session", "--hostname", "sandbox", "--chdir", "/"]


def mounts(readable: list[str]) -> list[str]:
    """bwrap's options for a read-only root with these paths, and null and urandom as the only devices."""
    parents = {str(parent) for path in [*readable, "/dev/null"] for parent in Path(path).parents}
    options = []
    for path in sorted(parents - {"/", "/usr"} - set(readable)):
        options += ["--dir", path]  # traversable by all users; the host's folder may not be
    for device in ("/dev/null", "/dev/urandom"):
        options += ["--dev-bind", device, device]
    for path in sorted(set(readable)):  # parents first
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            options += ["--ro-bind", path, path]
    return options


def uids() -> tuple[int, int]:
    """First id and number of ids for jobs started by root: a separate range, or nobody if few ids are available."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= _FIRST_UID and inside + count > (1 << 31):
            return _FIRST_UID + (os.getpid() % (1 << 17)) * _UIDS, _UIDS
    return _NOBODY, 1


def _threads_around(level: Level, own_uids: bool) -> int:
    """Baseline for RLIMIT_NPROC, which counts all threads of a user; a job's own limit is added to it."""
    if own_uids:
        return 8
    if level == "namespaces" and os.geteuid() != 0:
        return _SPARE_THREADS  # a user namespace has its own count
    user = _NOBODY if os.geteuid() == 0 else os.geteuid()
    threads = _SPARE_THREADS
    for process in glob.iglob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended in the meantime
            threads += len(os.listdir(f"{process}/task")) if os.stat(process).st_uid == user else 0
    return threads
