"""Executes a Python program, or the code of tests, in a test process: for one test, after which the process ends.

The process of a program holds nothing secret. It has descriptors 0 to 2, for a call also 3, to which the result is
written, and 4 if it shares a channel with tests. The program can inspect and patch everything here; it cannot gain from
that, because its results are compared in another process.
"""

import _io
import _random
import atexit
import builtins
import gc
import io
import json
import json.encoder
import os
import random
import re
import sys
import threading
import traceback
from _sitebuiltins import Quitter
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from . import candidate, judge

_PRELOADED = (
    "math cmath collections collections.abc heapq bisect itertools functools operator string re random json copy "
    "typing dataclasses enum decimal fractions statistics datetime time io array queue types contextlib textwrap "
    "numbers abc struct hashlib inspect"
)
_WRITERS = (io.TextIOWrapper, io.BufferedWriter)  # the first writes into the second
RESULT_FD = 3
CHANNEL_FD = 4  # between a candidate and a judge
_OWN_FRAMES = 40  # stack frames of candidate.py below a function that it calls
STACK_BYTES = 120 << 20  # the kernel leaves a gap of at least 128 MiB under the main stack
_THREAD_STACK = 256 << 20  # maximum: half of the default memory limit, which counts unused stack as well
_STREAM_PATH = re.compile(r"/dev/std(in|out|err)|(?:/dev|/proc/self)/fd/([012])")
_plain_open, _plain_stack_size = open, threading.stack_size
_quote = json.encoder.encode_basestring_ascii


