# ruff: noqa: E501 - a program per line reads best
"""Programs for a comparison of graders: problems of contests and of LeetCode, each solved and printed in many ways.

A variant is "right" (a judge accepts it), "wrong", or "odd": right values in a form that graders disagree on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Truth = Literal["right", "wrong", "odd"]


@dataclass(frozen=True)
class Program:
    """name: problem and variant. tests: in our format. in_outs: the same in prime_code's and LiveCodeBench's format."""

    name: str
    truth: Truth
    code: str
    tests: dict[str, Any]
    in_outs: dict[str, Any]


# name: (solve(text) -> lines, [(input, output)])
STDIO: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "sum": ("return [str(sum(map(int, text.split()[1:])))]", [("3\n1 2 3\n", "6\n"), ("1\n-5\n", "-5\n")]),
    "max subarray": (
        "best = now = -10**9\n    for x in map(int, text.split()[1:]):\n        now = max(x, now + x)\n"
        "        best = max(best, now)\n    return [str(best)]",
        [("5\n-2 1 -3 4 -1\n", "4\n"), ("3\n-3 -1 -2\n", "-1\n")],
    ),
    "gcd of pairs": (
        "import math\n    rows = [tuple(map(int, l.split())) for l in text.splitlines()[1:]]\n"
        "    return [str(math.gcd(a, b)) for a, b in rows]",
        [("3\n12 18\n7 5\n100 75\n", "6\n1\n25\n"), ("1\n9 9\n", "9\n")],
    ),
    "reverse words": ("return [' '.join(text.split()[::-1])]", [("to be or not\n", "not or be to\n"), ("a\n", "a\n")]),
    "palindrome": (
        "s = text.strip()\n    return ['YES' if s == s[::-1] else 'NO']",
        [("racecar\n", "YES\n"), ("abc\n", "NO\n")],
    ),
    "sorted distinct": (
        "return [' '.join(map(str, sorted(set(map(int, text.split())))))]",
        [("3 1 2 3\n", "1 2 3\n"), ("10 9 10\n", "9 10\n")],
    ),
    "average": (
        "v = list(map(float, text.split()))\n    return ['%.6f' % (sum(v) / len(v))]",
        [("1 2 4\n", "2.333333\n"), ("2.5 2.5\n", "2.500000\n")],
    ),
    "circle area": (
        "import math\n    return ['%.4f' % (math.pi * float(r) ** 2) for r in text.split()]",
        [("1 2\n", "3.1416\n12.5664\n"), ("0.5\n", "0.7854\n")],
    ),
    "grid transpose": (
        "g = [l.split() for l in text.splitlines()]\n    return [' '.join(r) for r in zip(*g)]",
        [("1 2 3\n4 5 6\n", "1 4\n2 5\n3 6\n"), ("7\n", "7\n")],
    ),
    "islands": (
        "g = [list(l) for l in text.split()]\n    n = 0\n    for i in range(len(g)):\n        for j in range(len(g[0])):\n"
        "            if g[i][j] == '#':\n                n += 1\n                todo = [(i, j)]\n                while todo:\n"
        "                    a, b = todo.pop()\n                    if 0 <= a < len(g) and 0 <= b < len(g[0]) and g[a][b] == '#':\n"
        "                        g[a][b] = '.'\n                        todo += [(a+1, b), (a-1, b), (a, b+1), (a, b-1)]\n"
        "    return [str(n)]",
        [("##.\n..#\n#.#\n", "3\n"), ("...\n", "0\n")],
    ),
    "shortest paths": (
        "from collections import deque\n    rows = [list(map(int, l.split())) for l in text.splitlines()]\n    n, _ = rows[0]\n"
        "    near = [[] for _ in range(n + 1)]\n    for a, b in rows[1:]:\n        near[a].append(b)\n        near[b].append(a)\n"
        "    d = [-1] * (n + 1)\n    d[1] = 0\n    q = deque([1])\n    while q:\n        x = q.popleft()\n        for y in near[x]:\n"
        "            if d[y] < 0:\n                d[y] = d[x] + 1\n                q.append(y)\n    return [str(v) for v in d[1:]]",
        [("4 3\n1 2\n2 3\n1 4\n", "0\n1\n2\n1\n"), ("2 0\n", "0\n-1\n")],
    ),
    "word counts": (
        "from collections import Counter\n    return [f'{w} {c}' for w, c in sorted(Counter(text.split()).items())]",
        [("b a b\n", "a 1\nb 2\n"), ("x\n", "x 1\n")],
    ),
    "primes": (
        "n = int(text)\n    return [str(p) for p in range(2, n + 1) if all(p % q for q in range(2, int(p**.5) + 1))]",
        [("10\n", "2\n3\n5\n7\n"), ("2\n", "2\n")],
    ),
    "big factorial": (
        "import math\n    return [str(math.factorial(int(text)))]",
        [("25\n", "15511210043330985984000000\n"), ("0\n", "1\n")],
    ),
    "binary": ("return [format(int(x), 'b') for x in text.split()]", [("5 8\n", "101\n1000\n"), ("0\n", "0\n")]),
    "matrix product": (
        "n, *v = map(int, text.split())\n    a, b = v[:n*n], v[n*n:]\n"
        "    return [' '.join(str(sum(a[i*n+k] * b[k*n+j] for k in range(n))) for j in range(n)) for i in range(n)]",
        [("2\n1 2\n3 4\n0 1\n1 0\n", "2 1\n4 3\n"), ("1\n3\n4\n", "12\n")],
    ),
    "brackets": (
        "out = []\n    for s in text.split():\n        stack = []\n        good = True\n        for c in s:\n"
        "            if c in '([': stack.append(c)\n            elif not stack or stack.pop() + c not in ('()', '[]'): good = False\n"
        "        out.append('yes' if good and not stack else 'no')\n    return out",
        [("([]) (] (\n", "yes\nno\nno\n"), ("()\n", "yes\n")],
    ),
    "knapsack": (
        "rows = [tuple(map(int, l.split())) for l in text.splitlines()]\n    (n, c), items = rows[0], rows[1:]\n"
        "    best = [0] * (c + 1)\n    for w, v in items:\n        for k in range(c, w - 1, -1): best[k] = max(best[k], best[k-w] + v)\n"
        "    return [str(best[c])]",
        [("2 5\n3 4\n2 3\n", "7\n"), ("1 1\n2 9\n", "0\n")],
    ),
    "roots": (
        "import math\n    a, b, c = map(float, text.split())\n    d = math.sqrt(b*b - 4*a*c)\n"
        "    return ['%.3f %.3f' % ((-b-d)/(2*a), (-b+d)/(2*a))]",
        [("1 -3 2\n", "1.000 2.000\n"), ("2 0 -1\n", "-0.707 0.707\n")],
    ),
    "queue simulation": (
        "from collections import deque\n    q, out = deque(), []\n    for l in text.splitlines()[1:]:\n        w = l.split()\n"
        "        if w[0] == 'push': q.append(w[1])\n        else: out.append(q.popleft() if q else 'empty')\n    return out",
        [("4\npush 3\npop\npop\npush 5\n", "3\nempty\n"), ("2\npush 1\npop\n", "1\n")],
    ),
}

_SOLVED = "import sys\ndef solve(text):\n    {solve}\n"
_LINES = _SOLVED + "lines = solve(sys.stdin.read())\n"
# name: (truth, program with {solve})
STDIO_VARIANTS: dict[str, tuple[Truth, str]] = {
    "print": ("right", _LINES + "for l in lines: print(l)"),
    "write": ("right", _LINES + "sys.stdout.write('\\n'.join(lines))"),
    "main guard": ("right", _SOLVED + "if __name__ == '__main__':\n    print('\\n'.join(solve(sys.stdin.read())))"),
    "open(0)": ("right", _SOLVED + "print('\\n'.join(solve(open(0).read())))"),
    "input until the end": (
        "right",
        _SOLVED
        + "rows = []\nwhile True:\n    try:\n        rows.append(input())\n    except EOFError:\n        break\n"
        "print('\\n'.join(solve('\\n'.join(rows) + '\\n')))",
    ),
    "os.read": (
        "right",
        "import os\n" + _SOLVED + "os.write(1, '\\n'.join(solve(os.read(0, os.fstat(0).st_size).decode())).encode())",
    ),
    "stdin.buffer": ("right", _SOLVED + "print('\\n'.join(solve(sys.stdin.buffer.read().decode())))"),
    "/dev/stdin": ("right", _SOLVED + "print('\\n'.join(solve(open('/dev/stdin').read())))"),
    "exit()": ("right", _LINES + "print('\\n'.join(lines))\nexit()"),
    "sys.exit()": ("right", _LINES + "print('\\n'.join(lines))\nsys.exit()"),
    "debug output": ("right", _LINES + "print('debug', lines, file=sys.stderr)\nprint('\\n'.join(lines))"),
    "in a thread": (
        "right",
        "import threading\n" + _LINES + "threading.stack_size(1 << 26)\n"
        "t = threading.Thread(target=lambda: print('\\n'.join(lines)))\nt.start()\nt.join()",
    ),
    "names of the preamble": ("right", _LINES + "print('\\n'.join(chain(deque(lines), [])))"),
    "recursion": (
        "right",
        _LINES + "def down(n): return 0 if n == 0 else down(n - 1)\ndown(5000)\nprint('\\n'.join(lines))",
    ),
    "trailing blanks": ("right", _LINES + "for l in lines: print(l + '  ')\nprint()"),
    "windows line ends": ("right", _LINES + "for l in lines: print(l, end='\\r\\n')"),
    "indented": ("odd", _LINES + "for l in lines: print('  ' + l)"),
    "blank lines between": ("odd", _LINES + "print('\\n\\n'.join(lines))"),
    "one line": ("odd", _LINES + "print(' '.join(lines))"),
    "decimal point": (
        "odd",
        "import re\n" + _LINES + "for l in lines: print(re.sub(r'(?<![\\d.])(\\d+)(?![\\d.])', r'\\1.0', l))",
    ),
    "nonzero exit": ("odd", _LINES + "print('\\n'.join(lines))\nsys.exit(1)"),
    "labelled": ("wrong", _LINES + "for l in lines: print('Answer:', l)"),
    "other case": ("wrong", _LINES + "for l in lines: print(l.swapcase() + ('' if l.swapcase() != l else '!'))"),
    "last line missing": ("wrong", _LINES + "print('\\n'.join(lines[:-1]))"),
    "one line more": ("wrong", _LINES + "print('\\n'.join([*lines, '0']))"),
    "crash at the end": ("wrong", _LINES + "print('\\n'.join(lines))\n1 / 0"),
    "prompt": ("wrong", _LINES + "print('n: ', end='')\nprint('\\n'.join(lines))"),
}

# name: (method body with self and its parameters, parameters, [(arguments, result)])
CALLS: dict[str, tuple[str, str, list[tuple[list[Any], Any]]]] = {
    "two sum": (
        "seen = {}\n        for i, x in enumerate(nums):\n            if target - x in seen: return [seen[target - x], i]\n"
        "            seen[x] = i",
        "nums: List[int], target: int",
        [([[2, 7, 11], 9], [0, 1]), ([[3, 3], 6], [0, 1])],
    ),
    "merge intervals": (
        "out = []\n        for a, b in sorted(spans):\n            if out and a <= out[-1][1]: out[-1][1] = max(out[-1][1], b)\n"
        "            else: out.append([a, b])\n        return out",
        "spans: List[List[int]]",
        [([[[1, 3], [2, 6], [8, 9]]], [[1, 6], [8, 9]]), ([[[1, 4]]], [[1, 4]])],
    ),
    "longest without repeat": (
        "last, start, best = {}, 0, 0\n        for i, c in enumerate(s):\n            start = max(start, last.get(c, -1) + 1)\n"
        "            last[c] = i\n            best = max(best, i - start + 1)\n        return best",
        "s: str",
        [(["abcabcbb"], 3), ([""], 0)],
    ),
    "kth largest": ("return nlargest(k, nums)[-1]", "nums: List[int], k: int", [([[3, 2, 5], 2], 3), ([[1], 1], 1)]),
    "climbing stairs": (
        "@cache\n        def ways(i): return 1 if i < 2 else ways(i - 1) + ways(i - 2)\n        return ways(n)",
        "n: int",
        [([5], 8), ([80], 37889062373143906)],
    ),
    "is subsequence": (
        "it = iter(t)\n        return all(c in it for c in s)",
        "s: str, t: str",
        [(["ac", "abc"], True), (["ca", "abc"], False)],
    ),
    "median": (
        "v = sorted(nums)\n        n = len(v)\n        return (v[n // 2] + v[(n - 1) // 2]) / 2",
        "nums: List[int]",
        [([[1, 3, 2]], 2.0), ([[1, 2]], 1.5)],
    ),
    "group anagrams": (
        "groups = defaultdict(list)\n        for w in words: groups[''.join(sorted(w))].append(w)\n        return sorted(groups.values())",
        "words: List[str]",
        [([["ab", "ba", "c"]], [["ab", "ba"], ["c"]]), ([[""]], [[""]])],
    ),
    "prefix sums": ("return list(accumulate(nums))", "nums: List[int]", [([[1, 2, 3]], [1, 3, 6]), ([[5]], [5])]),
    "shortest path": (
        "near = defaultdict(list)\n        for a, b in edges:\n            near[a].append(b)\n            near[b].append(a)\n"
        "        q, seen = deque([(0, 0)]), {0}\n        while q:\n            x, d = q.popleft()\n            if x == n - 1: return d\n"
        "            for y in near[x]:\n                if y not in seen:\n                    seen.add(y)\n                    q.append((y, d + 1))\n"
        "        return -1",
        "n: int, edges: List[List[int]]",
        [([3, [[0, 1], [1, 2]]], 2), ([2, []], -1)],
    ),
}

_METHOD = "class Solution:\n    def solve(self, {params}):\n        {body}\n"
CALL_VARIANTS: dict[str, tuple[Truth, str]] = {
    "LeetCode": ("right", _METHOD),
    "function": ("right", _METHOD + "def _answer(*args): return Solution().solve(*args)\nsolve = _answer\n"),
    "with prints": ("right", _METHOD.replace("        {body}", "        print('called')\n        {body}")),
    "main guard": ("right", _METHOD + "if __name__ == '__main__':\n    print(Solution().solve(input()))\n"),
    "tuple": ("right", "{result}return tuple(r) if isinstance(r, list) else r\n"),
    "float": ("odd", "{result}return float(r) if type(r) is int else r\n"),
    "truth as a number": ("odd", "{result}return int(r) if r is True or r is False else r\n"),
    "inner tuples": (
        "odd",
        "{result}return [tuple(x) if isinstance(x, list) else x for x in r] if isinstance(r, list) else r\n",
    ),
    "text": ("wrong", "{result}return str(r) + ' '\n"),
    "nothing": ("wrong", "{result}return None if r is not None else 0\n"),
    "in a list of its own": ("wrong", "{result}return [[r]]\n"),
    "one off": ("wrong", "{result}return r + 1 if isinstance(r, (int, float)) else r[:-1]\n"),
}
_RESULT = "class Inner:\n    def solve(self, {params}):\n        {body}\nclass Solution:\n    def solve(self, *args):\n        r = Inner().solve(*args)\n        "


def programs() -> Iterator[Program]:
    """Every problem in every variant; one that changes nothing for outputs of one line is left out there."""
    for problem, (solve, cases) in STDIO.items():
        tests = {"kind": "stdio", "cases": [{"input": i, "output": o} for i, o in cases]}
        in_outs = {"inputs": [i for i, _ in cases], "outputs": [o for _, o in cases]}
        for name, (truth, code) in STDIO_VARIANTS.items():
            if name in ("blank lines between", "one line") and all(o.count("\n") == 1 for _, o in cases):
                continue
            yield Program(f"{problem}: {name}", truth, code.replace("{solve}", solve), tests, in_outs)
    for problem, (body, params, calls) in CALLS.items():
        tests = {"kind": "call", "function": "solve", "cases": [{"args": a, "expected": e} for a, e in calls]}
        texts = ["\n".join(map(json.dumps, a)) for a, _ in calls]
        in_outs = {"fn_name": "solve", "inputs": texts, "outputs": [json.dumps(e) for _, e in calls]}
        for name, (truth, code) in CALL_VARIANTS.items():
            code = code.replace("{result}", _RESULT).replace("{params}", params).replace("{body}", body)
            yield Program(f"{problem}: {name}", truth, code, tests, in_outs)
