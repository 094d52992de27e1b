"""The tests' side of a channel: runs test code in which the program's names stand for what another process holds.

Verdicts are written to RESULT_FD as lines of JSON while the tests run, so that they survive the end of this process.
No value here is the program's own object: what it returned is compared as plain data by code that it cannot reach.
"""

from __future__ import annotations

import importlib
import json
import operator
import os
import sys
from collections.abc import Callable, Generator
from types import CodeType, GeneratorType, ModuleType, TracebackType
from typing import Any

from .channel import Channel, Closed, Peer, TooLarge
from .values import MUTABLE, Node, Values, fill

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)
_Changes = tuple[list[Node], list[Any], list[Any]]  # nodes after a call, the tests' objects, what changed


class Unfit(BaseException):
    """These tests cannot be run, whatever the program is; args say why."""


class Died(BaseException):
    """The program's process ended, or its answer could not be read; args: its number, and a status if it is known."""


class Done(BaseException):
    """A test has failed, and the first failure decides."""


class Program:
    """The program as the tests see it. A process of it that ends is followed by the next one, without its state."""

    def __init__(self, fds: list[int], most: int, verdicts: Verdicts) -> None:
        self._fds, self._most, self._verdicts = fds, most, verdicts
        self.number = -1  # of the process
        self._never_ready = False  # its last process did not even load
        self._peer: Peer | None = None
        self._names: tuple[list[str], list[str]] = [], []
        self._functions: list[Any] = []
        self._handles: dict[int, Handle] = {}
        self.exceptions: dict[str, type[Exception]] = {}
        self._later: list[_Changes] = []
        self.classes: dict[str, type] = {}

    def names(self, names: list[str]) -> dict[str, Any]:
        """The program's global names: plain values as they are, the others as stand-ins."""
        self._names = names, list(self.classes)
        try:
            answer = self.ask("names", *self._names)
        except Died:
            answer = {}
        return {name: answer[name] if name in answer else Named(self, name) for name in names}

    def ask(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """What the program gives for a question. Raises what it raised, or Died."""
        self._verdicts.ask()
        self.settle()
        peer = self._running()
        try:
            message, nodes, objects = peer.ask(name, args, kwargs)
        except Closed as problem:
            raise self._died(str(problem)) from None
        except TooLarge:
            raise Unfit("they give the program more than it can be sent at once") from None
        return self._answer(name, peer, message, nodes, objects)

    def _running(self) -> Peer:
        if self._peer is None:
            if self._never_ready or self.number + 1 == len(self._fds):
                raise self._died("")
            self.number += 1
            self._handles = {}
            data = Values(self._sent, self._received, (GeneratorType,))
            data.classes = self.classes
            self._peer = Peer(Channel(self._fds[self.number], self._most), data, self._callback)
            self._never_ready = True
            try:
                self._peer.channel.send({"start": True})
                self._peer.channel.receive()
            except Closed as problem:
                raise self._died(str(problem)) from None
            self._never_ready = False
            if self.number:
                self.ask("names", *self._names)
        return self._peer

    def _died(self, problem: str, status: str = "") -> Died:
        if self._peer is not None:
            os.close(self._peer.channel.fd)
        self._peer = None
        died = Died(max(self.number, 0), status, problem)
        self._verdicts.died = died
        return died

    def _answer(self, name: str, peer: Peer, message: dict[str, Any], nodes: list[Node], objects: list[Any]) -> Any:
        if "limit" in message:
            raise Died(self.number, "output_limit", "the result is too large")
        try:
            if "raised" not in message:
                return self._value(peer, message, nodes, objects)
            raised = self._raised(peer, message)
        except _UNREADABLE as problem:
            raise self._died(f"an unreadable answer: {problem}", "runtime_error") from None
        if isinstance(raised, (StopIteration, StopAsyncIteration)) and name not in ("next", "send"):
            raise RuntimeError(f"the program raised {type(raised).__name__}")  # it would end a loop of the tests
        raise raised

    def _value(self, peer: Peer, message: dict[str, Any], nodes: list[Node], objects: list[Any]) -> Any:
        changed = message["changed"]
        if not changed:
            return peer.value(message, peer.values.decode([*nodes, *message["nodes"]], objects))
        after = [*nodes, *message["nodes"]]
        for at, node in changed:
            if not 0 <= at < len(nodes) or nodes[at][0] != node[0] or node[0] not in MUTABLE:
                raise ValueError("no such change")
            after[at] = node
        if message["value"] is None:
            self._change((after, objects, changed))
            return None
        # Not before the statement is done: else `f(data) == sorted(data)` is passed by emptying data.
        self._later.append((after, objects, changed))
        return peer.value(message, peer.values.decode(after))

    def _change(self, changes: _Changes) -> None:
        after, objects, changed = changes
        assert self._peer is not None
        made = self._peer.values.decode(after, objects)
        for at, node in changed:
            fill(objects[at], node, lambda reference: made[reference[0]] if type(reference) is list else reference)

    def settle(self) -> None:
        """A statement is done: what its calls changed in their arguments is seen from now on."""
        while self._later and self._peer is not None:
            changes = self._later.pop(0)
            try:
                self._change(changes)
            except _UNREADABLE as problem:
                raise self._died(f"an unreadable answer: {problem}", "runtime_error") from None

    def _raised(self, peer: Peer, message: dict[str, Any]) -> Exception:
        args, attributes = peer.value(message, peer.values.decode(message["nodes"]))
        kind, text = self._exception(message["raised"]), str(message["text"])
        problem = kind.__new__(kind, *args)
        if str(problem) != text:
            kind = type(kind.__name__, (kind,), {"__str__": lambda self: text})
            problem = kind.__new__(kind, *args)
        vars(problem).update((name, value) for name, value in attributes.items() if type(name) is str)
        return problem

    def _exception(self, names: list[list[str]]) -> type[Exception]:
        """A class of the same name below the same class of the standard library; the tests' own, if they declare it."""
        own = [name for module, name in names if module.partition(".")[0] not in sys.stdlib_module_names]
        module, name = names[len(own)]
        kind = getattr(sys.modules.get(module), name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ValueError("no exception")  # a forged answer: anything could be named here, exec too
        for name in reversed(own):
            kind = self.exceptions.setdefault(name, type(name, (kind,), {}))
        return kind

    def _sent(self, value: Any) -> Node:
        if type(value) is Handle:
            if value._process != self.number:
                raise self._died("an object of a process that has ended")
            return ["handle", value._number]
        if type(value) is Named:
            return ["name", value._name]
        if isinstance(value, type):
            if self.classes.get(value.__name__) is value or value.__name__ in self.exceptions:
                return ["name", value.__name__]
        elif callable(value):
            self._functions.append(value)
            return ["callback", len(self._functions) - 1]
        raise Unfit(f"the tests give the program a {type(value).__name__}: define its class in tests.declarations")

    def _received(self, node: Node) -> Any:
        if node[0] == "exception":
            return self._exception(node[1])
        if node[0] == "callback":
            return self._functions[node[1]]
        if node[0] == "name":
            return Named(self, node[1])
        if node[0] != "handle" or type(node[1]) is not int:
            raise ValueError("unknown value")
        handle = self._handles.setdefault(node[1], Handle(self, self.number, node[1]))
        if node[2] == "generator":
            return _generator(handle)
        return _coroutine(handle) if node[2] == "coroutine" else handle

    def _callback(self, name: str, args: Any, kwargs: Any) -> Any:
        return self._functions[args[0]](*args[1:], **kwargs)


def _generator(handle: Handle) -> Generator[Any, Any, None]:
    sent = None
    while True:
        try:
            sent = yield handle._ask("next") if sent is None else handle._ask("send", sent)
        except StopIteration:
            return


async def _coroutine(handle: Handle) -> Any:
    return handle._ask("await")


class Handle:
    """Stands for an object that stays in the program's process.

    It never equals plain data, and has no arithmetic or order with plain data: an object of the program does not
    decide what it is compared with.
    """

    def __init__(self, program: Program, process: int, number: int) -> None:
        vars(self).update(_program=program, _process=process, _number=number)

    def _ask(self, name: str, *args: Any) -> Any:
        return self._program.ask(name, self, *args)

    def _pair(self, name: str, other: Any) -> Any:
        return self._ask(name, other) if isinstance(other, Handle) else NotImplemented

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._program.ask("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", name, value)

    def __delattr__(self, name: str) -> None:
        self._ask("delattr", name)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._ask("delitem", key)

    def __len__(self) -> int:
        return int(self._ask("len"))

    def __iter__(self) -> Any:
        return self._ask("iter")

    def __contains__(self, item: Any) -> bool:
        return any(item is mine or item == mine for mine in self)

    def __next__(self) -> Any:
        return self._ask("next")

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        return self._ask("await")

    def __enter__(self) -> Any:
        return self._ask("getattr", "__enter__")()

    def __exit__(self, kind: Any, raised: Any, trace: TracebackType | None) -> Any:
        return self._ask("getattr", "__exit__")(None, None, None)

    def __bool__(self) -> bool:
        return bool(self._ask("truth"))

    def __str__(self) -> str:
        return str(self._ask("str"))

    def __repr__(self) -> str:
        return str(self._ask("repr"))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Handle) and bool(instance._ask("isinstance", self))

    def __mro_entries__(self, bases: Any) -> Any:
        raise Unfit("the tests subclass a class of the program, which is in another process")

    def __eq__(self, other: object) -> Any:
        return self is other or (isinstance(other, Handle) and self._pair("eq", other))

    def __ne__(self, other: object) -> Any:
        return self is not other and (not isinstance(other, Handle) or self._pair("ne", other))

    __hash__ = object.__hash__


def _paired(name: str) -> Callable[[Handle, Any], Any]:
    return lambda self, other: self._pair(name, other)


for _name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "matmul"):
    setattr(Handle, f"__{_name}__", _paired(_name))


