"""The guides: their files are a recipe that passes its checks (and runs: full), their commands exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from launchers.recipe import compose, schema_docs
from tests.conftest import OUTER_MAKE, REPO, Repo

GUIDES = ("README.md", "recipes/README.md", "launchers/README.md")
COMMAND = re.compile(r"^    make ([^#\n]+?)\s*(?:#.*)?$", re.MULTILINE)
FILE = re.compile(r"^```\w+\n# (recipes/first/\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PARTS = ("data", "train", "eval", "show", "plan", "render", "sbatch", "stage", "sweep")
COMMANDS = sorted({match[1] for guide in GUIDES for match in COMMAND.finditer((REPO / guide).read_text())})


def _written(repo: Repo) -> None:
    for match in FILE.finditer((REPO / "recipes/README.md").read_text()):
        repo.write(match[1], match[2])
    repo.write("recipes/first/tasks/shop.jsonl", '{"prompt": "A pen costs 2 dollars. 3 pens?", "answer": "6"}\n')


def test_the_first_recipe_of_the_guide_passes_its_checks(repo: Repo) -> None:
    _written(repo)
    done = repo.make("plan/first/sums")
    assert done.returncode == 0, done.stderr
    assert "steps    4" in done.stdout
    own = repo.launch("check", "first/sums", "--set", "eval.tasks=[shop]", "--set", "expect={shop: -2.5}")
    assert own.returncode == 0, own.stderr


@pytest.mark.full
def test_the_first_recipe_of_the_guide_runs(repo: Repo) -> None:
    _written(repo)
    done = repo.make("first/sums")
    assert done.returncode == 0, done.stderr
    assert "on arithmetic" in done.stderr  # the headline
    assert Path(done.stdout.strip()).name == "report.html"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_make_command_of_the_guides_exists(words: str) -> None:
    target = re.split(r"\s", words)[0].rstrip("…")
    part, _, name = target.partition("/")
    recipe = name if part in PARTS else target
    if "/" in recipe and part not in ("env", "study", "bench") and recipe != "first/sums" and "…" not in words:
        assert recipe in compose.recipe_names()
    else:
        known = re.findall(r"^([a-z][a-z/_%-]*):", (REPO / "Makefile").read_text(), re.MULTILINE)
        assert any(re.fullmatch(pattern.replace("%", ".*"), target) for pattern in known) or recipe == "first/sums"
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    assert not environ.keys() & set(OUTER_MAKE)
    asked = ["make", "-n", *re.findall(r'[A-Z]+="[^"]*"|\S+', words.replace("…", ""))]
    done = subprocess.run(asked, cwd=REPO, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_of_keys_is_current() -> None:
    assert (REPO / "configs/README.md").read_text() == schema_docs.markdown()
