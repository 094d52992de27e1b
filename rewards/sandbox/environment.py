"""The packages that Python programs may import: a separate environment, pinned in configs/envs/sandbox.txt.

    python3 -m launchers.envs sandbox  # builds it; building core includes it

Its folder is keyed by its lock file, like all environments of launchers/envs.py. No other site-packages or
dist-packages folder of the machine is readable.
"""

import glob
import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path

from rewards.errors import RewardError

_REPO = Path(__file__).resolve().parents[2]
_LOCK = _REPO / "configs" / "envs" / "sandbox.txt"
_PYTHON = "3.11"  # the lock file's Python version
_PATTERNS = ("", "/*", "/*/*")  # depths at which package folders are searched below the roots
COMMAND = "python3 -m launchers.envs sandbox"


def digest() -> str:
    """The environment's key: 12 hexadecimal digits, equal for equal lock files."""
    return hashlib.sha256(_PYTHON.encode() + _LOCK.name.encode() + _LOCK.read_bytes()).hexdigest()[:12]


def packages() -> str:
    """The folder to import from. Raises RewardError, with advice, if the environment is not built or the interpreter's
    version differs.
    """
    cache = Path(os.environ.get("POSTTRAIN_CACHE") or _REPO / ".cache").absolute()
    folder = cache / "envs" / f"sandbox-{digest()}"
    version = "{}.{}".format(*sys.version_info)
    if version != _PYTHON:
        raise RewardError(f"sandbox: the packages for programs need Python {_PYTHON}, but this is {version}")
    if not (folder / ".complete").exists():
        raise RewardError(f"sandbox: the environment for programs is not built: run `{COMMAND}` in {_REPO}")
    return os.path.realpath(folder / "lib" / f"python{_PYTHON}" / "site-packages")


@lru_cache
def masked(roots: tuple[str, ...]) -> frozenset[str]:
    """Real paths of the folders of installed packages below `roots`."""
    names = ("site-packages", "dist-packages")
    paths = (glob.iglob(f"{root}{depth}/{name}") for root in roots for depth in _PATTERNS for name in names)
    return frozenset(os.path.realpath(path) for matches in paths for path in matches)


def readable(path: str, rights: int, listing: int, hidden: frozenset[str]) -> list[tuple[str, int]]:
    """Landlock rules (path, rights) for everything below `path`; folders in `hidden` can only be listed."""
    if path in hidden:
        return []
    if not any(folder.startswith(f"{path}/") for folder in hidden):
        return [(path, rights)]
    rules = [(path, listing)]
    for entry in os.scandir(path):
        if not entry.is_symlink():  # its target needs its own rule
            rules += readable(entry.path, rights, listing, hidden)
    return rules