class Named(Handle):
    """Stands for a function or class of the program, or for a name that it lacks."""

    def __init__(self, program: Program, name: str) -> None:
        vars(self).update(_program=program, _name=name, __name__=name)


class Verdicts:
    """What the rewritten tests call. A line is written for the first run and the first failure of each assert."""

    def __init__(self, fd: int, stop_early: bool) -> None:
        self._fd, self._stop_early = fd, stop_early
        self._seen: dict[int, bool] = {}
        self._at: int | None = None  # the assert that runs and would raise
        self._own = False
        self._ran = False
        self.asked = True
        self.died: Died | None = None
        self.program: Program

    def tell(self, kind: str, *parts: Any) -> None:
        os.write(self._fd, json.dumps([kind, *parts]).encode() + b"\n")

    def ask(self) -> None:
        if not self.asked:
            self.asked = True
            self.tell("asked")

    def settle(self) -> None:
        if self.program._later:
            self.program.settle()

    def start(self, number: int) -> None:
        self._at = number

    def ok(self, number: int) -> None:
        """An assert held."""
        self._at, self._ran = None, True
        if number not in self._seen:
            self._seen[number] = True
            self.tell("assert", number, None)

    def fail(self, number: int, raised: BaseException | None = None) -> None:
        """An assert did not hold, or its condition raised."""
        problem = raised or sys.exc_info()[1]
        assert problem is not None
        self._check_fit(problem)
        self.died, self._ran = None, True
        if self._seen.get(number, True):
            self._seen[number] = False
            self.tell("assert", number, _problem(problem))
        if self._stop_early:
            raise Done

    def statement(self, own: bool) -> Verdicts:
        """Around every statement of the tests' top level. own: it is a test even if no assert in it runs."""
        self._own, self._ran, self._at, self.died = own, False, None, None
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, raised: BaseException | None, trace: TracebackType | None) -> bool:
        raised = raised or self.died
        if raised is None:
            self.settle()
            if self._own and not self._ran:
                self.tell("statement", None)
            return True
        self._check_fit(raised)
        if self._at is not None and isinstance(raised, AssertionError):
            self.fail(self._at, raised)
        else:
            self.tell("statement", _problem(raised))
            if self._stop_early:
                raise Done
        return True

    def _check_fit(self, raised: BaseException) -> None:
        """Let pass what is no verdict on the program."""
        if isinstance(raised, (Unfit, Done, GeneratorExit)):
            raise raised
        missing = isinstance(raised, ImportError) and raised.name is not None  # not one that the program raised
        if missing or not self.asked:
            raise Unfit(f"they fail without the program: {type(raised).__name__}: {raised}")


