"""The code that a step depends on, found by following imports, and its hash, which ignores comments and formatting.

A module's hash is that of its syntax tree without docstrings. A step's modules are its own and everything they
import within this repository's packages, the step's own package and that package's folder. Files beside
them that are not Python (C++ headers, prompt templates, tables) are hashed by their bytes.
"""

import ast
import hashlib
import importlib.util
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from data_prep.core.files import write_atomic
from rewards.base import DATA_FILES

PACKAGES = ("data_prep", "rewards")
NAMES_ONLY = ("data_prep.core.registry",)  # a step that loads another by its kind names its module in `modules`
_KNOWN = "code.json"  # in the cache: parsing results by the hash of a file's bytes
_PARSING = threading.Lock()  # the results are shared, and concurrent ast.parse calls can fail (CPython 3.11)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)  # nodes that may begin with a docstring
_Parsed = tuple[str, Sequence[str]]  # hash of the syntax tree, names that the module imports


class KnownCode:
    """Parsing results, kept on disk: parsing all modules takes half a second of CPU time."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.added = path, False
        self.entries: dict[str, _Parsed] = {}
        with suppress(OSError, ValueError):  # absent, or incomplete after a full disk: parsed again
            self.entries = json.loads(path.read_bytes()) if path else {}

    def parsed(self, path: Path, module: str) -> _Parsed:
        name = _bytes_hash(path, module)
        if name not in self.entries:
            with _PARSING:
                self.entries[name] = _parse(path, module)
                self.added = True
        return self.entries[name]

    def save(self) -> None:
        if self.path and self.added and self.path.parent.is_dir():
            with _PARSING:  # no other thread adds an entry or saves meanwhile
                write_atomic(self.path, [json.dumps(self.entries).encode()])
                self.added = False


_known = cache(KnownCode)


@cache
def code_hash(modules: tuple[str, ...], cache_folder: Path | None = None) -> str:
    """SHA-256 (hex) of these modules and everything they import, as first read. Raises OSError, SyntaxError."""
    known = _known(cache_folder / _KNOWN) if cache_folder else KnownCode(None)
    digest = hashlib.sha256()
    for module, content in sorted(closure(modules, known)):
        digest.update(f"{module} {content}\n".encode())
    known.save()
    return digest.hexdigest()


def closure(modules: tuple[str, ...], known: KnownCode) -> Iterator[tuple[str, str]]:
    """(module, hash of its code) for everything reachable from `modules`."""
    packages = {*PACKAGES, *(name.partition(".")[0] for name in modules)}
    folders = {_folder(package) for package in packages.difference(PACKAGES)} - {None}
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in seen or name in NAMES_ONLY or not (top in packages or (folders and _folder(top) in folders)):
            continue
        seen.add(name)
        path = _file(name)
        if path is None:  # `from package import function`: the name is not a module
            continue
        tree, imports = known.parsed(path, name)
        yield name, tree
        if path.name == "__init__.py":
            yield from ((f"{name}/{file.name}", _bytes_hash(file)) for file in _data_files(path.parent))
        parts = name.split(".")
        todo += [*imports, *(".".join(parts[:end]) for end in range(1, len(parts)))]


@cache
def _parse(path: Path, module: str) -> _Parsed:
    tree = ast.parse(path.read_bytes())
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imports = tuple(sorted(set(imports_of(tree, package))))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def imports_of(tree: ast.Module, package: str) -> Iterator[str]:
    """Absolute names that a module imports, including functions and classes. package: the module's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache  # modules do not move while a process runs
def _file(module: str) -> Path | None:
    """The source file of a module, None if there is no such module."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not rest:
        return Path(spec.origin) if spec and spec.origin else None  # recipes/ is a folder without an `__init__`
    if not spec.submodule_search_locations:
        return None
    base = Path(spec.submodule_search_locations[0], *rest)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _folder(top: str) -> Path | None:
    """The folder that contains a top-level module or package; None if it is installed, or not Python."""
    path = _file(top) if top else None
    if path is None or path.suffix != ".py" or "site-packages" in path.parts:
        return None
    return path.parents[1 if path.name == "__init__.py" else 0]


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.suffix in DATA_FILES))


@cache
def _bytes_hash(path: Path, module: str = "") -> str:
    return hashlib.sha256(path.read_bytes() + module.encode()).hexdigest()
