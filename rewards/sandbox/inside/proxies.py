"""Proxies of the program in the tests' process: its names and objects, whose operations are requests over the channel.

No value here is an object of the program: its results are plain data, or proxies that hold an object's number. Replies
are untrusted; one that cannot be decoded counts as the end of the program's process.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from functools import cache
from types import BuiltinMethodType, MethodType
from typing import Any

from .channel import LENT_METHODS, RAISED, Closed, Peer, TooLarge, exception_class
from .values import CONTAINERS, MUTABLE, Node, Values, class_names, reader

# Special attributes of classes and functions that a proxy has: libraries do not look them up in arbitrary objects.
_METADATA = {
    "__name__", "__qualname__", "__annotations__", "__mro__", "__bases__", "__slots__", "__abstractmethods__",
    "__members__", "__defaults__", "__kwdefaults__", "__code__", "__wrapped__",
}  # fmt: skip
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)
_MOST_CONTAINERS = 64  # maximum number of containers whose changes are sent back
# Attributes that the program cannot use: they change what a mock reports to the tests, or lock a stream's buffer.
_REFUSED = ("configure_mock", "reset_mock", "mock_add_spec", "attach_mock", "getbuffer")
_Changes = tuple[list[Node], list[Any], list[Any]]  # arguments of Peer.change: nodes, objects, changed


def is_skip(raised: BaseException | None) -> bool:
    """Whether this is the exception of `self.skipTest` or `pytest.skip`."""
    return type(raised).__name__ in ("SkipTest", "Skipped")


class Unfit(BaseException):
    """The tests cannot be run with any program; args: the reason."""


class Died(BaseException):
    """The program's process ended, or its reply could not be read; args: status, "" if unknown, and message."""


