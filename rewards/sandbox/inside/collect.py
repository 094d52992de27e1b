"""The tests that a source defines and does not call: functions and classes, as pytest and unittest would run them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import FunctionType
from typing import Any

from .standins import Unfit

Call = Callable[[], Any]


def collected(test: Any) -> Iterator[tuple[Call, bool]]:
    """Each test of a function or class as a call, and whether it is unittest's. Skipped ones are left out.

    Raises Unfit for a test that takes what is no fixture of the source's own.
    """
    if isinstance(test, FunctionType):
        yield from _functions(lambda: test, test, _marks(test))
    for name in _methods(test) if isinstance(test, type) else ():
        method = getattr(test, name)
        if hasattr(test, "debug"):
            yield partial(_case, test, name), True
        else:
            yield from _functions(partial(_bound, test, name), method, [*_marks(test), *_marks(method)])


def is_skip(raised: BaseException | None) -> bool:
    """Whether it is what `self.skipTest` and `pytest.skip` raise."""
    return type(raised).__name__ in ("SkipTest", "Skipped")


def _methods(kind: type) -> list[str]:
    """In the order of their definition, those of base classes first."""
    names = dict.fromkeys(name for each in reversed(kind.__mro__) for name in vars(each))
    return [name for name in names if name.startswith("test") and callable(getattr(kind, name))]


def _marks(test: Any) -> list[Any]:
    return list(getattr(test, "pytestmark", []))


def _functions(made: Callable[[], Any], function: Any, marks: list[Any]) -> Iterator[tuple[Call, bool]]:
    """One call, or one for each set of parameters."""
    if any(mark.name in ("skip", "xfail") or (mark.name == "skipif" and mark.args[0]) for mark in marks):
        return
    for sets in product(*(_parameters(*mark.args[:2]) for mark in marks if mark.name == "parametrize")):
        given = {name: value for one in sets for name, value in one.items()}
        yield partial(_run, made, given), False


def _parameters(names: Any, values: Any) -> Iterator[dict[str, Any]]:
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for value in values:
        several = value.values if type(value).__name__ == "ParameterSet" else value if len(names) > 1 else [value]
        yield dict(zip(names, several, strict=True))


def _bound(kind: type, name: str) -> Any:
    own: Any = kind()
    if hasattr(own, "setup_method"):
        own.setup_method()
    return getattr(own, name)


def _run(made: Callable[[], Any], given: dict[str, Any]) -> None:
    function = made()
    with contextlib.ExitStack() as stack:
        result = function(**_arguments(function, dict(given), stack))
        if inspect.iscoroutine(result):
            importlib.import_module("asyncio").run(result)  # slow to import


def _arguments(function: Any, given: dict[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    """What a test or a fixture is called with: its parameters, pytest's fixtures that we have, and the source's own.

    given: values by name; fixtures are added. stack: what ends them. Parameters that `mock.patch` fills come first.
    """
    arguments = {}
    patches = [patch for patch in getattr(function, "patchings", ()) if patch.attribute_name is None]
    filled = sum(type(patch.new).__name__ == "_SentinelObject" for patch in patches)
    for name, parameter in [*inspect.signature(function).parameters.items()][filled:]:
        fixture = inspect.unwrap(function).__globals__.get(name)
        if name in given:
            arguments[name] = given[name]
        elif name in _FIXTURES:
            arguments[name] = given[name] = stack.enter_context(_FIXTURES[name]())
        elif type(fixture).__name__ == "FixtureFunctionDefinition":
            made = inspect.unwrap(fixture)
            value = made(**_arguments(made, given, stack))
            if inspect.isgenerator(value):
                stack.callback(next, value, None)
            arguments[name] = given[name] = next(value) if inspect.isgenerator(value) else value
        elif parameter.default is parameter.empty and parameter.kind not in (2, 4):  # *args and **kwargs
            raise Unfit(f"{function.__name__} takes {name!r}, which the source does not define as a fixture")
    return arguments


class _Captured(contextlib.ExitStack):
    """pytest's `capsys`: what is written while a test runs."""

    def __enter__(self) -> _Captured:
        self._streams = io.StringIO(), io.StringIO()
        self.enter_context(contextlib.redirect_stdout(self._streams[0]))
        self.enter_context(contextlib.redirect_stderr(self._streams[1]))
        return self

    def readouterr(self) -> Any:
        """What has been written since the last time, as (out, err)."""
        texts = [stream.getvalue() for stream in self._streams]
        for stream in self._streams:
            stream.seek(0)
            stream.truncate()
        return namedtuple("CaptureResult", "out err")(*texts)


_FIXTURES: dict[str, Callable[[], Any]] = {
    "capsys": _Captured,
    "capfd": _Captured,
    "monkeypatch": lambda: importlib.import_module("pytest").MonkeyPatch.context(),
}


def _case(kind: Any, name: str) -> None:
    """One method of a unittest.TestCase, with the fixtures of its class; raises where it fails."""
    kind.setUpClass()
    kind(name).debug()
    kind.tearDownClass()
