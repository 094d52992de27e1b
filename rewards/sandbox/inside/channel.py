"""The channel between a program's process and that of its tests: requests and replies in both directions.

A frame is four bytes of length (little-endian), then JSON of that length. A request is {"request", "value", "nodes"}:
the operation and its arguments (values.py). Its reply contains a value, an exception ("raised"), or the limit that was
exceeded. Each side serves requests while it waits for a reply, so tests can pass functions to the program. Frames that
the tests' process receives are untrusted.
"""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .values import Node, Values, class_names, fill, reader, set_attributes

_PIECE = 1 << 20
PROGRAM_MODULES = ("solution", "main", "__main__", "candidate")  # module names under which tests import the program
LENT_METHODS = ("__enter__", "__exit__", "__iter__", "__next__", "__getitem__")  # of mocks and streams
_LIBRARIES = sys.stdlib_module_names | {"numpy", "scipy", "networkx", "sympy", "sortedcontainers"}
RAISED = (Exception, SystemExit, KeyboardInterrupt)  # exceptions sent to the other side; others end the process


class Closed(Exception):
    """The other process has ended, or sent an invalid frame."""


class TooLarge(Exception):
    """A message over the limit."""


class Peer:
    """One side of the channel, on socket `fd`. most: limit of a frame in bytes. perform(name, args, kwargs): computes
    the result of a request. received: bytes received so far. keeps: whether the object of a raised exception stays in
    this process, or is one of the other process. Methods that use the socket raise Closed.
    """

    def __init__(self, fd: int, most: int, values: Values, perform: Callable[..., Any]) -> None:
        self.fd, self.most, self.values, self._perform = fd, most, values, perform
        self.received = 0
        self.keeps: Callable[[BaseException], bool] = lambda problem: False

    def send(self, message: dict[str, Any]) -> None:
        """Write one frame. Raises TooLarge."""
        text = json.dumps(message, separators=(",", ":")).encode()
        if len(text) > self.most:
            raise TooLarge
        rest = memoryview(len(text).to_bytes(4, "little") + text)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as problem:
            raise Closed(str(problem)) from None

    def receive(self) -> dict[str, Any]:
        """Read one frame."""
        length = int.from_bytes(self._read(4), "little")
        if length > self.most:
            raise Closed("a frame over the limit")
        self.received += length
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError):
            raise Closed("a frame that is not JSON") from None
        if not isinstance(message, dict):
            raise Closed("a frame that is not a message")
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
        """Send a request and wait for its reply. Returns the reply, the request's nodes and their objects. Raises
        TooLarge.
        """
        root, nodes, objects = self.values.encode((args, kwargs))
        self.send({"request": name, "value": root, "nodes": nodes})
        while "request" in (message := self.receive()):
            self.serve(message)
        return message, nodes, objects

    def change(self, nodes: list[Node], objects: list[Any], changed: list[Any]) -> list[Any]:
        """Update a request's objects with the changes in its reply. changed: (index, new node) pairs. Returns the
        objects of all nodes.
        """
        decoded = self.values.decode(nodes, objects)
        for at, node in changed:
            fill(objects[at], node, reader(decoded))
        return decoded

    def serve(self, message: dict[str, Any]) -> None:
        """Perform a request of the other side, and send the reply."""
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
        """The reply with a result, and with those arguments that have changed."""
        root, after, _ = self.values.encode(result, objects, nodes)
        pairs = enumerate(zip(nodes, after))  # noqa: B905 - `after` starts with the arguments' nodes
        # compared as JSON text: there True differs from 1, and NaN equals itself
        changed = [[at, new] for at, (old, new) in pairs if old is not new and json.dumps(old) != json.dumps(new)]
        return {"value": root, "nodes": after[len(nodes) :], "changed": changed}

    def _raised(self, problem: BaseException) -> dict[str, Any]:
        """The reply with an exception."""
        try:
            kept = (problem,) if self.keeps(problem) else ()
            path = (problem.filename,) if isinstance(problem, OSError) and problem.filename else ()  # not in its args
            root, nodes, _ = self.values.encode(((*problem.args, *path), vars(problem), *kept))
            text = str(problem)
        except Exception:  # noqa: BLE001 - the program's own __str__ may raise
            root, nodes, text = [0], [["tuple", [[1], [2]]], ["tuple", []], ["dict", [], []]], ""
        return {"raised": class_names(type(problem)), "text": text, "value": root, "nodes": nodes}

    def raised(
        self, message: dict[str, Any], exceptions: dict[str, type[BaseException]], mixin: type | None = None
    ) -> BaseException:
        """The exception in a reply. exceptions, mixin: see exception_class. Raises ValueError, TypeError, LookupError
        or AttributeError if the reply is invalid.
        """
        args, attributes, *kept = reader(self.values.decode(message["nodes"]))(message["value"])
        if kept and isinstance(kept[0], Exception):
            set_attributes(kept[0], attributes.items())
            return kept[0]
        kind, text = exception_class(message["raised"], exceptions, mixin), str(message["text"])
        problem = kind.__new__(kind, *args)
        if str(problem) != text:
            kind = type(kind.__name__, (kind,), {"__str__": lambda self: text})
            problem = kind.__new__(kind, *args)
        base: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
        with contextlib.suppress(TypeError):
            base.__init__(problem, *args)  # sets e.g. the code of SystemExit and the value of StopIteration
        set_attributes(problem, attributes.items())
        return problem


def exception_class(
    names: list[list[str]], exceptions: dict[str, type[BaseException]], mixin: type | None = None
) -> type[BaseException]:
    """The local counterpart of an exception class of the other side: a library's class itself if it is loaded here;
    otherwise the class of this name in `exceptions`, or a new one, derived from the nearest base class that is a
    library's, which is added to them. names: see class_names. mixin: another base class of new ones.
    """
    custom = list(itertools.takewhile(lambda pair: _library_exception(*pair) is None, names))
    kind: Any = _library_exception(*names[len(custom)])
    for _, name in reversed(custom):
        bases = (kind,) if mixin is None or issubclass(kind, mixin) else (mixin, kind)
        kind = exceptions.setdefault(name, type(name, bases, {}))
    return kind  # type: ignore[no-any-return]


def _library_exception(module: str, name: str) -> type[BaseException] | None:
    """The exception class of this name, None if there is none; a forged reply could name anything, e.g. exec."""
    kind = getattr(sys.modules.get(module), name, None) if module.partition(".")[0] in _LIBRARIES else None
    return kind if isinstance(kind, type) and issubclass(kind, RAISED) else None
