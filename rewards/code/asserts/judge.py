"""The tests' side: runs them in a process without the program, whose names are stand-ins that ask a journal.

The journal holds what the program gave for each thing asked, in order. What is not in it yet is written down as
asked, the statement is left, and the next one tried; when nothing is left to ask, the verdict stands. So no value
here is the program's own object, and what it returned is compared as plain data by code that it cannot reach.
"""

import builtins
import contextlib
import json
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rewards.code.asserts.plain import decode, encode

MOST_ASKED = 20_000


class Pending(BaseException):
    """The journal does not hold this yet."""


class Unfit(BaseException):
    """These tests cannot be run apart from the program; args say why, and in a word."""


class Died(BaseException):
    """The program's process ended here; args[0] is how."""


_ENDS_LOOPS = (StopIteration, StopAsyncIteration)


class Journal:
    """Asks in order. `off`: something was asked that the journal does not hold at this place."""

    def __init__(self, held: list[list[Any]]) -> None:
        self.held, self.at, self.off = held, 0, False
        self.asked: list[dict[str, Any]] = []
        self.exceptions: dict[str, type[Exception]] = {}

    def ask(self, kind: str, of: int | None = None, name: str = "", args: Any = (), kwargs: Any = None) -> Any:
        args = list(args)
        op = {"kind": kind, "of": of, "name": name, "args": self._encoded(args), "kwargs": self._encoded(kwargs or {})}
        if self.off or self.at == len(self.held) or json.dumps(self.held[self.at][0]) != json.dumps(op):
            self.off = True
            if len(self.asked) < MOST_ASKED:
                self.asked.append(op)
            else:
                raise Unfit(f"the tests call the program more than {MOST_ASKED} times", "many")
            raise Pending
        self.at += 1
        return self._given(self.at - 1, self.held[self.at - 1][1], args)

    def _given(self, number: int, told: dict[str, Any], args: list[Any]) -> Any:
        if "died" in told:
            raise Died(told["died"])
        if told.get("args") and told.get("value", 0) is None:
            # Only what returns None changes its arguments: else `f(data) == sorted(data)` is passed by emptying data.
            for mine, changed in zip(args, self._decoded(told["args"])):  # noqa: B905 - one each
                _change(mine, changed)
        if "raised" in told:
            name, base, arguments = told["raised"]
            problem = self._exception(name, base)(*self._decoded(arguments))
            if isinstance(problem, _ENDS_LOOPS) and self.held[number][0]["kind"] != "next":
                raise RuntimeError(f"the program raised {name}")  # else it would end a loop of the tests early
            raise problem
        return Handle(self, number) if "handle" in told else self._decoded(told["value"])

    def _encoded(self, value: Any) -> Any:
        return encode(value, self._stand_in)

    def _stand_in(self, value: Any) -> Any:
        if type(value) is Handle:
            return ["handle", value._number]
        if type(value) is Function:
            return ["name", value._name]
        if isinstance(value, type):
            raise TypeError("a class cannot be given to another process")
        raise Unfit(
            f"the tests hand the program a {type(value).__name__}, which cannot be given to another process", "handed"
        )

    def _decoded(self, value: Any) -> Any:
        return decode(value, lambda tagged: self._exception(*tagged[1:]) if tagged[0] == "exception" else None)

    def _exception(self, name: str, base: str) -> type[Exception]:
        above = getattr(builtins, base)
        if not (isinstance(above, type) and issubclass(above, Exception)):
            raise TypeError("no exception")  # the answer was forged: any builtin could be named here, exec too
        if name != base and name not in self.exceptions:
            self.exceptions[name] = type(name, (above,), {})
        return self.exceptions.get(name, above)


def _change(mine: Any, changed: Any) -> None:
    """Give a mutable argument the contents that the program left in it."""
    if type(mine) is not type(changed) or mine == changed:
        return
    if isinstance(mine, (list, bytearray)):
        mine[:] = changed
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(changed)


