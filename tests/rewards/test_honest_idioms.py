"""Ordinary programs work in the sandbox as outside: input and output, recursion, threads, the standard library."""

# ruff: noqa: E501 - a program per line reads best
from __future__ import annotations

import json

import pytest

from rewards.code.grade import Preamble, text_before
from rewards.sandbox import Case, Limits, Sandbox

# name: (program, stdin, stdout)
FAST = """import os, sys
from io import BytesIO, IOBase
class FastIO(IOBase):
    newlines = 0
    def __init__(self, file):
        self._fd = file.fileno()
        self.buffer = BytesIO()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.write = self.buffer.write if self.writable else None
    def readline(self):
        while self.newlines == 0:
            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
            self.newlines = b.count(b"\\n") + (not b)
            at = self.buffer.tell()
            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(at)
        self.newlines -= 1
        return self.buffer.readline()
    def flush(self):
        if self.writable:
            os.write(self._fd, self.buffer.getvalue())
            self.buffer.truncate(0), self.buffer.seek(0)
class IOWrapper(IOBase):
    def __init__(self, file):
        self.buffer = FastIO(file)
        self.flush, self.writable = self.buffer.flush, self.buffer.writable
        self.write = lambda s: self.buffer.write(s.encode("ascii"))
        self.readline = lambda: self.buffer.readline().decode("ascii")
"""

