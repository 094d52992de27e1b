"""The tests' process: runs rewritten test code (rewards/code/asserts/prepare.py) and writes verdicts.

The tests are trusted, and no code of the program runs here: it is in another process, which answers requests
(proxies.py). Its answers are untrusted data.

Verdicts are written to a descriptor as lines of JSON while the tests run, so that they survive the end of this process:
["requested"] before the first request to the program, ["assert", number, problem] at the first run and the first
failure of each assert, ["statement", problem] for a statement that is a test or that raised, and finally ["end"],
["stopped"] or ["unfit", reason]. A problem is null or [status, message]; status "": the program's process ended.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from types import CodeType, ModuleType, TracebackType
from typing import Any

from .channel import PROGRAM_MODULES
from .collect import collected
from .proxies import Died, Handle, Named, Program, Unfit, is_skip, proxy_of
from .replaced import ProgramModule, Replaced


class Done(BaseException):
    """Ends the tests after the first failure (stop_early)."""


class Verdicts:
    """The methods that the rewritten tests call, and the state of the running statement.

    in_use: whether the tests have used the program, so that a failure is a verdict on it.
    """

    def __init__(self, fd: int, stop_early: bool) -> None:
        self._fd, self._stop_early = fd, stop_early
        self._seen: dict[int, bool] = {}  # asserts that ran, by number: whether none of the runs failed
        self._current: int | None = None  # number of the running assert, if it raises on failure
        self._is_test = False  # the running statement is a test even if no assert in it runs
        self._caught: Died | None = None
        self._ran = False  # an assert, or a skip, ran in the running statement
        self.in_use = True
        self.program: Program

    def write(self, kind: str, *parts: Any) -> None:
        """Write one line of the result."""
        os.write(self._fd, json.dumps([kind, *parts]).encode() + b"\n")

    def requested(self) -> None:
        """Called before each request to the program."""
        if not self.in_use:
            self.in_use = True
            self.write("requested")

    def settle(self, everything: bool = False) -> None:
        """Between statements: apply the changes that calls made to their arguments (see Program.settle)."""
        if self.program.unsettled:
            self.program.settle(everything)

    def type(self, value: Any) -> Any:
        """Replaces `type(value)` and `value.__class__` in the tests."""
        return self.program.class_of(value)

    def vars(self, value: Any) -> Any:
        """Replaces `vars(value)` and `value.__dict__` in the tests; for an object of the program, a copy."""
        proxy = proxy_of(value)
        return vars(value) if proxy is None else self.program.request("vars", proxy)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Replaces calls of functions that inspect an object or compare arrays.

        To numpy an empty array is close to any number; here it is only close to an empty array.
        """
        module = str(getattr(function, "__module__", ""))
        if module in ("dataclasses", "inspect", "typing") and args and proxy_of(args[0]) is not None:
            return self.program.request("call_attribute", module, function.__name__, *args, **kwargs)
        if len(args) > 1 and module.startswith("numpy"):
            asarray = importlib.import_module("numpy").asarray
            args = (*(asarray(arg) if isinstance(arg, Handle) else arg for arg in args[:2]), *args[2:])
            if len({asarray(arg).size == 0 for arg in args[:2]}) > 1:
                if function.__name__ == "allclose":
                    return False
                raise AssertionError("only one of the two arrays is empty")
        return function(*args, **kwargs)

    def start(self, number: int) -> None:
        """An assert that raises on failure begins."""
        self._current = number

    def ok(self, number: int) -> None:
        """An assert held. It counts as failed if the program's process has ended and the tests caught that."""
        self.settle(True)
        if died := self._caught or self.program.died:
            self.fail(number, died)
            return
        self._current, self._ran = None, True
        if number not in self._seen:
            self._seen[number] = True
            self.write("assert", number, None)

    def fail(self, number: int, raised: BaseException | None = None) -> None:
        """An assert did not hold, or its condition raised."""
        problem = raised or sys.exc_info()[1]
        assert problem is not None
        self._check_fit(problem)
        self.settle(True)
        self.program.died, self._ran = None, True
        if self._seen.get(number, True):
            self._seen[number] = False
            self.write("assert", number, _problem(problem))
        if self._stop_early:
            raise Done

    def statement(self, is_test: bool) -> Verdicts:
        """Context manager around each top-level statement. is_test: it is a test even if no assert in it runs."""
        self._is_test, self._ran, self._current, self.program.died = is_test, False, None, None
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, raised: BaseException | None, trace: TracebackType | None) -> bool:
        if raised is None and self.program.died:
            self._caught = raised = self.program.died
        if raised is None:
            self.settle()
            if self._is_test and not self._ran:
                self.write("statement", None)
            return True
        self._check_fit(raised)
        if self._current is not None and isinstance(raised, AssertionError):
            self.fail(self._current, raised)
        else:
            self.write("statement", _problem(raised))
            if self._stop_early:
                raise Done
        return True

    def collect(self, test: Any) -> None:
        """Run the tests of a function or class that the source defines but does not call, each as one statement."""
        for call, is_test in collected(test):
            with self.statement(is_test):
                try:
                    call()
                except BaseException as raised:
                    if not is_skip(raised) or any(raised is skip for skip in self.program.skips):
                        raise
                    self._ran = True

    def _check_fit(self, raised: BaseException) -> None:
        """Re-raise an exception that is not a verdict on the program. Raises Unfit if the program was not used."""
        if isinstance(raised, (Unfit, Done, GeneratorExit)):
            raise raised
        missing = isinstance(raised, ImportError) and raised.name is not None  # not one that the program raised
        if missing or not self.in_use:
            raise Unfit(f"they fail without the program: {type(raised).__name__}: {raised}")


