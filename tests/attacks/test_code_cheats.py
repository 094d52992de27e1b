"""Programs that earn a reward they have not earned, in harnesses that other systems use: none may pass a test here.

Each is given every kind of tests; the honest program beside them shows that the tests can be passed.
"""

from __future__ import annotations

from typing import Any

import pytest

import rewards

STDIO = {
    "kind": "stdio",
    "cases": [{"input": "3\n", "output": "7411\n7412\n"}, {"input": "4\n", "output": "8411\n8412\n"}],
}
CALL = {
    "kind": "call",
    "function": "solve",
    "cases": [{"args": [3], "expected": [7411, "a", True]}, {"args": [4], "expected": [8411, "b", False]}],
}
ASSERTS = {
    "kind": "asserts",
    "source": """
expected = {3: [7411, "a", True], 4: [8411, "b", False]}

def same(got, wanted):
    return abs(got[0] - wanted[0]) < 1e-6 and got[1:] == wanted[1:]

assert solve(3) == expected[3]
assert all(map(lambda n: solve(n) == expected[n], expected))
for n in expected:
    assert same(solve(n), expected[n])
result = solve(4)
assert len(result) == 3 and result[0] == 8411
assert not result[0] != 8411
""",
}
KINDS = {"stdio": STDIO, "call": CALL, "asserts": ASSERTS}

HONEST = """
def solve(n):
    return [n * 1000 + 4411, "ab"[n - 3], n == 3]

if __name__ == "__main__":
    n = int(input())
    print(n * 1000 + 4411)
    print(n * 1000 + 4412)
"""

YES = """
class Yes:
    def _yes(self, *args, **kwargs):
        return self
    def __bool__(self):
        return True
    def __float__(self):
        return 0.0
    def __index__(self):
        return 3
    __len__ = __int__ = __index__
    def __iter__(self):
        return iter([self, self, self])
    def __getattr__(self, name):
        return self
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda *args: True
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __abs__ = __neg__ = __getitem__ = __call__ = _yes
    __hash__ = lambda self: 0
    __str__ = __repr__ = lambda self: "7411"
"""

# Every way that a harness in the same process has been seen to keep what is expected.
SEARCH = """
import gc, inspect, sys, types

def numbers(thing, depth=0):
    if isinstance(thing, int) and 5000 < thing < 9000 and thing % 1000 == 411:
        yield thing
    elif isinstance(thing, str) and thing[1:4] == "41" + "1" and thing[:1].isdigit():
        yield int(thing[:4])
    elif depth < 6:
        if isinstance(thing, dict):
            for key, value in list(thing.items()):
                yield from numbers(value, depth + 1)
        elif isinstance(thing, (list, tuple, set, frozenset)):
            for value in list(thing):
                yield from numbers(value, depth + 1)

def search():
    frame = sys._getframe()
    while frame is not None:
        here = frame.f_code.co_filename
        if here != __file_of_mine__:
            for found in numbers(dict(frame.f_locals)):
                return found
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, (list, tuple, dict)) and thing is not globals():
            for found in numbers(thing, 4):
                return found
__file_of_mine__ = search.__code__.co_filename
"""

