"""The process of the tests: runs rewritten test code (rewards/code/asserts/prepare.py) and writes verdicts.

They go to a descriptor as lines of JSON while the tests run, so that they survive the end of this process:
["requested"] before the first request to the program, ["assert", number, problem] at the first run and the first
failure of each assert, ["statement", problem] for a statement that is a test or that raised, at last ["end"],
["stopped"] or ["unfit", why]. A problem is null or [status, message]; status "": the program's process ended.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from types import CodeType, ModuleType, TracebackType
from typing import Any

from .channel import PROGRAM_MODULES
from .collect import collected, is_skip
from .replaced import ProgramModule, Replaced
from .standins import Died, Handle, Named, Program, Unfit


class Done(BaseException):
    """A test has failed, and the first failure decides."""


class Verdicts:
    """What the rewritten tests call."""

    def __init__(self, fd: int, stop_early: bool) -> None:
        self._fd, self._stop_early = fd, stop_early
        self._seen: dict[int, bool] = {}
        self._at: int | None = None  # the assert that runs and would raise
        self._own = False
        self._caught: Died | None = None
        self._ran = False
        self.in_use = True
        self.program: Program

    def write(self, kind: str, *parts: Any) -> None:
        os.write(self._fd, json.dumps([kind, *parts]).encode() + b"\n")

    def requested(self) -> None:
        if not self.in_use:
            self.in_use = True
            self.write("requested")

    def settle(self, everything: bool = False) -> None:
        """A statement is done; everything: it is an assert, or what it gave is not kept."""
        if self.program.unsettled:
            self.program.settle(everything)

    def type(self, value: Any) -> Any:
        """`type(value)` and `value.__class__` of the tests."""
        return self.program.class_of(value)

    def vars(self, value: Any) -> Any:
        """`vars(value)` and `value.__dict__` of the tests; of an object of the program it is a copy."""
        return self.program.request("vars", value) if isinstance(value, Handle) else vars(value)

    def start(self, number: int) -> None:
        self._at = number

    def ok(self, number: int) -> None:
        """An assert held. It does not count after an end of the program's process that the tests caught."""
        self.settle(True)
        if died := self._caught or self.program.died:
            self.fail(number, died)
            return
        self._at, self._ran = None, True
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

    def statement(self, own: bool) -> Verdicts:
        """Around every statement of the tests' top level. own: it is a test even if no assert in it runs."""
        self._own, self._ran, self._at, self.program.died = own, False, None, None
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, raised: BaseException | None, trace: TracebackType | None) -> bool:
        if raised is None and self.program.died:
            self._caught = raised = self.program.died
        if raised is None:
            self.settle()
            if self._own and not self._ran:
                self.write("statement", None)
            return True
        self._check_fit(raised)
        if self._at is not None and isinstance(raised, AssertionError):
            self.fail(self._at, raised)
        else:
            self.write("statement", _problem(raised))
            if self._stop_early:
                raise Done
        return True

    def collect(self, test: Any) -> None:
        """Run the tests of a function or class that the source defines and does not call, each by itself."""
        for call, own in collected(test):
            with self.statement(own):
                try:
                    call()
                except BaseException as raised:
                    if raised is self.program.raised or not is_skip(raised):
                        raise
                    self._ran = True

    def _check_fit(self, raised: BaseException) -> None:
        """Let pass what is no verdict on the program."""
        if isinstance(raised, (Unfit, Done, GeneratorExit)):
            raise raised
        missing = isinstance(raised, ImportError) and raised.name is not None  # not one that the program raised
        if missing or not self.in_use:
            raise Unfit(f"they fail without the program: {type(raised).__name__}: {raised}")


def _problem(raised: BaseException) -> list[str]:
    """Status and message."""
    if isinstance(raised, Died):
        return list(raised.args)
    if isinstance(raised, MemoryError):
        return ["memory", ""]
    if isinstance(raised, AssertionError):
        return ["failed", str(raised)[:200]]
    return ["runtime_error", f"{type(raised).__name__}: {raised}"[:200]]


def run(code: CodeType, settings: dict[str, Any], result_fd: int, channel_fd: int) -> None:
    """Run rewritten tests.

    settings: declarations, names (free ones), modules (what to import them as), function, most, stop_early, replaced
    (attributes of modules that they may replace for the program).
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
            verdicts.requested()  # what the tests know of the program already may make them fail
        scope["__posttrain__"] = verdicts
        sys.modules.update({name: ProgramModule(name, program) for name in PROGRAM_MODULES if name != "__main__"})
        if settings["replaced"]:
            program.before = Replaced(program, settings["replaced"]).send
        exec(code, scope)  # noqa: S102 - in the sandbox, where tests are run
        verdicts.write("end")
    except Unfit as problem:
        verdicts.write("unfit", str(problem))
    except Done:
        verdicts.write("stopped")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise Unfit(f"they use {name}: {problem}") from None


def _declare(source: str, scope: dict[str, Any], program: Program) -> None:
    try:
        exec(compile(source, "declarations.py", "exec"), scope)  # noqa: S102 - as trusted as the tests
    except Exception as problem:  # noqa: BLE001 - whatever it is, the row is at fault
        raise Unfit(f"the declarations raise {type(problem).__name__}: {problem}") from None
    for name, value in scope.items():
        if isinstance(value, type) and value.__module__ == "__main__":
            (program.exceptions if issubclass(value, Exception) else program.classes)[name] = value
