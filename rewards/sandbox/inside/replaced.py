"""Applies in the program's process what the tests replace in theirs: streams, argv, environment, patched attributes.

Runs in the tests' process, before each request to the program. Replacements that are functions, mocks or streams stay
in this process; the program's calls of them are sent here.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from .proxies import Program

_CALLED = ("random.seed", "numpy.random.seed", "sys.setrecursionlimit")  # calls take effect in both processes
_LENT = ("warnings.warn",)  # the program always calls the function of the tests' process
_MISSING = object()


class ProgramModule(ModuleType):
    """The module that tests get from `import solution`."""

    def __init__(self, name: str, program: Program) -> None:
        super().__init__(name)
        self.__dict__["_program"] = program

    def __getattr__(self, name: str) -> Any:
        program = self.__dict__["_program"]
        if name.startswith("__") or not program.request("defined", name):
            raise AttributeError(f"the program has no {name!r}")
        return program.names([name])[name]


class Replaced:
    """Attributes of modules that the tests may replace, with the values that the program's process has. names: e.g.
    "sys.stdout", "solution.fetch".
    """

    def __init__(self, program: Program, names: Iterable[str]) -> None:
        self._program = program
        self._originals: dict[tuple[ModuleType, str], Any] = {}
        for name in names:
            path, _, attribute = name.rpartition(".")
            try:
                module = importlib.import_module(path)
            except ImportError:  # e.g. an attribute of a class: `patch("solution.Shop.price")`
                continue
            if name in _CALLED:
                setattr(module, attribute, self._in_both(module, attribute))
            else:
                self._originals[module, attribute] = _MISSING if name in _LENT else _state(module, attribute)
        self._sent = dict(self._originals)

    def send(self) -> None:
        """Send the attributes that have changed since the last call to the program's process."""
        for (module, name), sent in self._sent.items():
            value = _state(module, name)
            if value is sent or (isinstance(value, (list, dict)) and value == sent):
                continue
            self._sent[module, name] = value
            new = () if value is self._originals[module, name] else (value,)
            self._program.ask("replace", module.__name__, name, *new)

    def _in_both(self, module: ModuleType, name: str) -> Callable[..., Any]:
        """A function that calls the module's function in the program's process and in this one."""
        function = getattr(module, name)

        def both(*args: Any, **kwargs: Any) -> Any:
            self._program.request("call_attribute", module.__name__, name, *args, **kwargs)
            return function(*args, **kwargs)

        return both


def _state(module: ModuleType, name: str) -> Any:
    """An attribute's value; a copy of a list or the environment, which are changed in place."""
    value = vars(module).get(name, _MISSING)
    if isinstance(value, list):
        return list(value)
    return dict(value) if value is os.environ else value
