"""The process that runs a candidate's Python once: one test, then it ends. It has nothing worth stealing.

What the program may touch: descriptors 0 to 2, for a call also 3, on which its result goes back. Everything
here may be patched, walked or rewritten by the program: it fools only itself, for the supervisor compares.
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
CHANNEL_FD = 4  # of a candidate and a judge
_OWN_FRAMES = 40  # below what a candidate is asked to call
STACK_BYTES = 120 << 20  # the kernel leaves a gap of at least 128 MiB under the main stack
_THREAD_STACK = 256 << 20  # at most: half of the usual memory limit, which counts a stack that is not used
_STREAM_PATH = re.compile(r"/dev/std(in|out|err)|(?:/dev|/proc/self)/fd/([012])")
_plain_open, _plain_stack_size = open, threading.stack_size
_quote = json.encoder.encode_basestring_ascii


def run(code: CodeType, call: str | None, names: dict[str, Any], role: str = "") -> NoReturn:
    """Execute `code` as a program, or as a module whose function `call` gets the arguments that standard input
    holds as JSON. names: what is in its namespace already. Ends the process. role: "candidate" or "judge", for one of
    two processes that share a channel; standard input holds its settings.
    """
    args: Any = [] if call is None and not role else _arguments()
    gc.enable()
    _random.Random.seed(random._inst)  # no two processes draw the same numbers
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
    except BaseException as problem:  # noqa: BLE001 - whatever it was, it is the program's
        last = _report(problem)
    _end(status, last)


def _end(status: int, last: str) -> NoReturn:
    """What the interpreter does at its end, without tearing the heap down; `last` becomes the message."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
        atexit._run_exitfuncs()
        _flush()
    except BaseException as problem:  # noqa: BLE001 - as above
        last = _report(problem)
        status = status or 120  # as CPython does
    if last:
        _write_error(last)
    os._exit(status)


def _flush() -> None:
    """Write out every open file, as the interpreter does when it drops them."""
    # Objects of the zygote are frozen and not listed; of its files, these may hold something.
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, _io._IOBase)}  # io.IOBase itself is slow here
    files = [file for file in objects if type(file) in kinds]
    for file in files:
        if type(file).__module__ not in ("io", "_io"):  # of a class of the program's, which may write into others
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
    """Read from descriptor 0, which then is empty for the program."""
    args = json.loads(os.pread(0, os.fstat(0).st_size, 0))
    os.ftruncate(0, 0)
    return args


def _find(module: ModuleType, name: str) -> Any:
    solution = getattr(module, "Solution", None)
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if not hasattr(module, name):
        raise NameError(f"the program defines no function {name!r}")
    return getattr(module, name)


def to_json(value: Any) -> str:
    """JSON of a value by what it holds, not by what it claims: subclasses of int, str, list … are read as those.

    A value's own methods are never asked, so an `__eq__`, `__repr__` or patched encoder changes nothing. Tuples are
    lists, as json has it. Raises TypeError for what JSON cannot hold.
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
    if getattr(value, "shape", None) == ():  # a number of numpy's
        return to_json(value.item())
    raise TypeError(f"the result holds a {type(value).__name__}, which is no JSON value")


def _report(problem: BaseException) -> str:
    """Write the traceback to stderr as the interpreter does. Returns its last line."""
    own: TracebackType | None = problem.__traceback__
    try:
        lines = traceback.format_exception(type(problem), problem, own and own.tb_next, limit=-20)
    except BaseException as worse:  # noqa: BLE001 - e.g. a __str__ that raises
        lines = [type(worse).__name__]
    _write_error("".join(lines))
    return lines[-1].strip()


def _write_error(text: str) -> None:
    os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")


def _open(file: Any, *args: Any, **kwargs: Any) -> Any:
    """`open`, which finds the standard streams by their paths although no /proc is there to lead to them."""
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    stream = _STREAM_PATH.fullmatch(path) if isinstance(path, str) else None
    if stream is None:
        return _plain_open(file, *args, **kwargs)
    number = ("in", "out", "err").index(stream[1]) if stream[1] else int(stream[2])
    return _plain_open(os.dup(number), *args, **kwargs)


def prepare() -> None:
    """What every test process needs, done once in the zygote: `exit` and `quit` (-S drops them), common modules, and
    the stacks of threads that fit: programs ask for 512 MB.
    """
    builtins.open = io.open = _open
    builtins.exit = Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = Quitter("quit", "Ctrl-D (i.e. EOF)")
    threading.stack_size = lambda size=0: _plain_stack_size(min(size, _THREAD_STACK))
    sys.argv[:] = ["solution.py"]
    sys.orig_argv[:] = ["python", "solution.py"]
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # the CPU limit bounds it; programs do print big integers
    for name in _PRELOADED.split():
        __import__(name)
    # Nothing is read or written before a test process puts its own files behind them.
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if fd == 2 else "surrogateescape"
        stream = _plain_open(fd, mode, encoding="utf-8", errors=errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
