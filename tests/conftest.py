"""Fixtures that tests share: interpreters of the pinned environments, the shipped model, a copy of the repository."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from launchers import envs

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

REPO = Path(__file__).resolve().parent.parent
# What `make test` hands down, and a user's shell does not have.
OUTER_MAKE = (
    "MAKELEVEL", "MAKEFLAGS", "MFLAGS", "SCALE", "MODEL", "DATA", "HARDWARE", "SET", "STEP", "OUT", "RUN", "SEEDS",
    "ONLY",
)  # fmt: skip
LONGEST = ("plugins", "launchers")  # folders of tests, by the time of their longest files
PACKAGES = ("data_prep", "rewards", "launchers")
FOLDERS = ("recipes", "configs", "templates")


@pytest.fixture(scope="session")
def core_python() -> Path:
    return envs.ensure("core")


@pytest.fixture(scope="session")
def llamafactory_python() -> Path:
    return envs.ensure("llamafactory", "cpu")


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    return envs.ensure("vllm", "cpu")


@pytest.fixture(scope="session")
def mini_model() -> Path:
    return REPO / "recipes" / "mini" / "model"


# One process for several commands: the launcher's start takes longer than most of them.
LAUNCH_EACH = """
import contextlib, io, json, sys
from launchers import cli
for words in json.loads(sys.argv[1]):
    sys.argv = ["launchers", *words]
    said, status = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, said.getvalue().splitlines()]))
"""


@dataclass(frozen=True)
class Repo:
    """A copy of the repository that a test may write recipes into; environments are shared with the repository."""

    path: Path
    python: Path

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # rather than change what copies share
        path.write_text(text)
        return path

    def launch(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), "-m", "launchers", *words],
            cwd=self.path, env={**self.environ(), **environ}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def launch_each(self, *commands: list[str]) -> list[tuple[int, list[str]]]:
        """Exit status and lines on stderr of commands that end in this process without a result on stdout."""
        words = [str(self.python), "-c", LAUNCH_EACH, json.dumps(commands)]
        done = subprocess.run(words, cwd=self.path, env=self.environ(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return [(status, lines) for status, lines in map(json.loads, done.stdout.splitlines())]

    def environ(self) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if key not in OUTER_MAKE}
        return {**ours, "PYTHONPATH": str(self.path), "POSTTRAIN_CACHE": str(self.path / ".cache")}

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *words], cwd=self.path, env=self.environ(), capture_output=True, text=True, timeout=900
        )


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages with their modules compiled: copies take the bytecode with them, and no test compiles it again."""
    place = tmp_path_factory.mktemp("code")
    for package in PACKAGES:
        compileall.compile_dir(REPO / package, quiet=1)
        shutil.copytree(REPO / package, place / package)
    return place


@pytest.fixture(scope="session")
def make_repo(core_python: Path, code: Path) -> Callable[[Path], Repo]:
    """Copies share the files of `code`, which no test changes, and have the others to themselves."""

    def build(folder: Path) -> Repo:
        for name in PACKAGES:
            shutil.copytree(code / name, folder / name, copy_function=os.link)
        for name in FOLDERS:
            shutil.copytree(REPO / name, folder / name)
        shutil.copy2(REPO / "Makefile", folder / "Makefile")
        cache = folder / ".cache"
        cache.mkdir()
        (cache / "envs").symlink_to(envs.cache_dir() / "envs")
        if (known := envs.cache_dir() / "code.json").is_file():  # by the hash of a file's bytes
            shutil.copy2(known, cache / "code.json")
        return Repo(folder, core_python)

    return build


@pytest.fixture
def repo(tmp_path: Path, make_repo: Callable[[Path], Repo]) -> Repo:
    return make_repo(tmp_path / "repo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: two workers then end together, neither with a trainer's whole file left to do."""
    items.sort(key=lambda item: LONGEST.index(folder) if (folder := item.path.parent.name) in LONGEST else len(LONGEST))
