"""The tests that a source defines and does not call: functions and classes, as pytest and unittest would run them."""

from __future__ import annotations

import importlib
import inspect
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
    result = function(**_arguments(function, given))
    if inspect.iscoroutine(result):
        importlib.import_module("asyncio").run(result)  # slow to import


def _arguments(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What a test or a fixture is called with: its parameters, and the source's own fixtures."""
    arguments = {}
    for name, parameter in inspect.signature(function).parameters.items():
        fixture = function.__globals__.get(name)
        if name in given:
            arguments[name] = given[name]
        elif type(fixture).__name__ == "FixtureFunctionDefinition":
            made = inspect.unwrap(fixture)
            value = made(**_arguments(made, {}))
            arguments[name] = next(value) if inspect.isgenerator(value) else value
        elif parameter.default is parameter.empty and parameter.kind not in (2, 4):  # *args and **kwargs
            raise Unfit(f"{function.__name__} takes {name!r}, which the source does not define as a fixture")
    return arguments


def _case(kind: Any, name: str) -> None:
    """One method of a unittest.TestCase, with the fixtures of its class; raises where it fails."""
    kind.setUpClass()
    kind(name).debug()
    kind.tearDownClass()
