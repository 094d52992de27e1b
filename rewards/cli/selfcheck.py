"""What `python -m rewards selfcheck` proves: that this machine's walls hold, and that golds equal themselves.

python -m rewards selfcheck                                    # rung, versions, a small set of attacks
python -m rewards selfcheck --input rows.jsonl --reward math   # every gold of a file against itself
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rewards import sandbox
from rewards.base import Reward
from rewards.cli.score import check_columns, read_rows
from rewards.registry import load

# Programs that try to be given a point for f(1) == 2 without computing it.
CHEATS = {
    "equal to everything": """
class Equal(int):
    __eq__ = lambda *_: True
    __hash__ = int.__hash__
def f(x): return Equal()""",
    "exit before the verdict": "import os\ndef f(x): os._exit(0)",
    "patched json": "import json\njson.dumps = lambda *_, **__: '2'\ndef f(x): return 3",
    "a text that prints as the number": """
class Two(str):
    __repr__ = lambda _: '2'
def f(x): return Two('2')""",
    "expected value in the frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, dict) and 'expected' in value: return value['expected']
        frame = frame.f_back""",
}
TESTS = {"kind": "call", "function": "f", "cases": [{"args": [1], "expected": 2}]}
# The same for `int f(int x)` in C++, tried where there is a compiler.
CPP_CHEATS = {
    "equal to every integer": "#include <bitset>\nstd::bitset<0> f(long) { return {}; }",
    "exit before the verdict": "#include <unistd.h>\nint f(int) { _exit(0); }",
    "result written by hand": '#include <unistd.h>\nint f(int) { write(3, "[*]", 3); _exit(0); }',
    "return address moved": "int f(int) { void** frame = (void**)__builtin_frame_address(0);"
    " frame[1] = ((void**)frame[0])[1]; frame[0] = ((void**)frame[0])[0]; return 0; }",
    "constant behind the call": "int f(int) { auto* at = (unsigned char*)__builtin_return_address(0);"
    " for (int i = 0; i < 64; i++) if (at[i] == 0xc7 && at[i + 1] == 0x45) return *(int*)(at + i + 3); return 0; }",
    "macros around the shim": "int f(int) { return 0; }\n#define graded_result 2\n#define graded std",
    "the shim in a comment": "int f(int) { return 0; }\n/*",
}
CPP_TESTS = {**TESTS, "language": "cpp", "declaration": "int f(int x);"}


def machine() -> tuple[list[str], bool]:
    """(lines for people, did everything hold?) of the sandbox, the code reward and the math workers."""
    report = sandbox.selfcheck()
    attacks = [*report.attacks, *_cheats(), *_answers()]
    lines = [f"rung: {report.rung}", *(f"{name}: {version}" for name, version in report.versions.items())]
    if not report.attacks:
        lines.append("GOT THROUGH: the set of attacks ended the process that runs it")
    lines += [f"GOT THROUGH: {name}" for name, stopped in attacks if not stopped]
    stopped = sum(held for _, held in attacks)
    lines.append(f"{stopped} of {len(attacks)} attacks stopped")
    return lines, report.sound and stopped == len(attacks)


def _cheats() -> Iterator[tuple[str, bool]]:
    """(name, stopped?); an honest program must get its point, or zeros would prove nothing."""
    code, row = load("code"), {"tests": TESTS}
    yield "an honest program is believed", code.score(row, _fenced("def f(x): return x + 1")).value == 1
    for name, program in CHEATS.items():
        yield f"cheat: {name}", code.score(row, _fenced(program)).value == 0
    if shutil.which("g++") is None:
        return
    row = {"tests": CPP_TESTS}
    yield "an honest C++ program is believed", code.score(row, _fenced("int f(int x) { return x + 1; }")).value == 1
    for name, program in CPP_CHEATS.items():
        score = code.score(row, _fenced(program))
        yield f"C++ cheat: {name}", (score.value, score.outcome) == (0, "scored")


def _answers() -> Iterator[tuple[str, bool]]:
    math = load("math")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "written"
        score = math.score({"answer": "x^2+1"}, rf"""\boxed{{exec("open('{written}','w')")}}""")
        yield "answer: code in a box", score.value == 0 and not written.exists()
    tower = math.score({"answer": "x^2+1"}, r"\boxed{x^{9^{9^{9^{9}}}}+1}")
    yield "answer: a tower of powers", tower.value == 0


def _fenced(program: str) -> str:
    return f"```\n{program}\n```"


def golds(reward: Reward, path: Path) -> tuple[list[str], bool]:
    """(lines for people, all well?) of every row's gold against itself. Raises RewardError, OSError."""
    check_columns(reward, path)
    kinds: Counter[str] = Counter()
    lines: list[str] = []
    rows = 0
    for number, row, problem in read_rows(path):
        rows += 1
        kind, problem = ("", problem) if problem else reward.check_gold(row)
        if problem:
            lines.append(f"{path}:{number}: {problem}")
        else:
            kinds[kind] += 1
    equal = ", ".join(f"{count} as {kind}" for kind, count in kinds.most_common() if count)
    wrong = len(lines)
    lines.append(f"{rows - wrong} of {rows} golds equal themselves" + (f" ({equal})" if equal else ""))
    return lines, rows > 0 and not wrong
