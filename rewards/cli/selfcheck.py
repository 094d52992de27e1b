"""`python -m rewards selfcheck`: is this machine's isolation sound, and do reference answers grade as correct?

python -m rewards selfcheck                                    # isolation level, versions, a small set of attacks
python -m rewards selfcheck --input rows.jsonl --reward math   # every reference answer of a file against itself
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewards import sandbox
from rewards.base import Reward
from rewards.registry import load
from rewards.scorer import check_columns, read_lines

CALL = {"tests": {"kind": "call", "function": "f", "cases": [{"args": [1], "expected": 2}]}}
POLYNOMIAL = {"answer": "x^2+1"}
PYTHON = "```python\n{}\n```"
CPP_CALL = {"tests": {**CALL["tests"], "language": "cpp", "declaration": "int f(int x);"}}
CPP = "```cpp\n{}\n```"

# Attacks (name, reward, row, completion): none may score more than 0, and none may create the file CANARY.
ATTACKS: list[tuple[str, str, dict[str, Any], str]] = [
    ("result equal to everything", "code", CALL, PYTHON.format(
        "class Equal(int):\n    __eq__ = lambda *_: True\n    __hash__ = int.__hash__\ndef f(x): return Equal()")),
    ("exit before the verdict", "code", CALL, PYTHON.format("import os\ndef f(x): os._exit(0)")),
    ("patched json", "code", CALL, PYTHON.format("import json\njson.dumps = lambda *_, **__: '2'\ndef f(x): return 3")),
    ("text that prints as the number", "code", CALL, PYTHON.format(
        "class Two(str):\n    __repr__ = lambda _: '2'\ndef f(x): return Two('2')")),
    ("expected value in the frames", "code", CALL, PYTHON.format(
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in list(frame.f_locals.values()):\n"
        "            if isinstance(value, dict) and 'expected' in value: return value['expected']\n"
        "        frame = frame.f_back")),
    ("code in a box", "math", POLYNOMIAL, r"""\boxed{exec("open('CANARY','w')")}"""),
    ("tower of powers in a box", "math", POLYNOMIAL, r"\boxed{x^{9^{9^{9^{9}}}}+1}"),
]  # fmt: skip
# The same in C++, tried where there is a compiler.
CPP_ATTACKS = {
    "result equal to every integer": "#include <bitset>\nstd::bitset<0> f(long) { return {}; }",
    "exit before the verdict": "#include <unistd.h>\nint f(int) { _exit(0); }",
    "result written by hand": '#include <unistd.h>\nint f(int) { write(3, "[*]", 3); _exit(0); }',
    "return address moved": "int f(int) { void** frame = (void**)__builtin_frame_address(0);"
    " frame[1] = ((void**)frame[0])[1]; frame[0] = ((void**)frame[0])[0]; return 0; }",
    "constant behind the call": "int f(int) { auto* at = (unsigned char*)__builtin_return_address(0);"
    " for (int i = 0; i < 64; i++) if (at[i] == 0xc7 && at[i + 1] == 0x45) return *(int*)(at + i + 3); return 0; }",
    "macros around the shim": "int f(int) { return 0; }\n#define graded_result 2\n#define graded std",
    "the shim in a comment": "int f(int) { return 0; }\n/*",
}
# Correct completions (name, reward, row, completion): if they score less than 1, the zeros above prove nothing.
HONEST: list[tuple[str, str, dict[str, Any], str]] = [
    ("a correct program", "code", CALL, PYTHON.format("def f(x): return x + 1")),
    ("a correct answer", "math", POLYNOMIAL, r"\boxed{1+x^2}"),
]
if shutil.which("g++"):
    ATTACKS += [(f"C++: {name}", "code", CPP_CALL, CPP.format(program)) for name, program in CPP_ATTACKS.items()]
    HONEST.append(("a correct C++ program", "code", CPP_CALL, CPP.format("int f(int x) { return x + 1; }")))


def machine() -> tuple[list[str], bool]:
    """(report, whether all is well) of the sandbox, the code reward and the math workers."""
    report = sandbox.selfcheck()
    attacks = [*report.attacks, *_attacks()]
    lines = [f"isolation level: {report.level}", *(f"{name}: {version}" for name, version in report.versions.items())]
    if not report.attacks:
        lines.append("SUCCEEDED: the attacks ended the process that runs them")
    lines += [f"SUCCEEDED: {name}" for name, stopped in attacks if not stopped]
    failed = [f"FAILED: {name}" for name, reward, row, text in HONEST if load(reward).score(row, text).value != 1]
    stopped = sum(held for _, held in attacks)
    lines += [*failed, f"{stopped} of {len(attacks)} attacks stopped"]
    return lines, report.sound and stopped == len(attacks) and not failed


def _attacks() -> Iterator[tuple[str, bool]]:
    """(name, stopped) of each attack."""
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        for name, reward, row, text in ATTACKS:
            score = load(reward).score(row, text.replace("CANARY", str(canary)))
            yield name, score.value <= 0 and not canary.exists()


def references(reward: Reward, path: Path) -> tuple[list[str], bool]:
    """(report, whether all is well): every row's reference answer graded. Raises RewardError, OSError."""
    check_columns(reward, path)
    kinds: Counter[str] = Counter()
    lines: list[str] = []
    for line in read_lines(path):
        kind, problem = ("", line.problem) if line.problem else reward.check_gold(line.row)
        if problem:
            lines.append(f"{path}:{line.number}: {problem}")
        else:
            kinds[kind] += 1
    correct, wrong = sum(kinds.values()), len(lines)
    how = ", ".join(f"{count} as {kind}" for kind, count in kinds.most_common())
    lines.append(f"{correct} of {correct + wrong} reference answers grade as correct" + (f" ({how})" if how else ""))
    return lines, correct > 0 and not wrong