class Program:
    """The program, which runs in another process and may end at any time.

    requested: called before each request. before: called before each request of the tests, to send what they replaced.
    died: set by a request after the end of the process, even if the tests catch the exception. skips: the
    exceptions raised by the program that would skip a test.
    """

    def __init__(self, fd: int, most: int, requested: Callable[[], None]) -> None:
        self._requested, self._ended = requested, False
        self.died: Died | None = None
        self.skips: list[BaseException] = []
        self._functions: list[Any] = []  # functions, mocks and streams that the tests passed to the program
        self._numbers: dict[Any, int] = {}  # id of a function, mock or stream, or a method's key -> its index
        self._handles: dict[int, Handle] = {}
        self._lazy: dict[int, tuple[Any, Handle]] = {}  # id of a generator or coroutine -> it, and its proxy
        self._names: dict[str, Named] = {}
        self.used: set[str] = set()  # global names of the program that the tests use
        # (id of owner, attribute) -> the owner, the tests' copy of the container, its nodes in the program's process.
        self._containers: dict[tuple[int, str], tuple[Handle, Any, list[Node]]] = {}
        self.exceptions: dict[str, type[BaseException]] = {}
        self.unsettled: list[tuple[bool, _Changes]] = []  # changes to arguments, and whether they wait for an assert
        self._proxied: dict[int, Proxied] = {}  # by number of the program's object
        self._error_class: type = type("ProgramError", (ProgramError,), {"_program": self})
        values = Values(self._encode, self._decode, lambda generator: id(generator) not in self._lazy, _encode_kept)
        self.classes = values.classes
        self.before: Callable[[], None] = lambda: None
        self._turn = threading.RLock()  # tests may have threads
        self._peer = Peer(fd, most, values, self._perform)
        self._peer.keeps = lambda problem: proxy_of(problem) is not None

    def names(self, names: list[str]) -> dict[str, Any]:
        """Values of the program's global names: plain data as copies, others as proxies."""
        values: Any = {}
        self.used.update(names)
        with contextlib.suppress(Died):
            try:
                values = self.request("names", names, list(self.classes))
            except RAISED:  # raised by the program, perhaps forged: the tests are not at fault
                values = {}
            if type(values) is not dict:
                values = {}
                raise self._died("an unreadable answer", "runtime_error")
        return {name: values.get(name, self.named(name)) for name in names}

    def named(self, name: str) -> Named:
        """The proxy of a global name; one object per name."""
        return self._names.setdefault(name, Named(self, name))

    def request(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """The program's reply to a request of the tests. Raises the program's exception, or Died."""
        with self._turn:
            self._refill()
            self.before()
            return self.ask(name, *args, **kwargs)

    def attribute(self, owner: Handle, name: str) -> Any:
        """An attribute of the program's object; changes that the tests make in a container are sent back."""
        value = self.request("attribute", owner, name)
        if type(value) in CONTAINERS:
            self._containers[id(owner), name] = owner, value, self._peer.values.encode(value)[1]
            if len(self._containers) > _MOST_CONTAINERS:
                del self._containers[next(iter(self._containers))]
        return value

    def _refill(self) -> None:
        """Send containers that the tests have changed back to the program, as copies: it cannot change them here."""
        for key, (owner, value, sent) in list(self._containers.items()):
            root, nodes, _ = self._peer.values.encode(value)
            if nodes != sent:
                self._containers[key] = owner, value, nodes
                self.ask("refill", owner, key[1], reader(self._peer.values.decode(nodes))(root))

    def class_of(self, value: Any) -> Any:
        """`type(value)`; for an object of the program, the proxy of its class, never a class of the tests."""
        proxy = proxy_of(value)
        kind = None if proxy is None else self.request("type", proxy)
        if isinstance(kind, Handle):
            return kind
        exceptions = self.exceptions.values()
        return next(kind for kind in type(value).__mro__ if kind in exceptions or not issubclass(kind, Proxied))

    def ask(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """As `request`, without sending first what the tests replaced or changed."""
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
            if self._peer.received > self._peer.most // 4:  # the data may have come from the program
                raise Died("output_limit", "the results are too large to be passed back to the program") from None
            raise Unfit("they pass more data to the program than one message can hold") from None
        return self._answer(name, message, nodes, objects)

    def _died(self, problem: str, status: str = "") -> Died:
        """The exception for an ended process; closes the channel."""
        if not self._ended:
            os.close(self._peer.fd)
        self._ended = True
        self.died = Died(status, problem)
        return self.died

    def _answer(self, name: str, message: dict[str, Any], nodes: list[Node], objects: list[Any]) -> Any:
        """The value in a reply. nodes, objects: of its request. Raises the exception in it, or Died."""
        if "limit" in message:
            raise Died("output_limit", "the result is too large")
        try:
            if "raised" not in message:
                return self._value(message, nodes, objects)
            raised = self._peer.raised(message, self.exceptions, self._error_class)
        except _UNREADABLE as problem:
            raise self._died(f"an unreadable answer: {problem}", "runtime_error") from None
        if isinstance(raised, StopIteration) and name not in ("next", "send"):
            raise RuntimeError("the program raised StopIteration")  # it would end a loop of the tests
        if is_skip(raised):
            self.skips.append(raised)
        raise raised

    def _value(self, message: dict[str, Any], nodes: list[Node], objects: list[Any]) -> Any:
        """The value in a reply; changes to arguments are applied at once if it is None, else kept for `settle`."""
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
        # Not at once: otherwise a program passes `f(data) == sorted(data)` by emptying data.
        value = reader(self._peer.values.decode(after))(message["value"])
        self.unsettled.append((not isinstance(value, (int, float, str)), (after, objects, changed)))
        return value

    def settle(self, everything: bool = True, arguments: Sequence[Any] = ()) -> None:
        """Apply the changes that calls made to their arguments. Unless `everything`, only those of calls that returned
        a number or string, and those to `arguments`, which are about to be passed to the program again.
        """
        waiting, self.unsettled = self.unsettled, []
        used = set(map(id, arguments))
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
        """The result of a request of the program to one of the tests' functions, mocks or streams."""
        number, *args = args
        owner = self._functions[number]
        if name == "callback":
            try:
                return owner(*args, **kwargs)
            except Exception as problem:
                self.exceptions.setdefault(type(problem).__name__, type(problem))  # the program may raise it again
                raise
        if not _is_lent(owner) or (name != "getattr" and name not in LENT_METHODS):
            raise TypeError("no function, mock or stream of the tests")
        if name != "getattr":
            return getattr(owner, name)(*args)
        if args[0].startswith("_") or args[0] in _REFUSED:
            raise AttributeError(args[0])
        return getattr(owner, args[0])

    def _encode(self, value: Any) -> Node:
        """The node of a value that is not plain data."""
        value = self._lazy[id(value)][1] if id(value) in self._lazy else value
        if isinstance(value, Named):
            return ["name", value._proxy_name]
        if isinstance(value, Handle):
            return ["handle", value._proxy_number]
        if isinstance(value, type):
            if self.classes.get(value.__name__) is value:
                return ["name", value.__name__]
            if issubclass(value, Exception):
                self.exceptions.setdefault(value.__name__, value)
                return ["exception", class_names(value)]
        elif _is_lent(value) or callable(value):
            is_method = isinstance(value, (MethodType, BuiltinMethodType))  # each access creates a new object
            key = (id(value.__self__), value.__name__) if is_method else id(value)
            number = self._numbers.setdefault(key, len(self._functions))
            if number == len(self._functions):
                self._functions.append(value)
            name = "" if _is_lent(value) else str(getattr(value, "__name__", ""))
            return ["lent" if _is_lent(value) else "callback", number, name]
        kind = type(value).__name__
        raise Unfit(f"the tests pass an object of class {kind} to the program: define {kind} in tests.declarations")

    def _decode(self, node: Node) -> Any:
        """The tests' object that a node refers to, or the proxy of a program's object."""
        if node[0] == "exception":
            return exception_class(node[1], self.exceptions, self._error_class)
        if node[0] in ("callback", "lent"):
            return self._functions[node[1]]
        if node[0] == "name":
            return self.named(node[1])
        if node[0] not in ("handle", "kept") or type(node[1]) is not int:
            raise ValueError("unknown value")
        extra = node[2] if len(node) > 2 else ""  # kind or plain data; nodes of the tests' requests have none
        if node[0] == "kept" and isinstance(extra, _IMMUTABLE):
            return self._attach(node[1], type(extra), extra)
        if extra == "error":
            return self._attach(node[1], exception_class(node[3], self.exceptions, self._error_class))
        handle = self._handles.setdefault(node[1], (Container if extra in _BASES else Handle)(self, node[1], extra))
        if extra not in _LAZY:
            return handle
        wrapper = _LAZY[extra](handle)
        self._lazy[id(wrapper)] = wrapper, handle
        return wrapper

    def _attach(self, number: int, kind: type, *data: Any) -> Proxied:
        """The plain value or exception of class `kind` with the proxy of the program's object of this number."""
        if number not in self._proxied:
            kind = _proxied(self._error_class if issubclass(kind, BaseException) else Proxied, kind)
            create = tuple.__new__ if issubclass(kind, tuple) else kind.__new__
            value: Proxied = create(kind, *data)
            value._proxy_handle = self._handles.setdefault(number, Handle(self, number))
            self._proxied[number] = value
        return self._proxied[number]


def _is_lent(value: Any) -> bool:
    """Whether the value is a mock or stream, which the program may use through a proxy of its own."""
    mock = sys.modules.get("unittest.mock")
    return isinstance(value, io.IOBase) or (mock is not None and isinstance(value, mock.NonCallableMock))


def _generator(handle: Handle) -> Generator[Any, Any, Any]:
    try:
        sent = yield handle._proxy_request("next")
        while True:
            sent = yield handle._proxy_request("next") if sent is None else handle._proxy_request("send", sent)
    except StopIteration as end:
        return end.value


async def _coroutine(handle: Handle) -> Any:
    return handle._proxy_request("await")


async def _async_generator(handle: Handle) -> Any:
    for item in handle._proxy_request("await_all"):
        yield item


_IMMUTABLE = (int, float, complex, str, bytes, tuple, frozenset)
_BASES = {kind.__name__: kind for kind in CONTAINERS}
_LAZY = {"generator": _generator, "coroutine": _coroutine, "async generator": _async_generator}


class Handle:
    """Proxy of an object that stays in the program's process.

    It never equals plain data and has no order with it. Arithmetic with a number, except products and powers, yields a
    proxy and never a number (Mixed). So an object of the program cannot decide a comparison with plain data.
    """

    def __init__(self, program: Program, number: int, kind: str = "") -> None:
        vars(self).update(_proxy_program=program, _proxy_number=number, _proxy_kind=kind)

    def _proxy_request(self, name: str, *args: Any) -> Any:
        return self._proxy_program.request(name, self, *args)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._proxy_program.request("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__":
            raise Unfit("the tests inspect a signature of the program, which is in another process")
        if name.startswith("__") and name not in _METADATA:  # e.g. the protocol of a library
            raise AttributeError(name)
        return self._proxy_program.attribute(self, name)

    def __enter__(self) -> Any:
        return self._proxy_request("getattr", "__enter__")()

    def __exit__(self, kind: Any, value: Any, trace: Any) -> Any:
        return _suppresses(value, self._proxy_request("getattr", "__exit__")(*_exit_arguments(value), None))

    async def __aenter__(self) -> Any:
        return await self._proxy_request("getattr", "__aenter__")()

    async def __aexit__(self, kind: Any, value: Any, trace: Any) -> Any:
        return _suppresses(value, await self._proxy_request("getattr", "__aexit__")(*_exit_arguments(value), None))

    def __aiter__(self) -> Any:
        return self._proxy_request("getattr", "__aiter__")()

    async def __anext__(self) -> Any:
        return await self._proxy_request("getattr", "__anext__")()

    def __contains__(self, item: object) -> bool:
        kind = self._proxy_program.class_of(self)
        if isinstance(kind, Named) and kind._proxy_name in self._proxy_program.used:
            return bool(self._proxy_request("contains", item))
        return any(item is member or item == member for member in self._proxy_request("iter"))

    def __instancecheck__(self, instance: Any) -> bool:
        proxy = proxy_of(instance)
        return proxy is not None and bool(proxy._proxy_request("isinstance", self))

    def __subclasscheck__(self, subclass: Any) -> bool:
        return isinstance(subclass, Handle) and bool(subclass._proxy_request("issubclass", self))

    def __mro_entries__(self, bases: Any) -> Any:
        raise Unfit("the tests subclass a class of the program, which is in another process")

    def __eq__(self, other: object) -> Any:
        return self is other or (isinstance(other, Handle) and self._proxy_request("eq", other))

    def __ne__(self, other: object) -> Any:
        return self is not other and (not isinstance(other, Handle) or self._proxy_request("ne", other))

    def __rmul__(self, other: object) -> Any:
        return self._proxy_program.request("mul", other, self)


def _exit_arguments(value: BaseException | None) -> tuple[Any, Any]:
    """Class and exception that the program's `__exit__` receives."""
    return (type(value), value) if isinstance(value, Exception) else (None, None)


def _suppresses(value: BaseException | None, result: Any) -> bool:
    """Whether `__exit__` suppresses an exception. The program cannot suppress failed asserts and the end of the tests.

    result: of the program's `__exit__`.
    """
    return bool(result) and isinstance(value, Exception) and not isinstance(value, AssertionError)


def _forward(name: str, handles_only: bool = False) -> Callable[..., Any]:
    """A special method that is a request of this name. handles_only: only with another proxy as argument."""

    def method(self: Handle, *args: Any) -> Any:
        fits = not handles_only or isinstance(args[0], Handle)
        return self._proxy_request(name, *args) if fits else NotImplemented

    return method


_OF_ITSELF = (
    "setattr", "delattr", "getitem", "setitem", "delitem", "len", "iter", "next", "bool", "str", "repr", "hash", "int",
    "float", "index", "round", "format", "neg", "pos", "abs", "invert", "copy", "mul", "pow",
)  # fmt: skip
for _name in _OF_ITSELF:
    setattr(Handle, f"__{_name}__", _forward(_name))
Handle.__deepcopy__ = lambda self, _: self._proxy_request("deepcopy")  # type: ignore[attr-defined]
for _name in ("lt", "le", "gt", "ge"):
    setattr(Handle, f"__{_name}__", _forward(_name, handles_only=True))


class Container(Handle):
    """Proxy of an instance of a subclass of list, dict, set or deque: it is compared and iterated as plain data."""

    __class__ = property(lambda self: _BASES[self._proxy_kind])

    def __eq__(self, other: object) -> Any:
        return super().__eq__(other) if isinstance(other, Handle) else self._proxy_request("plain") == other

    def __ne__(self, other: object) -> Any:
        return super().__ne__(other) if isinstance(other, Handle) else self._proxy_request("plain") != other

    def __iter__(self) -> Any:
        return iter(self._proxy_request("plain"))

    def __len__(self) -> int:
        return len(self._proxy_request("plain"))

    def __contains__(self, item: object) -> bool:
        return item in self._proxy_request("plain")

    __hash__ = None  # type: ignore[assignment]


class Proxied:
    """Base of plain values and exceptions with the proxy of the program's object, which has their other attributes."""

    _proxy_handle: Handle | None = None

    def __getattr__(self, name: str) -> Any:
        if self._proxy_handle is None:
            raise AttributeError(name)
        return getattr(self._proxy_handle, name)

    def __repr__(self) -> str:
        return super().__repr__() if self._proxy_handle is None else repr(self._proxy_handle)

    def __str__(self) -> str:
        return super().__str__() if self._proxy_handle is None else str(self._proxy_handle)

    def __format__(self, spec: str) -> str:
        return super().__format__(spec) if self._proxy_handle is None else format(self._proxy_handle, spec)


@cache
def _proxied(mixin: type, kind: type) -> type:
    return kind if issubclass(kind, mixin) else type(kind.__name__, (mixin, kind), {})


class ProgramError(Proxied):
    """An exception that the program raised or returned, or of a class of the program and created by the tests."""

    _program: Program

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        exceptions = self._program.exceptions
        name = next((kind.__name__ for kind in type(self).__mro__ if exceptions.get(kind.__name__) is kind), "")
        self._proxy_handle = proxy_of(self._program.request("call", self._program.named(name), *args, **kwargs))

    args = property(lambda self: _exception_attribute(self, "args"))
    __cause__ = property(lambda self: _exception_attribute(self, "__cause__"))


def _exception_attribute(problem: Any, name: str) -> Any:
    if problem._proxy_handle is None:
        return vars(BaseException)[name].__get__(problem)
    return problem._proxy_handle._proxy_request("getattr", name)


def proxy_of(value: Any) -> Handle | None:
    """The proxy of the program's object that a value refers to; None if it refers to none."""
    return value if isinstance(value, Handle) else value._proxy_handle if isinstance(value, Proxied) else None


def _encode_kept(value: Any, tag: str) -> Node | None:
    proxy = proxy_of(value)
    return None if proxy is None else ["handle", proxy._proxy_number]


class Mixed(Handle):
    """Proxy of the result of arithmetic between an object and a number: it cannot be used as a number.

    Otherwise an object could pass `abs(f(1) - 2) < 1e-6` or `round(f(1) / 2) == 1` for any expected value.
    """


for _name in ("abs", "int", "float", "index", "round", "format", "bool", "neg", "pos", "invert", "mul", "rmul", "pow"):
    setattr(Mixed, f"__{_name}__", None)


def _arithmetic(name: str, reflected: bool) -> Callable[..., Any]:
    """A special method for an operator. reflected: the proxy is the right operand."""

    def method(self: Handle, other: Any) -> Any:
        number = type(other) in (int, float)
        if not number and not isinstance(other, Handle):
            return NotImplemented
        pair = (other, self) if reflected else (self, other)
        result = self._proxy_program.request(name, *pair)
        if not number and Mixed not in (type(self), type(other)):
            return result
        fits = type(result) in (Handle, Mixed)
        return Mixed(self._proxy_program, result._proxy_number) if fits else NotImplemented

    return method


for _name in ("add", "sub", "truediv", "floordiv", "mod", "matmul", "and", "or", "xor", "lshift", "rshift"):
    setattr(Handle, f"__{_name}__", _arithmetic(f"__{_name}__", reflected=False))
    setattr(Handle, f"__r{_name}__", _arithmetic(f"__{_name}__", reflected=True))


class Named(Handle):
    """Proxy of a function or class of the program, by name; the program may not define it."""

    def __init__(self, program: Program, name: str) -> None:
        vars(self).update(_proxy_program=program, _proxy_name=name)


Handle.__doc__ = Named.__doc__ = property(lambda self: self._proxy_request("getattr", "__doc__"))  # type: ignore[assignment]
