"""What stands for the program in the process of its tests: its names and objects, which ask another process.

No value here is the program's own object: what it returned is plain data, or a stand-in that knows its number.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from .channel import LENT_METHODS, RAISED, Closed, Peer, TooLarge, exception_class
from .values import CONTAINERS, MUTABLE, Node, Values, reader

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)
_MOST_CONTAINERS = 64  # that are watched at a time
_Changes = tuple[list[Node], list[Any], list[Any]]  # nodes after a call, the tests' objects, what changed


class Unfit(BaseException):
    """These tests cannot be run, whatever the program is; args say why."""


class Died(BaseException):
    """The program's process ended, or its answer could not be read; args: a status if it is known, and a message."""


class Program:
    """The program as the tests see it, in a process that may end.

    requested: called before each request; before: then, too, to show the program what the tests replaced. died: set
    when the process is asked after its end, whether or not the tests catch that.
    """

    def __init__(self, fd: int, most: int, requested: Callable[[], None]) -> None:
        self._requested, self._ended = requested, False
        self.died: Died | None = None
        self.raised: BaseException | None = None  # by the program, the last time
        self._functions: list[Any] = []
        self._handles: dict[int, Handle] = {}
        self._names: dict[str, Named] = {}
        # By owner and attribute: the owner, the tests' container, and its nodes as the program has them.
        self._containers: dict[tuple[int, str], tuple[Handle, Any, list[Node]]] = {}
        self.exceptions: dict[str, type[BaseException]] = {}
        self.unsettled: list[tuple[bool, _Changes]] = []  # the first: whether it waits for an assert
        values = Values(self._encode, self._decode, generators=True)
        self.classes = values.classes
        self.before: Callable[[], None] = lambda: None
        self._turn = threading.RLock()  # tests may have threads
        self._peer = Peer(fd, most, values, self._perform)

    def names(self, names: list[str]) -> dict[str, Any]:
        """The program's global names: plain values as they are, the others as stand-ins."""
        values: Any = {}
        with contextlib.suppress(Died):
            try:
                values = self.request("names", names, list(self.classes))
            except RAISED:  # the program's, or forged: no verdict on the tests
                values = {}
            if type(values) is not dict:
                values = {}
                raise self._died("an unreadable answer", "runtime_error")
        return {name: values.get(name, self._named(name)) for name in names}

    def _named(self, name: str) -> Named:
        return self._names.setdefault(name, Named(self, name))

    def request(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """What the program gives for a question. Raises what it raised, or Died."""
        with self._turn:
            self._refill()
            self.before()
            return self.ask(name, *args, **kwargs)

    def attribute(self, owner: Handle, name: str) -> Any:
        """An attribute of the program's object. What the tests do to a container that it is happens there, too."""
        value = self.request("attribute", owner, name)
        if type(value) in CONTAINERS:
            self._containers[id(owner), name] = owner, value, self._peer.values.encode(value)[1]
            if len(self._containers) > _MOST_CONTAINERS:
                del self._containers[next(iter(self._containers))]
        return value

    def _refill(self) -> None:
        """Give the program what the tests changed in its objects' containers: copies, so that it changes nothing."""
        for key, (owner, value, sent) in list(self._containers.items()):
            root, nodes, _ = self._peer.values.encode(value)
            if nodes != sent:
                self._containers[key] = owner, value, nodes
                self.ask("refill", owner, key[1], reader(self._peer.values.decode(nodes))(root))

    def class_of(self, value: Any) -> Any:
        """`type(value)`; of the program's objects never a class that the tests have."""
        kind = self.request("type", value) if isinstance(value, Handle) else None
        return kind if isinstance(kind, Handle) else type(value)

    def ask(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """The same, whatever the tests replaced."""
        self._requested()
        if self.unsettled:
            self.settle(False, self._peer.values.encode((args, kwargs))[2])
        if self._ended:
            raise self._died("")
        try:
            message, nodes, objects = self._peer.request(name, args, kwargs)
        except Closed as problem:
            raise self._died(str(problem)) from None
        except TooLarge:
            raise Unfit("they give the program more than it can be sent at once") from None
        return self._answer(name, message, nodes, objects)

    def _died(self, problem: str, status: str = "") -> Died:
        if not self._ended:
            os.close(self._peer.fd)
        self._ended = True
        self.died = Died(status, problem)
        return self.died

    def _answer(self, name: str, message: dict[str, Any], nodes: list[Node], objects: list[Any]) -> Any:
        if "limit" in message:
            raise Died("output_limit", "the result is too large")
        try:
            if "raised" not in message:
                return self._value(message, nodes, objects)
            raised = self.raised = self._peer.raised(message, self.exceptions)
        except _UNREADABLE as problem:
            raise self._died(f"an unreadable answer: {problem}", "runtime_error") from None
        if isinstance(raised, StopIteration) and name not in ("next", "send"):
            raise RuntimeError("the program raised StopIteration")  # it would end a loop of the tests
        raise raised

    def _value(self, message: dict[str, Any], nodes: list[Node], objects: list[Any]) -> Any:
        changed, after = message["changed"], [*nodes, *message["nodes"]]
        if not changed:
            return reader(self._peer.values.decode(after, objects))(message["value"])
        for at, node in changed:
            if not 0 <= at < len(nodes) or nodes[at][0] != node[0] or node[0] not in MUTABLE:
                raise ValueError("no such change")
            after[at] = node
        if message["value"] is None:
            self._peer.change(after, objects, changed)
            return None
        # Not at once: else `f(data) == sorted(data)` is passed by emptying data.
        value = reader(self._peer.values.decode(after))(message["value"])
        self.unsettled.append((not isinstance(value, (int, float, str)), (after, objects, changed)))
        return value

    def settle(self, everything: bool = True, given: Sequence[Any] = ()) -> None:
        """Show what calls changed in their arguments; unless `everything`, only of those with a plain result, and of
        those in `given`, which go to the program again.
        """
        waiting, self.unsettled = self.unsettled, []
        used = set(map(id, given))
        for waits, changes in waiting:
            _, objects, changed = changes
            if not everything and waits and used.isdisjoint(id(objects[at]) for at, _ in changed):
                self.unsettled.append((waits, changes))
            elif not self._ended:
                try:
                    self._peer.change(*changes)
                except _UNREADABLE as problem:
                    raise self._died(f"an unreadable answer: {problem}", "runtime_error") from None

    def _perform(self, name: str, args: Any, kwargs: Any) -> Any:
        """What the program asks of the tests' functions, and of their mocks and streams."""
        number, *args = args
        owner = self._functions[number]
        if name == "callback":
            return owner(*args, **kwargs)
        if not _is_lent(owner) or (name != "getattr" and name not in LENT_METHODS):
            raise TypeError("no function, mock or stream of the tests")
        if name != "getattr":
            return getattr(owner, name)(*args)
        if args[0].startswith("_"):
            raise AttributeError(args[0])
        return getattr(owner, args[0])

    def _encode(self, value: Any) -> Node:
        if type(value) in (Handle, Mixed):
            return ["handle", value._standin_number]
        if type(value) is Named:
            return ["name", value._standin_name]
        if isinstance(value, type):
            if self.classes.get(value.__name__) is value or value.__name__ in self.exceptions:
                return ["name", value.__name__]
        elif _is_lent(value) or callable(value):
            self._functions.append(value)
            name = "" if _is_lent(value) else str(getattr(value, "__name__", ""))
            return ["lent" if _is_lent(value) else "callback", len(self._functions) - 1, name]
        raise Unfit(f"the tests give the program a {type(value).__name__}: define its class in tests.declarations")

    def _decode(self, node: Node) -> Any:
        if node[0] == "exception":
            return exception_class(node[1], self.exceptions)
        if node[0] in ("callback", "lent"):
            return self._functions[node[1]]
        if node[0] == "name":
            return self._named(node[1])
        if node[0] != "handle" or type(node[1]) is not int:
            raise ValueError("unknown value")
        handle = self._handles.setdefault(node[1], Handle(self, node[1]))
        lazy = _LAZY.get(str(node[2])) if len(node) > 2 else None  # the tests' own request says no kind
        return lazy(handle) if lazy else handle


def _is_lent(value: Any) -> bool:
    """Whether it is a mock or a stream of the tests, which the program may use as such."""
    mock = sys.modules.get("unittest.mock")
    return isinstance(value, io.IOBase) or (mock is not None and isinstance(value, mock.NonCallableMock))


def _generator(handle: Handle) -> Generator[Any, Any, None]:
    with contextlib.suppress(StopIteration):
        sent = yield handle._standin_request("next")
        while True:
            sent = yield handle._standin_request("next") if sent is None else handle._standin_request("send", sent)


async def _coroutine(handle: Handle) -> Any:
    return handle._standin_request("await")


async def _async_generator(handle: Handle) -> Any:
    for item in handle._standin_request("await_all"):
        yield item


_LAZY = {"generator": _generator, "coroutine": _coroutine, "async generator": _async_generator}


class Handle:
    """Stands for an object that stays in the program's process.

    It never equals plain data, has no order with it, and what arithmetic with a number makes of it is an object, never
    a number (Mixed), products and powers aside: an object of the program does not decide what it is compared with.
    """

    def __init__(self, program: Program, number: int) -> None:
        vars(self).update(_standin_program=program, _standin_number=number)

    def _standin_request(self, name: str, *args: Any) -> Any:
        return self._standin_program.request(name, self, *args)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._standin_program.request("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__":
            raise Unfit("the tests inspect a signature of the program, which is in another process")
        if name.startswith("__") and name not in ("__name__", "__annotations__"):  # some library's protocol
            raise AttributeError(name)
        return self._standin_program.attribute(self, name)

    def __enter__(self) -> Any:
        return self._standin_request("getattr", "__enter__")()

    def __exit__(self, *_: object) -> Any:
        return self._standin_request("getattr", "__exit__")(None, None, None)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Handle) and bool(instance._standin_request("isinstance", self))

    def __subclasscheck__(self, subclass: Any) -> bool:
        return isinstance(subclass, Handle) and bool(subclass._standin_request("issubclass", self))

    def __mro_entries__(self, bases: Any) -> Any:
        raise Unfit("the tests subclass a class of the program, which is in another process")

    def __eq__(self, other: object) -> Any:
        return self is other or (isinstance(other, Handle) and self._standin_request("eq", other))

    def __ne__(self, other: object) -> Any:
        return self is not other and (not isinstance(other, Handle) or self._standin_request("ne", other))

    def __rmul__(self, other: object) -> Any:
        return self._standin_program.request("mul", other, self)


def _forward(name: str, handles_only: bool = False) -> Callable[..., Any]:
    def method(self: Handle, *args: Any) -> Any:
        fits = not handles_only or isinstance(args[0], Handle)
        return self._standin_request(name, *args) if fits else NotImplemented

    return method


_OF_ITSELF = (
    "setattr", "delattr", "getitem", "setitem", "delitem", "len", "iter", "next", "bool", "str", "repr", "hash", "int",
    "float", "index", "round", "format", "neg", "pos", "abs", "invert", "copy", "mul", "pow",
)  # fmt: skip
for _name in _OF_ITSELF:
    setattr(Handle, f"__{_name}__", _forward(_name))
Handle.__deepcopy__ = lambda self, _: self._standin_request("deepcopy")  # type: ignore[attr-defined]
for _name in ("lt", "le", "gt", "ge"):
    setattr(Handle, f"__{_name}__", _forward(_name, handles_only=True))


class Mixed(Handle):
    """What arithmetic with a number made of an object: it has a text, attributes and items, but is no number itself.

    Else an object could pass `abs(f(1) - 2) < 1e-6` and `round(f(1) / 2) == 1`, whatever they compare it with.
    """


for _name in ("abs", "int", "float", "index", "round", "format", "bool", "neg", "pos", "invert", "mul", "rmul", "pow"):
    setattr(Mixed, f"__{_name}__", None)


def _arithmetic(name: str, reflected: bool) -> Callable[..., Any]:
    def method(self: Handle, other: Any) -> Any:
        number = type(other) in (int, float)
        if not number and not isinstance(other, Handle):
            return NotImplemented
        pair = (other, self) if reflected else (self, other)
        result = self._standin_program.request(name, *pair)
        if not number and Mixed not in (type(self), type(other)):
            return result
        fits = type(result) in (Handle, Mixed)
        return Mixed(self._standin_program, result._standin_number) if fits else NotImplemented

    return method


for _name in ("add", "sub", "truediv", "floordiv", "mod", "matmul", "and", "or", "xor", "lshift", "rshift"):
    setattr(Handle, f"__{_name}__", _arithmetic(f"__{_name}__", reflected=False))
    setattr(Handle, f"__r{_name}__", _arithmetic(f"__{_name}__", reflected=True))


class Named(Handle):
    """Stands for a function or class of the program, or for a name that it lacks."""

    def __init__(self, program: Program, name: str) -> None:
        vars(self).update(_standin_program=program, _standin_name=name)


Handle.__doc__ = Named.__doc__ = property(lambda self: self._standin_request("getattr", "__doc__"))  # type: ignore[assignment]
