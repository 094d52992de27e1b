"""Import layers: no cycles, and no package imports a higher one."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from data_prep.core.code_identity import imports_of

REPOSITORY = Path(__file__).parents[2]
ORDER = (
    *("errors", "core", "text", "sources", "inference", "writers", "evaluation", "steps", "families", "cli"),
    "__main__",
)
PACKAGES = ("rewards", "data_prep", "launchers")


def graph(package: str) -> dict[str, set[str]]:
    """Each module of a package and the modules of this repository that it imports, inside functions too."""
    modules = {}
    for path in REPOSITORY.glob(f"{package}/**/*.py"):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        names = set(imports_of(ast.parse(path.read_text()), name.rpartition(".")[0]))
        modules[name.removesuffix(".__init__")] = {one for one in names if one.partition(".")[0] in PACKAGES}
    return modules


def layer(module: str) -> int | None:
    """The layer (index in ORDER) of a data_prep module; each family is its own layer."""
    parts = module.split(".")
    return ORDER.index(parts[1]) if parts[0] == "data_prep" and len(parts) > 1 else None


def test_modules_import_only_lower_packages():
    upward = [
        f"{module} imports {other}"
        for module, others in graph("data_prep").items()
        for other in others
        if (mine := layer(module)) is not None and (theirs := layer(other)) is not None and theirs > mine
    ]
    assert upward == []


def test_families_do_not_import_each_other():
    def family(module: str) -> str:
        return module.split(".")[2] if module.startswith("data_prep.families.") else ""

    mixed = [
        f"{module} imports {other}"
        for module, others in graph("data_prep").items()
        for other in others
        if family(module) and family(other) and family(module) != family(other)
    ]
    assert mixed == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_those_below_only(package):
    below = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = {
        f"{module} imports {other}"
        for module, others in graph(package).items()
        for other in others
        if other.partition(".")[0] not in below
    }
    assert wrong == set()


def test_there_are_no_cycles():
    modules = graph("data_prep")
    TopologicalSorter({module: others & set(modules) - {module} for module, others in modules.items()}).prepare()
