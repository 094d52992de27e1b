"""Run a function right after a module has been imported, in whichever of verl's processes imports it.

verl imports its external modules before its own heavy ones. Waiting for those, instead of importing them, keeps
processes that never need them small, and avoids circular imports.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Action = Callable[[ModuleType], None]


class _Watcher(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, action: Action) -> None:
        self.name = name
        self.actions = [action]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_act(module: ModuleType) -> None:
            execute(module)
            for action in self.actions:
                action(module)

        spec.loader.exec_module = execute_then_act  # type: ignore[method-assign]
        return spec


def after_import(name: str, action: Action) -> None:
    """Call `action(module)` once module `name` is imported, in the order of the calls; at once if it already is."""
    if name in sys.modules:
        action(sys.modules[name])
        return
    waiting = (finder for finder in sys.meta_path if isinstance(finder, _Watcher) and finder.name == name)
    if first := next(waiting, None):  # Python asks only the first finder that knows a module
        first.actions.append(action)
    else:
        sys.meta_path.insert(0, _Watcher(name, action))
