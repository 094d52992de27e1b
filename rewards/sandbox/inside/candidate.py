"""The program's side of a channel: does what the tests ask of it. It runs in the program's own process.

Whatever the program does to it, only values come out, and those are judged in another process.
"""

import copy
import importlib
import operator
import os
import sys
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, ModuleType
from typing import Any

from .channel import LENT_METHODS, PROGRAM_MODULES, Closed, Peer, TooLarge, exception_names
from .values import CONTAINERS, Node, Values, reader

_FUNCTIONS: dict[str, Any] = {
    "call": lambda function, *args, **kwargs: function(*args, **kwargs),
    "send": lambda generator, value: generator.send(value),
    "await": lambda coroutine: importlib.import_module("asyncio").run(coroutine),  # slow to import
    "await_all": lambda generator: _FUNCTIONS["await"](_items(generator)),
    **{f.__name__: f for f in (len, bool, str, repr, iter, next, isinstance, issubclass, getattr, setattr, delattr)},
    **{f.__name__: f for f in (type, vars, hash, int, float, round, format, pow, copy.copy, copy.deepcopy)},
}  # fmt: skip


async def _items(generator: Any) -> list[Any]:
    return [item async for item in generator]


_LAZY = {GeneratorType: "generator", CoroutineType: "coroutine", AsyncGeneratorType: "async generator"}


def serve(module: ModuleType, fd: int, most: int) -> None:
    """Answer until the tests are done. `module` is the program, loaded."""
    program = _Program(module, fd, most)
    while True:
        try:
            program.peer.serve(program.peer.receive())
        except Closed:
            return
        except TooLarge:
            program.peer.send({"limit": "output_limit"})


class _Lent:
    """A mock or a stream that stays with the tests."""

    def __init__(self, number: int, ask: Callable[..., Any]) -> None:
        vars(self).update(_number=number, _ask=ask)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._ask("callback", *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        value = self._ask("getattr", name)
        if isinstance(value, FunctionType):
            vars(self)[name] = value
        return value


for _name in LENT_METHODS:
    setattr(_Lent, _name, lambda self, *args, _name=_name: self._ask(_name, *args))


class _Program:
    def __init__(self, module: ModuleType, fd: int, most: int) -> None:
        self._module, self._own = module, vars(module)
        self._replaced: dict[tuple[str, str], Any] = {}  # what the tests replaced, as it was
        self._alive: list[Any] = []  # objects that stay here, by number
        self._numbers: dict[int, int] = {}
        self._containers: dict[tuple[int, str], Any] = {}  # that the tests got, by owner and attribute
        self.peer = Peer(fd, most, Values(self._encode, self._decode), self._perform)

    def _perform(self, name: str, args: Any, kwargs: Any) -> Any:
        if name == "names":
            return self._names(*args)
        if name == "defined":
            return args[0] in self._own
        if name in ("attribute", "refill"):
            return self._attribute(*args)
        if name == "replace":
            return self._replace(*args)
        if name == "call_attribute":
            path, attribute, *args = args
            if path.partition(".")[0] not in sys.modules:
                return None
            return getattr(importlib.import_module(path), attribute)(*args, **kwargs)
        return (_FUNCTIONS.get(name) or getattr(operator, name))(*args, **kwargs)

    def _names(self, names: list[str], classes: list[str]) -> dict[str, Any]:
        """Values of the program's global names. classes: whose instances are sent by their attributes."""
        own = self._own
        self.peer.values.classes = {name: own[name] for name in classes if isinstance(own.get(name), type)}
        # Functions and classes are called by their names, so that a new process of the program has them too.
        return {name: own[name] for name in names if name in own and (not callable(own[name]) or _raises(own[name]))}

    def _attribute(self, owner: Any, name: str, *contents: Any) -> Any:
        """An attribute's value, or what the tests made of the container that it was."""
        key = id(owner), name
        if not contents:
            value = getattr(owner, name)
            if isinstance(value, CONTAINERS):
                self._containers[key] = value
            return value
        container = self._containers[key]
        container.clear()
        (container.update if isinstance(container, (dict, set)) else container.extend)(contents[0])
        return None

    def _replace(self, path: str, name: str, *value: Any) -> None:
        """Give a module's attribute the tests' value; without one, its own again."""
        module = self._module if path in PROGRAM_MODULES else importlib.import_module(path)
        own = self._replaced.setdefault((path, name), dict(os.environ) if name == "environ" else vars(module).get(name))
        new: Any = value[0] if value else own
        if name == "environ":
            os.environ.clear()
            os.environ.update(new)
        else:
            setattr(module, name, new)

    def _encode(self, value: Any) -> Node:
        if _raises(value):
            return ["exception", exception_names(value)]
        if (name := getattr(value, "__name__", "")) and isinstance(value, type) and self._own.get(name) is value:
            return ["name", name]
        if type(value) is _Lent:
            return ["lent", vars(value)["_number"]]
        number = self._numbers.setdefault(id(value), len(self._alive))
        if number == len(self._alive):
            self._alive.append(value)
        return ["handle", number, _LAZY.get(type(value), "")]

    def _decode(self, node: Node) -> Any:
        kind, name, *about = node
        if kind == "handle":
            return self._alive[name]
        if kind == "name" and name not in self._own:
            raise NameError(f"name {name!r} is not defined")
        if kind == "name":
            return self._own[name]
        if kind == "lent":
            return _Lent(name, lambda what, *args, **kwargs: self._call_back(what, name, args, kwargs))
        function = lambda *args, **kwargs: self._call_back("callback", name, args, kwargs)  # noqa: E731
        function.__name__ = about[0]
        return function

    def _call_back(self, what: str, number: int, args: Any, kwargs: Any) -> Any:
        message, nodes, objects = self.peer.request(what, (number, *args), kwargs)
        if "raised" in message:
            raise self.peer.raised(message, {name: own for name, own in self._own.items() if _raises(own)})
        objects = self.peer.change([*nodes, *message["nodes"]], objects, message["changed"])
        return reader(objects)(message["value"])


def _raises(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)
