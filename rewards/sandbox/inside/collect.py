"""Runs the tests that a source defines but does not call, as pytest and unittest would; used in the tests' process."""

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

from .proxies import Unfit

Call = Callable[[], Any]


def collected(test: Any) -> Iterator[tuple[Call, bool]]:
    """Each test of a function or class as a call, and whether it is a method of unittest's; without skipped tests.

    A call raises Unfit if the test has a parameter that is not a supported fixture.
    """
    if isinstance(test, FunctionType):
        yield from _functions(lambda: test, test, _marks(test))
    for name in _methods(test) if isinstance(test, type) else ():
        method = getattr(test, name)
        if hasattr(test, "debug"):
            yield partial(_case, test, name), True
        else:
            yield from _functions(partial(_bound, test, name), method, [*_marks(test), *_marks(method)])


def _methods(kind: type) -> list[str]:
    """Names of a class's test methods in the order of their definition, those of base classes first."""
    names = dict.fromkeys(name for base in reversed(kind.__mro__) for name in vars(base))
    return [name for name in names if name.startswith("test") and callable(getattr(kind, name))]


def _marks(test: Any) -> list[Any]:
    """pytest's marks of a function or class."""
    return list(getattr(test, "pytestmark", []))


def _functions(get: Callable[[], Any], function: Any, marks: list[Any]) -> Iterator[tuple[Call, bool]]:
    """One call of a test, or one for each parameter set. get: returns the function, or a method of a new instance."""
    if any(mark.name in ("skip", "xfail") or (mark.name == "skipif" and mark.args[0]) for mark in marks):
        return
    for sets in product(*(_parameters(*mark.args[:2]) for mark in marks if mark.name == "parametrize")):
        values = {name: value for parameters in sets for name, value in parameters.items()}
        yield partial(_run, get, values), False


def _parameters(names: Any, values: Any) -> Iterator[dict[str, Any]]:
    """The parameter sets of one `parametrize` mark, by name."""
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for value in values:
        row = value.values if type(value).__name__ == "ParameterSet" else value if len(names) > 1 else [value]
        yield dict(zip(names, row, strict=True))


def _bound(kind: type, name: str) -> Any:
    """A method of a new instance, after its setup_method."""
    instance: Any = kind()
    if hasattr(instance, "setup_method"):
        instance.setup_method()
    return getattr(instance, name)


def _run(get: Callable[[], Any], values: dict[str, Any]) -> None:
    """Run one test with its fixtures. values: parameters by name."""
    function = get()
    with contextlib.ExitStack() as stack:
        result = function(**_arguments(function, dict(values), stack))
        if inspect.iscoroutine(result):
            importlib.import_module("asyncio").run(result)  # slow to import


def _arguments(function: Any, values: dict[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    """The keyword arguments of a test or fixture: parameters, and fixtures of pytest (_FIXTURES) and of the source.

    values: parameters and fixtures by name; new fixtures are added. stack: ends the fixtures. The first parameters are
    filled by `mock.patch`.
    """
    arguments = {}
    patches = [patch for patch in getattr(function, "patchings", ()) if patch.attribute_name is None]
    patched = sum(type(patch.new).__name__ == "_SentinelObject" for patch in patches)
    for name, parameter in [*inspect.signature(function).parameters.items()][patched:]:
        fixture = inspect.unwrap(function).__globals__.get(name)
        if name in values:
            arguments[name] = values[name]
        elif name in _FIXTURES:
            arguments[name] = values[name] = stack.enter_context(_FIXTURES[name]())
        elif type(fixture).__name__ == "FixtureFunctionDefinition":
            definition = inspect.unwrap(fixture)
            value = definition(**_arguments(definition, values, stack))
            if inspect.isgenerator(value):
                stack.callback(next, value, None)
            arguments[name] = values[name] = next(value) if inspect.isgenerator(value) else value
        elif parameter.default is parameter.empty and parameter.kind not in (2, 4):  # *args and **kwargs
            raise Unfit(f"{function.__name__} takes {name!r}, which the source does not define as a fixture")
    return arguments


class _Captured(contextlib.ExitStack):
    """pytest's `capsys`: captures stdout and stderr while a test runs."""

    def __enter__(self) -> _Captured:
        self._streams = io.StringIO(), io.StringIO()
        self.enter_context(contextlib.redirect_stdout(self._streams[0]))
        self.enter_context(contextlib.redirect_stderr(self._streams[1]))
        return self

    def readouterr(self) -> Any:
        """The output since the last call, as (out, err)."""
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
    """Run one method of a unittest.TestCase with its class's fixtures; raises if the test fails."""
    kind.setUpClass()
    kind(name).debug()
    kind.tearDownClass()
