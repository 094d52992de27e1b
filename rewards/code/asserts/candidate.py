"""The program's side: does what the tests ask of it, in order. It runs in the program's own process.

Its text follows the program's, inside a function; `encode` and `decode` are plain.py's. Whatever the program does
to it, only values come out, and those are judged elsewhere.
"""

import operator
from typing import Any

from rewards.code.asserts.plain import decode, encode


class Alive(Exception):
    """A value that cannot leave the process."""


_ASKS: dict[str, Any] = {
    "len": len, "str": str, "repr": repr, "list": list, "next": next, "isinstance": isinstance,
}  # fmt: skip


def run(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each op gave: value, handle (its number stands for the object), or raised."""
    objects: list[Any] = []
    return [_done(op, objects) for op in ops]


def _done(op: dict[str, Any], objects: list[Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    value = None
    try:
        args = decode(op["args"], lambda tagged: _known(tagged, objects))
        value = _value(op, args, decode(op["kwargs"], lambda tagged: _known(tagged, objects)), objects)
        changed = encode(args, _stays)
        if changed != op["args"]:
            told["args"] = changed
        told["value"] = encode(value, _leaves)
    except Alive:
        told["handle"] = True
    except MemoryError:
        raise
    except Exception as problem:  # noqa: BLE001 - the program's own; the tests may expect it
        told["raised"] = [*_kind(type(problem)), _arguments(problem)]
    objects.append(value)
    return told


def _known(tagged: list[Any], objects: list[Any]) -> Any:
    return objects[tagged[1]] if tagged[0] == "handle" else _named(tagged[1])


def _named(name: str) -> Any:
    known = globals()
    if name not in known:
        raise NameError(f"name {name!r} is not defined")
    return known[name]


def _value(op: dict[str, Any], args: list[Any], kwargs: dict[str, Any], objects: list[Any]) -> Any:
    kind, name = op["kind"], op["name"]
    if kind == "name":
        return _named(name)
    if kind == "call" and op["of"] is None:
        return _named(name)(*args, **kwargs)
    owner = objects[op["of"]]
    if kind == "call":
        return owner(*args, **kwargs)
    if kind == "method":
        return getattr(owner, name)(*args, **kwargs)
    if kind in ("getattr", "setattr"):
        return {"getattr": getattr, "setattr": setattr}[kind](owner, name, *args)
    if kind == "operator":
        return getattr(operator, name)(owner, *args)
    return _ASKS[kind](owner, *args)


def _leaves(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, Exception):
        return ["exception", *_kind(value)]
    raise Alive


def _stays(value: Any) -> Any:
    return None  # only changes inside plain arguments are told


def _kind(kind: type) -> list[str]:
    base = next(above for above in kind.__mro__ if above.__module__ == "builtins")
    return [kind.__name__, base.__name__]


def _arguments(problem: Exception) -> Any:
    try:
        return encode(list(problem.args), _leaves)
    except Alive:
        return ["list", [str(problem)]]
