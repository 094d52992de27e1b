"""What the benchmarks' own harnesses execute before a Python program: imports, and a higher recursion limit."""

from __future__ import annotations

from typing import Literal

Preamble = Literal["none", "livecodebench", "apps"]

_STARRED = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)
# LiveCodeBench, lcb_runner/evaluation/testing_util.py; verl's prime_code has the same with a limit of 600,000
_LIVECODEBENCH = "\n".join(
    [f"from {name} import *" for name in [*_STARRED.split(), "builtins", "typing"]]
    + [f"import {name}" for name in _STARRED.split()]
    + ["sys.setrecursionlimit(50000)"]
)
# hendrycks/apps, eval/testing_util.py; TACO's metrics/testing_util.py has the same
_APPS = """
import sys, time, itertools, collections, math, fractions, random, heapq
from itertools import accumulate, product, permutations, combinations
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
from heapq import *
stdin, stdout = sys.stdin, sys.stdout
"""
_NUMPY = "import numpy as np\n"  # takes 50 ms, so only where the program may use it


def text_before(preamble: Preamble, code: str) -> str:
    """The source to execute before the program `code`, in its namespace."""
    if preamble == "livecodebench":
        return _LIVECODEBENCH
    if preamble == "apps":
        return _APPS + (_NUMPY if "np" in code else "")
    return ""
