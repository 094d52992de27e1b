"""Asserts run in another process than the program: honest tests work, and unsupported ones say so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rewards
from rewards.code.asserts import grade
from rewards.code.asserts.prepare import prepare
from rewards.code.results import Graded
from rewards.code.suites import from_humaneval
from rewards.errors import RewardError
from rewards.sandbox import Limits, shared
from rewards.sandbox.inside.values import Values


def run(code: str, tests: str, function: str = "", **limits: float) -> Graded:
    return grade(code, tests, Limits(**limits), shared(), function)  # type: ignore[arg-type]


def statuses(code: str, tests: str, function: str = "", **limits: float) -> list[str]:
    return [test.status for test in run(code, tests, function, **limits).tests]


STACK = """
class EmptyError(ValueError):
    pass
class Stack:
    kind = "lifo"
    def __init__(self, items=()):
        self.items = list(items)
    def push(self, item):
        self.items.append(item)
        return self
    def pop(self):
        if not self.items:
            raise EmptyError("empty", 0)
        return self.items.pop()
    def __len__(self):
        return len(self.items)
    def __eq__(self, other):
        return isinstance(other, Stack) and self.items == other.items
    def __iter__(self):
        return iter(self.items)
    def __getitem__(self, at):
        return self.items[at]
    def __str__(self):
        return f"Stack({self.items})"