IDIOMS: dict[str, tuple[str, str, str]] = {
    "input": ("a = int(input())\nb = int(input())\nprint(a + b)", "1\n2\n", "3\n"),
    "input with prompt": ("print(input('n? '))", "1\n", "n? 1\n"),
    "input without a last newline": ("print(input(), input())", "1\n2", "1 2\n"),
    "map over input": ("print(sum(map(int, input().split())))", "1 2 3\n", "6\n"),
    "until EOFError": (
        "total = 0\ntry:\n    while True: total += int(input())\nexcept EOFError: print(total)",
        "1\n2\n3\n",
        "6\n",
    ),
    "sys.stdin.read": ("import sys\nprint(sys.stdin.read().split())", "a b\nc", "['a', 'b', 'c']\n"),
    "sys.stdin.readline": ("import sys\ninput = sys.stdin.readline\nprint(repr(input()), repr(input()))", "x\n", "'x\\n' ''\n"),
    "for line in sys.stdin": ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "ab\ncd\n", "ba\ndc\n"),
    "sys.stdin.buffer": ("import sys\nprint(sys.stdin.buffer.read().split()[1].decode())", "a b\n", "b\n"),
    "open(0)": ("print(*[int(x) * 2 for x in open(0).read().split()])", "1 2\n", "2 4\n"),
    "unpacked open(0)": ("n, *rest = map(int, open(0))\nprint(n, rest)", "3\n1\n2\n", "3 [1, 2]\n"),
    "os.read and os.write": (
        "import os\ndata = os.read(0, os.fstat(0).st_size).split()\nos.write(1, b'%d' % len(data))",
        "1 2 3",
        "3",
    ),
    "fast io": (
        "import sys, io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
        "sys.stdout = io.StringIO()\nprint(int(input()) + 1)\nos.write(1, sys.stdout.getvalue().encode())",
        "41\n",
        "42\n",
    ),
    "fast io at exit": (
        "import atexit, io, sys\nbuffer = io.BytesIO()\nsys.stdout.write = lambda s: buffer.write(s.encode('ascii'))\n"
        "atexit.register(lambda: sys.__stdout__.buffer.write(buffer.getvalue()))\nprint('late')",
        "",
        "late\n",
    ),
    "sys.stdin reopened": ("import sys\nsys.stdin = open(0)\nprint(sys.stdin.readline().strip())", "x\n", "x\n"),
    "redirected to StringIO": ("import io, sys\nsys.stdin = io.StringIO('7')\nprint(input())", "", "7\n"),
    "print options": ("print(1, 2, sep='-', end='!', flush=True)", "", "1-2!"),
    "sys.stdout.write": ("import sys\nsys.stdout.write('a')\nsys.stdout.writelines(['b', 'c'])", "", "abc"),
    "print to stderr": ("import sys\nprint('debug', file=sys.stderr)\nprint(1)", "", "1\n"),
    "devnull": ("import os, sys\nprint('x', file=open(os.devnull, 'w'))\nprint(1)", "", "1\n"),
    "unicode": ("print(input()[::-1], 'ß→é', len('😀'))", "äöü\n", "üöä ß→é 1\n"),
    "bytes that are no utf-8": ("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')", "", "\udcff\udcfe"),
    "closed stdout": ("import sys\nprint(1)\nsys.stdout.close()", "", "1\n"),
    "file on descriptor 1": ("f = open(1, 'w')\nf.write('left open')", "", "left open"),
    "stdout replaced": ("import io, sys\nprint(1)\nsys.stdout = io.StringIO()\nprint(2)", "", "1\n"),
    "stdout wrapped": (
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8', line_buffering=False)\nprint(1)",
        "",
        "1\n",
    ),
    "fast input and output": (
        FAST + "sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)\n"
        "input = lambda: sys.stdin.readline().rstrip('\\r\\n')\nn = int(input())\nprint(sum(map(int, input().split())))",
        "3\n1 2 3\n",
        "6\n",
    ),
    "fast output of its own": (FAST + "out = FastIO(sys.stdout)\nout.write(input().encode())", "abc\n", "abc"),
    "stdin and stdout in memory": (
        "import atexit, io, os, sys\nsys.stdin = io.BytesIO(os.read(0, os.fstat(0).st_size))\nsys.stdout = io.BytesIO()\n"
        "atexit.register(lambda: os.write(1, sys.stdout.getvalue()))\n"
        "sys.stdout.write(b'%d' % sum(map(int, sys.stdin.readline().split())))",
        "1 2\n",
        "3",
    ),
    "stdout of an own class": (
        "import sys\nclass Out:\n    def __init__(self): self.parts = []\n    def write(self, text): self.parts.append(text)\n"
        "    def flush(self): sys.__stdout__.write(''.join(self.parts))\nsys.stdout = Out()\nprint(5)",
        "",
        "5\n",
    ),
    "/dev/stdin": ("import sys\nsys.stdin = open('/dev/stdin')\nprint(input()[::-1])", "abc\n", "cba\n"),
    "/proc/self/fd/0": ("print(open('/proc/self/fd/0').read().strip())", "abc\n", "abc\n"),
    "/dev/stdout": ("with open('/dev/stdout', 'w') as f: f.write(input())\nprint('!')", "abc\n", "abc!\n"),
    "fileinput": ("import fileinput\nprint(sum(int(line) for line in fileinput.input()))", "1\n2\n", "3\n"),
    "until the end of input": (
        "total = 0\ntry:\n    while True: total += int(input())\nexcept EOFError: print(total)", "1\n2\n", "3\n"
    ),
    "numpy": ("import numpy as np\nprint(np.array(input().split(), dtype=np.int64).sum(), np.linalg.det(np.eye(200)))", "1 2\n", "3 1.0\n"),
    "scipy": (
        "from scipy.sparse import csr_matrix\nfrom scipy.sparse.csgraph import dijkstra\nprint(dijkstra(csr_matrix([[0, 2], [2, 0]]))[0])",
        "",
        "[0. 2.]\n",
    ),
    "sortedcontainers": ("from sortedcontainers import SortedList\nprint(*SortedList(map(int, input().split())))", "3 1 2\n", "1 2 3\n"),
    "networkx and sympy": (
        "import networkx, sympy\nprint(networkx.shortest_path_length(networkx.path_graph(5), 0, 4), sympy.factorint(12))",
        "",
        "4 {2: 2, 3: 1}\n",
    ),
    "main guard": ("def main(): print('main')\nif __name__ == '__main__': main()", "", "main\n"),
    "exit": ("print(1)\nexit()\nprint(2)", "", "1\n"),
    "quit": ("print(1)\nquit(0)", "", "1\n"),
    "sys.exit": ("import sys\nprint(1)\nsys.exit()", "", "1\n"),
    "raise SystemExit": ("print(1)\nraise SystemExit", "", "1\n"),
    "os._exit": ("import os\nprint(1, flush=True)\nos._exit(0)", "", "1\n"),
    "recursion limit": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(10**4))",
        "",
        "10000\n",
    ),
    "recursion in a big thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(128 << 20)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
        "thread = threading.Thread(target=lambda: print(f(10**5)))\nthread.start()\nthread.join()",
        "",
        "100000\n",
    ),
    "a thread that asks for 512 MB": (
        "import threading\nthreading.stack_size(512 * 1024 * 1024)\nthreading.Thread(target=print, args=(1,)).start()",
        "",
        "1\n",
    ),
    "thread that is not joined": (
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('done'))).start()",
        "",
        "done\n",
    ),
    "stack limit": (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)\nprint(1)",
        "",
        "1\n",
    ),
    "thread pool": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(16) as pool: print(sum(pool.map(lambda x: x * x, range(100))))",
        "",
        "328350\n",
    ),
    "locks and queues": (
        "import queue, threading\nq = queue.Queue()\nlock = threading.Lock()\n"
        "def work():\n    with lock: q.put(1)\n"
        "ts = [threading.Thread(target=work) for _ in range(20)]\n[t.start() for t in ts]; [t.join() for t in ts]\nprint(q.qsize())",
        "",
        "20\n",
    ),
    "asyncio": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0.001)\n    return x\n"
        "async def main(): print(await asyncio.gather(*map(f, range(3))))\nasyncio.run(main())",
        "",
        "[0, 1, 2]\n",
    ),
    "signal alarm as a timer": (
        "import signal, time\ndef late(*_): raise TimeoutError\nsignal.signal(signal.SIGALRM, late)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.02)\ntry: time.sleep(5)\nexcept TimeoutError: print('late')",
        "",
        "late\n",
    ),
    "late imports": (
        "def f():\n    import difflib, email.message, sched, unicodedata, zlib, uuid, calendar, ctypes, pickle, tempfile\n"
        "    return zlib.crc32(b'x')\nprint(f())",
        "",
        "2363233923\n",
    ),
    "star imports": ("from math import *\nfrom collections import *\nfrom typing import *\nprint(floor(pi), Counter('aab')['a'])", "", "3 2\n"),
    "heapq bisect itertools": (
        "import heapq, bisect, itertools\nh = [3, 1, 2]\nheapq.heapify(h)\n"
        "print(heapq.heappop(h), bisect.bisect([1, 3], 2), list(itertools.accumulate([1, 2, 3])))",
        "",
        "1 1 [1, 3, 6]\n",
    ),
    "deque and defaultdict": (
        "from collections import deque, defaultdict\nd = defaultdict(list)\nd[1].append(deque([1, 2], maxlen=1))\nprint(d[1][0][0])",
        "",
        "2\n",
    ),
    "lru_cache and reduce": (
        "from functools import lru_cache, reduce, cmp_to_key\n@lru_cache(None)\ndef f(n): return n if n < 2 else f(n-1) + f(n-2)\n"
        "print(f(80), reduce(int.__mul__, range(1, 6)), sorted([3, 1], key=cmp_to_key(lambda a, b: a - b)))",
        "",
        "23416728348467685 120 [1, 3]\n",
    ),
    "decimal and fractions": (
        "from decimal import Decimal, getcontext\nfrom fractions import Fraction\ngetcontext().prec = 30\n"
        "print(Decimal(1) / 3, Fraction(1, 3) + Fraction(1, 6))",
        "",
        "0.333333333333333333333333333333 1/2\n",
    ),
    "regular expressions": ("import re\nprint(re.sub(r'(\\d+)', lambda m: str(int(m[1]) + 1), 'a9b'))", "", "a10b\n"),
    "datetime": ("import datetime, time\nprint(datetime.date(2024, 2, 28) + datetime.timedelta(2))", "", "2024-03-01\n"),
    "random with a seed": ("import random\nrandom.seed(1)\nprint(random.randint(1, 100), len({random.random() for _ in range(9)}))", "", "18 9\n"),
    "random without a seed": ("import random, os, secrets\nprint(0 <= random.random() < 1, len(os.urandom(4)), len(secrets.token_hex(2)))", "", "True 4 4\n"),
    "dataclass and enum": (
        "from dataclasses import dataclass, field\nfrom enum import Enum\nfrom typing import NamedTuple, Optional\n"
        "class C(Enum): A = 1\n@dataclass(order=True)\nclass P:\n    x: int\n    c: C = C.A\n    l: list = field(default_factory=list)\n"
        "class N(NamedTuple):\n    a: int\n    b: Optional[int] = None\nprint(P(1) < P(2), P(1), N(1))",
        "",
        "True P(x=1, c=<C.A: 1>, l=[]) N(a=1, b=None)\n",
    ),
    "future annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport typing\n@dataclass\nclass P:\n    x: int\n"
        "print(typing.get_type_hints(P))",
        "",
        "{'x': <class 'int'>}\n",
    ),
    "pickle and copy of own classes": (
        "import copy, pickle\nclass A:\n    def __init__(self): self.x = [1]\na = pickle.loads(pickle.dumps(A()))\nprint(copy.deepcopy(a).x)",
        "",
        "[1]\n",
    ),
    "generators": ("def g():\n    x = yield 1\n    yield from [x, 3]\ni = g()\nprint(next(i), i.send(2), next(i))", "", "1 2 3\n"),
    "globals and exec": ("x = 1\ndef f():\n    global x\n    x += 1\nf()\nexec('x += 1')\nprint(x, eval('x + 1'), 'x' in globals())", "", "3 4 True\n"),
    "big integers": ("print(len(str(2 ** 20000)), pow(3, 10**5, 10**9 + 7))", "", "6021 916902199\n"),
    "big lists": ("x = list(range(5_000_000))\nprint(sum(x))", "", "12499997500000\n"),
    "big input": ("import sys\nprint(len(sys.stdin.read()))", "7" * 3_000_000, "3000000\n"),
    "numbers formatted": ("print(f'{3.14159:.2f} {255:#x} {10**6:,} {1e20!r}', '%05d' % 42)", "", "3.14 0xff 1,000,000 1e+20 00042\n"),
    "caught exceptions": ("try:\n    1 / 0\nexcept ZeroDivisionError as e: print(e)\nfinally: print('end')", "", "division by zero\nend\n"),
    "warnings": ("import warnings\nwarnings.warn('old')\nprint(1)", "", "1\n"),
    "gc and weakref": ("import gc, weakref\nclass A: pass\na = A()\na.a = a\nr = weakref.ref(a)\ndel a\ngc.collect()\nprint(gc.isenabled(), r())", "", "True None\n"),
    "cpu count and platform": ("import os, sys, platform\nprint(os.cpu_count() > 0, sys.platform, platform.python_implementation())", "", "True linux CPython\n"),
    "isatty": ("import sys\nprint(sys.stdin.isatty(), sys.stdout.isatty())", "", "False False\n"),
    "argv": ("import sys\nprint(len(sys.argv))", "", "1\n"),
    "time": ("import time\nt = time.perf_counter()\ntime.sleep(0.001)\nprint(time.perf_counter() > t, time.time() > 1e9)", "", "True True\n"),
    "tempfile in memory": ("import io, csv\nf = io.StringIO()\ncsv.writer(f).writerow([1, 'a'])\nprint(f.getvalue().strip())", "", "1,a\n"),
}  # fmt: skip