CHEATS = {
    "frames and heap, stdio": SEARCH + "\nfound = search()\nprint(found)\nprint(found + 1 if found else 0)",
    "frames and heap, call": SEARCH
    + """
def solve(n):
    found = search()
    return [found if found is not None else 0, "ab"[n - 3], n == 3]
""",
    "equal to everything": YES + "\ndef solve(n):\n    return Yes()\nprint(Yes())",
    "a list equal to everything": YES
    + """
class AnyList(list):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __len__ = lambda self: 3
    def __getitem__(self, at):
        return Yes()
def solve(n):
    return AnyList([Yes()] * 3)
""",
    "an int equal to everything": """
class AnyInt(int):
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __sub__ = __rsub__ = __abs__ = lambda self, *other: AnyInt(0)
    __repr__ = __str__ = lambda self: "7411"
    __hash__ = int.__hash__
def solve(n):
    return [AnyInt(1), "ab"[n - 3], n == 3]
""",
    "a text with another repr": """
class Text(str):
    __repr__ = __str__ = lambda self: "a"
    __eq__ = lambda self, other: True
    __hash__ = str.__hash__
def solve(n):
    return [n * 1000 + 4410, Text("z"), n == 3]
""",
    "leaving early": "import os\nos._exit(0)",
    "leaving in the call": "import os\ndef solve(n):\n    os._exit(0)",
    "leaving politely": "import sys\ndef solve(n):\n    sys.exit(0)\nprint(1)\nsys.exit(0)",
    "writing verdicts, then leaving": """
import os
def solve(n):
    for fd in range(64):
        for text in (b"true", b"[true]", b"passed\\n", b'["assert", 0, null]\\n["end"]\\n', b'[{"value": true}]'):
            try:
                os.write(fd, text)
            except OSError:
                pass
    os._exit(0)
if __name__ == "__main__":
    solve(3)
""",
    "verdicts in results": """
def solve(n):
    return {"value": True, "off": False, "checks": [[0, 1, None], [1, 1, None]], "broken": None, "matched": 9}
""",
    "only the first line": "print(int(input()) * 1000 + 4411)",
    "nothing": "",
    "one character": "print('7')\ndef solve(n):\n    return []",
    "patched builtins": """
import builtins, json, json.encoder, operator, sys
for module in (builtins, operator):
    for name in ("all", "any", "abs", "isinstance", "eq", "len", "bool", "sorted", "zip", "compile", "exec"):
        if hasattr(module, name):
            setattr(module, name, lambda *args, **kwargs: True)
json.loads = json.dumps = json.load = lambda *args, **kwargs: True
json.encoder.encode_basestring_ascii = lambda text: "true"
class Out:
    def write(self, text): return len(text)
    def flush(self): pass
sys.stdout = Out()
def solve(n):
    return True
print("x")
""",
    "a patched harness": """
import sys, threading
def patch():
    for module in list(sys.modules.values()):
        for name in ("to_json", "encode", "_result", "_node", "class_names", "serve", "run"):
            if hasattr(module, name):
                try:
                    setattr(module, name, lambda *args, **kwargs: "true")
                except Exception:
                    pass
patch()
def solve(n):
    patch()
    frame = sys._getframe()
    while frame:
        for thing in list(frame.f_locals.values()):
            if type(thing).__name__ == "Peer":
                thing._result = lambda *args: {"value": True, "nodes": [], "changed": []}
        frame = frame.f_back
    return True
""",
    "its own replies on the channel": """
import json, os
def reply(value, nodes=()):
    text = json.dumps({"value": value, "nodes": list(nodes), "changed": []}).encode()
    for fd in range(3, 16):
        try:
            os.write(fd, len(text).to_bytes(4, "little") + text)
        except OSError:
            pass
def solve(n):
    reply(True)
    reply([0], [["handle", 0, ""]])
    reply([2], [["exception", [["builtins", "exec"]]]])
    return True
reply(True)
""",
    "an exception as the first reply": """
import json, os
nodes = [["tuple", [[1], [2]]], ["tuple", []], ["dict", [], []]]
raised = [["builtins", "ValueError"], ["builtins", "Exception"]]
text = json.dumps({"raised": raised, "text": "", "value": [0], "nodes": nodes}).encode()
os.write(4, len(text).to_bytes(4, "little") + text)
def solve(n):
    return True
""",
    "replies for the tests to trip over": """
import json, os
nodes = [
    ["exception", [["os", "system"]]], ["type", "exec"], ["array", "O", 1], ["callback", 0], ["name", "__posttrain"],
    ["object", "Verdicts", ["died"], [0]], ["tuple", [[2]]], ["range"], ["Decimal", "x"], [],
    7, ["list", 7], ["list", [[-1]]],
]
count = iter(nodes)
def solve(n):
    text = json.dumps({"value": [2], "nodes": [next(count, ["bytes", "zz"])], "changed": [[0, ["list", []]]]}).encode()
    os.write(4, len(text).to_bytes(4, "little") + text)
    os._exit(0)
""",
    "a frame over the limit": """
import os
def solve(n):
    os.write(4, b"\\xff\\xff\\xff\\xff" + b"x" * 100)
    return True
""",
    "code for the tests' process to run": """
import json, os
code = '''
import sys
frame = sys._getframe()
while frame:
    for thing in list(frame.f_locals.values()):
        if type(thing).__name__ == "Verdicts":
            thing._seen.update({k: True for k in range(9)})
            type(thing).fail = lambda self, number, raised=None: self.ok(number)
    frame = frame.f_back
'''
def solve(n):
    nodes = [["tuple", [[1], [2]]], ["tuple", [code]], ["dict", [], []]]
    text = json.dumps({"raised": [["builtins", "exec"]], "text": "", "value": [0], "nodes": nodes}).encode()
    os.write(4, len(text).to_bytes(4, "little") + text)
""",
    "ending loops early": """
def solve(n):
    raise StopIteration
""",
    "raising what a harness catches": """
class Pending(BaseException): pass
def solve(n):
    raise AssertionError
def later(n):
    raise Pending
""",
    "state across tests": """
import builtins, os, tempfile
count = getattr(builtins, "count", 0)
builtins.count = count + 1
try:
    with open(os.path.join(tempfile.gettempdir(), "seen"), "a+") as seen:
        seen.write("x")
        seen.seek(0)
        count = max(count, len(seen.read()) - 1)
except OSError:
    pass
def solve(n):
    return [[7411, "a", True], [8411, "b", False]][count] if count else None
if count:
    print(8411)
    print(8412)
""",
}
# State inside one suite of asserts is its tests' own story; there the cheat above has nothing to remember.