"""

HONEST = {
    "plain": (
        "def f(a, b=0): return a + b",
        "assert f(1, 2) == 3\nassert f([1], [2]) == [1, 2]\nassert f(1, b=5) == 6",
    ),
    "types": (
        "def f(k): return {'t': (1, 2), 's': {1, 'a'}, 'd': {1: (2,)}, 'b': b'x', 'c': 1j, 'n': None, 'f': 0.5}[k]",
        "assert f('t') == (1, 2)\nassert f('t') != [1, 2]\nassert f('s') == {'a', 1}\nassert f('d') == {1: (2,)}\n"
        "assert f('b') == b'x'\nassert f('c') == 1j\nassert f('n') is None\nassert isinstance(f('f'), float)",
    ),
    "numbers": (
        "from fractions import Fraction\nfrom decimal import Decimal\n"
        "def f(k): return [Fraction(1, 3), Decimal('0.1'), 10 ** 30, float('inf'), True][k]",
        "from fractions import Fraction\nfrom decimal import Decimal\nimport math\nassert f(0) == Fraction(1, 3)\n"
        "assert f(1) == Decimal('0.1')\nassert f(2) == 10 ** 30\nassert f(3) == math.inf\nassert f(4) is True",
    ),
    "long integers": (
        "import math\ndef f(n): return math.factorial(n)\ndef g(n): return -n",
        "import math\nassert f(5000) == math.factorial(5000)\nassert g(10 ** 9000) == -(10 ** 9000)",
    ),
    "iterators": (
        "def f(n):\n    for i in range(n): yield i\ndef g(x): return map(str, x)\ndef h(n): return range(n)",
        "assert list(f(3)) == [0, 1, 2]\nassert list(g([1])) == ['1']\nassert h(4) == range(4)\nassert sum(f(4)) == 6",
    ),
    "tolerance": (
        "def f(x): return x / 3",
        "import math\nassert abs(f(1) - 0.3333) < 1e-3\nassert math.isclose(f(3), 1.0)",
    ),
    "in place": (
        "def f(x): x.sort()\ndef g(d): d['a'] = [1]\ndef h(s): s.discard(1)",
        "l = [3, 1]\nf(l)\nassert l == [1, 3]\nd = {}\ng(d)\nassert d == {'a': [1]}\ns = {1, 2}\nh(s)\nassert s == {2}",
    ),
    "exceptions": (
        STACK + "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x ** 0.5",
        "try:\n    f(-1)\nexcept ValueError as problem:\n    assert str(problem) == 'negative'\n"
        "else:\n    assert False\ntry:\n    Stack().pop()\n    assert False\n"
        "except EmptyError as problem:\n    assert problem.args == ('empty', 0)",
    ),
    "helpers and loops": (
        "def f(x): return x * x",
        "inputs = [1, 2, 3]\nresults = [1, 4, 9]\ndef same(a, b):\n    return a == b\n"
        "for i, (x, y) in enumerate(zip(inputs, results)):\n    assert same(f(x), y), f'case {i}'\n"
        "assert [f(x) for x in inputs] == results\nassert all(f(x) > 0 for x in inputs)",
    ),
    "calls that need calls": (
        "def f(x): return x + 1",
        "x = 0\nfor _ in range(5):\n    x = f(x)\nassert x == 5\nassert f(f(f(0))) == 3",
    ),
    "objects": (
        STACK,
        "s = Stack()\ns.push(1)\ns.push(2).push(3)\nassert len(s) == 3\nassert s.items == [1, 2, 3]\n"
        "assert s.pop() == 3\nassert s[0] == 1\nassert list(s) == [1, 2]\nassert 2 in s\n"
        "assert str(s) == 'Stack([1, 2])'\n"
        "assert s == Stack([1, 2])\nassert s != Stack()\nassert isinstance(s, Stack)\nassert Stack.kind == 'lifo'\n"
        "assert not Stack()\ns.items = [7]\nassert s.pop() == 7",
    ),
    "constants": ("LIMIT = 5\nNAMES = ['a']", "assert LIMIT == 5\nassert NAMES[0] == 'a' and len(NAMES) == 1"),
    "a function handed on": ("def f(x): return x + 1\ndef twice(g, x): return g(g(x))", "assert twice(f, 1) == 3"),
    "imports of the program": ("def f(): return 1", "from solution import f\nassert f() == 1"),
    "random tests": (
        "def f(x): return sorted(x)",
        "import random\nfor _ in range(30):\n    x = [random.random() for _ in range(4)]\n    assert f(x) == sorted(x)",
    ),
    "names of ours": (
        "def encode(x): return x\ndef decode(x): return x\ndef run(x): return x\nclass Journal: value = 1",
        "assert encode(1) == 1\nassert decode([2]) == [2]\nassert run(3) == 3\nassert Journal.value == 1",
    ),
    "a solution class": ("class Solution:\n    def f(self, x): return x", "assert Solution().f(2) == 2"),
    "keywords": ("class A:\n    def m(self, name, owner): return name + owner", "assert A().m(name=1, owner=2) == 3"),
    "a method that changes its argument": (
        "class S:\n    def f(self, x):\n        x.sort()\n        return [*x]\ndef g():\n    return lambda x: x.pop()",
        "assert S().f([[2], [1]]) == [[1], [2]]\nassert g()([1, 2]) == 2",
    ),
    "imports by another name": ("def f(a): return a", "from solution import f as g\nassert g(1) == 1"),
    "pytest's parameters and fixtures": (
        "def f(x): return x * x",
        "import pytest\n@pytest.fixture\ndef two(): return f(2)\n@pytest.fixture\ndef four(two):\n    yield two\n"
        "@pytest.mark.parametrize('x, y', [(1, 1), pytest.param(3, 9, id='three')])\n"
        "@pytest.mark.parametrize('z', [0, 1])\n"
        "def test_a(x, y, z, four): assert f(x) == y and four == 4 and f(z) == z\n"
        "async def test_b(x=3): assert f(x) == 9\n@pytest.mark.skip\ndef test_c(): assert f(1) == 2\n"
        "@pytest.mark.xfail\ndef test_d(): assert f(1) == 2\ndef test_e(): pytest.skip('not here')\n"
        "class Base:\n    def test_f(self): assert f(2) == 4\n"
        "class TestA(Base):\n    def setup_method(self): self.x = 5\n    def test_g(self): assert f(self.x) == 25",
    ),
    "operators of a class": (
        "class V:\n    def __init__(self, *xs): self.xs = xs\n    def __eq__(self, o): return self.xs == o.xs\n"
        "    def __hash__(self): return hash(self.xs)\n    def __neg__(self): return V(*(-x for x in self.xs))\n"
        "    def __mul__(self, k): return V(*(k * x for x in self.xs))\n    __rmul__ = __mul__\n"
        "    def __abs__(self): return sum(x * x for x in self.xs) ** 0.5\n"
        "    def __int__(self): return int(self.xs[0])\n    def __float__(self): return float(self.xs[0])",
        "import copy\nassert -V(1, 2) == V(-1, -2)\nassert abs(V(3, 4)) == 5\nassert V(1, 2) * 3 == V(3, 6)\n"
        "assert 3 * V(1) == V(3)\nassert int(V(3.5)) == 3 and float(V(3)) == 3.0\n"
        "assert len({V(1), V(1)}) == 1 and {V(1): 5}[V(1)] == 5\n"
        "a = V(1)\nb = copy.copy(a)\nc = copy.deepcopy(a)\nb.xs = (2,)\nassert a.xs == (1,) and c == a",
    ),
    "docstrings and future": (
        '"""Doc."""\nfrom __future__ import annotations\ndef f(x: Unknown) -> None: return x',
        "from __future__ import annotations\nassert f(1) == 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_tests_pass(name: str) -> None:
    code, tests = HONEST[name]
    graded = run(code, tests)
    assert graded.compile_error is None
    assert {test.status for test in graded.tests} == {"passed"}, graded.tests


CHECK = """
def check(candidate):
    assert candidate(2) == 4
    x = candidate(3)
    assert x == 9
    assert candidate(0) == 0