def run(code: CodeType, call: str | None, names: dict[str, Any], role: str = "") -> NoReturn:
    """Execute `code`, then end the process: as a program, or as a module whose function `call` is called with the JSON
    arguments on standard input. names: initial contents of its namespace. role: "candidate" or "judge", for the two
    processes that share a channel; standard input then holds their settings.
    """
    args: Any = [] if call is None and not role else _arguments()
    gc.enable()
    _random.Random.seed(random._inst)  # otherwise all forks of the zygote would draw the same numbers
    module = ModuleType("__main__" if call is None and not role else "solution")
    module.__dict__.update({**names, "__name__": module.__name__, "__builtins__": builtins})
    sys.modules[module.__name__] = module
    status, last = 1, ""
    try:
        if role == "judge":
            judge.run(code, args, RESULT_FD, CHANNEL_FD)
            os._exit(0)
        if role == "candidate":
            sys.setrecursionlimit(sys.getrecursionlimit() + _OWN_FRAMES)
            exec(compile(args["declarations"], "declarations.py", "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        exec(code, module.__dict__)  # noqa: S102 - the process is isolated
        if role == "candidate":
            candidate.serve(module, CHANNEL_FD, args["most"])
            os._exit(0)
        if call is not None:
            text = to_json(_find(module, call)(*args)).encode()
            while text:
                text = text[os.write(RESULT_FD, text) :]
        status = 0
    except SystemExit as problem:
        status = int.__and__(problem.code, 255) if isinstance(problem.code, int) else int(problem.code is not None)
        if status and not isinstance(problem.code, int):
            _write_error(str(problem.code))
    except BaseException as problem:  # noqa: BLE001 - any exception here is the program's
        last = _report(problem)
    _end(status, last)


def _end(status: int, last: str) -> NoReturn:
    """End the process as the interpreter does, without freeing the heap. last: last line of stderr, which becomes the
    message of the result.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
        atexit._run_exitfuncs()
        _flush()
    except BaseException as problem:  # noqa: BLE001 - as above
        last = _report(problem)
        status = status or 120  # as CPython does
    if last:
        _write_error(last)
    os._exit(status)


def _flush() -> None:
    """Flush every open file, as the interpreter does at its end."""
    # The zygote's objects are frozen, so they are not listed; its standard streams are added below.
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, _io._IOBase)}  # io.IOBase itself is slow here
    files = [file for file in objects if type(file) in kinds]
    for file in files:
        if type(file).__module__ not in ("io", "_io"):  # a class of the program, which may write to other files
            try:
                file.close()
            except Exception as problem:  # noqa: BLE001 - the interpreter ignores it as well
                _report(problem)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "flush") and not getattr(stream, "closed", False):
            stream.flush()
    files += [sys.__stdout__, getattr(sys.__stdout__, "buffer", None)]
    for kind in _WRITERS:
        for file in files:
            if type(file) is kind and not file.closed and file.writable():
                file.flush()


def _arguments() -> Any:
    """The JSON value on descriptor 0, which is empty afterwards, so that the program cannot read it."""
    args = json.loads(os.pread(0, os.fstat(0).st_size, 0))
    os.ftruncate(0, 0)
    return args


def _find(module: ModuleType, name: str) -> Any:
    """The program's function: a method of a class Solution if there is one of this name, else a global."""
    solution = getattr(module, "Solution", None)
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if not hasattr(module, name):
        raise NameError(f"the program defines no function {name!r}")
    return getattr(module, name)


def to_json(value: Any) -> str:
    """JSON of a value. Subclasses of int, str, list … are encoded as the built-in type, by its own methods.

    No method of a subclass is called, so an overridden `__eq__` or `__repr__` or a patched encoder has no effect.
    Tuples become lists, as in json. Raises TypeError for values that JSON cannot hold.
    """
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, (list, tuple)):
        kind: Any = list if isinstance(value, list) else tuple
        return "[" + ",".join([to_json(item) for item in kind.__iter__(value)]) + "]"
    if isinstance(value, dict):
        keys = [_quote(key if isinstance(key, str) else to_json(key)) for key in dict.keys(value)]
        return (
            "{" + ",".join([f"{key}:{to_json(item)}" for key, item in zip(keys, dict.values(value), strict=True)]) + "}"
        )
    if getattr(value, "shape", None) == ():  # a numpy scalar
        return to_json(value.item())
    raise TypeError(f"the result holds a {type(value).__name__}, which is not a JSON value")


def _report(problem: BaseException) -> str:
    """Write the traceback to stderr as the interpreter does. Returns its last line."""
    trace: TracebackType | None = problem.__traceback__
    try:
        lines = traceback.format_exception(type(problem), problem, trace and trace.tb_next, limit=-20)
    except BaseException as another:  # noqa: BLE001 - e.g. a __str__ that raises
        lines = [type(another).__name__]
    _write_error("".join(lines))
    return lines[-1].strip()


def _write_error(text: str) -> None:
    os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")


def _open(file: Any, *args: Any, **kwargs: Any) -> Any:
    """`open`, which also opens the standard streams by their paths (/dev/stdin …), since there is no /proc."""
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    stream = _STREAM_PATH.fullmatch(path) if isinstance(path, str) else None
    if stream is None:
        return _plain_open(file, *args, **kwargs)
    number = ("in", "out", "err").index(stream[1]) if stream[1] else int(stream[2])
    return _plain_open(os.dup(number), *args, **kwargs)


def prepare() -> None:
    """Prepare the zygote for its test processes: import common modules, define `exit` and `quit` (missing because of
    -S), create the standard streams, and limit the stack size of threads, because programs request 512 MB.
    """
    builtins.open = io.open = _open
    builtins.exit = Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = Quitter("quit", "Ctrl-D (i.e. EOF)")
    threading.stack_size = lambda size=0: _plain_stack_size(min(size, _THREAD_STACK))
    sys.argv[:] = ["solution.py"]
    sys.orig_argv[:] = ["python", "solution.py"]
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # programs print large integers; the CPU limit bounds the time
    for name in _PRELOADED.split():
        __import__(name)
    # Not used before a test process has placed its own files at these descriptors.
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if fd == 2 else "surrogateescape"
        stream = _plain_open(fd, mode, encoding="utf-8", errors=errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