class Function:
    """Stands for a function or class of the program."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal, self._name, self.__name__ = journal, name, name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._journal.ask("call", None, self._name, args, kwargs)


class Handle:
    """Stands for an object that stayed in the program's process.

    It never equals plain data, and has no arithmetic with plain data: an object of the program does not decide what
    it is compared with.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        object.__setattr__(self, "_journal", journal)
        object.__setattr__(self, "_number", number)

    def _ask(self, kind: str, name: str = "", *args: Any) -> Any:
        return self._journal.ask(kind, self._number, name, args)

    def _pair(self, name: str, other: Any) -> Any:
        return self._ask("operator", name, other) if type(other) is Handle else NotImplemented

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._journal.ask("call", self._number, "", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("operator", "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("operator", "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._ask("operator", "delitem", key)

    def __len__(self) -> int:
        return int(self._ask("len"))

    def __iter__(self) -> Any:
        return iter(self._ask("list"))

    def __contains__(self, item: Any) -> bool:
        return item in self._ask("list")

    def __next__(self) -> Any:
        return self._ask("next")

    def __bool__(self) -> bool:
        return bool(self._ask("operator", "truth"))

    def __str__(self) -> str:
        return str(self._ask("str"))

    def __repr__(self) -> str:
        return str(self._ask("repr"))

    def __instancecheck__(self, instance: Any) -> bool:
        return type(instance) is Handle and bool(instance._ask("isinstance", "", self))

    def __eq__(self, other: object) -> Any:
        return self is other or (type(other) is Handle and self._pair("eq", other))

    def __ne__(self, other: object) -> Any:
        return self is not other and (type(other) is not Handle or self._pair("ne", other))

    __hash__ = object.__hash__


def _paired(name: str) -> Callable[[Handle, Any], Any]:
    return lambda self, other: self._pair(name, other)


for _name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "matmul"):
    setattr(Handle, f"__{_name}__", _paired(_name))


class Verdicts:
    """What the transformed tests call: one verdict per assert statement."""

    def __init__(self) -> None:
        self.checks: dict[int, list[Any]] = {}  # how often it ran, and the first thing that went wrong
        self.broken: list[str] | None = None

    def check(self, number: int, condition: Callable[[], Any]) -> None:
        """An assert statement."""
        try:
            problem = None if condition() else ["failed", ""]
        except Pending:
            return
        except Unfit:
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever it is, this assert did not hold
            problem = _problem(raised)
        seen = self.checks.setdefault(number, [0, None])
        seen[0] += 1
        seen[1] = seen[1] or problem

    def __enter__(self) -> None:
        """Around every statement of the tests' top level."""

    def __exit__(self, kind: Any, raised: BaseException | None, trace: TracebackType | None) -> bool:
        if raised is not None and not isinstance(raised, (Pending, Unfit)):
            self.broken = self.broken or _problem(raised)
        return not isinstance(raised, Unfit)

    @staticmethod
    def method(owner: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """`owner.name(…)`, as one thing to ask where the owner is the program's."""
        if type(owner) is Handle:
            return owner._journal.ask("method", owner._number, name, args, kwargs)
        return getattr(owner, name)(*args, **kwargs)


def _problem(raised: BaseException) -> list[str]:
    if isinstance(raised, Died):
        return [str(raised.args[0]), ""]
    if isinstance(raised, MemoryError):
        return ["memory", ""]
    return ["failed" if isinstance(raised, AssertionError) else "runtime_error", f"{type(raised).__name__}: {raised}"]


def judge(source: str, lazy: list[str], eager: list[str], held: list[list[Any]]) -> dict[str, Any]:
    """Run the tests against a journal.

    lazy: the program's names that are only called or handed on; eager: those whose value is looked at.
    """
    random.seed(0)  # what the tests ask must be the same every time
    journal, verdicts = Journal(held), Verdicts()
    known: dict[str, Any] = {"__name__": "__main__", "_posttrain": verdicts}
    known.update((name, Function(journal, name)) for name in lazy)
    for name in eager:
        with contextlib.suppress(Pending, Died, NameError):  # what is missing is missed where it is used
            known[name] = journal.ask("name", None, name)
    try:
        exec(compile(source, "tests.py", "exec"), known)  # noqa: S102 - in the sandbox, where tests are run
    except Unfit as problem:
        return {"unfit": problem.args}
    return {
        "off": journal.off,
        "matched": journal.at,
        "asked": journal.asked,
        "checks": [[number, *seen] for number, seen in verdicts.checks.items()],
        "broken": verdicts.broken,
        "unfit": None,
    }