"""


def test_humaneval() -> None:
    assert statuses("def square(x): return x * x", CHECK, "square") == ["passed"] * 3
    assert statuses("def square(x): return x + 2", CHECK, "square") == ["passed", "failed", "failed"]
    assert statuses("def square(x): return x * x", CHECK + "check(square)") == ["passed"] * 3
    with pytest.raises(RewardError, match="never calls it: add the key function"):
        prepare(CHECK)


def test_a_function_that_is_named_like_a_builtin_is_the_programs() -> None:
    """MBPP/126: the sum of the common divisors."""
    check = "def check(candidate):\n    assert candidate(100, 150) == 93\n    assert candidate(4, 6) == 3\n"
    tests = {"kind": "asserts", "source": check, "function": "sum"}
    right = "def sum(a, b):\n    return a % 7 and (93 if a > 4 else 3)"
    for code, value in ((right, 1.0), ("def total(a, b): return 3", 0.0)):
        result = rewards.load("code").score({"tests": tests}, f"```python\n{code}\n```")
        assert (result.value, result.outcome) == (value, "scored"), result


def test_humaneval_prompts_are_declarations() -> None:
    prompt = (
        "import math\n\ndef poly(xs, x):\n    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n\n"
        'def find_zero(xs):\n    """One root of a polynomial of degree 1."""\n'
    )
    check = (
        "METADATA = {}\n\ndef check(candidate):\n    for a in range(1, 101):\n        for b in range(1, 4):\n"
        "            coefficients = [a, b]\n            solution = candidate(list(coefficients))\n"
        "            assert math.fabs(poly(coefficients, solution)) < 1e-4\n"
    )
    tests = from_humaneval({"task_id": "HumanEval/32", "prompt": prompt, "entry_point": "find_zero", "test": check})
    assert "find_zero" not in tests["declarations"]
    reward = rewards.load("code")
    for root, value in (("-xs[0] / xs[1]", 1.0), ("0.0", 0.0)):
        cheat = "def poly(xs, x): return 0.0\nclass math:\n    fabs = staticmethod(lambda x: 0.0)\n"
        code = f"{cheat}def find_zero(xs): return {root}"
        result = reward.score({"tests": tests}, f"```python\n{code}\n```")
        assert (result.value, result.outcome) == (value, "scored"), result


def test_the_entry_point_may_be_a_method() -> None:
    check = "def check(candidate):\n    assert same(candidate(head = node([1, 2])), node([2, 1]))\n"
    prompt = (
        "from typing import *\nclass ListNode:\n    def __init__(self, val=0, next=None):\n"
        "        self.val, self.next = val, next\n"
        "def node(values): return ListNode(values[0], node(values[1:])) if values else None\n"
        "def same(a, b): return a is b if None in (a, b) else a.val == b.val and same(a.next, b.next)\n"
    )
    tests = from_humaneval({"prompt": prompt, "entry_point": "Solution().reverse", "test": check})
    method = "class Solution:\n    def reverse(self, head: Optional[ListNode]) -> Optional[ListNode]:\n"
    right = "        last = None\n        while head: head.next, last, head = last, head, head.next\n"
    right += "        return last"
    cheat = "def same(a, b): return True\nListNode.__eq__ = lambda a, b: True\n"
    for code, value in ((f"{method}{right}", 1.0), (f"{cheat}{method}        return head", 0.0)):
        result = rewards.load("code").score({"tests": tests}, f"```python\n{code}\n```")
        assert (result.value, result.outcome) == (value, "scored"), result


def test_each_assert_has_its_verdict() -> None:
    code = "def f(x):\n    if x == 1: 1 / 0\n    if x == 2: raise MemoryError\n    return x"
    tests = "".join(f"assert f({n}) == {n % 4}\n" for n in range(5))
    assert statuses(code, tests) == ["passed", "runtime_error", "memory", "passed", "failed"]


def test_a_program_that_ended_fails_later_tests() -> None:
    tests = "x = f(0)\nassert f(1) == 1\nassert f(2) == 2\nassert x == 0\nassert f(3) == 3"
    hangs = "def f(x):\n    while x == 2: pass\n    return x"
    assert statuses(hangs, tests, cpu_s=0.3) == ["passed", "timeout", "passed", "timeout"]
    leaves = "import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return x"
    assert statuses(leaves, tests) == ["passed", "runtime_error", "passed", "runtime_error"]


def test_asserts_after_a_failed_statement_do_not_pass() -> None:
    tests = "def check(f):\n    assert f(0) == 0\n    y = f(1)[0]\n    assert y == 1\n"
    assert statuses("def f(x): return x", tests, "f") == ["passed", "runtime_error"]
    assert statuses("def f(x): return []", "for x in f(3):\n    assert x == 1") == ["failed"]


def test_a_program_cannot_make_tests_unfit() -> None:
    slow = "for i in range(f(1)):\n    assert f(i) == i"
    assert statuses("def f(x): return 10 ** 9", slow, cpu_s=1.0) == ["failed", "timeout"]
    assert statuses("def f(x): return ValueError", "assert f(f(1)) == 1") == ["failed"]


def test_assertions_of_numpy_are_tests_by_themselves() -> None:
    tests = "import numpy as np\nnp.testing.assert_almost_equal(half(1), 0.5)\nnp.testing.assert_equal([half(2)], [1])"
    assert statuses("def half(x): return x / 2", tests) == ["passed", "passed"]
    assert statuses("def half(x): return x // 2", tests) == ["failed", "passed"]


def test_a_wrong_program_fails_the_tests_that_pytest_would_collect() -> None:
    tests = (
        "import pytest, unittest\n@pytest.mark.parametrize('x,y', [(1, 1), (2, 4)])\n"
        "def test_a(x, y): assert f(x) == y\n"
        "def test_b(): assert f(1) == 1\nasync def test_c(): assert f(3) == 9\n"
        "class TestD(object):\n    def test_d(self): assert f(4) == 16\n"
        "class TestE(unittest.TestCase):\n    def test_e(self): self.assertEqual(f(5), 25)"
    )
    assert statuses("def f(x): return 1", tests) == ["failed", "passed", "failed", "failed", "failed"]
    skipping = "class Skipped(Exception): pass\ndef f(x): raise Skipped"
    assert "passed" not in statuses(skipping, "def test_a():\n    r = f(1)\n    assert r == 1")


def test_missing_names() -> None:
    assert statuses("", "assert f(1) == 1") == ["runtime_error"]
    assert run("def f(:", "assert f(1) == 1").compile_error is not None
    assert run("def f(:", "assert 1 == 1").compile_error is not None
    assert statuses("import nothing_of_this_name", "assert f(1) == 1") == ["runtime_error"]


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ("assert f(", "the source is not valid Python: SyntaxError"),
        ("f(1)", "the source has no assert"),
        ("\0", "the source is not valid Python"),
        ("assert " + "(" * 5000 + "1" + ")" * 5000, "the source is not valid Python"),
        ("assert " + "-" * 100_000 + "1", "the source is not valid Python"),
        ("class A: pass\nassert f(A()) == 1", "an object of class A to the program: define A in tests.declarations"),
        ("def test_a(tmp_path): assert f(1) == 1", "test_a takes 'tmp_path', which the source does not define"),
        ("while True: pass\nassert f(1)", "end without a verdict, before they use the program"),
        ("x" * (1 << 20) + "y", "at most 1048576 are read"),
    ],
)
def test_unusable_tests_are_a_one_line_error(tests: str, says: str) -> None:
    with pytest.raises(RewardError) as caught:
        run("def f(x): return x", tests, cpu_s=0.5)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner)
    | st.frozensets(st.integers()) | st.sets(st.text()),
)  # fmt: skip


def refuse(value: object) -> list[object]:
    raise AssertionError(value)


@given(plain)
def test_plain_values_round_trip(value: object) -> None:
    values = Values(refuse, refuse)
    root, nodes, _ = values.encode(value)
    nodes = json.loads(json.dumps(nodes))
    objects = values.decode(nodes)
    back = objects[root[0]] if isinstance(root, list) else root
    assert back == value
    assert type(back) is type(value)
