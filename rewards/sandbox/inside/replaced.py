"""What tests replace in their own process for the program: streams, arguments, the environment, patched attributes.

The program's process gets the same before the next request. Functions, mocks and streams stay with the tests: the
program calls them from there.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from .standins import Program

_CALLED = ("random.seed", "numpy.random.seed", "sys.setrecursionlimit")  # in both processes
_LENT = ("warnings.warn",)  # the program's calls go to the tests' function
_MISSING = object()


class ProgramModule(ModuleType):
    """The program, as tests import it: `import solution`."""

    def __init__(self, name: str, program: Program) -> None:
        super().__init__(name)
        self.__dict__["_program"] = program

    def __getattr__(self, name: str) -> Any:
        program = self.__dict__["_program"]
        if name.startswith("__") or not program.request("defined", name):
            raise AttributeError(f"the program has no {name!r}")
        return program.names([name])[name]


class Replaced:
    """Compares attributes of modules with what the program's process has. names: "sys.stdout", "solution.fetch"."""

    def __init__(self, program: Program, names: Iterable[str]) -> None:
        self._program = program
        self._own: dict[tuple[ModuleType, str], Any] = {}
        for name in names:
            path, _, attribute = name.rpartition(".")
            try:
                module = importlib.import_module(path)
            except ImportError:  # of a class, say: `patch("solution.Shop.price")`
                continue
            if name in _CALLED:
                setattr(module, attribute, self._in_both(module, attribute))
            else:
                self._own[module, attribute] = _MISSING if name in _LENT else _state(module, attribute)
        self._sent = dict(self._own)

    def send(self) -> None:
        """Tell the program's process what has changed since the last time."""
        for (module, name), sent in self._sent.items():
            value = _state(module, name)
            if value is sent or (isinstance(value, (list, dict)) and value == sent):
                continue
            self._sent[module, name] = value
            new = () if value is self._own[module, name] else (value,)
            self._program.ask("replace", module.__name__, name, *new)

    def _in_both(self, module: ModuleType, name: str) -> Callable[..., Any]:
        own = getattr(module, name)

        def both(*args: Any, **kwargs: Any) -> Any:
            self._program.request("call_attribute", module.__name__, name, *args, **kwargs)
            return own(*args, **kwargs)

        return both


def _state(module: ModuleType, name: str) -> Any:
    """An attribute's value; of a list or the environment a copy, since those change in place."""
    value = vars(module).get(name, _MISSING)
    if isinstance(value, list):
        return list(value)
    return dict(value) if value is os.environ else value