CALLS = {
    "function": ("def add(a, b): return a + b", "add", [1, 2], 3),
    "Solution": ("class Solution:\n    def twice(self, x: int) -> int: return self.h(x)\n    def h(self, x): return 2 * x", "twice", [4], 8),
    "Solution with typing": ("from typing import List\nclass Solution:\n    def f(self, x: List[int]) -> List[int]: return sorted(x)", "f", [[2, 1]], [1, 2]),
    "static method": ("class Solution:\n    @staticmethod\n    def f(x): return x", "f", ["é"], "é"),
    "nested": ("def f(x): return {'a': (1, [2.5, None, True]), 'b': x}", "f", [{"k": []}], {"a": [1, [2.5, None, True]], "b": {"k": []}}),
    "generator made a list": ("def f(n): return list(range(n))", "f", [3], [0, 1, 2]),
    "Counter": ("from collections import Counter, defaultdict, OrderedDict\ndef f(s): return Counter(s)", "f", ["aab"], {"a": 2, "b": 1}),
    "namedtuple and enum": ("import collections, enum\nP = collections.namedtuple('P', 'x y')\nclass E(enum.IntEnum): A = 5\ndef f(): return P(1, E.A)", "f", [], [1, 5]),
    "keys that are numbers": ("def f(): return {1: 'a', None: 'b', True: 'c', 2.5: 'd'}", "f", [], {"1": "c", "null": "b", "2.5": "d"}),
    "prints as well": ("def f():\n    print('debug')\n    return 1", "f", [], 1),
    "main guard is skipped": ("def f(): return 1\nif __name__ == '__main__': print(f(input()))", "f", [], 1),
    "big numbers": ("def f(x): return x * 10**50", "f", [7], 7 * 10**50),
    "floats": ("def f(x): return [x, 1e308, -0.0, 0.1 + 0.2]", "f", [1.5], [1.5, 1e308, -0.0, 0.1 + 0.2]),
    "recursion": ("import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)", "f", [20000], 20000),
    "a number of numpy's": ("import numpy as np\ndef f(x): return [np.int64(x), np.float64(0.5), np.bool_(True)]", "f", [3], [3, 0.5, True]),
    "none": ("def f(x): x.sort()", "f", [[2, 1]], None),
    "text": ("def f(s): return s + '\\x00\\u2028😀\"\\\\'", "f", ["ß"], 'ß\x00\u2028😀"\\'),
}  # fmt: skip