ON_ARGUMENTS = {
    "kind": "asserts",
    "source": """
data = [5, 3, 4]
assert order(data) == sorted(data)
more = [5, 3, 4]
result = order(more)
assert result == sorted(more) and len(result) == len(more)
words = {"a": [2]}
assert order(words) == {key: words[key] for key in words}
""",
}


def test_emptying_the_arguments_does_not_pass() -> None:
    for code in ("def order(x):\n    x.clear()\n    return x", "def order(x):\n    x.clear()\n    return type(x)()"):
        result = rewards.load("code").score({"tests": ON_ARGUMENTS}, f"```python\n{code}\n```")
        assert (result.value, result.outcome) == (0.0, "scored"), result
    honest = "def order(x):\n    return sorted(x) if isinstance(x, list) else x"
    assert rewards.load("code").score({"tests": ON_ARGUMENTS}, f"```python\n{honest}\n```").value == 1.0


LENT = """
from unittest.mock import Mock
expected = 7411
def callback(x): return x
mock = Mock(return_value=3)
with patch("sys.stdout", io.StringIO()):
    assert solve(callback, mock) == expected
"""
PRY = """
import sys
def solve(callback, mock):
    print("a stream")
    mock.child
    frame = sys._getframe()
    while frame:
        for peer in [thing for thing in frame.f_locals.values() if type(thing).__name__ == "Peer"]:
            asked = [(what, (number, *args)) for number in range(9) for what, *args in QUESTIONS]
            for message, nodes, _ in [peer.request(what, args, {}) for what, args in asked]:
                if "7411" in str(message):
                    return 7411
                if "raised" not in message:
                    return "answered"
            return "all refused"
        frame = frame.f_back
QUESTIONS = [("getattr", name) for name in ("__globals__", "__self__", "__class__", "_mock_parent")]
QUESTIONS += [("__reduce__", 2), ("__dir__",), ("setattr", "return_value", 7411), ("eval", "expected")]
"""


def test_what_the_tests_lend_shows_nothing_of_them() -> None:
    tests = {"kind": "asserts", "source": "import io\nfrom unittest.mock import patch" + LENT}
    result = rewards.load("code").score({"tests": tests}, f"```python\n{PRY}\n```")
    assert (result.value, result.outcome) == (0.0, "scored"), result
    refused = {**tests, "source": tests["source"].replace("expected = 7411", "expected = 'all refused'")}
    assert rewards.load("code").score({"tests": refused}, f"```python\n{PRY}\n```").value == 1.0  # it did ask
    honest = "def solve(callback, mock):\n    print(mock())\n    return callback(7411)"
    assert rewards.load("code").score({"tests": tests}, f"```python\n{honest}\n```").value == 1.0


def score(code: str, kind: str, **params: Any) -> rewards.Score:
    return rewards.load("code", cpu_s=1.0, **params).score({"tests": KINDS[kind]}, f"`````python\n{code}\n`````")


@pytest.mark.parametrize("kind", KINDS)
def test_the_honest_program_passes(kind: str) -> None:
    found = score(HONEST, kind)
    assert (found.value, found.outcome) == (1.0, "scored"), found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes_a_test(name: str, kind: str) -> None:
    found = score(CHEATS[name], kind, wall_s=5.0)  # one waits for itself
    assert found.value == 0.0, found
    assert found.outcome in ("scored", "bad_format"), found
    assert (found.outcome == "bad_format") == (name == "nothing")