def _problem(raised: BaseException | None) -> list[Any]:
    """Status, message, and the number of the process that ended."""
    if isinstance(raised, Died):
        number, status, message = raised.args
        return [status, message, number]
    if isinstance(raised, MemoryError):
        return ["memory", "", None]
    if isinstance(raised, AssertionError):
        return ["failed", str(raised)[:200], None]
    return ["runtime_error", f"{type(raised).__name__}: {raised}"[:200], None]


def run(code: CodeType, settings: dict[str, Any], result_fd: int) -> None:
    """Run rewritten tests.

    settings: declarations, names (free ones), modules (what to import them as), function, fds, most, stop_early.
    """
    verdicts = Verdicts(result_fd, settings["stop_early"])
    program = verdicts.program = Program(settings["fds"], settings["most"], verdicts)
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    scope = vars(module)
    try:
        _declare(settings["declarations"], scope, program)
        theirs = []
        for name in settings["names"]:
            if name in scope:
                continue
            if name in settings["modules"]:
                scope[name] = importlib.import_module(settings["modules"][name])
            elif settings["function"] in ("", name):
                theirs.append(name)
            else:
                raise Unfit(f"{name!r} is defined nowhere: add it to tests.declarations (only {settings['function']!r} is the program's)")
        scope.update(values := program.names(theirs) if theirs else {})
        verdicts.died, verdicts.asked = None, False
        if any(type(value) is not Named for value in values.values()):
            verdicts.ask()  # what the tests know of the program already may make them fail
        scope["__posttrain"] = verdicts
        exec(code, scope)  # noqa: S102 - in the sandbox, where tests are run
        verdicts.tell("end")
    except Unfit as problem:
        verdicts.tell("unfit", str(problem))
    except Done:
        verdicts.tell("stopped")


def _declare(source: str, scope: dict[str, Any], program: Program) -> None:
    try:
        exec(compile(source, "declarations.py", "exec"), scope)  # noqa: S102 - as trusted as the tests
    except Exception as problem:  # noqa: BLE001 - whatever it is, the row is at fault
        raise Unfit(f"the declarations raise {type(problem).__name__}: {problem}") from None
    for name, value in scope.items():
        if isinstance(value, type) and value.__module__ == "__main__":
            (program.exceptions if issubclass(value, Exception) else program.classes)[name] = value