@pytest.mark.parametrize("name", IDIOMS)
def test_program(box: Sandbox, name: str) -> None:
    code, stdin, stdout = IDIOMS[name]
    program = box.python(code, [Case(stdin.encode())], Limits(cpu_s=5))
    assert program.compile_error is None
    ran = program.runs[0]
    assert (ran.status, ran.message) == ("ok", "")
    assert ran.stdout == stdout.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", CALLS)
def test_call(box: Sandbox, name: str) -> None:
    code, function, args, expected = CALLS[name]
    ran = box.python(code, [Case(call=(function, args))], Limits(cpu_s=5)).runs[0]
    assert (ran.status, ran.message) == ("ok", "")
    value = json.loads(ran.result)
    assert value == expected
    assert type(value) is type(expected)


PREAMBLE = {
    "typing names": "class S:\n    def f(self, a: List[int], k: Optional[int] = None) -> Dict[int, int]: return a\nprint(S().f([1]))",
    "containers": "h = [3, 1]\nheapify(h)\nheapq.heappush(h, 0)\nq = deque(h)\nd = defaultdict(int, {1: 2})\nprint([q[0] + d[0] + 1])",
    "functions": "@cache\ndef f(n): return 1 if n < 2 else f(n - 1)\nprint([f(900) + gcd(2, 4) - len(list(pairwise([1, 2, 3])))])",
    "builtins stay": "print([pow(2, 4, 5), abs(-2), sum([1])][:1])",
    "open stays": "print([len(open(0).read()) + 1])",
    "recursion": "def f(n): return 1 if n == 0 else f(n - 1)\nprint([f(5000)])",
    "future": "from __future__ import annotations\nclass A:\n    def f(self) -> A: return self\nprint([len([A().f()])])",
    "own names win": "count, inf = 1, 2\ndef gcd(a, b): return count\nprint([gcd(inf, inf)])",
    "main guard": "if __name__ == '__main__':\n    print([1])",
    "pickle of a class": "import pickle\nclass A: pass\nprint([len([pickle.loads(pickle.dumps(A()))])])",
}


@pytest.mark.parametrize("preamble", ["livecodebench", "apps"])
@pytest.mark.parametrize("name", PREAMBLE)
def test_program_after_a_preamble(box: Sandbox, name: str, preamble: Preamble) -> None:
    ran = box.python(PREAMBLE[name], [Case()], Limits(cpu_s=5), preamble=text_before(preamble, PREAMBLE[name])).runs[0]
    assert (ran.status, ran.stdout, ran.message) == ("ok", b"[1]\n", "")


def test_numpy_in_a_preamble(box: Sandbox) -> None:
    code = "print(np.arange(3).sum())"
    assert box.python(code, [Case()], preamble=text_before("apps", code)).runs[0].stdout == b"3\n"


def test_about_200_mb_of_memory_are_usable(box: Sandbox) -> None:
    ran = box.python("x = [i for i in range(6_000_000)]\nprint(len(x))", [Case()], Limits(memory_mb=512)).runs[0]
    assert ran.status == "ok"
    assert ran.peak_mb > 200
