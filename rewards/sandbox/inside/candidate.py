"""The program's side of a channel: does what the tests ask of it. It runs in the program's own process.

Whatever the program does to it, only values come out, and those are judged in another process.
"""

from __future__ import annotations

import operator
from types import CoroutineType, GeneratorType, ModuleType
from typing import Any

from .channel import Channel, Closed, Peer, TooLarge, exception_names
from .values import Node, Values


def serve(module: ModuleType, channel: Channel) -> None:
    """Answer until the tests are done. `module` is the program, loaded."""
    program = _Program(module, channel)
    channel.receive()
    channel.send({"ready": True})
    while True:
        try:
            message = channel.receive()
        except Closed:
            return
        try:
            program.peer.serve(message)
        except TooLarge:
            channel.send({"limit": "output_limit"})


class _Program:
    def __init__(self, module: ModuleType, channel: Channel) -> None:
        self._module = module
        self._alive: list[Any] = []  # objects that stay here, by number
        self._numbers: dict[int, int] = {}
        self.peer = Peer(channel, Values(self._stays, self._meant), self._perform)

    def _perform(self, name: str, args: Any, kwargs: Any) -> Any:
        if name == "call":
            return args[0](*args[1:], **kwargs)
        if name == "names":
            return self._names(*args)
        if name == "await":
            import asyncio

            return asyncio.run(_awaited(args[0]))
        function = _FUNCTIONS[name] if name in _FUNCTIONS else getattr(operator, name)
        return function(*args)

    def _names(self, names: list[str], classes: list[str]) -> dict[str, Any]:
        """Values of the program's global names. classes: whose instances are sent by their attributes."""
        own = vars(self._module)
        self.peer.values.classes = {name: own[name] for name in classes if isinstance(own.get(name), type)}
        return {name: own[name] for name in names if name in own and not _by_name(own[name])}

    def _stays(self, value: Any) -> Node:
        if _is_exception(value):
            return ["exception", exception_names(value)]
        number = self._numbers.setdefault(id(value), len(self._alive))
        if number == len(self._alive):
            self._alive.append(value)
        return ["handle", number, _KINDS.get(type(value), "")]

    def _meant(self, node: Node) -> Any:
        if node[0] == "handle":
            return self._alive[node[1]]
        if node[0] == "name":
            return self._named(node[1])
        number = node[1]

        def callback(*args: Any, **kwargs: Any) -> Any:
            message, _, _ = self.peer.request("callback", (number, *args), kwargs)
            objects = self.peer.values.decode(message["nodes"])
            if "raised" in message:
                raise RuntimeError(f"the tests' function raised {message['raised'][0]}: {message['text']}")
            return self.peer.value(message, objects)

        return callback

    def _named(self, name: str) -> Any:
        if name not in vars(self._module):
            raise NameError(f"name {name!r} is not defined")
        return vars(self._module)[name]


_KINDS: dict[Any, str] = {GeneratorType: "generator", CoroutineType: "coroutine"}
_FUNCTIONS: dict[str, Any] = {
    "len": len, "str": str, "repr": repr, "iter": iter, "next": next, "isinstance": isinstance, "getattr": getattr,
    "setattr": setattr, "delattr": delattr, "send": lambda generator, value: generator.send(value),
}  # fmt: skip


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _by_name(value: Any) -> bool:
    """Functions and classes are called by their names, so that a new process of the program has them too."""
    return callable(value) and not _is_exception(value)


async def _awaited(value: Any) -> Any:
    return await value
