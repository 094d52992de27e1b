"""The program's side of the channel: serves the requests of the tests (judge.py) in the program's own process.

The program can manipulate everything here, so nothing in this process is trusted: the tests' process receives only
data, validates it (values.py) and decides the verdicts.
"""

import copy
import importlib
import operator
import os
import sys
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, ModuleType
from typing import Any

from .channel import LENT_METHODS, PROGRAM_MODULES, Closed, Peer, TooLarge, exception_class
from .values import CONTAINERS, MUTABLE, Node, Values, class_names, plain, reader, set_attributes

# Functions that a request can name; other names are those of the module `operator`, or handled by `_perform`.
_FUNCTIONS: dict[str, Any] = {
    "call": lambda function, *args, **kwargs: function(*args, **kwargs),
    "send": lambda generator, value: generator.send(value),
    "await": lambda coroutine: importlib.import_module("asyncio").run(coroutine),  # slow to import
    "await_all": lambda generator: _FUNCTIONS["await"](_items(generator)),
    **{f.__name__: f for f in (len, bool, str, repr, iter, next, isinstance, issubclass, getattr, setattr, delattr)},
    **{f.__name__: f for f in (type, vars, hash, int, float, round, format, pow, copy.copy, copy.deepcopy, plain)},
}  # fmt: skip
_IMMUTABLE = ("int", "float", "complex", "str", "bytes", "tuple", "frozenset")  # tags
# Attributes of every class: they do not require that an instance of a subclass stays in this process.
_CLASS_ATTRIBUTES = {*vars(type("", (list,), {})), "__qualname__", "__annotations__", "__slots__", "__orig_bases__"}


async def _items(generator: Any) -> list[Any]:
    return [item async for item in generator]


_LAZY = {GeneratorType: "generator", CoroutineType: "coroutine", AsyncGeneratorType: "async generator"}


def serve(module: ModuleType, fd: int, most: int) -> None:
    """Serve requests until the tests close the channel. module: the executed program. most: bytes of a frame."""
    program = _Program(module, fd, most)
    while True:
        try:
            program.peer.serve(program.peer.receive())
        except Closed:
            return
        except TooLarge:
            program.peer.send({"limit": "output_limit"})


