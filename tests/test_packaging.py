"""An installed package has the data files that its modules read."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def test_every_data_file_beside_a_module_is_package_data():
    declared = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [
        path.relative_to(REPO)
        for package in ("data_prep", "launchers", "rewards")
        for path in (REPO / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    ]
    assert Path("rewards/code/cpp/shim.j2") in files
    missing = [
        str(path)
        for path in files
        if not any(fnmatch(path.name, pattern) for pattern in declared.get(".".join(path.parent.parts), ()))
    ]
    assert not missing