def _problem(raised: BaseException) -> list[str]:
    """Status and message for an exception."""
    if isinstance(raised, Died):
        return list(raised.args)
    if isinstance(raised, MemoryError):
        return ["memory", ""]
    if isinstance(raised, AssertionError):
        return ["failed", str(raised)[:200]]
    return ["runtime_error", f"{type(raised).__name__}: {raised}"[:200]]


def run(code: CodeType, settings: dict[str, Any], result_fd: int, channel_fd: int) -> None:
    """Run rewritten tests, and write their verdicts to `result_fd`.

    settings: declarations, names, modules and replaced (see prepare.Prepared), function (the only name of the program
    that they may use, if not ""), most (bytes of a frame of the channel), stop_early.
    """
    verdicts = Verdicts(result_fd, settings["stop_early"])
    program = verdicts.program = Program(channel_fd, settings["most"], verdicts.requested)
    module = sys.modules["__main__"] = ModuleType("__main__")
    scope = vars(module)
    try:
        _declare(settings["declarations"], scope, program)
        for name in settings["modules"].keys() - scope.keys():
            scope[name] = _import(settings["modules"][name])
        function, names = settings["function"], [name for name in settings["names"] if name not in scope]
        if function and (other := next((name for name in names if name != function), "")):
            why = "is not defined, and only {!r} is the program's: add its source to tests.declarations"
            raise Unfit(f"{other!r} {why.format(function)}")
        scope.update(values := program.names(names) if names else {})
        program.died, verdicts.in_use = None, False
        if any(type(value) is not Named for value in values.values()):
            verdicts.requested()  # the tests have received values of the program, which may make them fail
        scope["__posttrain__"] = verdicts
        sys.modules.update({name: ProgramModule(name, program) for name in PROGRAM_MODULES if name != "__main__"})
        if settings["replaced"]:
            program.before = Replaced(program, settings["replaced"]).send
        exec(code, scope)  # noqa: S102 - this process is sandboxed
        verdicts.write("end")
    except Unfit as problem:
        verdicts.write("unfit", str(problem))
    except Done:
        verdicts.write("stopped")


def _import(name: str) -> ModuleType:
    """A module that the tests use. Raises Unfit if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise Unfit(f"they use {name}: {problem}") from None


def _declare(source: str, scope: dict[str, Any], program: Program) -> None:
    """Execute the declarations in `scope`, and register their classes, whose instances are copied between processes."""
    try:
        exec(compile(source, "declarations.py", "exec"), scope)  # noqa: S102 - as trusted as the tests
    except Exception as problem:  # noqa: BLE001 - any exception here is an error of the row
        raise Unfit(f"the declarations raise {type(problem).__name__}: {problem}") from None
    for name, value in scope.items():
        if isinstance(value, type) and value.__module__ == "__main__":
            (program.exceptions if issubclass(value, Exception) else program.classes)[name] = value
