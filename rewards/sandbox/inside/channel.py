"""The channel between the process of a program and that of its tests: requests and replies, both ways.

A frame is four bytes of length and that much JSON. A request is {"request", "value", "nodes"}: what to do with which
values (values.py). Its reply has a value, an exception ("raised"), or the limit that was hit. Each side serves
requests while it waits for a reply, so tests may hand over functions. Either side may receive anything.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .values import Node, Values, fill, reader

_PIECE = 1 << 20
PROGRAM_MODULES = ("solution", "main", "__main__", "candidate")  # what tests may import the program as
LENT_METHODS = ("__enter__", "__exit__", "__iter__", "__next__", "__getitem__")  # of mocks and streams
RAISED = (Exception, SystemExit, KeyboardInterrupt)  # what goes to the other side; others end a process


class Closed(Exception):
    """The other process has ended, or writes what is no frame."""


class TooLarge(Exception):
    """A message over the limit."""


class Peer:
    """One side, on socket `fd`. most: bytes of a frame. perform(name, args, kwargs) serves a request.

    All of it raises Closed.
    """

    def __init__(self, fd: int, most: int, values: Values, perform: Callable[..., Any]) -> None:
        self.fd, self._most, self.values, self._perform = fd, most, values, perform

    def send(self, message: dict[str, Any]) -> None:
        """Raises TooLarge."""
        text = json.dumps(message, separators=(",", ":")).encode()
        if len(text) > self._most:
            raise TooLarge
        rest = memoryview(len(text).to_bytes(4, "little") + text)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as problem:
            raise Closed(str(problem)) from None

    def receive(self) -> dict[str, Any]:
        length = int.from_bytes(self._read(4), "little")
        if length > self._most:
            raise Closed("a frame over the limit")
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError):
            raise Closed("a frame that is no JSON") from None
        if not isinstance(message, dict):
            raise Closed("a frame that is no message")
        return message

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            try:
                part = os.read(self.fd, min(length - len(parts), _PIECE))
            except OSError as problem:
                raise Closed(str(problem)) from None
            if not part:
                raise Closed("ended")
            parts += part
        return bytes(parts)

    def request(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        """The reply, with the nodes of the request and their objects. Raises TooLarge."""
        root, nodes, objects = self.values.encode((args, kwargs))
        self.send({"request": name, "value": root, "nodes": nodes})
        while "request" in (message := self.receive()):
            self.serve(message)
        return message, nodes, objects

    def change(self, nodes: list[Node], objects: list[Any], changed: list[Any]) -> list[Any]:
        """Fill those of a request's objects that its reply calls changed. Returns the objects of all nodes."""
        made = self.values.decode(nodes, objects)
        for at, node in changed:
            fill(objects[at], node, reader(made))
        return made

    def serve(self, message: dict[str, Any]) -> None:
        """Send the reply to a request."""
        try:
            objects = self.values.decode(nodes := message["nodes"])
            args, kwargs = reader(objects)(message["value"])
        except (ValueError, TypeError, LookupError):
            raise Closed("an unreadable request") from None
        try:
            reply = self._result(self._perform(message["request"], args, kwargs), nodes, objects)
        except RAISED as problem:
            reply = self._raised(problem)
        self.send(reply)

    def _result(self, result: Any, nodes: list[Node], objects: list[Any]) -> dict[str, Any]:
        root, after, _ = self.values.encode(result, objects, nodes)
        pairs = enumerate(zip(nodes, after))  # noqa: B905 - the first ones
        # compared by text: True is not 1, and NaN is itself
        changed = [[at, new] for at, (old, new) in pairs if old is not new and json.dumps(old) != json.dumps(new)]
        return {"value": root, "nodes": after[len(nodes) :], "changed": changed}

    def _raised(self, problem: BaseException) -> dict[str, Any]:
        try:
            root, nodes, _ = self.values.encode((problem.args, vars(problem)))
            text = str(problem)
        except Exception:  # noqa: BLE001 - the program's own __str__ may raise
            root, nodes, text = [0], [["tuple", [[1], [2]]], ["tuple", []], ["dict", [], []]], ""
        return {"raised": exception_names(type(problem)), "text": text, "value": root, "nodes": nodes}

    def raised(self, message: dict[str, Any], exceptions: dict[str, type[BaseException]]) -> BaseException:
        """The exception of a reply. exceptions: see exception_class. Raises ValueError and its like."""
        args, attributes = reader(self.values.decode(message["nodes"]))(message["value"])
        kind, text = exception_class(message["raised"], exceptions), str(message["text"])
        problem = kind.__new__(kind, *args)
        if str(problem) != text:
            kind = type(kind.__name__, (kind,), {"__str__": lambda self: text})
            problem = kind.__new__(kind, *args)
        if isinstance(problem, SystemExit):
            SystemExit.__init__(problem, *args)  # which sets its code
        vars(problem).update((name, value) for name, value in attributes.items() if type(name) is str)
        return problem


def exception_names(kind: type) -> list[list[str]]:
    """Module and name of a class and of those above it."""
    return [[above.__module__, above.__name__] for above in kind.__mro__]


def exception_class(names: list[list[str]], exceptions: dict[str, type[BaseException]]) -> type[BaseException]:
    """A class of the same name below the same class of the standard library: one of `exceptions`, or a new one, which
    is added to them.
    """
    own = [name for module, name in names if module.partition(".")[0] not in sys.stdlib_module_names]
    module, name = names[len(own)]
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, RAISED)):
        raise ValueError("no exception")  # a forged answer: anything could be named here, exec too
    for name in reversed(own):
        kind = exceptions.setdefault(name, type(name, (kind,), {}))
    return kind
