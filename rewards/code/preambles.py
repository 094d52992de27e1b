"""What the benchmarks' own harnesses execute before a Python program: imports, and a higher recursion limit."""

from __future__ import annotations

from typing import Literal

Preamble = Literal["none", "livecodebench", "apps"]

_MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json",
)  # fmt: skip
# lcb_runner/evaluation/testing_util.py of LiveCodeBench
_STARRED = "\n".join(
    [f"from {name} import *" for name in (*_MODULES, "builtins", "typing")] + [f"import {name}" for name in _MODULES]
)
# eval/testing_util.py of hendrycks/apps, which TACO's has as well
_APPS = "import time, fractions\nstdin, stdout = sys.stdin, sys.stdout\n"
_NUMPY = "import numpy as np\n"  # takes 50 ms, so only where the program may use it


def text_before(preamble: Preamble, code: str) -> str:
    """The source to execute before the program `code`, in its namespace.

    "apps" has the names of APPS's and TACO's harnesses and of verl's prime_code, and the recursion limit of the last.
    """
    if preamble == "livecodebench":
        return f"{_STARRED}\nsys.setrecursionlimit(50000)\n"
    if preamble == "apps":
        return f"{_STARRED}\nsys.setrecursionlimit(600000)\n{_APPS}{_NUMPY if 'np' in code else ''}"
    return ""