class _Lent:
    """Proxy of a mock or stream that is in the tests' process. ask(what, *args, **kwargs): sends a request to it."""

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
    """The executed program, with the objects that the tests refer to."""

    def __init__(self, module: ModuleType, fd: int, most: int) -> None:
        self._module, self._globals = module, vars(module)
        self._originals: dict[tuple[str, str], Any] = {}  # (module, attribute) -> value before the tests replaced it
        self._objects: list[Any] = []  # objects that stay in this process; the tests refer to them by index
        self._numbers: dict[int, int] = {}  # id of an object -> its index
        self._exceptions: dict[str, type[BaseException]] = {}  # exception classes of the program and the tests, by name
        self._lent: dict[int, Any] = {}  # proxies of the tests' functions, mocks and streams, by their number
        self._containers: dict[tuple[int, str], Any] = {}  # (id of owner, attribute) -> container that the tests copied
        values = Values(self._encode, self._decode, lambda generator: False, self._encode_kept)
        self.peer = Peer(fd, most, values, self._perform)
        self.peer.keeps = self._keeps

    def _perform(self, name: str, args: Any, kwargs: Any) -> Any:
        """The result of a request."""
        if name == "names":
            return self._names(*args)
        if name == "defined":
            return args[0] in self._globals
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
        """Values of the program's global names, without functions and classes. classes: names of the classes whose
        instances are sent as their attributes.
        """
        scope = self._globals
        self.peer.values.classes = {name: scope[name] for name in classes if isinstance(scope.get(name), type)}
        # The tests refer to functions and classes, except exceptions, by their names.
        defined = [name for name in names if name in scope]
        return {name: scope[name] for name in defined if not callable(scope[name]) or _raises(scope[name])}

    def _attribute(self, owner: Any, name: str, *contents: Any) -> Any:
        """An attribute's value; with `contents`, replace the contents of the container that was returned before."""
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
        """Set a module's attribute to the tests' value; without a value, restore the original one."""
        module = self._module if path in PROGRAM_MODULES else importlib.import_module(path)
        current = dict(os.environ) if name == "environ" else vars(module).get(name)
        original = self._originals.setdefault((path, name), current)
        new: Any = value[0] if value else original
        if name == "environ":
            os.environ.clear()
            os.environ.update(new)
        else:
            setattr(module, name, new)

    def _encode(self, value: Any) -> Node:
        """The node of a value that is not plain data."""
        if _raises(value):
            return ["exception", class_names(value)]
        if (name := getattr(value, "__name__", "")) and isinstance(value, type) and self._globals.get(name) is value:
            return ["name", name]
        if type(value) in (_Lent, FunctionType) and self._lent.get(vars(value).get("_number")) is value:
            return ["lent", vars(value)["_number"]]
        return ["handle", self._number(value), _LAZY.get(type(value), "")]

    def _number(self, value: Any) -> int:
        """The index of an object that stays in this process."""
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        return number

    def _encode_kept(self, value: Any, tag: str) -> Node | None:
        """The node of an exception, or of an instance of the program's subclass of a plain type; None for an instance
        without attributes of its own, which is sent as plain data.
        """
        kind = type(value)
        if tag == "error":
            return ["handle", self._number(value), tag, class_names(kind)]
        if kind.__module__ != self._module.__name__ or not (tag in MUTABLE or tag in _IMMUTABLE):
            return None
        bases = [base for base in kind.__mro__ if base.__module__ == kind.__module__]
        names = set().union(*map(vars, bases)) - _CLASS_ATTRIBUTES
        if tag not in MUTABLE:
            names = {name for name in names if not name.startswith("_")}.difference(getattr(kind, "_fields", ()))
        if not names and not getattr(value, "__dict__", None):
            return None
        return ["handle", self._number(value), tag] if tag in MUTABLE else ["kept", self._number(value)]

    def _keeps(self, problem: BaseException) -> bool:
        """Whether a raised exception stays in this process: its class is the program's, or it has a cause."""
        own = type(problem).__module__ == self._module.__name__
        return isinstance(problem, Exception) and (own or problem.__cause__ is not None)

    def _decode(self, node: Node) -> Any:
        """The program's object that a node refers to, or a proxy of the tests' function, mock or stream."""
        kind, name, *rest = node
        if kind == "handle":
            return self._objects[name]
        if kind == "name" and name not in self._globals:
            raise NameError(f"name {name!r} is not defined")
        if kind == "name":
            return self._globals[name]
        if kind in ("lent", "callback"):
            if name not in self._lent:
                self._lent[name] = self._lent_proxy(kind, name, rest[0])
            return self._lent[name]
        if kind == "exception":
            return exception_class(name, self._known_exceptions())
        if kind == "error":
            error = exception_class(name, self._known_exceptions())
            problem = error.__new__(error, *rest[0])
            set_attributes(problem, rest[1].items())
            return problem
        raise ValueError("unknown value")

    def _lent_proxy(self, kind: str, number: int, name: str) -> Any:
        """A new proxy of a function, mock or stream of the tests."""
        if kind == "lent":
            return _Lent(number, lambda what, *args, **kwargs: self._call_back(what, number, args, kwargs))
        function = lambda *args, **kwargs: self._call_back("callback", number, args, kwargs)  # noqa: E731
        function.__name__ = name
        vars(function)["_number"] = number
        return function

    def _known_exceptions(self) -> dict[str, type[BaseException]]:
        """The exception classes that the tests may refer to, by name; the program's globals may have changed."""
        self._exceptions.update((name, value) for name, value in self._globals.items() if _raises(value))
        return self._exceptions

    def _call_back(self, what: str, number: int, args: Any, kwargs: Any) -> Any:
        """The result of a request to the tests' process. number: of the function, mock or stream there."""
        message, nodes, objects = self.peer.request(what, (number, *args), kwargs)
        if "raised" in message:
            raise self.peer.raised(message, self._known_exceptions())
        objects = self.peer.change([*nodes, *message["nodes"]], objects, message["changed"])
        return reader(objects)(message["value"])


def _raises(value: Any) -> bool:
    """Whether the value is an exception class."""
    return isinstance(value, type) and issubclass(value, Exception)
