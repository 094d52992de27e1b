"""Installs the system packages that the tests need (`make test` runs it first): as root by apt-get, else it names them.

python3 tests/system_packages.py     # ends with status 2 and one line when something stays missing
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def _on_path(*commands: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(command) for command in commands)


# Debian and Ubuntu packages, and what shows that each is installed.
PACKAGES: dict[str, Callable[[], bool]] = {
    "bubblewrap": _on_path("bwrap"),
    "libseccomp2": lambda: ctypes.util.find_library("seccomp") is not None,
    "g++": _on_path("g++"),
    "libgtest-dev": lambda: Path("/usr/include/gtest/gtest.h").is_file(),
    "shellcheck": _on_path("shellcheck"),
    "chromium": _on_path("chromium"),
    "slurm-wlm": _on_path("sbatch", "slurmctld", "slurmd"),
    "munge": _on_path("munged"),
}


def missing() -> list[str]:
    """Packages whose files are absent."""
    return [package for package, is_installed in PACKAGES.items() if not is_installed()]


def install(packages: list[str]) -> None:
    """Install by apt-get. Raises subprocess.CalledProcessError with apt's output on stderr."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environ, check=True)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=True)


def main() -> int:
    packages = missing()
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            install(packages)
        except subprocess.CalledProcessError as error:
            print(f"error: {' '.join(map(str, error.cmd))} ended with status {error.returncode}", file=sys.stderr)
        packages = missing()
    if packages:
        names = " ".join(packages)
        print(f"error: the tests need {names}: sudo apt-get install --no-install-recommends {names}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
